"""Canonical polyadic format: a weighted sum of outer products."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg import qr
from ..planner import Pieces, contract
from ..validation import as_real, check_rank
from .base import ModalTensor
from .decomposition import Decomposition
from .indexing import Action, apply_to_axis, drops
from .pieces import as_arrays, check_dimensions, check_dtype, check_pieces
from .rounding import read_arguments
from .scaling import norm_of_overlaps, rescale


class CP(ModalTensor):
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
        check_dimensions(self.weights, "weights", 1, "(rank,)")
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

    def pieces(self) -> Pieces:
        """Return the weights and factors, which all share the index of the terms."""
        modes = range(len(self.factors))
        return Pieces(
            (self.weights, *self.factors),
            (("rank",), *((k, "rank") for k in modes)),
            tuple((k,) for k in modes),
        )

    @eqx.filter_jit
    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        if len(self.factors) == 1:
            return contract("ir,r->i", self.factors[0], self.weights)
        # Two Khatri-Rao products of nearly equal size, then one matrix product.
        split = _balanced_split(self.shape)
        left = _khatri_rao(self.factors[:split])
        right = _khatri_rao(self.factors[split:])
        dense = contract("ir,jr->ij", left * self.weights[None, :], right)
        return dense.reshape(self.shape)

    def round(self, *, rtol: Any = None, max_rank: Any = None) -> Decomposition:
        """Return a CP tensor of lower rank near this one, and how near it is.

        Terms that differ in one mode at most are merged, which is exact; then terms are fitted to
        the tensor by alternating least squares in factored form, from the largest terms and from
        two fixed random mixtures of them. Whether a lower rank would do cannot be known, so
        nothing is guaranteed: the error is measured.

        Args:
            rtol: look for the lowest rank at which the measured relative error is at most this,
                by bisection. Where none is found, the merged terms are returned. Not inside a
                trace.
            max_rank: the largest rank allowed, whatever the error. Alone, it works under jit,
                vmap and grad; inside a trace nothing is merged.

        Returns:
            The rounded tensor, columns of norm one, with the error that was reached.

        Raises:
            ValueError: neither argument, one out of its range, or `rtol` inside a trace.
            TypeError: an argument of a wrong type.
        """
        from .cp_rounding import round_cp  # it makes CP tensors itself

        if max_rank is not None:
            max_rank = check_rank(max_rank, "max_rank")
        rtol, (most,) = read_arguments(self, rtol, max_rank, (self.rank,))
        return round_cp(self, rtol, most)

    def _inner(self, other: Any) -> tuple[Array, Array]:
        overlaps, exponent = _overlaps(self, other)
        return jnp.sum(overlaps), exponent

    def _norm(self) -> tuple[Array, Array]:
        return norm_of_overlaps(*_overlaps(self, self), lambda: _orthogonal_norm(self))

    def _scaled(self, scalar: Array) -> "CP":
        return CP(self.weights * scalar, self.factors)

    def _sum(self, other: Any) -> "CP":
        pairs = zip(self.factors, other.factors, strict=True)
        weights = jnp.concatenate([self.weights, other.weights])
        return CP(weights, [jnp.concatenate(pair, axis=1) for pair in pairs])

    def _hadamard(self, other: Any) -> "CP":
        weights = (self.weights[:, None] * other.weights[None, :]).reshape(-1)
        pairs = zip(self.factors, other.factors, strict=True)
        return CP(weights, [row_products(f, g) for f, g in pairs])

    def _transformed(self, actions: tuple[Action, ...]) -> Any:
        weights, factors = self.weights, []
        for factor, action in zip(self.factors, actions, strict=True):
            new = apply_to_axis(factor, 0, action)
            if drops(action):
                weights = weights * new
            else:
                factors.append(new)
        return CP(weights, factors) if factors else jnp.sum(weights)


def row_products(a: Float[Array, "n r"], b: Float[Array, "n s"]) -> Float[Array, "n rs"]:
    """Return the Kronecker product of each row of `a` with the same row of `b`."""
    return (a[:, :, None] * b[:, None, :]).reshape(a.shape[0], -1)


def _balanced_split(shape: Sequence[int]) -> int:
    """Return where to cut the modes so that the larger side is smallest."""
    return min(range(1, len(shape)), key=lambda k: max(math.prod(shape[:k]), math.prod(shape[k:])))


def _khatri_rao(factors: Sequence[Array]) -> Array:
    """Return the column-wise Kronecker product, the last factor's rows running fastest."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None, :] * factor[None, :, :]).reshape(-1, factor.shape[1])
    return product


def _overlaps(x: CP, y: CP) -> tuple[Array, Array]:
    """Inner products of each term of `x` with each of `y`, and their exponent of two."""
    product, exponent = rescale(x.weights[:, None] * y.weights[None, :])
    for f, g in zip(x.factors, y.factors, strict=True):
        f, f_exponent = rescale(f)
        g, g_exponent = rescale(g)
        product, shift = rescale(product * contract("ir,is->rs", f, g))
        exponent = exponent + f_exponent + g_exponent + shift
    return product, exponent


def _orthogonal_norm(x: CP) -> tuple[Array, Array]:
    """Norm by QR along the modes, which keeps what is left after terms cancel."""
    weights, exponent = rescale(x.weights)
    factors = []
    for factor in x.factors:
        factor, shift = rescale(factor)
        exponent = exponent + shift
        factors.append(qr(factor)[1] if factor.shape[0] > x.rank else factor)
    carried = jnp.ones((1, x.rank), x.dtype)
    for factor in factors[:-1]:
        carried = _khatri_rao([carried, factor])
        if carried.shape[0] > x.rank:
            _, carried = qr(carried)
        carried, shift = rescale(carried)
        exponent = exponent + shift
    rest, shift = rescale(contract("ar,ir,r->ai", carried, factors[-1], weights))
    return jnp.sqrt(jnp.sum(rest**2)), exponent + shift
