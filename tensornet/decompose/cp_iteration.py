"""The loop around the sweeps of CP: extrapolation, error and when to stop."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..status import Status
from .cp_sweep import Factors, Target, balance, residual, sweep

# Extrapolation between sweeps with restarts (Ang, Cohen, Hien and Gillis, "Extrapolated
# alternating algorithms for approximate canonical polyadic decomposition", 2020): their step
# sizes, applied to whole sweeps. The first sweeps run plain, while steps are large.
_PLAIN_SWEEPS = 5
_FIRST_STEP, _GROWTH, _BOUND_GROWTH, _SHRINK = 0.5, 1.05, 1.01, 1.5

# Sweeps over which the decay of the changes is judged, and what makes it a swamp: a decay this
# slow with more than this share of the error still to go.
_WINDOW = 5
_SLOW = 0.98
_SHARE = 0.01


class _State(eqx.Module):
    factors: Factors  # the best so far
    before: Factors  # those of the accepted sweep before
    start: Factors  # where the next sweep starts
    plain: Bool[Array, ""]  # whether that is `factors`, not an extrapolation
    step: Float[Array, ""]
    last_step: Float[Array, ""]
    bound: Float[Array, ""]
    error: Float[Array, ""]
    change: Float[Array, ""]
    history: Float[Array, " sweeps"]
    count: Int[Array, ""]
    status: Status
    running: Bool[Array, ""]


class Fit(eqx.Module):
    """Where the loop ended."""

    factors: Factors
    error: Float[Array, ""]
    status: Status
    history: Float[Array, " sweeps"]
    count: Int[Array, ""]


def relative(squared: Array, squared_norm: Array) -> Array:
    """Return the relative error of a squared residual norm; its gradient is finite at zero."""
    ratio = squared / jnp.where(squared_norm > 0, squared_norm, 1.0)
    positive = ratio > 0
    root = jnp.sqrt(jnp.where(positive, ratio, 1.0))
    return jnp.where(positive | jnp.isnan(ratio), root, 0.0)


def iterate(target: Target, factors: Factors, rtol: Array, max_sweeps: int) -> Fit:
    """Sweep until the relative error changes by less than `rtol`, at most `max_sweeps` times.

    Each sweep starts from an extrapolation of the last two and is kept only if the error fell;
    else the next one runs plain from the best factors. So the error never rises.
    """
    dtype = target.matrix.dtype
    eps = float(jnp.finfo(dtype).eps)

    def advance(state: _State) -> _State:
        new, squared = sweep(target, state.start)
        new = balance(new)
        # The difference of large numbers resolves the squared error to a few eps; below, the
        # residual itself is formed.
        squared = jax.lax.cond(
            squared < 256 * eps * target.squared_norm,
            lambda: residual(target, new),
            lambda: squared,
        )
        error = relative(squared, target.squared_norm)
        finite = jnp.isfinite(error)
        keep = finite & (state.plain | (error <= state.error))

        def kept(a: Factors, b: Factors) -> Factors:
            return jax.tree.map(lambda x, y: jnp.where(keep, x, y), a, b)

        change = jnp.where(keep, state.error - error, state.change)
        best = jnp.where(keep, error, state.error)
        factors = kept(new, state.factors)
        before = kept(state.factors, state.before)
        count = state.count + 1
        history = state.history.at[state.count].set(best)

        # What rounding alone changes from sweep to sweep.
        rounding = jnp.where(best < 16 * eps**0.5, 4 * eps, 2 * eps / jnp.maximum(best, eps))
        small = (rtol > 0) & (jnp.abs(change) < jnp.maximum(rtol, rounding))
        # An extrapolated sweep may change little by chance: it takes two in a row.
        done = keep & small & (state.plain | (state.change < rtol)) & (count > 1)
        done = done | (keep & (best == 0) & (rtol > 0))
        swamp = _in_swamp(history, count, rounding)
        status = Status.where(
            finite,
            Status.where(
                done, Status.where(swamp, Status.stagnated, Status.converged), state.status
            ),
            Status.non_finite,
        )

        extrapolate = keep & (count >= _PLAIN_SWEEPS)
        if target.nonnegative:
            clip = lambda a: jnp.maximum(a, 0.0)  # noqa: E731
        else:
            clip = lambda a: a  # noqa: E731
        start = jax.tree.map(
            lambda a, b: jnp.where(extrapolate, clip(a + state.step * (a - b)), a), factors, before
        )
        grown = jnp.minimum(state.bound, _GROWTH * state.step)
        bound = jnp.minimum(1.0, _BOUND_GROWTH * state.bound)
        return _State(
            factors=factors,
            before=before,
            start=start,
            plain=~extrapolate,
            step=jnp.where(extrapolate, grown, jnp.where(keep, state.step, state.step / _SHRINK)),
            last_step=jnp.where(extrapolate, state.step, state.last_step),
            bound=jnp.where(extrapolate, bound, jnp.where(keep, state.bound, state.last_step)),
            error=best,
            change=change,
            history=history,
            count=count,
            status=status,
            running=finite & ~done,
        )

    factors = balance(factors)
    scalar = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    state = _State(
        factors=factors,
        before=factors,
        start=factors,
        plain=jnp.asarray(True),  # noqa: FBT003
        step=scalar(_FIRST_STEP),
        last_step=scalar(_FIRST_STEP),
        bound=scalar(1.0),
        error=scalar(jnp.inf),
        change=scalar(jnp.inf),
        history=jnp.full(max_sweeps, jnp.nan, dtype),
        count=jnp.asarray(0, jnp.int32),
        status=Status.max_iterations,
        running=jnp.asarray(True),  # noqa: FBT003
    )
    state = jax.lax.while_loop(lambda s: s.running & (s.count < max_sweeps), advance, state)
    # Exact also above the floor of the difference of large numbers.
    error = relative(residual(target, state.factors), target.squared_norm)
    return Fit(state.factors, error, state.status, state.history, state.count)


def _in_swamp(history: Array, count: Array, rounding: Array) -> Array:
    """Tell whether a slow decay of the changes leaves much of the error to go."""

    def at(back: int) -> Array:
        return history[jnp.maximum(count - 1 - back, 0)]

    earlier = at(2 * _WINDOW) - at(_WINDOW)
    later = at(_WINDOW) - at(0)
    ratio = later / jnp.where(earlier > 0, earlier, 1.0)
    ratio = jnp.clip(jnp.where(earlier > 0, ratio, 1.0), 0.0, 1 - 1e-4)
    to_go = later * ratio / (1 - ratio)
    return (
        (count > 2 * _WINDOW)
        & (later > _WINDOW * rounding)
        & (ratio > _SLOW**_WINDOW)
        & (to_go > _SHARE * at(0))
    )
