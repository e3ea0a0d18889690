"""What every format shares: sizes, printing, and the operators that follow from a few others."""

import abc
import math
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ..planner import Pieces, contract
from .indexing import Action, read_index, read_multiplier
from .letters import letters
from .scaling import scaled_norm, times_power

Format = TypeVar("Format", bound="FactoredTensor")


class FactoredTensor(eqx.Module):
    """A tensor held as a network of small arrays.

    A batch made by `jax.vmap` has extra leading dimensions in its arrays; its `shape`, `rank`
    and `n_parameters` are those of one member.
    """

    # numpy's scalars and arrays leave `scalar * tensor` to this class.
    __array_ufunc__: ClassVar[None] = None

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that is represented."""

    @property
    @abc.abstractmethod
    def rank(self) -> Any:
        """Rank or ranks of the format."""

    @property
    @abc.abstractmethod
    def n_parameters(self) -> int:
        """How many numbers the format holds."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Type of the entries."""

    @property
    def ndim(self) -> int:
        """How many dimensions the represented tensor has."""
        return len(self.shape)

    @abc.abstractmethod
    def pieces(self) -> Pieces:
        """Return the arrays the tensor is made of and how they hang together.

        By these the planner contracts a format as an operand: `contract("ijk,jr->ikr", x, y)`.
        """

    @eqx.filter_jit
    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        names = letters(self.ndim)
        return contract(f"{names}->{names}", self)

    @abc.abstractmethod
    def _norm(self) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Frobenius norm as mantissa and exponent of two."""

    @abc.abstractmethod
    def _inner(self, other: Any) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Inner product as mantissa and exponent of two."""

    @abc.abstractmethod
    def _scaled(self, scalar: Float[Array, ""]) -> "FactoredTensor":
        """The tensor times a scalar."""

    @abc.abstractmethod
    def _sum(self, other: Any) -> "FactoredTensor":
        """The sum with a tensor of the same shape."""

    @abc.abstractmethod
    def _hadamard(self, other: Any) -> "FactoredTensor":
        """The entrywise product with a tensor of the same shape."""

    @eqx.filter_jit
    def norm(self) -> Float[Array, ""]:
        """Return the Frobenius norm.

        Differences of nearly equal tensors are resolved down to the precision of the format
        (`(x - y).norm()` is good to a few roundings of `x.norm()`), not its square root.
        """
        return times_power(*scaled_norm(self))

    @eqx.filter_jit
    def log_norm(self) -> Float[Array, ""]:
        """Return the natural logarithm of the norm, also where the norm would overflow."""
        mantissa, exponent = scaled_norm(self)
        return jnp.log(mantissa) + exponent.astype(self.dtype) * math.log(2)

    def inner(self, other: Any) -> Float[Array, ""]:
        """Return the inner product, the sum over all entries of `self * other`.

        Raises:
            TypeError: another format or dtype.
            ValueError: another shape.
        """
        self._check_like(other, "inner")
        return _inner(self, other)

    def __add__(self: Format, other: Any) -> Format:
        """Return the sum; ranks add up."""
        self._check_like(other, "+")
        return _sum(self, other)

    def __sub__(self: Format, other: Any) -> Format:
        """Return the difference; ranks add up."""
        self._check_like(other, "-")
        return _sum(self, -other)

    def __neg__(self: Format) -> Format:
        return _scaled(self, -1)

    def __mul__(self: Format, other: Any) -> Format:
        """Return the tensor times a scalar, or the entrywise product, whose ranks multiply."""
        if isinstance(other, FactoredTensor):
            self._check_like(other, "*")
            return _hadamard(self, other)
        return _scaled(self, _scalar(other, "*", self))

    def __rmul__(self: Format, other: Any) -> Format:
        return _scaled(self, _scalar(other, "*", self))

    def __truediv__(self: Format, other: Any) -> Format:
        """Return the tensor divided by a scalar."""
        return _scaled(self, 1 / jnp.asarray(_scalar(other, "/", self), self.dtype))

    def _split_shape(self) -> tuple[Any, ...]:
        # What has to agree for two of the format to be combined.
        return self.shape

    def _check_like(self, other: Any, operation: str) -> None:
        if type(other) is not type(self):
            raise TypeError(
                f"{operation}: expected a {type(self).__name__} like {self!r}, "
                f"got {describe(other)}"
            )
        if other._split_shape() != self._split_shape():
            raise ValueError(
                f"{operation}: expected equal shapes, got {self._split_shape()} and "
                f"{other._split_shape()}"
            )
        if other.dtype != self.dtype:
            raise TypeError(
                f"{operation}: expected equal dtypes, got {self.dtype} and {other.dtype}"
            )

    def __repr__(self) -> str:
        try:
            shape, held = self.shape, self.n_parameters
            ratio = math.prod(shape) / held
            size = f"{ratio:.3g}x smaller" if ratio >= 1 else f"{1 / ratio:.3g}x larger"
            return (
                f"{type(self).__name__}(shape={shape}, rank={self.rank}, {held:,} parameters, "
                f"{size} than dense, {jnp.dtype(self.dtype).name})"
            )
        except (AttributeError, TypeError, IndexError):
            # Leaves that are no arrays (filtered trees, specifications) have no shape to show.
            return eqx.tree_pformat(self)


class ModalTensor(FactoredTensor):
    """A format that treats each mode on its own: one can be indexed, or multiplied."""

    @abc.abstractmethod
    def _transformed(self, actions: tuple[Action, ...]) -> Any:
        """The tensor after one action on each mode; a scalar array where no mode is left."""

    def __getitem__(self, index: Any) -> Any:
        """Return a part of the tensor in the same format, or one entry as a scalar array.

        Args:
            index: integers (which drop their mode), slices and `...`, as for an array.

        Raises:
            IndexError: a position outside its mode, or too many.
            TypeError: another kind of index.
            ValueError: a slice that selects nothing.
        """
        return _transformed(self, read_index(index, self.shape))

    def mode_dot(self, matrix_or_vector: ArrayLike, mode: Any) -> Any:
        """Multiply one mode by a matrix, or sum it against a vector, which drops the mode.

        Args:
            matrix_or_vector: shape (new size, size of the mode) or (size of the mode,).
            mode: counted from 0, or from the end where negative.

        Returns:
            The same format, or a scalar array where no mode is left.

        Raises:
            ValueError: no such mode, or a shape that does not fit it.
        """
        return _transformed(self, read_multiplier(matrix_or_vector, mode, self.shape, self.dtype))


def describe(value: Any) -> str:
    """Say in a few words what a value is, for an error."""
    if isinstance(value, FactoredTensor):
        return repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"{value!r} ({type(value).__name__})"


def _scalar(value: Any, operation: str, tensor: FactoredTensor) -> Array:
    message = (
        f"{operation}: expected a real number or (for '*') a {type(tensor).__name__} of shape "
        f"{tensor.shape}, got {describe(value)}"
    )
    if isinstance(value, (bool, str, FactoredTensor)):
        raise TypeError(message)
    try:
        number = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(message) from error
    if number.ndim or not (
        jnp.issubdtype(number.dtype, jnp.floating) or jnp.issubdtype(number.dtype, jnp.integer)
    ):
        raise TypeError(message)
    return number.astype(tensor.dtype)


# Compiled whole: a few small operations one by one would cost more to start than to run.


@eqx.filter_jit
def _inner(x: FactoredTensor, y: FactoredTensor) -> Array:
    return times_power(*x._inner(y))


@eqx.filter_jit
def _transformed(x: ModalTensor, actions: tuple[Any, ...]) -> Any:
    return x._transformed(actions)


@eqx.filter_jit
def _sum(x: Any, y: Any) -> Any:
    return x._sum(y)


@eqx.filter_jit
def _hadamard(x: Any, y: Any) -> Any:
    return x._hadamard(y)


@eqx.filter_jit
def _scaled(x: Any, scalar: Any) -> Any:
    return x._scaled(jnp.asarray(scalar, x.dtype))
