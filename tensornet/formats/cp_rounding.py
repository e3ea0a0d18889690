"""Rounding of CP tensors: least squares against the tensor itself, which is never formed.

A best approximation of lower rank need not exist, and a good one is hard to find. This finds one
and measures how good it is.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..linalg import at_stationary_point, qr, rank_for, solve_gram
from ..planner import contract
from ..status import Status
from ..validation import is_traced
from .cp import CP
from .decomposition import Decomposition
from .measure import direct, relative_error
from .scaling import rescale, times_power

Factors = tuple[Array, ...]

_MAX_SWEEPS = 300
_STARTS = 3


def round_cp(x: CP, rtol: float | None, most: int) -> Decomposition[CP]:
    """Return a CP tensor of lower rank near `x`; see `CP.round`."""
    scaled, exponent = _normalized(x)
    if is_traced(x):
        if most == x.rank:
            return direct(x, x)
        return _restored(_fit(scaled, jnp.asarray(most, jnp.int32), most), exponent)
    merged = _merged(scaled)
    if not bool(jnp.any(merged.weights)):  # all terms cancel: what is left of them is rounding
        return direct(merged, merged)
    whole = direct(scaled, merged)
    if merged.rank == 1 or (rtol is None and merged.rank <= most):
        return _restored(whole, exponent)

    width = min(most, merged.rank - 1)
    best = whole if merged.rank <= most else None
    low, high = (width, width) if rtol is None else (min(_least_rank(merged, rtol), width), width)
    while low <= high:
        middle = (low + high) // 2
        trial = _cut(_fit(merged, jnp.asarray(middle, jnp.int32), width), middle)
        met = rtol is None or float(trial.relative_error) <= rtol
        low, high = (low, middle - 1) if met else (middle + 1, high)
        # Under a cap the last trial, at the cap, counts also where it fails.
        best = trial if met or (best is None and middle == width) else best
    assert best is not None
    return _restored(best, exponent)


@eqx.filter_jit
def _normalized(x: CP) -> tuple[CP, Int[Array, ""]]:
    """Return columns of norm one, weights near 1, and the exponent of two left out."""
    weights, exponent = rescale(x.weights)
    factors = []
    for factor in x.factors:
        factor, shift = rescale(factor)
        norms, unit = _unit(factor)
        factors.append(unit)
        weights, weight_shift = rescale(weights * norms)
        exponent = exponent + shift + weight_shift
    return CP(weights, factors), exponent


def _unit(factor: Array) -> tuple[Array, Array]:
    """Return the norms of the columns, and the columns over them; zero stays zero."""
    squared = jnp.sum(factor * factor, axis=0)
    alive = squared > 0
    norms = jnp.where(alive, jnp.sqrt(jnp.where(alive, squared, 1.0)), 0.0)
    return norms, factor / jnp.where(alive, norms, 1.0)[None, :]


@eqx.filter_jit
def _restored(result: Decomposition[CP], exponent: Array) -> Decomposition[CP]:
    weights = times_power(result.tensor.weights, exponent)
    return eqx.tree_at(lambda r: r.tensor.weights, result, weights)


def _cut(result: Decomposition[CP], rank: int) -> Decomposition[CP]:
    """Drop the columns that were zero all along."""
    tensor = CP(result.tensor.weights[:rank], [f[:, :rank] for f in result.tensor.factors])
    return eqx.tree_at(lambda r: r.tensor, result, tensor)


def _merged(x: CP) -> CP:
    """Merge terms that differ in one mode at most, which is exact, and drop those that are zero."""
    weights = np.array(x.weights)
    factors = [np.array(f) for f in x.factors]
    eps = float(np.finfo(weights.dtype).eps)
    merged = True
    while merged:
        merged = False
        alive = np.flatnonzero(weights)
        weights, factors = weights[alive], [f[:, alive] for f in factors]
        signs = [np.sign(f.T @ f) for f in factors]
        for i in range(len(weights) - 1):
            # How far each later column is from this one or its negative, in each mode.
            rest = slice(i + 1, None)
            apart = np.stack(
                [
                    np.abs(f[:, rest] - f[:, i : i + 1] * s[i, rest]).max(axis=0) > 4 * eps
                    for f, s in zip(factors, signs, strict=True)
                ]
            )
            equal = np.flatnonzero((apart.sum(axis=0) <= 1) & (weights[rest] != 0)) + i + 1
            if weights[i] == 0 or equal.size == 0:
                continue
            j, mode = int(equal[0]), int(np.argmax(apart[:, equal[0] - i - 1]))
            sign = np.prod([s[i, j] for k, s in enumerate(signs) if k != mode])
            column = weights[i] * factors[mode][:, i] + sign * weights[j] * factors[mode][:, j]
            size = np.linalg.norm(column)
            vanished = size <= 4 * eps * (abs(weights[i]) + abs(weights[j]))
            weights[i], weights[j] = 0 if vanished else size, 0
            factors[mode][:, i] = column / (1 if vanished else size)
            merged = True
            break
    if weights.size == 0:
        return CP(x.weights[:1] * 0, [f[:, :1] for f in x.factors])
    return CP(jnp.asarray(weights), [jnp.asarray(f) for f in factors])


def _least_rank(x: CP, rtol: float) -> int:
    """Return a bound from below: no tensor within `rtol` has unfoldings of lower rank."""
    weights = np.asarray(x.weights, np.float64)
    grams = [np.asarray(f, np.float64) for f in x.factors]
    grams = [f.T @ f for f in grams]
    total = functools.reduce(np.multiply, grams, np.outer(weights, weights))
    norm = max(float(total.sum()), 0.0) ** 0.5
    threshold = max(rtol, 1e-6) * norm  # the Gram matrices resolve no less
    bound = 1
    for k, gram in enumerate(grams):
        others = [*grams[:k], *grams[k + 1 :]]
        rest = functools.reduce(np.multiply, others, np.outer(weights, weights))
        values, vectors = np.linalg.eigh(gram)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        squares = np.linalg.eigvalsh(root.T @ rest @ root)[::-1]
        bound = max(bound, rank_for(np.sqrt(np.maximum(squares, 0.0)), threshold))
    return bound


@eqx.filter_jit
def _fit(x: CP, rank: Int[Array, ""], width: int) -> Decomposition[CP]:
    """Fit `width` terms, of which those from `rank` on stay zero, by alternating least squares."""
    bases, small = [], []
    for factor in x.factors:
        q, r = qr(factor) if factor.shape[0] > x.rank else (None, factor)
        bases.append(q)
        small.append(r)
    target = CP(x.weights, small)

    fixed = lax.stop_gradient(target)
    starts = [_largest_terms(fixed, width)]
    starts += [_mixtures(fixed, width, seed) for seed in range(_STARTS - 1)]
    kept = (jnp.arange(width, dtype=jnp.int32) < rank)[None, None, :]
    stacked = [jnp.where(kept, jnp.stack(factors), 0.0) for factors in zip(*starts, strict=True)]
    ends, errors, histories, counts, done = jax.vmap(lambda s: _iterate(fixed, s))(tuple(stacked))
    best = jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors))
    factors = _differentiable(tuple(f[best] for f in ends), target)

    found = CP(jnp.ones(width, x.dtype), factors)
    error = relative_error(target, found)
    wide = [
        f if q is None else contract("nr,rs->ns", q, f) for q, f in zip(bases, factors, strict=True)
    ]
    weights, columns = jnp.ones(width, x.dtype), []
    for f in wide:
        norms, unit = _unit(f)
        weights = weights * norms
        columns.append(unit)
    status = Status.where(done[best], Status.converged, Status.max_iterations)
    status = Status.where(jnp.isfinite(error), status, Status.non_finite)
    return Decomposition(CP(weights, columns), error, status, histories[best], counts[best])


def _largest_terms(x: CP, width: int) -> Factors:
    order = jnp.argsort(-jnp.abs(x.weights))[:width]
    size = jnp.abs(x.weights[order]) ** (1 / x.ndim)
    first, *rest = (f[:, order] * size[None, :] for f in x.factors)
    return (first * jnp.sign(x.weights[order])[None, :], *rest)


def _mixtures(x: CP, width: int, seed: int) -> Factors:
    random = np.random.default_rng(seed)
    size = jnp.abs(x.weights) ** (1 / x.ndim)
    factors = []
    for factor in x.factors:
        mix = random.standard_normal((x.rank, width)) / x.rank**0.5
        mix = jnp.asarray(mix, x.dtype)
        factors.append(contract("nr,rs->ns", factor * size[None, :], mix))
    return tuple(factors)


def _product(matrices: list[Array]) -> Array:
    return functools.reduce(jnp.multiply, matrices)


def _iterate(x: CP, start: Factors) -> tuple[Factors, Array, Array, Array, Array]:
    """Return factors, error, history, the number of sweeps and whether they converged."""
    eps = float(jnp.finfo(x.dtype).eps)
    square = jnp.maximum(jnp.sum(_overlaps(x, x.factors, x.weights)), jnp.finfo(x.dtype).tiny)

    def advance(state: Any) -> Any:
        factors, error, history, count, _ = state
        new = list(factors)
        grams = [contract("nr,ns->rs", f, f) for f in new]
        cross = [contract("nr,ns->rs", f, g) for f, g in zip(x.factors, new, strict=True)]
        for k, factor in enumerate(x.factors):
            weighted = x.weights[:, None] * jnp.ones_like(cross[k])
            rest = _product([weighted, *cross[:k], *cross[k + 1 :]])
            gram = _product([jnp.ones_like(grams[k]), *grams[:k], *grams[k + 1 :]])
            new[k] = solve_gram(gram, contract("nr,rs->ns", factor, rest), new[k])
            grams[k] = contract("nr,ns->rs", new[k], new[k])
            cross[k] = contract("nr,ns->rs", factor, new[k])
        fit = jnp.sum(_product([x.weights[:, None] * jnp.ones_like(cross[0]), *cross]))
        residual = square - 2 * fit + jnp.sum(_product(grams))
        error_new = jnp.sqrt(jnp.maximum(residual, 0.0) / square)
        balanced = _balanced(tuple(new))
        change = jnp.stack(
            [jnp.max(jnp.abs(a - b)) for a, b in zip(balanced, factors, strict=True)]
        )
        size = jnp.stack([jnp.max(jnp.abs(a)) for a in balanced])
        still = jnp.all(change <= 16 * eps * size)
        # Above the floor of the squares the error tells earlier that nothing moves.
        flat = (error_new > 16 * eps**0.5) & (jnp.abs(error - error_new) < 1e-9 + 4 * eps)
        return balanced, error_new, history.at[count].set(error_new), count + 1, still | flat

    state = (
        _balanced(start),
        jnp.asarray(jnp.inf, x.dtype),
        jnp.full(_MAX_SWEEPS, jnp.nan, x.dtype),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(False),
    )
    return lax.while_loop(lambda s: ~s[4] & (s[3] < _MAX_SWEEPS), advance, state)


def _overlaps(x: CP, factors: Factors, weights: Array) -> Array:
    outer = x.weights[:, None] * weights[None, :]
    pairs = zip(x.factors, factors, strict=True)
    return _product([outer, *(contract("nr,ns->rs", f, g) for f, g in pairs)])


def _balanced(factors: Factors) -> Factors:
    """Give the columns of a term equal norms; a term with a zero column becomes zero."""
    norms = [jnp.sqrt(jnp.sum(f * f, axis=0)) for f in factors]
    alive = _product(norms) > 0
    mean = functools.reduce(
        jnp.multiply, [jnp.where(alive, n, 1.0) ** (1 / len(norms)) for n in norms]
    )
    scales = [jnp.where(alive, mean / jnp.where(alive, n, 1.0), 0.0) for n in norms]
    return tuple(f * s[None, :] for f, s in zip(factors, scales, strict=True))


def _differentiable(factors: Factors, x: CP) -> Factors:
    """Return the factors with their derivative in `x`, as a minimiser's."""
    factors = lax.stop_gradient(factors)
    # In coordinates in which each mode's own block of the Hessian is the identity.
    grams = [contract("nr,ns->rs", f, f) for f in factors]
    roots = []
    for k, gram in enumerate(grams):
        rest = _product([jnp.ones_like(gram), *grams[:k], *grams[k + 1 :]])
        eps = float(jnp.finfo(gram.dtype).eps)
        shift = eps**0.4 * jnp.trace(rest) / rest.shape[0] + float(jnp.finfo(gram.dtype).tiny)
        roots.append(jnp.linalg.cholesky(rest + shift * jnp.eye(len(rest), dtype=gram.dtype)))
    scaled = tuple(contract("ns,sr->nr", f, r) for f, r in zip(factors, roots, strict=True))
    scaled = at_stationary_point(_misfit, scaled, (x, tuple(roots)))
    return _unscaled(scaled, tuple(roots))


def _unscaled(scaled: Factors, roots: Factors) -> Factors:
    return tuple(
        lax.linalg.triangular_solve(r, s, left_side=False, lower=True)
        for s, r in zip(scaled, roots, strict=True)
    )


def _misfit(scaled: Factors, data: tuple[CP, Factors]) -> Float[Array, ""]:
    x, roots = data
    factors = _unscaled(scaled, roots)
    ones = jnp.ones(factors[0].shape[1], x.dtype)
    own = _product([contract("nr,ns->rs", f, f) for f in factors])
    return 0.5 * jnp.sum(own) - jnp.sum(_overlaps(x, factors, ones))
