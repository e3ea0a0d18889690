"""What every sparse matrix can do, whatever its layout."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float

from tensornet.validation import is_traced

from .pattern import Pattern


class SparseMatrix(eqx.Module):
    """A sparse matrix: a static pattern and traced values.

    Works under jit, vmap over values and grad. The values in the order of the pattern (scipy's
    CSR order) are `data`; `with_data` takes other values on the same pattern.
    """

    @property
    @abc.abstractmethod
    def pattern(self) -> Pattern:
        """Where the entries are."""

    @property
    @abc.abstractmethod
    def data(self) -> Float[Array, " entries"]:
        """The values, in the order of the pattern."""

    @property
    @abc.abstractmethod
    def dtype(self) -> Any:
        """The type of the values."""

    @abc.abstractmethod
    def with_data(self, data: Float[Array, " entries"]) -> "SparseMatrix":
        """Return the matrix with other values on the same pattern."""

    @abc.abstractmethod
    def mv(self, x: Float[Array, "columns *many"]) -> Float[Array, "rows *many"]:
        """Return the product with a vector, or with each column of an array."""

    @abc.abstractmethod
    def row_norms(self) -> Float[Array, " rows"]:
        """Return the sum of the absolute values of each row."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pattern.shape

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return self.pattern.nnz

    def __matmul__(self, x: Any) -> Array:
        """Return the product with an array of shape (columns,) or (columns, many), compiled."""
        x = jnp.asarray(x)
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(
                f"x: expected shape ({self.shape[1]},) or ({self.shape[1]}, m), got {x.shape}"
            )
        return _multiply(self, x)

    @property
    def T(self) -> "SparseMatrix":  # noqa: N802  as numpy and scipy have it
        """The transpose. Its layout is worked out on the host: outside of hot loops."""
        from .convert import from_pattern

        pattern, order = self.pattern.transposed
        return from_pattern(pattern, self.data[order])

    def diagonal(self) -> Float[Array, " least"]:
        """Return the main diagonal, zero where the pattern has no entry."""
        return take_or_zero(self.data, jnp.asarray(self.pattern.diagonal))

    def astype(self, dtype: Any) -> "SparseMatrix":
        """Return the matrix in another precision."""
        return cast(self, dtype)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return a scipy CSR matrix; values must be concrete."""
        return self.pattern.to_scipy(np.asarray(self.data))

    def to_dense(self) -> Float[Array, "rows columns"]:
        """Return all entries, zeros included."""
        if not is_traced(self):
            return jnp.asarray(self.to_scipy().toarray())
        pattern = self.pattern
        zeros = jnp.zeros(self.shape, self.dtype)
        return zeros.at[pattern.rows, pattern.indices].set(self.data)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"{type(self).__name__}({rows} x {columns}, {self.nnz} entries, {self.dtype})"


def check_entries(data: Any, pattern: Pattern, argument: str = "data") -> Array:
    """Return `data` as the values of a pattern.

    Raises:
        ValueError: it has not one value for each entry.
    """
    data = jnp.asarray(data)
    if data.shape != (pattern.nnz,):
        raise ValueError(
            f"{argument}: expected shape ({pattern.nnz},), a value for each entry of {pattern}, "
            f"got {data.shape}"
        )
    return data


@eqx.filter_jit
def _multiply(A: SparseMatrix, x: Array) -> Array:
    return A.mv(x)


def take_or_zero(data: Any, places: Any) -> Array:
    """Return `data[places]`, zero where a place is past the end."""
    if not is_traced(data, places):  # without compiling for every shape
        return jnp.asarray(np.append(np.asarray(data), np.zeros(1, data.dtype))[np.asarray(places)])
    return data.at[places].get(mode="fill", fill_value=0)


def put(values: Any, places: Any, size: int) -> Array:
    """Return a vector of `size` with `values` at `places`; what is past the end is dropped."""
    if not is_traced(values, places):
        found = np.zeros(size + 1, values.dtype)
        found[np.asarray(places)] = np.asarray(values)
        return jnp.asarray(found[:size])
    return jnp.zeros(size, values.dtype).at[places].set(values, mode="drop")


def spread(values: Array, like: Array) -> Array:
    """Return values of rows with as many trailing axes as `like` has."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def cast(tree: Any, dtype: Any) -> Any:
    """Return a tree with its floating arrays in another precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)
