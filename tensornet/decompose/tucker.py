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
from ..linalg import at_stationary_point, left_singular, qr, randomized_range
from ..planner import StagedPlan, contract, plan_stages
from ..status import Status
from ..validation import check_rank, check_ranks, check_truncation
from .border import check_change, check_data, check_eager, check_key, check_outcome
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
    x = check_data(x, "x")
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
    result = _hooi(x, start, ranks, jnp.asarray(rtol, x.dtype), max_sweeps, method, key)
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
            u = contract("nk,kr->nr", q, u[:, :rank])
        else:
            u, s = left_singular(a, rank=rank)
            u = u[:, :rank]
        dropped = dropped + squares(s, rank)
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


@functools.lru_cache(maxsize=128)
def _sweep_plan(
    shape: tuple[int, ...], ranks: tuple[int, ...], dtype: str, device: str
) -> StagedPlan:
    """Plan the projections of a tensor on all factors but one, that mode first."""
    modes = letters(2 * len(shape))
    modes, inner = modes[: len(shape)], modes[len(shape) :]
    stages = []
    for k, own in enumerate(modes):
        others = [m for m in range(len(shape)) if m != k]
        factors = ",".join(f"{modes[m]}:{modes[m]}{inner[m]}" for m in others)
        stages.append(f"tensor:{modes},{factors}->{own}{''.join(inner[m] for m in others)}")
    sizes = {"tensor": shape, **{m: (n, r) for m, n, r in zip(modes, shape, ranks, strict=True)}}
    return plan_stages(stages, sizes, dtype=dtype, device=device)


def _sweep(x: Array, factors: Factors, ranks: tuple[int, ...]) -> tuple[Factors, Array]:
    """Update every factor once, in order; return them and the core.

    Two products with the whole tensor a sweep, whatever the order (see `plan_stages`).
    """

    def update(k: int, y: Array, _: object) -> Array:
        nonlocal last
        last = y.reshape(y.shape[0], -1)
        return left_singular(last, rank=ranks[k])[0][:, : ranks[k]]

    last = x
    if x.ndim == 1:
        new = (update(0, x, None),)
    else:
        made = _sweep_plan(x.shape, ranks, str(x.dtype), jax.default_backend())
        names = letters(x.ndim)
        swept = made.sweep({"tensor": x, **dict(zip(names, factors, strict=True))}, update)
        new = tuple(swept[name] for name in names)
    core = contract("np,nr->pr", last, new[-1])
    return new, core.reshape(ranks)


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
) -> Decomposition[Tucker]:
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

    def body(state: _State) -> _State:
        factors, core = _sweep(fixed, state.factors, ranks)
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
    return Decomposition(tucker, error, state.status, state.history, state.sweeps)


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
        q, r = qr(column / size[None, :])
        core = contract("np,rn->pr", core.reshape(r.shape[1], -1), r)
        orthonormal.append(q)
    core = core.reshape(tuple(q.shape[1] for q in orthonormal))
    return Tucker(core, tuple(orthonormal))
