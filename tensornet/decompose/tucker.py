"""Tucker decompositions: sequentially truncated HOSVD, and HOOI."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from ..formats import Decomposition, Tucker
from ..formats.letters import letters
from ..linalg import at_stationary_point, leading_left, left_singular, qr, randomized_range
from ..planner import StagedPlan, contract, plan_stages
from ..status import Status
from ..validation import check_rank, check_ranks, check_truncation, is_traced
from .border import (
    check_array,
    check_change,
    check_data,
    check_eager,
    check_key,
    check_norm,
    check_outcome,
)
from .truncation import Budget, direct, error_by_norms, norm, projection_error, squares

Factors = tuple[Array, ...]


def hosvd(
    x: ArrayLike,
    *,
    rank: Any = None,
    rtol: float | None = None,
    method: str = "exact",
    key: PRNGKeyArray | None = None,
) -> Decomposition[Tucker]:
    """Decompose `x` in Tucker format by the sequentially truncated HOSVD.

    Factors have orthonormal columns. Vannieuwenhoven, Vandebril and Meerbergen, "A new truncation
    strategy for the higher-order singular value decomposition", 2012: the error is at most the
    square root of the number of modes times the best at the same ranks.

    Args:
        x: the tensor, float32 or float64.
        rank: an integer, used for every mode and cut to what the shape allows, or one a mode.
            Works under jit, vmap and grad.
        rtol: choose ranks such that the relative error is at most this. Not inside a trace, where
            ranks cannot depend on data. Exactly one of `rank` and `rtol` must be given.
        method: "exact", or "randomized" (with two power steps; needs `rank` and `key`), which is
            faster where the rank is far below the size of the mode.
        key: for `method="randomized"`.

    Raises:
        TypeError: arguments of a wrong type.
        ValueError: neither or both of `rank` and `rtol`, one of them out of its range, or data
            that is empty, all zeros or not finite.
    """
    x = check_data(x, "x")
    if (rank is None) == (rtol is None):
        got = "neither" if rank is None else "both"
        raise ValueError(f"rank, rtol: expected exactly one of them, got {got}")
    _check_method(method, key)
    if rtol is None:
        return _hosvd(x, feasible(rank, x.shape), method, key)
    rtol = check_truncation(rtol, x.dtype)
    check_eager(x, "rtol", "rank")
    if method == "randomized":
        raise ValueError("method: expected 'exact' with rtol, got 'randomized', which needs rank")
    budget = Budget(x, rtol, x.ndim)
    factors, y = [], x
    for n in x.shape:
        u, kept = budget.truncate(y, n)
        y = kept.T
        factors.append(u)
    core = y.reshape(tuple(u.shape[1] for u in factors))
    return _finish(x, Tucker(core, tuple(factors)), jnp.asarray(budget.dropped, x.dtype))


def hooi(
    x: ArrayLike,
    rank: Any,
    *,
    init: str | Tucker = "hosvd",
    method: str = "exact",
    key: PRNGKeyArray | None = None,
    rtol: float = 1e-4,
    max_sweeps: int = 100,
    throw: bool = True,
) -> Decomposition[Tucker]:
    """Fit a Tucker tensor of given ranks by higher-order orthogonal iteration.

    Compiled once, with partial products shared between the modes of a sweep. Works under jit,
    vmap and grad; the gradient is that of the best approximation, by the implicit function
    theorem, so it is as good as the convergence: lower `rtol` for it.

    De Lathauwer, De Moor and Vandewalle, "On the best rank-1 and rank-(R1,...,RN) approximation
    of higher-order tensors", 2000.

    Args:
        x: the tensor, float32 or float64.
        rank: an integer, used for every mode and cut to what the shape allows, or one a mode.
        init: "hosvd", or a Tucker tensor of this shape and rank.
        method: of the HOSVD: "exact" or "randomized".
        key: for `method="randomized"`.
        rtol: stop when a sweep lowers the error by less than this share of it.
        max_sweeps: stop after as many, with `status` saying so.
        throw: raise if the iteration met NaN or infinity, where its outcome is concrete.

    Raises:
        TypeError: arguments of a wrong type.
        ValueError: arguments out of range, or data that is empty, all zeros or not finite.
        FloatingPointError: NaN or infinity during the iteration, with `throw`.
    """
    x = check_array(x, "x")
    ranks = feasible(rank, x.shape)
    _check_method(method, key)
    rtol = check_change(rtol)
    max_sweeps = check_rank(max_sweeps, "max_sweeps")
    if isinstance(init, Tucker):
        if init.shape != x.shape or init.rank != ranks:
            raise ValueError(
                f"init: expected shape {x.shape} and rank {ranks}, got shape {init.shape} and "
                f"rank {init.rank}"
            )
        if init.dtype != x.dtype:
            raise TypeError(f"init: expected dtype {x.dtype} like x, got {init.dtype}")
    elif init != "hosvd":
        raise ValueError(f"init: expected 'hosvd' or a Tucker tensor, got {init!r}")
    start = init.factors if isinstance(init, Tucker) else None
    result, whole = _hooi(x, start, ranks, jnp.asarray(rtol, x.dtype), max_sweeps, method, key)
    if not is_traced(x):
        check_norm(x, "x", whole)
    check_outcome("hooi", result.status, throw)
    return result


def feasible(rank: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ranks as a tuple, each at most its mode's size and the product of the others.

    A single integer is cut to that; a sequence must keep it.

    Raises:
        TypeError: not integers.
        ValueError: a rank out of its range, or another count of ranks than modes.
    """
    ranks = list(check_ranks(rank, shape, why="the size of the mode"))
    for k in sorted(range(len(ranks)), key=lambda k: -ranks[k]):
        others = math.prod(r for j, r in enumerate(ranks) if j != k)
        if not isinstance(rank, Sequence):
            ranks[k] = min(ranks[k], others)
        check_rank(ranks[k], f"rank[{k}]", most=others, why="the product of the other ranks")
    return tuple(ranks)


def _check_method(method: Any, key: Any) -> None:
    if method not in ("exact", "randomized"):
        raise ValueError(f"method: expected 'exact' or 'randomized', got {method!r}")
    if method == "randomized":
        check_key(key, "method='randomized'")


def _dense(tucker: Tucker) -> Array:
    # Mode by mode, the first in front and then moved to the end: no transposition of the whole.
    y = tucker.core
    for k in range(y.ndim):
        matrix = tucker.factors[k]
        y = contract("rp,nr->pn", y.reshape(matrix.shape[1], -1), matrix)
    return y.reshape(tucker.shape)


@eqx.filter_jit
def _finish(x: Array, tucker: Tucker, dropped: Array) -> Decomposition[Tucker]:
    return direct(tucker, projection_error(x, dropped, lambda: _dense(tucker)))


@eqx.filter_jit
def _hosvd(
    x: Array, ranks: tuple[int, ...], method: str, key: PRNGKeyArray | None
) -> Decomposition[Tucker]:
    tucker, dropped = _st_hosvd(x, ranks, method, key)
    if method == "randomized":
        return direct(tucker, error_by_norms(x, tucker.core, lambda: _dense(tucker)))
    return _finish(x, tucker, dropped)


def _st_hosvd(
    x: Array, ranks: tuple[int, ...], method: str, key: PRNGKeyArray | None
) -> tuple[Tucker, Array]:
    # Also the squared norm of what was dropped, but for what random samples miss.
    keys = [None] * x.ndim if key is None else jax.random.split(key, x.ndim)
    factors, y, dropped = [], x, jnp.zeros((), x.dtype)
    for n, rank, one in zip(x.shape, ranks, keys, strict=True):
        a = y.reshape(n, -1)
        if method == "randomized" and one is not None:
            q = randomized_range(a, rank, key=one)
            small = contract("nk,np->kp", q, a)
            u, s = left_singular(small, rank=rank)
            u, missed = contract("nk,kr->nr", q, u[:, :rank]), squares(s, rank)
        else:
            u, missed = leading_left(a, rank)
        dropped = dropped + missed
        # The next mode comes to the front, without a copy.
        y = contract("np,nr->pr", a, u)
        factors.append(u)
    return Tucker(y.reshape(ranks), tuple(factors)), dropped


def _project(x: Array, factors: Factors) -> Array:
    """Multiply every mode by its factor's transpose."""
    names = letters(2 * x.ndim)
    modes, inner = names[: x.ndim], names[x.ndim :]
    pairs = ",".join(f"{m}{i}" for m, i in zip(modes, inner, strict=True))
    return contract(f"{modes},{pairs}->{inner}", x, *factors)


def _shrunk(x: Array, factor: Array) -> Array:
    """Multiply the first mode by its factor's transpose; it comes last."""
    y = contract("np,nr->pr", x.reshape(x.shape[0], -1), factor)
    return y.reshape(*x.shape[1:], factor.shape[1])


@functools.lru_cache(maxsize=128)
def _sweep_plan(
    shape: tuple[int, ...], ranks: tuple[int, ...], dtype: str, device: str
) -> StagedPlan:
    """Plan the projections of a shrunk tensor on all other factors but one, that mode first."""
    modes = letters(2 * len(shape))
    modes, inner = modes[: len(shape)], modes[len(shape) :]
    stages = []
    for k in range(1, len(shape)):
        others = [m for m in range(1, len(shape)) if m != k]
        factors = "".join(f",{modes[m]}:{modes[m]}{inner[m]}" for m in others)
        out = f"{modes[k]}{inner[0]}{''.join(inner[m] for m in others)}"
        stages.append(f"tensor:{modes[1:]}{inner[0]}{factors}->{out}")
    sizes = {m: (n, r) for m, n, r in zip(modes[1:], shape[1:], ranks[1:], strict=True)}
    return plan_stages(
        stages, {"tensor": (*shape[1:], ranks[0]), **sizes}, dtype=dtype, device=device
    )


def _sweep(
    x: Array, shrunk: Array, factors: Factors, ranks: tuple[int, ...]
) -> tuple[Factors, Array]:
    """Update every factor once, the first one last; return them and the core.

    `shrunk` is the tensor times the first factor, which serves all the other modes: two products
    with the whole tensor a sweep, and one in the first, where an HOSVD has made the other.
    """

    def update(k: int, y: Array, _: object) -> Array:
        y = y.reshape(y.shape[0], -1)
        return leading_left(y, ranks[k + 1], start=factors[k + 1])[0]

    names = letters(2 * x.ndim)
    names, inner = names[: x.ndim], names[x.ndim :]
    rest: Factors = ()
    seen = x
    if x.ndim > 1:
        made = _sweep_plan(x.shape, ranks, str(x.dtype), jax.default_backend())
        operands = dict(zip(names[1:], factors[1:], strict=True))
        swept = made.sweep({"tensor": shrunk, **operands}, update)
        rest = tuple(swept[name] for name in names[1:])
        pairs = ",".join(f"{m}{i}" for m, i in zip(names[1:], inner[1:], strict=True))
        seen = contract(f"{names},{pairs}->{names[0]}{inner[1:]}", x, *rest)
    seen = seen.reshape(x.shape[0], -1)
    first = leading_left(seen, ranks[0], start=factors[0])[0]
    core = contract("nr,np->rp", first, seen)
    return (first, *rest), core.reshape(ranks)


class _State(eqx.Module):
    factors: Factors
    core: Array
    squared: Float[Array, ""]  # relative error, squared; its rounding is a few eps
    history: Float[Array, " sweeps"]
    sweeps: Int[Array, ""]
    status: Status
    running: Array


@eqx.filter_jit
def _hooi(
    x: Array,
    start: Factors | None,
    ranks: tuple[int, ...],
    rtol: Array,
    max_sweeps: int,
    method: str,
    key: PRNGKeyArray | None,
) -> tuple[Decomposition[Tucker], Array]:
    # Also the norm of the tensor.
    # The derivative comes from the fixed point, not through the sweeps.
    fixed = jax.lax.stop_gradient(x)
    whole = norm(fixed)
    if start is None:
        tucker, _ = _st_hosvd(fixed, ranks, method, key)
        factors, core = tucker.factors, tucker.core
    else:
        factors = tuple(qr(u)[0] for u in jax.lax.stop_gradient(start))
        core = _project(fixed, factors)
    rounding = 32 * float(jnp.finfo(x.dtype).eps)

    def squared_error(core: Array) -> Array:
        share = norm(core) / whole
        return jnp.where(share < 1, (1 - share) * (1 + share), share * 0.0)

    made = _shrunk(fixed, factors[0])  # what the HOSVD has computed too

    def body(state: _State) -> _State:
        shrunk = jax.lax.cond(
            state.sweeps == 0, lambda: made, lambda: _shrunk(fixed, state.factors[0])
        )
        factors, core = _sweep(fixed, shrunk, state.factors, ranks)
        squared = squared_error(core)
        finite = jnp.isfinite(squared)
        # Twice the change of the error, relative to it, is the change of its square.
        done = state.squared - squared <= 2 * rtol * squared + rounding
        return _State(
            factors,
            core,
            squared,
            state.history.at[state.sweeps].set(jnp.sqrt(squared)),
            state.sweeps + 1,
            Status.where(
                finite,
                Status.where(done, Status.converged, Status.max_iterations),
                Status.non_finite,
            ),
            finite & ~done & (state.sweeps + 1 < max_sweeps),
        )

    state = jax.lax.while_loop(
        lambda s: s.running,
        body,
        _State(
            factors,
            core,
            squared_error(core),
            jnp.full(max_sweeps, jnp.nan, x.dtype),
            jnp.asarray(0, jnp.int32),
            Status.max_iterations,
            jnp.asarray(True),
        ),
    )
    tucker = _differentiable(x, state.core, state.factors)
    error = error_by_norms(x, tucker.core, lambda: _dense(tucker))
    return Decomposition(tucker, error, state.status, state.history, state.sweeps), whole


def _misfit(theta: Any, data: Any) -> Array:
    (core, columns), (x, whole, sizes) = theta, data
    factors = tuple(c / s[None, :] for c, s in zip(columns, sizes, strict=True))
    residual = x / whole - _dense(Tucker(core, factors))
    return 0.5 * jnp.sum(residual * residual)


def _differentiable(x: Array, core: Array, factors: Factors) -> Tucker:
    """Return the Tucker tensor with its derivative in `x`, factors staying orthonormal."""
    whole = jax.lax.stop_gradient(norm(x))
    sizes = []
    for k in range(core.ndim):
        # In these units every block of the Hessian has a diagonal near one.
        rows = jnp.moveaxis(core, k, 0).reshape(core.shape[k], -1)
        size = jnp.sqrt(jnp.sum(rows * rows, axis=1)) / whole
        least = float(jnp.finfo(x.dtype).eps) ** 0.5
        sizes.append(jnp.maximum(size, least * jnp.max(size)))
    sizes = jax.lax.stop_gradient(tuple(sizes))
    columns = tuple(u * s[None, :] for u, s in zip(factors, sizes, strict=True))
    core, columns = at_stationary_point(_misfit, (core / whole, columns), (x, whole, sizes))
    core = core * whole
    orthonormal = []
    for column, size in zip(columns, sizes, strict=True):
        q, r = _polar(column / size[None, :])
        core = contract("np,rn->pr", core.reshape(r.shape[1], -1), r)
        orthonormal.append(q)
    core = core.reshape(tuple(q.shape[1] for q in orthonormal))
    return Tucker(core, tuple(orthonormal))


def _polar(u: Array) -> tuple[Array, Array]:
    """Return the polar factors `u = q r` of columns that are orthonormal already.

    Only their derivative is not: series in `u.T @ u - 1`, which is rounding, give the first three
    derivatives exactly, and leave LAPACK's threads alone.
    """
    identity = jnp.eye(u.shape[1], dtype=u.dtype)
    e = contract("nr,ns->rs", u, u) - identity
    square = contract("rs,st->rt", e, e)
    cube = contract("rs,st->rt", square, e)
    inverse = identity - e / 2 + square * (3 / 8) - cube * (5 / 16)
    return contract("nr,rs->ns", u, inverse), identity + e / 2 - square / 8 + cube / 16
