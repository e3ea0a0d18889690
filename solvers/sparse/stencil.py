"""Constant stencils on grids: slices of the padded grid, no stored matrix."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .matrix import SparseMatrix, check_entries
from .pattern import Pattern


class Stencil(SparseMatrix):
    """The matrix of a constant stencil on a grid, zero outside of it.

    Unknowns are the grid's points, the last axis running fastest.

    Attributes:
        coefficients: one for each offset.
        offsets: neighbours, as steps along each axis.
        grid: points along each axis.
    """

    coefficients: Float[Array, " offsets"]
    offsets: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    grid: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.coefficients.shape != (len(self.offsets),):
            raise ValueError(
                f"coefficients: expected shape ({len(self.offsets)},), one for each offset, got "
                f"{self.coefficients.shape}"
            )
        for k, offset in enumerate(self.offsets):
            if len(offset) != len(self.grid):
                raise ValueError(
                    f"offsets[{k}]: expected {len(self.grid)} steps, one an axis, got {offset}"
                )
        if len(set(self.offsets)) != len(self.offsets):
            raise ValueError(f"offsets: expected no offset twice, got {self.offsets}")

    @property
    def pattern(self) -> Pattern:  # noqa: D102
        return _pattern(self.offsets, self.grid)[0]

    @property
    def shape(self) -> tuple[int, int]:  # noqa: D102
        n = int(np.prod(self.grid))
        return n, n

    @property
    def dtype(self) -> Any:  # noqa: D102
        return self.coefficients.dtype

    @property
    def data(self) -> Float[Array, " entries"]:  # noqa: D102
        return self.coefficients[_pattern(self.offsets, self.grid)[1]]

    def with_data(self, data: Float[Array, " entries"]) -> SparseMatrix:
        """Return a matrix with other values on the same pattern, no longer a constant stencil."""
        from .convert import from_pattern

        return from_pattern(self.pattern, check_entries(data, self.pattern))

    def diagonal(self) -> Float[Array, " least"]:  # noqa: D102
        centre = (0,) * len(self.grid)
        middle = jnp.zeros((), self.dtype)
        if centre in self.offsets:
            middle = self.coefficients[self.offsets.index(centre)]
        return jnp.broadcast_to(middle, self.shape[:1])

    def row_norms(self) -> Float[Array, " rows"]:  # noqa: D102
        absolute = Stencil(jnp.abs(self.coefficients), self.offsets, self.grid)
        return absolute.mv(jnp.ones(self.shape[0], self.dtype))

    def mv(self, x: Float[Array, "columns *many"]) -> Float[Array, "rows *many"]:  # noqa: D102
        field = x.reshape(*self.grid, *x.shape[1:])
        zero = jnp.zeros((), x.dtype)
        y = jnp.zeros(field.shape, jnp.result_type(self.dtype, x.dtype))
        for k, offset in enumerate(self.offsets):
            # A shift for each, which XLA fuses; windows of a padded copy take twice as long.
            moves = [(-step, step, 0) for step in offset] + [(0, 0, 0)] * (x.ndim - 1)
            shifted = jax.lax.pad(field, zero, moves)
            y = y + self.coefficients[k].reshape((1,) * y.ndim) * shifted
        return y.reshape(x.shape)


@functools.lru_cache(maxsize=16)
def _pattern(
    offsets: tuple[tuple[int, ...], ...], grid: tuple[int, ...]
) -> tuple[Pattern, np.ndarray]:
    """Return the pattern, and which offset each of its entries is of."""
    points = np.indices(grid).reshape(len(grid), -1)
    rows, columns, which = [], [], []
    for k, offset in enumerate(offsets):
        moved = points + np.array(offset)[:, None]
        inside = np.all((moved >= 0) & (moved < np.array(grid)[:, None]), axis=0)
        rows.append(np.flatnonzero(inside))
        columns.append(np.ravel_multi_index(tuple(moved[:, inside]), grid))
        which.append(np.full(len(rows[-1]), k))
    n = int(np.prod(grid))
    r, c, w = np.concatenate(rows), np.concatenate(columns), np.concatenate(which)
    order = np.lexsort((c, r))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(r, minlength=n))])
    return Pattern((n, n), indptr, c[order]), w[order]
