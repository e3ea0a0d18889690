"""Canonical polyadic format: a weighted sum of outer products."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..planner import contract
from ..validation import as_real
from .base import FactoredTensor, as_arrays, check_dtype, check_pieces


class CP(FactoredTensor):
    """`x[i, j, ...] = sum over r of weights[r] * factors[0][i, r] * factors[1][j, r] ...`.

    Args:
        weights: shape (rank,).
        factors: one matrix for each mode, shape (size of the mode, rank).

    Raises:
        ValueError: shapes that do not fit one rank.
        TypeError: not real arrays, or of different dtypes.
    """

    weights: Float[Array, "..."] = eqx.field(converter=lambda w: as_real(w, "weights"))
    factors: tuple[Float[Array, "..."], ...] = eqx.field(
        converter=lambda f: as_arrays(f, "factors")
    )

    def __check_init__(self) -> None:
        check_pieces((self.weights,), "weights", 1, "(rank,)")
        check_pieces(self.factors, "factors", 2, "(size, rank)")
        rank = self.weights.shape[0]
        for k, factor in enumerate(self.factors):
            if factor.shape[1] != rank:
                raise ValueError(
                    f"factors[{k}]: expected {rank} columns (the length of weights), "
                    f"got shape {factor.shape}"
                )
        check_dtype(self.factors[0], self.weights, "factors[0]")

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(f.shape[-2] for f in self.factors)

    @property
    def rank(self) -> int:
        """How many terms the sum has."""
        return self.weights.shape[-1]

    @property
    def n_parameters(self) -> int:
        """How many numbers weights and factors hold."""
        return self.rank * (1 + sum(self.shape))

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return self.weights.dtype

    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        if len(self.factors) == 1:
            return contract("ir,r->i", self.factors[0], self.weights)
        # Two Khatri-Rao products of nearly equal size, then one matrix product: planned pairwise,
        # the network would form the largest intermediate by an outer product.
        split = _balanced_split(self.shape)
        left = _khatri_rao(self.factors[:split])
        right = _khatri_rao(self.factors[split:])
        dense = contract("ir,jr->ij", left * self.weights[None, :], right)
        return dense.reshape(self.shape)


def _balanced_split(shape: tuple[int, ...]) -> int:
    """Return where to cut the modes so that the larger side is smallest."""
    return min(range(1, len(shape)), key=lambda k: max(math.prod(shape[:k]), math.prod(shape[k:])))


def _khatri_rao(factors: tuple[Array, ...]) -> Array:
    """Return the column-wise Kronecker product, the last factor's rows running fastest."""
    product = factors[0]
    for factor in factors[1:]:
        rank = factor.shape[1]
        product = (product[:, None, :] * factor[None, :, :]).reshape(-1, rank)
    return product
