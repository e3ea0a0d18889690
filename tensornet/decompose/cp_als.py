"""CP decomposition by alternating least squares, compiled once, with missing entries."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from ..formats import CP, Decomposition
from ..linalg import at_stationary_point
from ..status import Status, name
from ..validation import as_real, check_finite, check_modes, check_rank, is_traced
from .cp_init import given_factors, random_factors, svd_factors
from .cp_iteration import Fit, iterate, relative
from .cp_sweep import Factors, balance, gram, misfit, residual, target


def cp_als(
    x: ArrayLike,
    rank: int,
    *,
    key: PRNGKeyArray | None = None,
    mask: ArrayLike | None = None,
    nonnegative: bool = False,
    init: str | CP = "svd",
    starts: int = 1,
    rtol: float | int = 1e-8,
    max_sweeps: int = 500,
    throw: bool = True,
) -> Decomposition[CP]:
    """Fit a CP tensor of given rank to `x` by alternating least squares.

    Every sweep solves for one factor after the other, exactly; missing entries are left out of
    the equations, not imputed. Sweeps start from an extrapolation of the last two and are kept
    only if the error falls (Ang et al. 2020), which shortens swamps several times; the first
    five are plain. Compiled once per shape, rank and options, with early stopping; works under
    `jit` (options static), `vmap` and `grad`. The gradient is that of the minimiser by the
    implicit function theorem: it holds where the iteration converged, and its cost does not
    depend on the number of sweeps.

    In the result each factor has columns of norm one and the weights are positive and descending.
    In all modes but the last the entry of largest magnitude of each column is positive. A
    component that vanished has weight and columns zero, and comes last.

    Args:
        x: the tensor, of any order from 1, float32 or float64.
        rank: number of components, at most the product of all mode sizes but the largest.
        key: for random numbers; needed with `init="random"` or several starts.
        mask: True where an entry is observed, of the shape of `x`; hidden entries may be NaN.
        nonnegative: keep all factors and weights nonnegative.
        init: `"svd"`, leading singular vectors of the unfoldings (fixed pseudorandom columns
            where a mode is smaller than the rank; hidden entries count as zero); `"random"`,
            normal entries; or a CP tensor of this shape and rank.
        starts: how many starting points run, in one vmap; the best result is kept. All but the
            first are random.
        rtol: stop when the relative error changes by less than this in a sweep. Changes within
            the rounding of the dtype count as none. With 0 all `max_sweeps` run.
        max_sweeps: the most sweeps to run.
        throw: raise where the iteration met NaN or infinity, if the values are concrete.

    Returns:
        The decomposition. `status` is `converged`, `max_iterations`, `stagnated` (the change fell
        below `rtol`, but its slow decay promises more than one percent of the error) or
        `non_finite`.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range, or data with NaN, or only zeros, or a slice with no
            observed entry.
        FloatingPointError: the iteration met NaN or infinity and `throw` is set.
    """
    x = as_real(x, "x")
    check_modes(x, "x")
    largest = math.prod(x.shape) // max(x.shape)
    rank = check_rank(
        rank, most=largest, why=f"the product of all mode sizes of {x.shape} but the largest"
    )
    observed = _checked_mask(mask, x)
    _check_options(key, init, starts, rtol, max_sweeps)
    if isinstance(init, CP):
        _check_init(init, x, rank, nonnegative)
    squared_norm = _squared_norm(x, observed)
    _check_data(x, observed, squared_norm)

    tolerance = jnp.asarray(rtol, x.dtype)
    result = _cp_als(
        x,
        observed,
        squared_norm,
        jax.random.key(0) if key is None else key,  # without a key none is used
        init,
        tolerance,
        rank=rank,
        nonnegative=bool(nonnegative),
        starts=int(starts),
        max_sweeps=int(max_sweeps),
    )
    if throw and not is_traced(result) and name(result.status) == "non_finite":
        raise FloatingPointError(f"cp_als: {Status[Status.non_finite]}")
    return result


def _checked_mask(mask: ArrayLike | None, x: Array) -> Array | None:
    if mask is None:
        return None
    array = jnp.asarray(mask)
    if array.dtype != jnp.bool_:
        raise TypeError(f"mask: expected booleans (True = observed), got {array.dtype}")
    if array.shape != x.shape:
        raise ValueError(f"mask: expected shape {x.shape} like x, got {array.shape}")
    if is_traced(array):
        return array
    counts = np.asarray(array)
    for mode in range(x.ndim):
        seen = counts.any(axis=tuple(k for k in range(x.ndim) if k != mode))
        if not seen.all():
            raise ValueError(
                f"mask: expected an observed entry in every slice, got none in mode {mode} at "
                f"index {int(np.argmin(seen))}"
            )
    return array


def _check_options(key: Any, init: Any, starts: Any, rtol: Any, max_sweeps: Any) -> None:
    if not isinstance(init, CP) and init not in ("svd", "random"):
        raise ValueError(f'init: expected "svd", "random" or a CP tensor, got {init!r}')
    check_rank(starts, "starts")
    check_rank(max_sweeps, "max_sweeps")
    if isinstance(rtol, bool) or not isinstance(rtol, (int, float, np.floating, np.integer)):
        raise TypeError(f"rtol: expected a number, got {rtol!r} ({type(rtol).__name__})")
    if not 0 <= float(rtol) < math.inf:
        raise ValueError(f"rtol: expected a finite number, at least 0, got {rtol}")
    if key is None and (starts > 1 or (isinstance(init, str) and init == "random")):
        raise ValueError(
            f"key: expected a jax.random.key for init={init if isinstance(init, str) else 'CP'!r} "
            f"and starts={starts}, which need random numbers, got None"
        )


def _check_init(init: CP, x: Array, rank: int, nonnegative: bool) -> None:
    if init.shape != x.shape or init.rank != rank:
        raise ValueError(
            f"init: expected a CP tensor of shape {x.shape} and rank {rank}, got shape "
            f"{init.shape} and rank {init.rank}"
        )
    if init.dtype != x.dtype:
        raise TypeError(f"init: expected dtype {x.dtype} like x, got {init.dtype}")
    for k, factor in enumerate((init.weights, *init.factors)):
        what = f"init.factors[{k - 1}]" if k else "init.weights"
        check_finite(factor, what)
        negative = factor < 0
        if nonnegative and not is_traced(negative) and bool(jnp.any(negative)):
            raise ValueError(f"{what}: expected no negative entries, got {float(factor.min())}")


def _check_data(x: Array, observed: Array | None, squared_norm: Array) -> None:
    # One number tells whether the data is sound; only where it is not, the cause is looked for.
    if is_traced(squared_norm) or 0 < float(squared_norm) < math.inf:
        return
    shown = x if observed is None else jnp.where(observed, x, 0.0)
    check_finite(shown, "x")
    if not bool(jnp.any(shown)):
        raise ValueError(f"x: expected a nonzero tensor, got only zeros in shape {x.shape}")
    raise ValueError(
        f"x: expected entries whose squares {x.dtype} holds, got a largest magnitude of "
        f"{float(jnp.abs(shown).max()):.1e}: scale the tensor"
    )


@jax.jit
def _squared_norm(x: Array, mask: Array | None) -> Array:
    shown = x if mask is None else jnp.where(mask, x, 0.0)
    return jnp.sum(shown * shown)


@eqx.filter_jit
def _cp_als(
    x: Array,
    mask: Array | None,
    squared_norm: Array,
    key: PRNGKeyArray,
    init: CP | str,
    rtol: Array,
    *,
    rank: int,
    nonnegative: bool,
    starts: int,
    max_sweeps: int,
) -> Decomposition[CP]:
    # The iteration runs on data whose derivative is cut; `_differentiable` puts it back.
    full = target(x, mask, squared_norm, nonnegative)
    problem = jax.lax.stop_gradient(full)

    def draw(key: PRNGKeyArray) -> Factors:
        return random_factors(key, x.shape, rank, x.dtype, nonnegative)

    if isinstance(init, CP):
        first = jax.lax.stop_gradient(given_factors(init, nonnegative))
    elif init == "svd":
        first = svd_factors(problem.tensor, rank, nonnegative)
    else:
        first = draw(key)
    stacked = jax.tree.map(lambda leaf: leaf[None], first)
    if starts > 1:
        drawn = jax.vmap(draw)(jax.random.split(jax.random.fold_in(key, 1), starts - 1))
        stacked = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), stacked, drawn)
    fits = iterate(problem, stacked, jnp.broadcast_to(rtol, (starts,)), max_sweeps)
    if starts == 1:
        best = 0
    else:
        errors = jax.vmap(lambda f: residual(problem, f))(fits.factors)
        best = jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors))
    fit = jax.tree.map(lambda leaf: leaf[best], fits)

    factors = _differentiable(fit, x, mask, nonnegative)
    error = relative(misfit(full, factors), full.squared_norm)
    return Decomposition(
        tensor=_normal_form(factors),
        relative_error=error,
        status=fit.status,
        history=fit.history,
        sweeps=fit.count,
    )


def _differentiable(fit: Fit, x: Array, mask: Array | None, nonnegative: bool) -> Factors:
    """Return the factors with their derivative in `x`."""
    factors, _ = balance(jax.lax.stop_gradient(fit.factors))
    # An entry held at zero stays there.
    free = tuple(f > 0 for f in factors) if nonnegative else None
    return at_stationary_point(_misfit, factors, (x, mask, free), _by_mode)


def _held(factors: Factors, free: tuple[Array, ...] | None) -> Factors:
    if free is None:
        return factors
    return tuple(jnp.where(m, f, 0.0) for m, f in zip(free, factors, strict=True))


def _misfit(factors: Factors, data: Any) -> Array:
    x, mask, free = data
    problem = target(x, mask, jnp.zeros((), x.dtype), nonnegative=False)
    return 0.5 * residual(problem, _held(factors, free))


def _by_mode(factors: Factors, data: Any) -> Callable[[Factors], Factors]:
    """Invert each mode's own block of the Hessian, as if all entries were observed."""
    _, _, free = data
    grams = [gram(f) for f in factors]
    roots = []
    for mode in range(len(factors)):
        others = [g for k, g in enumerate(grams) if k != mode]
        block = functools.reduce(jnp.multiply, others, jnp.ones_like(grams[mode]))
        diagonal = jnp.diagonal(block)
        ridge = float(jnp.finfo(block.dtype).eps) ** 0.4 * diagonal
        roots.append(jnp.linalg.cholesky(block + jnp.diag(jnp.where(diagonal > 0, ridge, 1.0))))

    def apply(vector: Factors) -> Factors:
        solved = tuple(
            jax.scipy.linalg.cho_solve((root, True), v)
            for root, v in zip(roots, _held(vector, free), strict=True)
        )
        return _held(solved, free)

    return apply


def _normal_form(factors: Factors) -> CP:
    """Scale columns to norm one, with the weights descending and the signs fixed."""
    norms, units = [], []
    for factor in factors:
        squared = jnp.sum(factor * factor, axis=1)
        alive = squared > 0
        norm = jnp.where(alive, jnp.sqrt(jnp.where(alive, squared, 1.0)), 0.0)
        norms.append(norm)
        units.append(factor / jnp.where(alive, norm, 1.0)[:, None])
    weights = functools.reduce(jnp.multiply, norms)
    last = units[-1]
    for k, unit in enumerate(units[:-1]):
        largest = jnp.argmax(jnp.abs(unit), axis=1)
        value = jnp.take_along_axis(unit, largest[:, None], axis=1)
        sign = jnp.where(value < 0, -1.0, 1.0).astype(unit.dtype)
        units[k] = unit * sign
        last = last * sign
    units[-1] = last
    order = jnp.argsort(-jax.lax.stop_gradient(weights))
    return CP(weights[order], tuple(u[order].T for u in units))
