"""Solves with sparse triangles: the rows of a level at a time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..sparse import Pattern
from ..sparse.matrix import spread, take_or_zero
from .levels import batches, levels, padded_rows


class Triangle(eqx.Module):
    """How to solve with a triangle of a given pattern.

    Rows that wait for no other are solved together, then those that wait only for them. There
    are as many levels as the longest chain of rows: few where neighbours are far apart in the
    numbering, many (and slow) along a line.

    Attributes:
        slots: which value multiplies each unknown that a row needs, by batch.
        places: where that unknown stands.
        pivots: which value is the row's diagonal, past the end where no row is.
        rows: the row of each place, past the end where there is none.
        order: the place of each row.
    """

    slots: Int[Array, "batches entries size"]
    places: Int[Array, "batches entries size"]
    pivots: Int[Array, "batches size"]
    rows: Int[Array, "batches size"]
    order: Int[Array, " n"]

    def prepare(self, values: Float[Array, " entries"]) -> tuple[Array, Array]:
        """Lay out the values of a triangle; the solve's first argument."""
        pivots = values.at[self.pivots].get(mode="fill", fill_value=1)
        return take_or_zero(values, self.slots), 1 / pivots

    def solve(self, prepared: tuple[Array, Array], r: Float[Array, "n *many"]) -> Array:
        """Return the solution for one right-hand side, or one a column."""
        batches, size = self.rows.shape
        sides = take_or_zero_rows(r, self.rows)
        starts = jnp.arange(batches, dtype=jnp.int32) * size

        def step(y: Array, batch: Any) -> tuple[Array, None]:
            start, coefficients, places, inverse, side = batch
            for k in range(len(coefficients)):
                side = side - spread(coefficients[k], side) * y[places[k]]
            new = spread(inverse, side) * side
            # Apart from the reads of y, so that XLA writes in place.
            new = jax.lax.optimization_barrier(new)
            return jax.lax.dynamic_update_slice_in_dim(y, new, start, axis=0), None

        zeros = jnp.zeros((batches * size, *r.shape[1:]), r.dtype)
        inputs = (starts, prepared[0], self.places, prepared[1], sides)
        return jax.lax.scan(step, zeros, inputs)[0][self.order]


def take_or_zero_rows(r: Array, rows: Array) -> Array:
    """Return rows of an array, zeros past its end."""
    return r.at[rows].get(mode="fill", fill_value=0)


def triangle(pattern: Pattern, order: np.ndarray | None = None) -> Triangle:
    """Work out how to solve with a triangle, upper or lower, with its whole diagonal.

    Args:
        pattern: of the triangle.
        order: which value each entry of the pattern is; in order when left out.
    """
    n, nnz = pattern.shape[0], pattern.nnz
    order = np.arange(nnz, dtype=np.int32) if order is None else order
    off = np.flatnonzero(pattern.rows != pattern.indices)
    level = levels(n, pattern.indices[off], pattern.rows[off])
    place, items = batches(level)
    own = padded_rows(pattern.rows[off], off.astype(np.int32), n, nnz)
    own = np.concatenate([own, np.full((1, own.shape[1]), nnz, np.int32)])[items]
    own = own.transpose(0, 2, 1)
    slots = np.append(order, nnz).astype(np.int32)[own]
    places = place[np.append(pattern.indices, 0)[own]]
    pivots = np.append(np.append(order, nnz)[pattern.diagonal], nnz)[items]
    rows = np.where(items < 0, n, items)
    arrays = (slots, places, pivots, rows, place)
    return Triangle(*(jnp.asarray(x.astype(np.int32)) for x in arrays))


def triangles(lower: Pattern) -> tuple[Triangle, Triangle]:
    """Return how to solve with a lower triangle and with its transpose, by the same values."""
    upper, order = lower.transposed
    return triangle(lower), triangle(upper, order)
