"""Tucker format: a small core multiplied by a matrix in each mode."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..linalg import left_singular, qr
from ..planner import Pieces, contract
from ..validation import as_real
from .base import ModalTensor
from .cp import row_products
from .indexing import Action, apply_to_axis, drops
from .letters import letters
from .pieces import as_arrays, check_dtype, check_pieces
from .rounding import Budget, read_arguments
from .scaling import rescale, times_power


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

    def pieces(self) -> Pieces:
        """Return the core and the factors, each tied to the core by one index."""
        modes = range(len(self.factors))
        core = tuple(("rank", k) for k in modes)
        return Pieces(
            (self.core, *self.factors),
            (core, *((k, ("rank", k)) for k in modes)),
            tuple((k,) for k in modes),
        )

    def round(self, *, rtol: Any = None, max_rank: Any = None) -> "Tucker":
        """Return a Tucker tensor near this one with smaller ranks.

        The factors are made orthonormal, then the core is truncated mode by mode (Vannieuwenhoven,
        Vandebril and Meerbergen 2012).

        Args:
            rtol: the error is at most this times the norm. Ranks then depend on the data, so not
                inside a trace.
            max_rank: an integer, or one for each mode: the largest ranks allowed, whatever the
                error. Alone, it works under jit, vmap and grad.

        Returns:
            The tensor, its factors with orthonormal columns.

        Raises:
            ValueError: neither argument, one out of its range, or `rtol` inside a trace.
            TypeError: an argument of a wrong type.
        """
        rtol, most = read_arguments(self, rtol, max_rank, self.rank)
        if rtol is None:
            return _round_to_ranks(self, most)
        bases, core, exponent = _orthonormal(self)
        norm = float(np.linalg.norm(np.asarray(core, np.float64)))
        budget = Budget(norm, rtol, self.dtype, len(bases))
        factors = []
        for k, basis in enumerate(bases):
            u, s = _left(core, k)
            core, factor = _cut(core, basis, u, k, budget.rank(s, most[k]))
            factors.append(factor)
        return Tucker(times_power(core, exponent), factors)

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


@eqx.filter_jit
def _round_to_ranks(x: Tucker, most: tuple[int, ...]) -> Tucker:
    # Bases are found from the factors as they are: of the other modes only triangular factors
    # count. So derivatives hold also where ranks are larger than they need be, as after a sum,
    # and the orthonormal factors have directions that are arbitrary.
    core, exponent = rescale(x.core)
    factors = []
    for factor in x.factors:
        factor, shift = rescale(factor)
        factors.append(factor)
        exponent = exponent + shift
    seen = [qr(factor)[1] for factor in factors]
    bases = []
    for k, factor in enumerate(factors):
        others = [apply for j, apply in enumerate(seen) if j != k]
        rest = multiply_modes(jnp.moveaxis(core, k, -1), [*others, None])
        rest = rest.reshape(-1, rest.shape[-1])
        if rest.shape[0] > rest.shape[1]:
            _, rest = qr(rest)
        basis, _ = left_singular(contract("nr,sr->ns", factor, rest))
        bases.append(basis[:, : most[k]])
        seen[k] = contract("np,nr->pr", bases[k], factor)
    return Tucker(times_power(multiply_modes(core, seen), exponent), bases)


@eqx.filter_jit
def _orthonormal(x: Tucker) -> tuple[list[Array], Array, Int[Array, ""]]:
    """Return orthonormal factors, the core for them, and an exponent of two left out of it."""
    core, exponent = rescale(x.core)
    bases, triangles = [], []
    for factor in x.factors:
        factor, shift = rescale(factor)
        q, r = qr(factor)
        bases.append(q)
        triangles.append(r)
        exponent = exponent + shift
    core, shift = rescale(multiply_modes(core, triangles))
    return bases, core, exponent + shift


@eqx.filter_jit
def _left(core: Array, mode: int) -> tuple[Array, Array]:
    unfolded = jnp.moveaxis(core, mode, 0).reshape(core.shape[mode], -1)
    return left_singular(unfolded)


@eqx.filter_jit
def _cut(core: Array, basis: Array, u: Array, mode: int, rank: int) -> tuple[Array, Array]:
    u = u[:, :rank]
    return apply_to_axis(core, mode, u.T), contract("nr,rs->ns", basis, u)


def multiply_modes(core: Array, matrices: Sequence[Array | None]) -> Array:
    """Multiply mode k of `core` by `matrices[k]`, of shape (new size, old size), where not None."""
    d = len(matrices)
    names = letters(2 * d)
    operands, inputs, output = [core], [names[:d]], ""
    for k, matrix in enumerate(matrices):
        output += names[k] if matrix is None else names[d + k]
        if matrix is not None:
            operands.append(matrix)
            inputs.append(names[d + k] + names[k])
    return contract(f"{','.join(inputs)}->{output}", *operands)
