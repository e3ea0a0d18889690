"""Factorized sparse approximate inverse: two products with sparse triangles, no solve."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array

from tensornet.validation import check_rank

from ..sparse import Pattern, from_pattern
from ..sparse.ell import bin_lengths
from ..sparse.matrix import take_or_zero
from .base import Preconditioner, pattern_of


class SparseApproximateInverse(Preconditioner):
    """FSAI (Kolotilina and Yeremin 1993): G^T G with G lower triangular, diag(G A G^T) = 1.

    Row i of G is the last row of the inverse Cholesky factor of A restricted to its places, a
    small dense problem each, all at once. Positive definite by construction.

    Attributes:
        power: G has the places of the lower triangle of A's pattern to this power.
    """

    power: int = eqx.field(static=True)

    def __init__(self, A: Any = None, *, power: int = 1):
        self.power = check_rank(power, "power")
        self._begin(A)

    def _analyse(self, matrix: Any) -> Any:
        pattern = pattern_of(matrix)
        lower = lower_power(pattern, self.power)
        bins, least = [], -1
        for most in bin_lengths(lower.lengths):
            rows = np.flatnonzero((lower.lengths > least) & (lower.lengths <= most))
            bins.append(_bin(pattern, lower, rows, most))
            least = most
        zeros = np.zeros(lower.nnz, np.float32)
        upper, order = lower.transposed
        places = np.concatenate([places.ravel() for _, places in bins])
        inside = np.flatnonzero(places < lower.nnz)
        gather = np.empty(lower.nnz, np.int32)
        gather[places[inside]] = inside  # where each value of G is among the bins' results
        return (
            [jnp.asarray(slots) for slots, _ in bins],
            jnp.asarray(gather),
            jnp.asarray(order),
            from_pattern(lower, zeros),
            from_pattern(upper, zeros),
        )

    def _setup(self, values: Array) -> Any:
        bins, gather, order, lower, upper = self.analysis
        entries = jnp.concatenate([_last_rows(values, slots).ravel() for slots in bins])[gather]
        return lower.with_data(entries), upper.with_data(entries[order])

    def _apply(self, r: Array) -> Array:
        lower, upper = self.state
        return upper.mv(lower.mv(r))


def lower_power(pattern: Pattern, power: int) -> Pattern:
    """Return the lower triangle, diagonal included, of a pattern's power."""
    one = pattern.to_scipy(np.ones(pattern.nnz, np.float32))
    one: Any = one + scipy.sparse.eye_array(pattern.shape[0]).astype(np.float32)
    found = one
    for _ in range(power - 1):
        found = found @ one
    return Pattern.of(scipy.sparse.tril(found, format="csr"))


def _bin(
    pattern: Pattern, lower: Pattern, rows: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the small matrices' entries are, and which value of G each result is.

    Rows shorter than `length` are padded in front, so that the row's own unknown is last; slots
    are one past the values for zero, two past for the one on the padded diagonal.
    """
    before = length - lower.lengths[rows]
    at = lower.indptr[rows][:, None] + np.arange(length) - before[:, None]
    inside = np.arange(length) >= before[:, None]
    at = np.where(inside, at, lower.nnz)
    own = np.append(lower.indices, -1)[at]
    first = np.broadcast_to(own[:, :, None], (len(rows), length, length))
    second = np.broadcast_to(own[:, None, :], first.shape)
    both = (first >= 0) & (second >= 0)
    slots = np.full(first.shape, pattern.nnz, np.int32)
    slots[both] = pattern.find(first[both], second[both])
    k = np.arange(length)
    slots[:, k, k] = np.where(inside, slots[:, k, k], pattern.nnz + 1)
    return slots.transpose(1, 2, 0), at.T


def _last_rows(values: Array, slots: Array) -> Array:
    """Return the last row of the inverse Cholesky factor of each small matrix, [k, matrix].

    Written out, all matrices at once: batches of LAPACK's calls, several of them at a time, can
    leave XLA waiting for its own threads for ever.
    """
    one = jnp.ones(1, values.dtype)
    small = take_or_zero(jnp.concatenate([values, 0 * one, one]), slots)  # [k, k, matrix]
    k = len(small)
    places = jnp.arange(k)[:, None]

    def column(j: Array, factor: Array) -> Array:
        left = small[:, j] - jnp.sum(factor * factor[j][None], axis=1)
        return factor.at[:, j].set(jnp.where(places >= j, left, 0) / jnp.sqrt(left[j])[None])

    def entry(step: Array, row: Array) -> Array:
        j = k - 1 - step
        left = jnp.where(step == 0, one, 0 * one) - jnp.sum(factor[:, j] * row, axis=0)
        return row.at[j].set(left / factor[j, j])

    factor = jax.lax.fori_loop(0, k, column, jnp.zeros_like(small))
    return jax.lax.fori_loop(0, k, entry, jnp.zeros_like(small[0]))
