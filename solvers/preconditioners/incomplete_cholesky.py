"""Incomplete Cholesky factors, computed and applied level by level."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tensornet.validation import check_rank

from ..sparse import Pattern
from ..sparse.matrix import take_or_zero
from ..sparse.products import meeting
from .approximate_inverse import lower_power
from .base import Preconditioner, pattern_of, with_values
from .levels import batches, levels, padded_rows
from .ordering import check_order, ordered
from .triangular import triangles

_FIRST_SHIFT, _GROWTH, _MOST_SHIFT = 1e-3, 4.0, 10.0


class Factorization(eqx.Module):
    """How to compute the entries of a factor on a given pattern, those of a level together.

    Attributes:
        first: places of l_ik for each entry (i, j) and k < j, by batch.
        second: places of l_jk.
        pivots: place of l_jj.
        slots: which value of the matrix the entry starts from.
        diagonal: whether the entry is on the diagonal.
        used: whether there is an entry.
        order: the place of each entry.
    """

    first: Int[Array, "batches pairs size"]
    second: Int[Array, "batches pairs size"]
    pivots: Int[Array, "batches size"]
    slots: Int[Array, "batches size"]
    diagonal: Bool[Array, "batches size"]
    used: Bool[Array, "batches size"]
    order: Int[Array, " entries"]

    def factor(self, values: Float[Array, " entries"]) -> Float[Array, " factor"]:
        """Return the factor's entries, of the matrix with its diagonal raised if need be.

        Where a pivot is not positive, the diagonal is scaled up, more each time, until all are
        (Manteuffel 1980): a positive definite matrix that is not an M-matrix may need it.
        """
        start = take_or_zero(values, self.slots)

        def attempt(shift: Array) -> tuple[Array, Array]:
            raised = jnp.where(self.diagonal, start * (1 + shift), start)
            return self._attempt(raised)

        def failed(carry: Any) -> Array:
            shift, _, good = carry
            return ~good & (shift < _MOST_SHIFT)

        # One body for all tries, of which the first has no shift.
        empty = jnp.zeros(self.used.size, values.dtype)
        begin = (-jnp.ones((), values.dtype), empty, jnp.zeros((), bool))

        def body(carry: Any) -> Any:
            shift, _, _ = carry
            first, second = shift < 0, shift == 0
            shift = jnp.where(second, _FIRST_SHIFT, _GROWTH * shift).astype(values.dtype)
            shift = jnp.where(first, jnp.zeros_like(shift), shift)
            return (shift, *attempt(shift))

        return jax.lax.while_loop(failed, body, begin)[1][self.order]

    def _attempt(self, start: Array) -> tuple[Array, Array]:
        size = start.shape[1]
        starts = jnp.arange(len(start), dtype=jnp.int32) * size

        def step(carry: Any, batch: Any) -> tuple[Any, None]:
            entries, good = carry
            at, entry, first, second, pivots, diagonal, used = batch
            for k in range(len(first)):
                entry = entry - entries[first[k]] * entries[second[k]]
            good = good & jnp.all(jnp.where(used & diagonal, entry > 0, True))
            root = jnp.sqrt(jnp.where(entry > 0, entry, 1))
            pivot = entries[pivots]
            new = jnp.where(diagonal, root, entry / jnp.where(pivot != 0, pivot, 1))
            new = jax.lax.optimization_barrier(jnp.where(used, new, 0))
            return (jax.lax.dynamic_update_slice_in_dim(entries, new, at, axis=0), good), None

        # The last place stays zero, for pairs that are none.
        zeros = jnp.zeros(start.size + 1, start.dtype)
        inputs = (starts, start, self.first, self.second, self.pivots, self.diagonal, self.used)
        (entries, good), _ = jax.lax.scan(step, (zeros, jnp.ones((), bool)), inputs)
        return entries[:-1], good


def factorization(pattern: Pattern, lower: Pattern) -> Factorization:
    """Work out how to compute a factor with the places of `lower`."""
    nnz = lower.nnz
    entry, row = meeting(lower, lower)  # (i, j) with all (j, k)
    keep = lower.indices[row] < lower.indices[entry]
    entry, row = entry[keep], row[keep]
    other = lower.find(lower.rows[entry], lower.indices[row])  # (i, k)
    keep = other < nnz
    entry, row, other = entry[keep], row[keep], other[keep]
    diagonal = lower.rows == lower.indices
    own = lower.diagonal[lower.indices]  # (j, j)
    off = np.flatnonzero(~diagonal)
    before = np.concatenate([row, other, own[off]])
    after = np.concatenate([entry, entry, off])
    place, items = batches(levels(nnz, before, after))
    places = np.append(place, items.size)

    def by_batch(values: np.ndarray) -> np.ndarray:
        found = padded_rows(entry, values, nnz, nnz)
        found = np.concatenate([found, np.full((1, found.shape[1]), nnz, np.int32)])[items]
        return places[found.transpose(0, 2, 1)].astype(np.int32)

    slots = np.append(pattern.find(lower.rows, lower.indices), pattern.nnz)[items]
    return Factorization(
        jnp.asarray(by_batch(other)),
        jnp.asarray(by_batch(row)),
        jnp.asarray(places[np.append(own, nnz)[items]].astype(np.int32)),
        jnp.asarray(slots.astype(np.int32)),
        jnp.asarray(np.append(diagonal, False)[items]),
        jnp.asarray(items >= 0),
        jnp.asarray(place),
    )


class IncompleteCholesky(Preconditioner):
    """L L^T with L on a given pattern, applied by two solves with triangles.

    Without `drop`, L L^T agrees with the matrix on L's places: IC(0) for `power=1`. With it, L is
    first computed on the pattern of the power, entries that are small beside their row of L are
    left out, and the rest is computed again on what is left, for every `setup`.

    Attributes:
        power: L has the places of the lower triangle of A's pattern to this power.
        drop: entries below this share of their row's length are left out; `analyse` then needs
            values.
        order: of the unknowns, "natural" (the matrix's own) or "rcm" (reverse Cuthill-McKee: on
            refined meshes fewer iterations, with more levels in each solve).
    """

    power: int = eqx.field(static=True)
    drop: float = eqx.field(static=True)
    order: str = eqx.field(static=True)

    def __init__(
        self,
        A: Any = None,
        *,
        power: int = 1,
        drop: float | int = 0.0,
        order: str = "natural",
    ):
        self.power, self.order = check_rank(power, "power"), check_order(order)
        if not 0 <= drop < 1:
            raise ValueError(f"drop: expected at least 0 and below 1, got {drop}")
        self.drop = float(drop)
        self._begin(A)

    def _analyse(self, matrix: Any) -> Any:
        pattern, ordering = ordered(pattern_of(matrix), self.order)
        lower = lower_power(pattern, self.power)
        if self.drop:
            values = with_values("IncompleteCholesky with drop", matrix).data
            entries = np.abs(compute(factorization(pattern, lower), ordering.values(values)))
            size = np.sqrt(np.asarray(ordering.into(matrix.diagonal())))[lower.rows]
            own = pattern.find(lower.rows, lower.indices) < pattern.nnz
            lower = lower.select(own | (entries >= self.drop * size))
        return factorization(pattern, lower), triangles(lower), ordering

    def _setup(self, values: Array) -> Any:
        factors, (lower, upper), ordering = self.analysis
        entries = factors.factor(ordering.values(values))
        return lower.prepare(entries), upper.prepare(entries)

    def _apply(self, r: Array) -> Array:
        _, (lower, upper), ordering = self.analysis
        forward, backward = self.state
        z = lower.solve(forward, ordering.into(r))
        return ordering.back(upper.solve(backward, z))


@eqx.filter_jit
def _factor(factors: Factorization, values: Array) -> Array:
    return factors.factor(values)


def compute(factors: Factorization, values: Array) -> np.ndarray:
    """Return the entries of a factor on the host."""
    return np.asarray(_factor(factors, values))
