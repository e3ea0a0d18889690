"""The loop around the sweeps of CP: extrapolation, error, when to stop, and many at once."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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

# Components larger than the tensor by eps to this power (90 times in float64, 7 in float32)
# cancel one another. Where no tensor of the rank is closest they grow without end, until rounding
# stops them (de Silva and Lim, "Tensor rank and the ill-posedness of the best low-rank
# approximation problem", 2008).
_CANCELLATION = -0.125

# Of a batch so many tensors are worked on at a time; one that is done makes room for the next.
# Enough to spread the overhead of starting operations, few enough to stay in the cache.
_SLOTS = {"cpu": 64}


class Fit(eqx.Module):
    """Where the loop ended."""

    factors: Factors
    status: Any
    history: Float[Array, "..."]
    count: Int[Array, "..."]


class _State(eqx.Module):
    # Factors as one vector: what is done to them entry by entry is one operation then.
    factors: Float[Array, " entries"]  # the best so far
    before: Float[Array, " entries"]  # those of the accepted sweep before
    start: Float[Array, " entries"]  # where the next sweep starts
    plain: Bool[Array, ""]  # whether that is `factors`, not an extrapolation
    step: Float[Array, ""]
    last_step: Float[Array, ""]
    bound: Float[Array, ""]
    change: Float[Array, ""]
    errors: Float[Array, " window"]  # of the last sweeps, the latest last
    count: Int[Array, ""]
    status: Any
    running: Bool[Array, ""]


def relative(squared: Array, squared_norm: Array) -> Array:
    """Return the relative error of a squared residual norm; its gradient is finite at zero."""
    ratio = squared / jnp.where(squared_norm > 0, squared_norm, 1.0)
    positive = ratio > 0
    root = jnp.sqrt(jnp.where(positive, ratio, 1.0))
    return jnp.where(positive, root, jnp.where(jnp.isnan(ratio), ratio, 0.0))


def iterate(target: Target, factors: Factors, rtol: Array, max_sweeps: int) -> Fit:
    """Sweep until the relative error changes by less than `rtol`, at most `max_sweeps` times.

    Each sweep starts from an extrapolation of the last two and is kept only if the error fell;
    else the next one runs plain from the best factors. So the error never rises. With `rtol`
    zero all `max_sweeps` run.

    Under `jax.vmap` the tensors of a batch share one loop, in which a tensor that is done makes
    room for the next.

    Args:
        target: what to fit.
        factors: starting points, `[starts, rank, size]` each.
        rtol: for each start.
        max_sweeps: for each start.

    Returns:
        The fits, each leaf with a leading axis of starts.
    """

    @jax.custom_batching.custom_vmap
    def each(target: Target, factors: Array, rtol: Array) -> Any:
        return _loop(target, factors, rtol, max_sweeps, shared=False)

    @each.def_vmap
    def _each_batch(size: int, batched: Any, *arguments: Any) -> tuple[Any, Any]:
        spread = _spread(size, batched, arguments)
        fits = each(*jax.tree.map(_merge, spread))
        return _split(fits, size)

    @jax.custom_batching.custom_vmap
    def shared(target: Target, factors: Array, rtol: Array) -> Any:
        return _loop(target, factors, rtol, max_sweeps, shared=True)

    @shared.def_vmap
    def _shared_batch(size: int, batched: Any, *arguments: Any) -> tuple[Any, Any]:
        target, factors, rtol = arguments
        factors, rtol = jax.tree.map(_merge, _spread(size, batched[1:], (factors, rtol)))
        if not any(jax.tree.leaves(batched[0])):
            return _split(shared(target, factors, rtol), size)
        (target,) = _spread(size, batched[:1], (target,))
        starts = rtol.shape[0] // size
        target = jax.tree.map(lambda leaf: jnp.repeat(leaf, starts, axis=0), target)
        return _split(each(target, factors, rtol), size)

    rank = factors[0].shape[1]
    fits = shared(target, _ravel(factors), rtol)
    return Fit(_unravel(fits.factors, target.shape, rank), fits.status, fits.history, fits.count)


def _ravel(factors: Factors) -> Array:
    rank = factors[0].shape[-2]
    return jnp.concatenate([f.reshape(*f.shape[:-2], rank * f.shape[-1]) for f in factors], axis=-1)


def _unravel(vector: Array, shape: tuple[int, ...], rank: int) -> Factors:
    ends = np.cumsum([rank * n for n in shape])[:-1]
    return tuple(
        piece.reshape(*vector.shape[:-1], rank, n)
        for piece, n in zip(jnp.split(vector, ends, axis=-1), shape, strict=True)
    )


def _spread(size: int, batched: Any, arguments: Any) -> Any:
    """Give a batch axis to what has none."""
    return jax.tree.map(
        lambda b, leaf: leaf if b else jnp.broadcast_to(leaf, (size, *leaf.shape)),
        tuple(batched),
        tuple(arguments),
    )


def _merge(leaf: Array) -> Array:
    return leaf.reshape(-1, *leaf.shape[2:])


def _split(fits: Any, size: int) -> tuple[Any, Any]:
    fits = jax.tree.map(lambda leaf: leaf.reshape(size, -1, *leaf.shape[1:]), fits)
    return fits, jax.tree.map(lambda _: True, fits)


class _Vectors(eqx.Module):
    factors: Float[Array, "items entries"]
    status: Any
    history: Float[Array, "items sweeps"]
    count: Int[Array, " items"]


class _Work(eqx.Module):
    """A batch under way: some items in slots, the others waiting or done."""

    states: _State  # [slots]
    target: Target  # [slots], or what all share
    rtol: Float[Array, " slots"]
    items: Int[Array, " slots"]  # which item a slot holds; their number where it is idle
    waiting: Int[Array, ""]  # the next item without a slot
    fits: _Vectors


def _loop(
    target: Target, factors: Array, rtol: Array, max_sweeps: int, *, shared: bool
) -> _Vectors:
    total = rtol.shape[0]
    rank = factors.shape[1] // sum(target.shape)
    slots = total if shared else min(total, _SLOTS.get(jax.default_backend(), total))
    dtype = rtol.dtype
    axis = None if shared else 0

    def over(function: Callable) -> Callable:
        return jax.vmap(function, in_axes=(axis, 0))

    def swept(target: Target, start: Array) -> tuple[Array, Array, Array]:
        new, squared = sweep(target, _unravel(start, target.shape, rank))
        new, size = balance(new)
        return _ravel(new), squared, size

    def missed(target: Target, factors: Array) -> Array:
        return residual(target, _unravel(factors, target.shape, rank))

    def choose(where: Array, new: Array, old: Array) -> Array:
        return jnp.where(where.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    def take(tree: Any, where: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[where], tree)

    def advance(work: _Work) -> _Work:
        states, target = work.states, work.target
        new, squared, size = over(swept)(target, states.start)
        norm = target.squared_norm
        # The difference of large numbers resolves the squared error to a few eps; below, the
        # residual itself is formed.
        close = states.running & (squared < 256 * float(jnp.finfo(dtype).eps) * norm)
        squared = jax.lax.cond(
            jnp.any(close),
            lambda: jnp.where(close, over(missed)(target, new), squared),
            lambda: squared,
        )
        error = relative(squared, norm)
        degenerate = size > float(jnp.finfo(dtype).eps) ** (2 * _CANCELLATION) * norm
        decide = jax.vmap(functools.partial(_decide, nonnegative=target.nonnegative))
        after = decide(states, new, error, degenerate, work.rtol)
        after = eqx.tree_at(lambda s: s.running, after, after.running & (after.count < max_sweeps))
        if total > 1:  # what is finished stays as it is
            after = jax.tree.map(functools.partial(choose, states.running), after, states)
        where = jnp.where(states.running, work.items, total)
        history = work.fits.history.at[where, after.count - 1].set(after.errors[:, -1], mode="drop")
        work = eqx.tree_at(lambda w: (w.states, w.fits.history), work, (after, history))
        if slots == total:
            return work
        return jax.lax.cond(
            jnp.any(states.running & ~after.running), lambda: hand_over(work), lambda: work
        )

    def collect(work: _Work, done: Array) -> _Vectors:
        where = jnp.where(done, work.items, total)
        states = work.states
        old = (work.fits.factors, work.fits.status, work.fits.count)
        new = (states.factors, states.status, states.count)
        found = jax.tree.map(lambda a, b: a.at[where].set(b, mode="drop"), old, new)
        return _Vectors(found[0], found[1], work.fits.history, found[2])

    def hand_over(work: _Work) -> _Work:
        # Idle slots are past the last item already, and what they hand in is dropped.
        done = ~work.states.running
        fits = collect(work, done)
        items = jnp.where(done, work.waiting + jnp.cumsum(done, dtype=jnp.int32) - 1, work.items)
        items = jnp.minimum(items, total)
        there = jnp.minimum(items, total - 1)
        fresh = jax.vmap(begin)(factors[there])
        fresh = eqx.tree_at(lambda s: s.running, fresh, items < total)

        placed = functools.partial(choose, done)
        return _Work(
            states=jax.tree.map(placed, fresh, work.states),
            target=jax.tree.map(placed, take(target, there), work.target),
            rtol=placed(rtol[there], work.rtol),
            items=items,
            waiting=jnp.minimum(work.waiting + jnp.sum(done, dtype=jnp.int32), total),
            fits=fits,
        )

    def begin(start: Array) -> _State:
        return _begin(_ravel(balance(_unravel(start, target.shape, rank))[0]))

    first = jnp.arange(slots)
    states = jax.vmap(begin)(factors[:slots])
    fits = _Vectors(
        factors=factors,
        status=jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (total, *leaf.shape)), Status.max_iterations
        ),
        history=jnp.full((total, max_sweeps), jnp.nan, dtype),
        count=jnp.zeros(total, jnp.int32),
    )
    work = _Work(
        states=states,
        target=take(target, first) if slots < total else target,
        rtol=rtol[:slots],
        items=first.astype(jnp.int32),
        waiting=jnp.asarray(slots, jnp.int32),
        fits=fits,
    )
    work = jax.lax.while_loop(lambda w: jnp.any(w.states.running), advance, work)
    return collect(work, jnp.ones(slots, bool))


def _begin(factors: Array) -> _State:
    def scalar(value: float) -> Array:
        return jnp.asarray(value, factors.dtype)

    return _State(
        factors=factors,
        before=factors,
        start=factors,
        plain=jnp.asarray(True),
        step=scalar(_FIRST_STEP),
        last_step=scalar(_FIRST_STEP),
        bound=scalar(1.0),
        change=scalar(float("inf")),
        errors=jnp.full(2 * _WINDOW + 1, jnp.inf, factors.dtype),
        count=jnp.asarray(0, jnp.int32),
        status=Status.max_iterations,
        running=jnp.asarray(True),
    )


def _decide(
    state: _State,
    new: Array,
    error: Array,
    degenerate: Array,
    rtol: Array,
    *,
    nonnegative: bool,
) -> _State:
    """Keep a sweep or not, see whether to stop, and choose where the next one starts."""
    eps = float(jnp.finfo(error.dtype).eps)
    finite = jnp.isfinite(error)
    keep = finite & (state.plain | (error <= state.errors[-1]))
    change = jnp.where(keep, state.errors[-1] - error, state.change)
    best = jnp.where(keep, error, state.errors[-1])
    errors = jnp.concatenate([state.errors[1:], best[None]])
    factors = jnp.where(keep, new, state.factors)
    before = jnp.where(keep, state.factors, state.before)
    count = state.count + 1

    # What rounding alone changes from sweep to sweep.
    rounding = jnp.where(best < 16 * eps**0.5, 4 * eps, 2 * eps / jnp.maximum(best, eps))
    tolerance = jnp.where(rtol > 0, jnp.maximum(rtol, rounding), 0.0)
    # An extrapolated sweep may change little by chance: it takes two in a row.
    small = (jnp.abs(change) < tolerance) & (state.plain | (jnp.abs(state.change) < tolerance))
    done = keep & ((small & (count > 1)) | ((best == 0) & (rtol > 0)))
    swamp = degenerate | _in_swamp(errors, rounding)
    stalled = Status.where(swamp, Status.stagnated, Status.converged)
    status = Status.where(done, stalled, state.status)
    status = Status.where(finite, status, Status.non_finite)

    extrapolate = keep & (count >= _PLAIN_SWEEPS)

    onward = factors + state.step * (factors - before)
    if nonnegative:
        onward = jnp.maximum(onward, 0.0)

    grown = jnp.minimum(state.bound, _GROWTH * state.step)
    bound = jnp.minimum(1.0, _BOUND_GROWTH * state.bound)
    return _State(
        factors=factors,
        before=before,
        start=jnp.where(extrapolate, onward, factors),
        plain=~extrapolate,
        step=jnp.where(extrapolate, grown, jnp.where(keep, state.step, state.step / _SHRINK)),
        last_step=jnp.where(extrapolate, state.step, state.last_step),
        bound=jnp.where(extrapolate, bound, jnp.where(keep, state.bound, state.last_step)),
        change=change,
        errors=errors,
        count=count,
        status=status,
        running=finite & ~done,
    )


def _in_swamp(errors: Array, rounding: Array) -> Array:
    """Tell whether a slow decay of the changes leaves much of the error to go."""
    earlier = errors[0] - errors[_WINDOW]
    later = errors[_WINDOW] - errors[-1]
    known = jnp.isfinite(errors[0]) & (earlier > 0)
    ratio = jnp.clip(later / jnp.where(known, earlier, 1.0), 0.0, 1 - 1e-4)
    to_go = later * ratio / (1 - ratio)
    return (
        known
        & (later > _WINDOW * rounding)
        & (ratio > _SLOW**_WINDOW)
        & (to_go > _SHARE * errors[-1])
    )
