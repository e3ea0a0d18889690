"""One sweep of alternating least squares for the CP format.

Its contractions are planned together (`tensornet.planner.plan_stages`): the tensor is read twice a
sweep whatever its order, and never permuted (Phan, Tichavsky and Cichocki, "Fast alternating LS
algorithms for high order CANDECOMP/PARAFAC tensor factorizations", 2013). Factors are held rank
first, `[rank, size]`.
"""

import functools
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..formats.letters import letters
from ..linalg import solve_gram
from ..planner import StagedPlan, contract, plan_stages

Factors = tuple[Array, ...]

# Passes of coordinate descent over the components each time a nonnegative factor is updated:
# cheap beside the products with the tensor, and what makes a sweep count (Gillis and Glineur,
# "Accelerated multiplicative updates and hierarchical ALS algorithms", 2012).
_HALS_PASSES = 8


@functools.lru_cache(maxsize=128)
def sweep_plan(shape: tuple[int, ...], rank: int, dtype: str, device: str) -> StagedPlan:
    """Plan the products of a tensor with all factors but one, for each mode in turn.

    Operands are named `"tensor"` and after the modes, `"a"`, `"b"` and on.
    """
    modes = letters(len(shape), skip="r")
    stages = [
        f"tensor:{modes},{','.join(f'{m}:r{m}' for m in modes if m != own)}->r{own}"
        for own in modes
    ]
    sizes = {"tensor": shape, **{m: (rank, n) for m, n in zip(modes, shape, strict=True)}}
    return plan_stages(stages, sizes, dtype=dtype, device=device)


class Target(eqx.Module):
    """The tensor to fit.

    Attributes:
        tensor: zero where it is hidden.
        observed: 1 where an entry counts and 0 where not; None when all do.
        squared_norm: of the observed entries.
        shape: of the tensor.
        nonnegative: whether factors are.
    """

    tensor: Float[Array, "..."]
    observed: Float[Array, "..."] | None
    squared_norm: Float[Array, ""]
    shape: tuple[int, ...] = eqx.field(static=True)
    nonnegative: bool = eqx.field(static=True)


def target(x: Array, mask: Array | None, squared_norm: Array, nonnegative: bool) -> Target:
    """Return `x`, where `mask` shows it, as a target; `squared_norm` is of what it shows."""
    observed = None
    if mask is not None:
        x = jnp.where(mask, x, 0.0)
        observed = mask.astype(x.dtype)
    return Target(x, observed, squared_norm, x.shape, nonnegative)


def gram(factor: Array) -> Array:
    """Return the inner products of the components of a factor."""
    return contract("ri,si->rs", factor, factor)


def _pairs(factor: Array) -> Array:
    """Return the products of each pair of components, `[rank (rank + 1) / 2, size]`."""
    first, second = np.triu_indices(factor.shape[0])
    return factor[first] * factor[second]


def _full(pairs: Array, rank: int) -> Array:
    """Return `[size, rank, rank]` from what `_pairs` and contractions made."""
    first, second = np.triu_indices(rank)
    where = np.zeros((rank, rank), int)
    where[first, second] = where[second, first] = np.arange(len(first))
    return jnp.moveaxis(pairs[where], -1, 0)


def sweep(target: Target, factors: Factors) -> tuple[Factors, Array]:
    """Update every mode once, in order.

    Returns:
        The new factors and the squared residual norm, as a difference of large numbers: its
        rounding is that of the squared norm of the tensor.
    """
    new = list(factors)
    rank = factors[0].shape[0]
    grams = [gram(f) for f in factors]
    products = _Products(target.tensor, new)
    squared, weights = target.squared_norm, None
    if target.observed is not None:
        weights = _Products(target.observed, [_pairs(f) for f in new])
    for mode in range(len(new)):
        right = products.of(mode)
        if weights is None:
            others = [g for k, g in enumerate(grams) if k != mode]
            left = functools.reduce(jnp.multiply, others, jnp.ones((rank, rank), right.dtype))
        else:
            left = _full(weights.of(mode), rank)
        if target.nonnegative:
            new[mode] = _nonnegative_solve(left, right, new[mode])
        else:
            new[mode] = solve_gram(left, right.T, new[mode].T).T
        grams[mode] = gram(new[mode])
        products.replace(mode, new[mode])
        if weights is None:
            quadratic = jnp.sum(left * grams[mode])
        else:
            weights.replace(mode, _pairs(new[mode]))
            quadratic = jnp.sum(contract("irs,si->ri", left, new[mode]) * new[mode])
        squared = target.squared_norm - 2 * jnp.sum(right * new[mode]) + quadratic
    return tuple(new), squared  # what the last mode left; XLA drops the others'


class _Products:
    """A tensor contracted with all factors but one, for each mode in turn, as planned."""

    def __init__(self, tensor: Array, factors: Sequence[Array]):
        rank, device = factors[0].shape[0], jax.default_backend()
        self.single = len(factors) == 1  # no other factor: every component sees the tensor itself
        if not self.single:
            self.plan = sweep_plan(tensor.shape, rank, str(tensor.dtype), device)
        self.rank = rank
        self.modes = letters(tensor.ndim, skip="r")
        self.operands = {"tensor": tensor, **dict(zip(self.modes, factors, strict=True))}
        self.kept: Mapping[int, Array] = {}

    def of(self, mode: int) -> Array:
        """Return the product for a mode, `[rank, size]`; modes come in order."""
        if self.single:
            tensor = self.operands["tensor"]
            return jnp.broadcast_to(tensor, (self.rank, *tensor.shape))
        value, self.kept = self.plan.run(mode, self.operands, self.kept)
        return value

    def replace(self, mode: int, factor: Array) -> None:
        """Put a new factor in the place of a mode's old one."""
        self.operands[self.modes[mode]] = factor


def _nonnegative_solve(left: Array, right: Array, previous: Array) -> Array:
    """Improve nonnegative rows of `A left = right` by hierarchical alternating least squares.

    Args:
        left: `[rank, rank]`, or `[size, rank, rank]` with one matrix for each row.
        right: `[rank, size]`.
        previous: `[rank, size]`, nonnegative.

    Returns:
        The new factor, `[rank, size]`.
    """
    rank = right.shape[0]

    def component(r: Array, factor: Array) -> Array:
        if left.ndim == 2:
            row, diagonal = left[r], left[r, r]
            fitted = contract("s,si->i", row, factor)
        else:
            row, diagonal = left[:, r], left[:, r, r]
            fitted = contract("is,si->i", row, factor)
        step = (right[r] - fitted) / jnp.where(diagonal > 0, diagonal, 1.0)
        new = jnp.maximum(factor[r] + jnp.where(diagonal > 0, step, 0.0), 0.0)
        return factor.at[r].set(new)

    return jax.lax.fori_loop(
        0, _HALS_PASSES * rank, lambda n, factor: component(n % rank, factor), previous
    )


def _fitted(factors: Factors) -> Array:
    """Return the tensor that `factors` stand for."""
    modes = letters(len(factors), skip="r")
    return contract(f"{','.join('r' + m for m in modes)}->{modes}", *factors)


def residual(target: Target, factors: Factors) -> Array:
    """Return the squared residual norm, accurate also where it is tiny."""

    def part(tensor: Array, observed: Array | None, first: Array) -> Array:
        difference = tensor - _fitted((first, *factors[1:]))
        if observed is not None:
            difference = difference * observed
        return jnp.sum(difference * difference)

    if target.tensor.size < 1 << 16 or len(factors) == 1:
        return part(target.tensor, target.observed, factors[0])

    # Slice by slice: the whole fitted tensor would be as large as the data.
    def add(total: Array, slices: tuple[Array, Array | None, Array]) -> tuple[Array, None]:
        tensor, observed, first = slices
        observed = None if observed is None else observed[None]
        return total + part(tensor[None], observed, first[:, None]), None

    start = jnp.zeros((), target.tensor.dtype)
    slices = (target.tensor, target.observed, factors[0].T)
    return jax.lax.scan(add, start, slices)[0]


def misfit(target: Target, factors: Factors) -> Array:
    """Return the squared residual norm to six digits or more, the cheaper way where it can be.

    Away from zero that is by the norms and the inner product, without forming the fitted tensor.
    """
    if target.observed is not None:
        return residual(target, factors)
    modes = letters(len(factors), skip="r")
    inner = contract(f"{modes},{','.join('r' + m for m in modes)}->", target.tensor, *factors)
    own = jnp.sum(functools.reduce(jnp.multiply, [gram(f) for f in factors]))
    squared = target.squared_norm - 2 * inner + own
    noise = float(jnp.finfo(squared.dtype).eps) * jnp.maximum(own, target.squared_norm)
    return jax.lax.cond(squared > 2**20 * noise, lambda: squared, lambda: residual(target, factors))


def balance(factors: Factors) -> tuple[Factors, Array]:
    """Scale the components so that each has one norm in all modes.

    Returns:
        The factors, and the sum of the squared norms of the components.
    """
    norms = [jnp.sqrt(jnp.sum(f * f, axis=1)) for f in factors]
    dead = functools.reduce(jnp.logical_or, [n == 0 for n in norms])
    safe = [jnp.where(dead, 1.0, n) for n in norms]
    # By logarithms: the product of many norms may overflow.
    logarithm = sum(jnp.log(n) for n in safe)
    mean = jnp.where(dead, 0.0, jnp.exp(logarithm / len(factors)))
    size = jnp.sum(jnp.where(dead, 0.0, jnp.exp(2 * logarithm)))
    return tuple(f * (mean / n)[:, None] for f, n in zip(factors, safe, strict=True)), size
