"""Tensor-ring decompositions: by truncated SVDs, and by alternating least squares."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from ..formats import Decomposition, TensorRing
from ..formats.letters import letters
from ..linalg import at_stationary_point, left_singular, solve_gram
from ..planner import StagedPlan, contract, plan_stages
from ..status import Status
from ..validation import check_rank, check_ranks, check_truncation
from .border import check_change, check_data, check_eager, check_key, check_outcome
from .truncation import Budget, direct, norm, projection_error, squares

Cores = tuple[Array, ...]


def tr_svd(
    x: ArrayLike, *, rtol: float | None = None, max_rank: Any = None
) -> Decomposition[TensorRing]:
    """Decompose `x` as a tensor ring, by a sweep of truncated SVDs.

    The rank of the first SVD is split in the two that open and close the ring, as evenly as its
    divisors allow. Zhao et al., "Tensor ring decomposition", 2016.

    Args:
        x: the tensor of d modes, at least 2, float32 or float64.
        rtol: choose ranks such that the relative error is at most this (unless `max_rank` stops
            it). Not inside a trace, where ranks cannot depend on data.
        max_rank: without `rtol`, the ranks, cut to what the sweep can use: an integer, or one for
            each of the d cores, that before it. Works under jit, vmap and grad. With `rtol`, a
            cap.

    Raises:
        TypeError: arguments of a wrong type.
        ValueError: neither `rtol` nor `max_rank`, one of them out of its range, or data that is
            empty, all zeros or not finite.
    """
    x = check_data(x, "x", least=2)
    if rtol is None and max_rank is None:
        raise ValueError("rtol, max_rank: expected at least one of them, got neither")
    caps: tuple[int, ...] | None = None
    if max_rank is not None:
        caps = check_ranks(max_rank, [None] * x.ndim, "max_rank")
    if rtol is None and caps is not None:
        return _fixed(x, caps)
    rtol = check_truncation(rtol, x.dtype)
    check_eager(x, "rtol", "max_rank")

    budget = Budget(x, rtol, x.ndim - 1)
    u, rest = budget.truncate(x, x.shape[0], None if caps is None else caps[0] * caps[1])
    # With caps, the rank may have no divisors that keep them.
    limits = caps or (u.shape[1],) * x.ndim
    first, second = _split(u.shape[1], limits[0], limits[1])
    if first * second < u.shape[1]:
        budget.dropped += float(norm(rest[first * second :])) ** 2
    cores, rest = _open(u, rest, first, second)
    rank = second
    for n, cap in zip(x.shape[1:-1], limits[2:], strict=True):
        u, rest = budget.truncate(rest, rank * n, None if caps is None else cap)
        cores.append(u.reshape(rank, n, -1))
        rank = u.shape[1]
    cores.append(rest.reshape(rank, x.shape[-1], first))
    return _finish(x, tuple(cores), jnp.asarray(budget.dropped, x.dtype))


def tr_als(
    x: ArrayLike,
    rank: Any,
    *,
    key: PRNGKeyArray | None = None,
    init: str | TensorRing = "svd",
    rtol: float = 1e-8,
    max_sweeps: int = 500,
    throw: bool = True,
) -> Decomposition[TensorRing]:
    """Fit a tensor ring of given ranks by alternating least squares.

    Each core is the solution of its normal equations, whose matrix comes from the products of the
    other cores with themselves; the tensor is read twice a sweep, whatever its order. Compiled
    once. Works under jit, vmap and grad; the gradient is that of a minimum, by the implicit
    function theorem, so it is as good as the convergence.

    Args:
        x: the tensor of d modes, at least 2, float32 or float64.
        rank: an integer, or one for each of the d cores, that before it.
        key: for `init="random"`.
        init: "svd" (`tr_svd`, filled up with small numbers to the ranks), "random", or a tensor
            ring of this shape and rank.
        rtol: stop when a sweep lowers the error by less than this share of it.
        max_sweeps: stop after as many, with `status` saying so.
        throw: raise if the iteration met NaN or infinity, where its outcome is concrete.

    Raises:
        TypeError: arguments of a wrong type.
        ValueError: arguments out of range, or data that is empty, all zeros or not finite.
        FloatingPointError: NaN or infinity during the iteration, with `throw`.
    """
    x = check_data(x, "x", least=2)
    ranks = check_ranks(rank, [None] * x.ndim)
    for k, n in enumerate(x.shape):
        # Above this a core would have more entries than equations.
        after = ranks[(k + 1) % x.ndim]
        most = max(1, math.prod(x.shape) // n // after)
        why = f"the sizes of the other modes over the next rank {after}"
        check_rank(ranks[k], f"rank[{k}]", most=most, why=why)
    rtol = check_change(rtol)
    max_sweeps = check_rank(max_sweeps, "max_sweeps")
    if isinstance(init, TensorRing):
        if init.shape != x.shape or init.rank != ranks:
            raise ValueError(
                f"init: expected shape {x.shape} and rank {ranks}, got shape {init.shape} and "
                f"rank {init.rank}"
            )
        if init.dtype != x.dtype:
            raise TypeError(f"init: expected dtype {x.dtype} like x, got {init.dtype}")
    elif init not in ("svd", "random"):
        raise ValueError(f"init: expected 'svd', 'random' or a TensorRing, got {init!r}")
    elif init == "random":
        check_key(key, "init='random'")
    start = init.cores if isinstance(init, TensorRing) else init
    # The fixed key only fills up what the SVD leaves open.
    key = jax.random.key(0) if key is None else key
    result = _als(x, start, ranks, jnp.asarray(rtol, x.dtype), max_sweeps, key)
    check_outcome("tr_als", result.status, throw)
    return result


def _split(rank: int, first: int, second: int) -> tuple[int, int]:
    """Return the most even divisors, the smaller first, of `rank` or the largest below it."""
    for size in range(rank, 1, -1):
        divisors = [(a, size // a) for a in range(1, size + 1) if size % a == 0]
        pairs = [(a, b) for a, b in divisors if a <= first and b <= second]
        if pairs:
            return max(pairs, key=min)
    return 1, 1


def _open(u: Array, rest: Array, first: int, second: int) -> tuple[list[Array], Array]:
    """Return the first core, and the rest with the rank that closes the ring at its end."""
    n, size = u.shape[0], first * second
    core = u[:, :size].reshape(n, first, second).transpose(1, 0, 2)
    rest = rest[:size].reshape(first, -1)
    return [core], rest.T.reshape(second, -1, first)


@eqx.filter_jit
def _fixed(x: Array, caps: tuple[int, ...]) -> Decomposition[TensorRing]:
    cores, dropped = _svd_sweep(x, caps)
    return _finish(x, cores, dropped)


def _svd_sweep(x: Array, caps: tuple[int, ...]) -> tuple[Cores, Array]:
    a = x.reshape(x.shape[0], -1)
    first, second = _split(min(*a.shape, caps[0] * caps[1]), caps[0], caps[1])
    u, s = left_singular(a, rank=first * second)
    dropped = squares(s, first * second)
    u = u[:, : first * second]
    cores, rest = _open(u, contract("nr,np->rp", u, a), first, second)
    rank = second
    for n, cap in zip(x.shape[1:-1], caps[2:], strict=True):
        a = rest.reshape(rank * n, -1)
        new = min(cap, *a.shape)
        u, s = left_singular(a, rank=new)
        u, dropped = u[:, :new], dropped + squares(s, new)
        rest = contract("nr,np->rp", u, a)
        cores.append(u.reshape(rank, n, new))
        rank = new
    cores.append(rest.reshape(rank, x.shape[-1], first))
    return tuple(cores), dropped


@eqx.filter_jit
def _finish(x: Array, cores: Cores, dropped: Array) -> Decomposition[TensorRing]:
    ring = TensorRing(cores)
    return direct(ring, projection_error(x, dropped, ring.to_dense))


def _transfer(cores: Cores) -> Array:
    """Return the product of neighbouring cores with itself over all sizes.

    A matrix, from pairs of ranks before to pairs of ranks after.
    """
    matrices = [
        contract("anb,cnd->acbd", c, c).reshape(c.shape[0] ** 2, c.shape[2] ** 2) for c in cores
    ]
    return functools.reduce(lambda a, b: contract("ab,bc->ac", a, b), matrices)


def _gram(outside: Array, before: int, after: int) -> Array:
    """Return the matrix of a core's normal equations from the transfer of all other cores."""
    gram = outside.reshape(after, after, before, before).transpose(2, 0, 3, 1)
    gram = gram.reshape(before * after, before * after)
    return 0.5 * (gram + gram.T)


@functools.lru_cache(maxsize=128)
def _sweep_plans(
    shape: tuple[int, ...], ranks: tuple[int, ...], dtype: str, device: str
) -> tuple[StagedPlan, StagedPlan]:
    """Plan the right-hand sides of a sweep, and the transfers of all cores but one.

    The cores are named after their modes, and so are their transfers.
    """
    d = len(shape)
    every = letters(2 * d)
    modes, bonds = every[:d], every[d:] + every[d]
    sides, outsides = [], []
    for k, own in enumerate(modes):
        others = [m for m in range(d) if m != k]
        cores = ",".join(f"{modes[m]}:{bonds[m]}{modes[m]}{bonds[m + 1]}" for m in others)
        sides.append(f"tensor:{modes},{cores}->{own}{bonds[k]}{bonds[k + 1]}")
        transfers = ",".join(f"{modes[m]}:{bonds[m]}{bonds[m + 1]}" for m in others)
        outsides.append(f"{transfers}->{bonds[k + 1]}{bonds[k]}")
    after = (*ranks[1:], ranks[0])
    pairs = list(zip(modes, ranks, after, strict=True))
    operands = {"tensor": shape}
    operands.update({m: (a, n, b) for (m, a, b), n in zip(pairs, shape, strict=True)})
    products = plan_stages(sides, operands, dtype=dtype, device=device)
    squares = {m: (a * a, b * b) for m, a, b in pairs}
    return products, plan_stages(outsides, squares, dtype=dtype, device=device)


def _als_sweep(x: Array, cores: Cores) -> tuple[Cores, Array]:
    """Update every core once, in order.

    Two products with the whole tensor a sweep, whatever the order (see `plan_stages`).

    Returns:
        The cores and the squared residual norm, as a difference of large numbers.
    """
    modes = letters(x.ndim)
    ranks = tuple(core.shape[0] for core in cores)
    products, outsides = _sweep_plans(x.shape, ranks, str(x.dtype), jax.default_backend())
    now = {"tensor": x, **dict(zip(modes, cores, strict=True))}
    transfers = {m: _transfer((now[m],)) for m in modes}
    kept: dict[int, Array] = {}
    kept_outside: dict[int, Array] = {}
    squared = jnp.zeros((), x.dtype)
    for k, mode in enumerate(modes):
        before, n, after = now[mode].shape
        y, kept = products.run(k, now, kept)
        outside, kept_outside = outsides.run(k, transfers, kept_outside)
        gram = _gram(outside, before, after)
        rhs = y.reshape(n, -1)
        core = solve_gram(gram, rhs, now[mode].transpose(1, 0, 2).reshape(n, -1))
        fitted = contract("nr,rs->ns", core, gram)
        squared = jnp.sum(x * x) + jnp.sum(core * (fitted - 2 * rhs))
        now[mode] = core.reshape(n, before, after).transpose(1, 0, 2)
        transfers[mode] = _transfer((now[mode],))
    return tuple(now[m] for m in modes), squared


def _balance(cores: Cores) -> Cores:
    """Scale the cores to equal norms."""
    norms = [norm(c) for c in cores]
    alive = functools.reduce(jnp.minimum, norms) > 0
    safe = [jnp.where(alive, n, 1.0) for n in norms]
    mean = jnp.exp(functools.reduce(jnp.add, [jnp.log(n) for n in safe]) / len(cores))
    return tuple(c * (mean / n) for c, n in zip(cores, safe, strict=True))


def _start(x: Array, init: Any, ranks: tuple[int, ...], key: PRNGKeyArray) -> Cores:
    d = x.ndim
    shapes = [(ranks[k], x.shape[k], ranks[(k + 1) % d]) for k in range(d)]
    keys = jax.random.split(key, d)
    drawn = [jax.random.normal(k, s, x.dtype) for k, s in zip(keys, shapes, strict=True)]
    if isinstance(init, tuple):
        return init
    if init == "random":
        return tuple(drawn)
    cores = []
    for core, noise in zip(_balance(_svd_sweep(x, ranks)[0]), drawn, strict=True):
        # Small beside the core, but enough to leave the subspace of the SVD.
        noise = noise * (0.01 * norm(core) / math.sqrt(core.size))
        cores.append(noise.at[: core.shape[0], :, : core.shape[2]].set(core))
    return tuple(cores)


class _State(eqx.Module):
    cores: Cores
    error: Float[Array, ""]
    change: Float[Array, ""]
    history: Float[Array, " sweeps"]
    sweeps: Int[Array, ""]
    status: Status
    running: Array


@eqx.filter_jit
def _als(
    x: Array,
    init: Any,
    ranks: tuple[int, ...],
    rtol: Array,
    max_sweeps: int,
    key: PRNGKeyArray,
) -> Decomposition[TensorRing]:
    # The derivative comes from the fixed point, not through the sweeps.
    whole = norm(x)
    fixed = jax.lax.stop_gradient(x / whole)
    eps = float(jnp.finfo(x.dtype).eps)

    def body(state: _State) -> _State:
        cores, squared = _als_sweep(fixed, state.cores)
        cores = _balance(cores)
        resolved = squared > 1e4 * eps
        error = jax.lax.cond(
            resolved,
            lambda: jnp.sqrt(jnp.abs(squared)),
            lambda: norm(fixed - TensorRing(cores).to_dense()),
        )
        finite = jnp.isfinite(error)
        change = state.error - error
        rounding = jnp.where(resolved, 16 * eps / error, 4 * eps)
        done = change <= rtol * error + rounding
        # By the decay of the changes, a percent of the error could still go.
        slow = (change > rounding) & (change**2 > 0.01 * error * (state.change - change))
        stopped = Status.where(slow, Status.stagnated, Status.converged)
        return _State(
            cores,
            error,
            change,
            state.history.at[state.sweeps].set(error),
            state.sweeps + 1,
            Status.where(
                finite, Status.where(done, stopped, Status.max_iterations), Status.non_finite
            ),
            finite & ~done & (state.sweeps + 1 < max_sweeps),
        )

    infinite = jnp.asarray(jnp.inf, x.dtype)
    state = jax.lax.while_loop(
        lambda s: s.running,
        body,
        _State(
            jax.lax.stop_gradient(_balance(_start(fixed, init, ranks, key))),
            infinite,
            infinite,
            jnp.full(max_sweeps, jnp.nan, x.dtype),
            jnp.asarray(0, jnp.int32),
            Status.max_iterations,
            jnp.asarray(True),
        ),
    )
    cores = _differentiable(x / whole, state.cores)
    error = norm(x / whole - TensorRing(cores).to_dense())
    cores = (cores[0] * whole, *cores[1:])
    return Decomposition(TensorRing(cores), error, state.status, state.history, state.sweeps)


def _scaled_back(columns: Cores, roots: Cores, shapes: Any) -> Cores:
    cores = []
    for column, root, (before, n, after) in zip(columns, roots, shapes, strict=True):
        core = jax.scipy.linalg.solve_triangular(root, column, trans=1, lower=True)
        cores.append(core.reshape(before, after, n).transpose(0, 2, 1))
    return tuple(cores)


def _differentiable(x: Array, cores: Cores) -> Cores:
    """Return the cores with their derivative in `x`."""
    # In these coordinates each core's own block of the Hessian is near the identity.
    roots, columns = [], []
    for k, core in enumerate(cores):
        before, _, after = core.shape
        gram = _gram(_transfer((*cores[k + 1 :], *cores[:k])), before, after)
        ridge = float(jnp.finfo(x.dtype).eps) ** 0.5 * jnp.trace(gram)
        ridge = jnp.where(ridge > 0, ridge, 1.0)
        root = jnp.linalg.cholesky(gram + ridge * jnp.eye(before * after, dtype=x.dtype))
        roots.append(root)
        columns.append(contract("rs,rn->sn", root, core.transpose(0, 2, 1).reshape(-1, x.shape[k])))
    roots = jax.lax.stop_gradient(tuple(roots))
    columns = at_stationary_point(
        functools.partial(_misfit, tuple(c.shape for c in cores)), tuple(columns), (x, roots)
    )
    return _scaled_back(columns, roots, tuple(c.shape for c in cores))


def _misfit(shapes: tuple[tuple[int, ...], ...], columns: Cores, data: Any) -> Array:
    x, roots = data
    residual = x - TensorRing(_scaled_back(columns, roots, shapes)).to_dense()
    return 0.5 * jnp.sum(residual * residual)
