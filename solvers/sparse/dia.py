"""Matrices of few diagonals: products of shifted vectors, without a gather."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .matrix import SparseMatrix, check_entries, put, spread, take_or_zero
from .pattern import Pattern


class DIA(SparseMatrix):
    """A sparse matrix by diagonals: `values[d, i]` stands in row i, column i + `offsets[d]`.

    Attributes:
        values: one row for each diagonal, zero where the pattern has no entry.
        slots: which value of the pattern each is.
        offsets: column less row.
    """

    values: Float[Array, "diagonals rows"]
    slots: Int[Array, "diagonals rows"]
    offsets: tuple[int, ...] = eqx.field(static=True)
    _pattern: Pattern = eqx.field(static=True)

    @classmethod
    def build(cls, pattern: Pattern, data: Any) -> "DIA":
        """Lay out values of a pattern.

        Raises:
            ValueError: `data` has not one value for each entry.
        """
        data = check_entries(data, pattern)
        slots, offsets = _slots(pattern)
        places = jnp.asarray(slots)
        return cls(take_or_zero(data, places), places, offsets, pattern)

    @property
    def pattern(self) -> Pattern:  # noqa: D102
        return self._pattern

    @property
    def dtype(self) -> Any:  # noqa: D102
        return self.values.dtype

    @property
    def data(self) -> Float[Array, " entries"]:  # noqa: D102
        return put(self.values, self.slots, self.nnz)

    def with_data(self, data: Float[Array, " entries"]) -> "DIA":  # noqa: D102
        data = check_entries(data, self._pattern)
        return DIA(take_or_zero(data, self.slots), self.slots, self.offsets, self._pattern)

    def row_norms(self) -> Float[Array, " rows"]:  # noqa: D102
        return jnp.sum(jnp.abs(self.values), axis=0)

    def mv(self, x: Float[Array, "columns *many"]) -> Float[Array, "rows *many"]:  # noqa: D102
        rows, columns = self.shape
        zero = jnp.zeros((), x.dtype)
        y = jnp.zeros((rows, *x.shape[1:]), jnp.result_type(self.values.dtype, x.dtype))
        for diagonal, offset in enumerate(self.offsets):
            # A shift for each, which XLA fuses, instead of windows of a padded copy.
            moves = [(-offset, rows - columns + offset, 0), *[(0, 0, 0)] * (x.ndim - 1)]
            shifted = jax.lax.pad(x, zero, moves)
            y = y + spread(self.values[diagonal], x) * shifted
        return y


@functools.lru_cache(maxsize=64)
def _slots(pattern: Pattern) -> tuple[np.ndarray, tuple[int, ...]]:
    present = pattern.indices.astype(np.int64) - pattern.rows
    offsets, which = np.unique(present, return_inverse=True)
    slots = np.full((len(offsets), pattern.shape[0]), pattern.nnz, np.int32)
    slots[which, pattern.rows] = np.arange(pattern.nnz)
    return slots, tuple(int(k) for k in offsets)


def count_diagonals(pattern: Pattern) -> int:
    """Return how many diagonals have an entry."""
    return len(np.unique(pattern.indices.astype(np.int64) - pattern.rows))
