"""One sweep of alternating least squares for the CP format, as a dimension tree.

Factors are held rank first, `[rank, size]`, so that every step is a plain or batched matrix
product on a reshape of its operands. The tensor is read twice a sweep whatever its order, as the
matrix `[left modes, right modes]`, and never permuted (Phan, Tichavsky and Cichocki, "Fast
alternating LS algorithms for high order CANDECOMP/PARAFAC tensor factorizations", 2013).
"""

import functools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg import solve_gram
from ..planner import contract

Factors = tuple[Array, ...]

# Passes of coordinate descent over the components each time a nonnegative factor is updated:
# cheap beside the products with the tensor, and what makes a sweep count (Gillis and Glineur,
# "Accelerated multiplicative updates and hierarchical ALS algorithms", 2012).
_HALS_PASSES = 8


def split_of(shape: tuple[int, ...]) -> int:
    """Return where to cut the modes into left and right so that the larger side is smallest."""
    if len(shape) == 1:
        return 1

    def sides(cut: int) -> tuple[int, int]:
        right = math.prod(shape[cut:])
        # Of equals the one with the longer left side: its products were measured to be faster.
        return max(math.prod(shape[:cut]), right), right

    return min(range(1, len(shape)), key=sides)


class Target(eqx.Module):
    """The tensor to fit.

    Attributes:
        matrix: the tensor as a matrix, zero where it is hidden.
        observed: 1 where an entry counts and 0 where not; None when all do.
        squared_norm: of the observed entries.
        shape: of the tensor.
        nonnegative: whether factors are.
    """

    matrix: Float[Array, "left right"]
    observed: Float[Array, "left right"] | None
    squared_norm: Float[Array, ""]
    shape: tuple[int, ...] = eqx.field(static=True)
    nonnegative: bool = eqx.field(static=True)


def target(x: Array, mask: Array | None, squared_norm: Array, nonnegative: bool) -> Target:
    """Return `x`, where `mask` shows it, as a target; `squared_norm` is of what it shows."""
    shape = x.shape
    matrix_shape = (math.prod(shape[: split_of(shape)]), math.prod(shape[split_of(shape) :]))
    observed = None
    if mask is not None:
        x = jnp.where(mask, x, 0.0)
        observed = mask.astype(x.dtype).reshape(matrix_shape)
    matrix = x.reshape(matrix_shape)
    return Target(matrix, observed, squared_norm, shape, nonnegative)


def khatri_rao(factors: Sequence[Array]) -> Array:
    """Return `[rank, product of sizes]`, the last factor's index running fastest."""
    return functools.reduce(
        lambda a, b: (a[:, :, None] * b[:, None, :]).reshape(a.shape[0], -1), factors
    )


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
    squared = jnp.zeros((), factors[0].dtype)

    # The tensor contracted with factors, and the mask contracted with pair products, go down the
    # tree together.
    layers: list[tuple[Array, Callable[[Array], Array]]] = [(target.matrix, lambda f: f)]
    if target.observed is not None:
        layers.append((target.observed, _pairs))

    def columns(layer: int, modes: Sequence[int]) -> Array:
        return khatri_rao([layers[layer][1](new[k]) for k in modes])

    def update(mode: int, leaves: Sequence[Array]) -> None:
        nonlocal squared
        right = leaves[0]
        if target.observed is None:
            others = [g for k, g in enumerate(grams) if k != mode]
            left = functools.reduce(jnp.multiply, others, jnp.ones((rank, rank), right.dtype))
        else:
            left = _full(leaves[1], rank)
        if target.nonnegative:
            new[mode] = _nonnegative_solve(left, right, new[mode])
        else:
            new[mode] = solve_gram(left, right.T, new[mode].T).T
        grams[mode] = gram(new[mode])
        if mode == len(new) - 1:
            if target.observed is None:
                quadratic = jnp.sum(left * grams[mode])
            else:
                quadratic = jnp.sum(contract("irs,si->ri", left, new[mode]) * new[mode])
            squared = target.squared_norm - 2 * jnp.sum(right * new[mode]) + quadratic

    def visit(nodes: Sequence[Array], modes: Sequence[int]) -> None:
        if len(modes) == 1:
            update(modes[0], nodes)
            return
        cut = split_of(tuple(target.shape[k] for k in modes))
        a, b = modes[:cut], modes[cut:]
        size = math.prod(target.shape[k] for k in a)
        nodes = [node.reshape(node.shape[0], size, -1) for node in nodes]
        visit([contract("cab,cb->ca", n, columns(i, b)) for i, n in enumerate(nodes)], a)
        visit([contract("cab,ca->cb", n, columns(i, a)) for i, n in enumerate(nodes)], b)

    modes = range(len(new))
    cut = split_of(target.shape)
    a, b = modes[:cut], modes[cut:]
    if not b:  # one mode: every component sees the tensor itself
        visit([jnp.broadcast_to(x[:, 0], (rank, x.shape[0])) for x, _ in layers], a)
    else:
        visit([contract("cb,ab->ca", columns(i, b), x) for i, (x, _) in enumerate(layers)], a)
        visit([contract("ca,ab->cb", columns(i, a), x) for i, (x, _) in enumerate(layers)], b)
    return tuple(new), squared


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


def fitted(target: Target, factors: Factors) -> Array:
    """Return the tensor that `factors` stand for, as a matrix like the target's."""
    cut = split_of(target.shape)
    left = khatri_rao(factors[:cut])
    if cut == len(factors):
        return jnp.sum(left, axis=0)[:, None]
    return contract("ca,cb->ab", left, khatri_rao(factors[cut:]))


def residual(target: Target, factors: Factors) -> Array:
    """Return the squared residual norm, accurate also where it is tiny."""
    difference = target.matrix - fitted(target, factors)
    if target.observed is not None:
        difference = difference * target.observed
    return jnp.sum(difference * difference)


def misfit(target: Target, factors: Factors) -> Array:
    """Return the squared residual norm to six digits or more, the cheaper way where it can be.

    Away from zero that is by the norms and the inner product, without forming the fitted tensor.
    """
    cut = split_of(target.shape)
    if target.observed is not None or cut == len(factors):
        return residual(target, factors)
    left = contract("cb,ab->ca", khatri_rao(factors[cut:]), target.matrix)
    inner = jnp.sum(left * khatri_rao(factors[:cut]))
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
