"""The two phases of a preconditioner: the pattern on the host, the values under jit."""

import abc
import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from tensornet.validation import is_traced

from ..sparse import Pattern, SparseMatrix, as_matrix, from_pattern
from ..sparse.definite import check_definite
from ..sparse.matrix import cast, check_entries

Kind = TypeVar("Kind", bound="Preconditioner")


class Preconditioner(eqx.Module):
    """An approximate inverse, in three steps.

    `analyse` works out on the host what depends on the pattern alone, once; `setup` takes values
    of that pattern, also traced, so that a sequence of matrices is set up inside jit; `apply`
    multiplies. Given a matrix, the constructor does the first two.

    Attributes:
        analysis: what `analyse` found, None before.
        state: what `setup` computed, None before.
    """

    pattern: Pattern | None = eqx.field(static=True)
    analysis: Any
    state: Any

    def _begin(self, A: Any) -> None:
        """Start empty, or from a matrix; called last in constructors."""
        self.pattern = None
        self.analysis = None
        self.state = None
        if A is None:
            return
        matrix = as_matrix(A)
        _check(matrix)
        self.pattern = matrix.pattern
        self.analysis = self._analyse(matrix)
        self.state = compiled_setup(_replaced(self), matrix.data).state

    def analyse(self: Kind, pattern: Pattern | SparseMatrix | Any) -> Kind:
        """Work out what depends on the pattern alone, on the host.

        Args:
            pattern: a pattern, or a matrix with typical values, which methods need that choose
                by values (multigrid, dropping).

        Raises:
            TypeError: a method that needs values got a pattern.
            ValueError: a matrix that is not square, or not positive definite as far as it shows.
        """
        if isinstance(pattern, Pattern):
            matrix: Any = pattern
            places = pattern
        else:
            matrix = as_matrix(pattern)
            _check(matrix)
            places = matrix.pattern
        if places.shape[0] != places.shape[1]:
            raise ValueError(f"A: expected a square matrix, got shape {places.shape}")
        return _replaced(self, pattern=places, analysis=self._analyse(matrix), state=None)

    def setup(self: Kind, values: Any) -> Kind:
        """Take values of the pattern: a vector in its order, or a matrix; works under jit.

        Raises:
            ValueError: before `analyse`, or values of another pattern.
        """
        if self.pattern is None:
            raise ValueError(f"{type(self).__name__}: expected analyse before setup, got neither")
        if not isinstance(values, (jax.Array, Pattern)) and not hasattr(values, "__array__"):
            matrix = as_matrix(values)
            if matrix.pattern != self.pattern:
                raise ValueError(
                    f"values: expected those of {self.pattern}, got a matrix of another pattern, "
                    f"{matrix.pattern}; analyse that one first"
                )
            values = matrix.data
        values = check_entries(values, self.pattern, "values")
        if not is_traced(values):
            _check(from_pattern(self.pattern, values))
            return compiled_setup(self, values)
        return _replaced(self, state=self._setup(values))

    def apply(self, r: Float[Array, "n *many"]) -> Float[Array, "n *many"]:
        """Return the product of the approximate inverse with a residual, or with each column.

        Raises:
            ValueError: before `setup`, or a residual of another length.
        """
        if self.state is None or self.pattern is None:
            raise ValueError(f"{type(self).__name__}: expected setup before apply, got none")
        if r.shape[0] != self.pattern.shape[0]:
            raise ValueError(f"r: expected {self.pattern.shape[0]} rows, got shape {r.shape}")
        return self._apply(r)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, after `analyse`."""
        if self.pattern is None:
            raise ValueError(f"{type(self).__name__}: expected analyse before shape, got none")
        return self.pattern.shape

    @property
    def dtype(self) -> Any:
        """The precision it is applied in, after `setup`."""
        return jax.tree.leaves(eqx.filter(self.state, eqx.is_inexact_array))[0].dtype

    def astype(self: Kind, dtype: Any) -> Kind:
        """Return it in another precision: float32 halves what an application reads."""
        return _replaced(self, state=cast(self.state, dtype))

    @abc.abstractmethod
    def _analyse(self, matrix: Any) -> Any:
        """Return the analysis of a pattern or of a matrix with typical values."""

    @abc.abstractmethod
    def _setup(self, values: Float[Array, " entries"]) -> Any:
        """Return the state for values in the order of the pattern."""

    @abc.abstractmethod
    def _apply(self, r: Float[Array, "n *many"]) -> Float[Array, "n *many"]:
        """Apply the state."""


def pattern_of(matrix: Any) -> Pattern:
    """Return the pattern of what `_analyse` is given."""
    return matrix if isinstance(matrix, Pattern) else matrix.pattern


def with_values(preconditioner: str, matrix: Any) -> SparseMatrix:
    """Require a matrix with concrete values.

    Raises:
        TypeError: a pattern alone.
    """
    if isinstance(matrix, Pattern) or is_traced(matrix):
        raise TypeError(
            f"{preconditioner}: expected analyse to be given a matrix with typical values, got "
            "a pattern alone"
        )
    return matrix


@eqx.filter_jit
def compiled_setup(preconditioner: Kind, values: Array) -> Kind:
    """Set up as one program."""
    return _replaced(preconditioner, state=preconditioner._setup(values))


def _check(matrix: SparseMatrix) -> None:
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"A: expected a square matrix, got {matrix.shape[0]} x {matrix.shape[1]}")
    if not is_traced(matrix):
        check_definite(matrix)


def _replaced(preconditioner: Kind, **changes: Any) -> Kind:
    kind: Any = type(preconditioner)
    new = object.__new__(kind)
    for field in dataclasses.fields(kind):
        value = changes.get(field.name, getattr(preconditioner, field.name))
        object.__setattr__(new, field.name, value)
    return new
