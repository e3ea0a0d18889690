"""Sparse products on fixed patterns: the places once on the host, the values under jit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .pattern import Pattern


class Product(eqx.Module):
    """Gives the values of a product from those of its factors, on patterns that stay.

    Attributes:
        left: for each pair of entries that meet, which value of the left factor.
        right: which of the right factor.
        out: which value of the product they add to, ascending.
        pattern: of the product.
    """

    left: Int[Array, " pairs"]
    right: Int[Array, " pairs"]
    out: Int[Array, " pairs"]
    pattern: Pattern = eqx.field(static=True)

    def __call__(
        self, left: Float[Array, " left"], right: Float[Array, " right"]
    ) -> Float[Array, " entries"]:
        """Return the product's values, in the order of `pattern`."""
        terms = left[self.left] * right[self.right]
        return jax.ops.segment_sum(
            terms, self.out, num_segments=self.pattern.nnz, indices_are_sorted=True
        )


def product(left: Pattern, right: Pattern, *, within: Pattern | None = None) -> Product:
    """Work out the product of two patterns, on the host.

    Args:
        left: pattern of the left factor.
        right: pattern of the right factor, with as many rows as `left` has columns.
        within: keep only these places of the product; all when left out.

    Raises:
        ValueError: the shapes do not fit.
    """
    if left.shape[1] != right.shape[0]:
        raise ValueError(
            f"right: expected {left.shape[1]} rows, the columns of the left factor, got "
            f"{right.shape[0]}"
        )
    first, second = meeting(left, right)
    keys = left.rows[first].astype(np.int64) * right.shape[1] + right.indices[second]
    if within is None:
        places, out = np.unique(keys, return_inverse=True)
        rows = places // right.shape[1]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=left.shape[0]))])
        within = Pattern((left.shape[0], right.shape[1]), indptr, places % right.shape[1])
    else:
        out = np.searchsorted(within.keys, keys)
        hit = within.keys[np.minimum(out, within.nnz - 1)] == keys
        first, second, out = first[hit], second[hit], out[hit]
    order = np.argsort(out, kind="stable")
    return Product(_index(first[order]), _index(second[order]), _index(out[order]), within)


def meeting(left: Pattern, right: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of an entry (i, k) of `left` and an entry (k, j) of `right`."""
    counts = right.lengths[left.indices]
    first = np.repeat(np.arange(left.nnz), counts)
    within_row = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first, right.indptr[left.indices[first]] + within_row


def _index(x: np.ndarray) -> Any:
    return jnp.asarray(x.astype(np.int32))
