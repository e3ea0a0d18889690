"""Tucker format: a small core multiplied by a matrix in each mode."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg.svd import qr
from ..planner import contract
from ..validation import as_real
from .base import ModalTensor
from .cp import row_products
from .indexing import Action, apply_to_axis, drops
from .letters import letters
from .pieces import as_arrays, check_dtype, check_pieces
from .scaling import rescale


class Tucker(ModalTensor):
    """`x[i, j, ...] = sum of core[a, b, ...] * factors[0][i, a] * factors[1][j, b] ...`.

    Args:
        core: shape (rank of mode 0, rank of mode 1, ...).
        factors: one matrix for each mode, shape (size of the mode, rank of the mode). They need
            not be orthogonal.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: not real arrays, or of different dtypes.
    """

    core: Float[Array, "..."] = eqx.field(converter=lambda c: as_real(c, "core"))
    factors: tuple[Float[Array, "..."], ...] = eqx.field(
        converter=lambda f: as_arrays(f, "factors")
    )

    def __check_init__(self) -> None:
        check_pieces(self.factors, "factors", 2, "(size, rank)")
        if self.core.ndim != len(self.factors):
            raise ValueError(
                f"core: expected {len(self.factors)} dimensions, one for each factor, "
                f"got shape {self.core.shape}"
            )
        for k, factor in enumerate(self.factors):
            if factor.shape[1] != self.core.shape[k]:
                raise ValueError(
                    f"factors[{k}]: expected {self.core.shape[k]} columns (dimension {k} of the "
                    f"core of shape {self.core.shape}), got shape {factor.shape}"
                )
        check_dtype(self.factors[0], self.core, "factors[0]")

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(f.shape[-2] for f in self.factors)

    @property
    def rank(self) -> tuple[int, ...]:
        """Shape of the core."""
        return tuple(f.shape[-1] for f in self.factors)

    @property
    def n_parameters(self) -> int:
        """How many numbers core and factors hold."""
        pairs = zip(self.shape, self.rank, strict=True)
        return math.prod(self.rank) + sum(n * r for n, r in pairs)

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return self.core.dtype

    @eqx.filter_jit
    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        return multiply_modes(self.core, self.factors)

    def _inner(self, other: Any) -> tuple[Array, Array]:
        left, exponent = rescale(self.core)
        right, shift = rescale(other.core)
        exponent, overlaps = exponent + shift, []
        for f, g in zip(self.factors, other.factors, strict=True):
            f, f_exponent = rescale(f)
            g, g_exponent = rescale(g)
            exponent = exponent + f_exponent + g_exponent
            overlaps.append(contract("ir,is->rs", f, g))
        right = multiply_modes(right, overlaps)
        return jnp.sum(left * right), exponent

    def _norm(self) -> tuple[Array, Array]:
        core, exponent = rescale(self.core)
        reduced = []
        for factor in self.factors:
            factor, shift = rescale(factor)
            exponent = exponent + shift
            reduced.append(qr(factor)[1] if factor.shape[0] > factor.shape[1] else factor)
        core, shift = rescale(multiply_modes(core, reduced))
        return jnp.sqrt(jnp.sum(core**2)), exponent + shift

    def _scaled(self, scalar: Array) -> "Tucker":
        return Tucker(self.core * scalar, self.factors)

    def _sum(self, other: Any) -> "Tucker":
        after = [(0, r) for r in other.rank]
        before = [(r, 0) for r in self.rank]
        pairs = zip(self.factors, other.factors, strict=True)
        return Tucker(
            jnp.pad(self.core, after) + jnp.pad(other.core, before),
            [jnp.concatenate(pair, axis=1) for pair in pairs],
        )

    def _hadamard(self, other: Any) -> "Tucker":
        pairs = zip(self.factors, other.factors, strict=True)
        return Tucker(jnp.kron(self.core, other.core), [row_products(f, g) for f, g in pairs])

    def _transformed(self, actions: tuple[Action, ...]) -> Any:
        core, factors = self.core, []
        for factor, action in zip(self.factors, actions, strict=True):
            new = apply_to_axis(factor, 0, action)
            if drops(action):
                core = apply_to_axis(core, len(factors), new)
            else:
                factors.append(new)
        return Tucker(core, factors) if factors else core


def multiply_modes(core: Array, matrices: Sequence[Array]) -> Array:
    """Multiply mode k of `core` by `matrices[k]`, of shape (new size, old size), for every k."""
    d = len(matrices)
    inside, outside = letters(2 * d)[:d], letters(2 * d)[d:]
    pairs = ",".join(o + i for o, i in zip(outside, inside, strict=True))
    return contract(f"{inside},{pairs}->{outside}", core, *matrices)
