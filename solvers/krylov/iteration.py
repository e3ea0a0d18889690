"""The loop of conjugate gradient, plain and flexible, one matrix product a trip.

A trip either steps along a direction p or, where `verify` is set, computes the true residual
b - A x, from which the iteration starts, restarts and is judged: so the loop holds the matrix and
the preconditioner once, which is what compiling it takes, and nothing is called converged on the
word of the recurrence. With many right-hand sides every column goes its own way.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..status import Status

RUNNING = -1
_ITEM: type = type(Status.converged)
_PRECISION = jax.lax.Precision.HIGHEST
_GAIN = 0.5  # a restart that leaves more of the residual than this has stalled


def code(status: Any) -> int:
    """Return the number that stands for an outcome inside the loop."""
    return int(status._value)


def outcome(number: Int[Array, "*many"]) -> Any:
    """Return the outcome a number stands for."""
    return _ITEM(number, Status)


class Window(eqx.Module):
    """The last directions, their images, and p.Ap of each (infinite where there is none)."""

    directions: Float[Array, "last n *many"]
    images: Float[Array, "last n *many"]
    curvatures: Float[Array, "last *many"]


class State(eqx.Module):
    """What a trip changes."""

    x: Float[Array, "n *many"]
    r: Float[Array, "n *many"]
    p: Float[Array, "n *many"]
    window: Window | None
    rho: Float[Array, "*many"]  # r.z
    size: Float[Array, "*many"]  # of p: p.Mp, by recurrence, or p.p in the flexible method
    largest: Float[Array, "*many"]  # |p.Ap| / size so far
    last: Float[Array, "*many"]  # the true residual's norm when last computed
    verify: Bool[Array, "*many"]
    code: Int[Array, "*many"]
    count: Int[Array, "*many"]
    history: Float[Array, "steps *many"]


def begin(
    b: Float[Array, "n *many"],
    x0: Float[Array, "n *many"],
    *,
    max_iterations: int,
    directions: int = 0,
) -> State:
    """Return the state before the first trip.

    Args:
        b: one right-hand side, or one a column.
        x0: where to start.
        max_iterations: steps at most.
        directions: 0 for the plain method; or how many of the last directions each new one is
            made A-orthogonal to, for preconditioners that are not linear or not symmetric.
    """
    many = b.shape[1:]
    scalar = jnp.zeros(many, b.dtype)
    window = None
    if directions:
        zeros = jnp.zeros((directions, *b.shape), b.dtype)
        window = Window(zeros, zeros, jnp.full((directions, *many), jnp.inf, b.dtype))
    return State(
        x=x0,
        r=jnp.zeros_like(b),
        p=jnp.zeros_like(b),
        window=window,
        rho=scalar,
        size=scalar + 1,
        largest=scalar,
        last=scalar + jnp.inf,
        verify=jnp.ones(many, bool),
        code=jnp.full(many, RUNNING, jnp.int32),
        count=jnp.zeros(many, jnp.int32),
        history=jnp.full((max_iterations + 1, *many), jnp.nan, b.dtype),
    )


def iterate(
    matvec: Callable[[Array], Array],
    apply: Callable[[Array, Array], Array],
    b: Float[Array, "n *many"],
    state: State,
    tolerance: Float[Array, "*many"],
    *,
    until: Any = None,
) -> State:
    """Solve A x = b.

    Args:
        matvec: the matrix.
        apply: the preconditioner, called with a residual and its norm.
        b: one right-hand side, or one a column.
        state: where to go on from: of `begin`, or of a pause.
        tolerance: the 2-norm of the true residual that counts as converged.
        until: pause once so many steps are taken, may be traced; not before the end when None.
    """

    def trip(state: State) -> State:
        state, stepped, restart = _step(matvec, b, state)
        norm = jnp.sqrt(dot(state.r, state.r))
        state = _judge(state, norm, stepped, restart, tolerance)
        z = apply(state.r, norm)
        return _turn(state, z, stepped, restart)

    def going(state: State) -> Array:
        running = state.code == RUNNING
        return jnp.any(running if until is None else running & (state.count < until))

    return jax.lax.while_loop(going, trip, state)


def _step(matvec: Callable[[Array], Array], b: Array, s: State) -> tuple[State, Array, Array]:
    """Take a step, or compute the true residual; tell which was done."""
    running = s.code == RUNNING
    restart = running & s.verify
    q = matvec(jnp.where(rows(s.verify, b), s.x, s.p))
    curvature = dot(s.p, q)
    quotient = curvature / s.size
    largest = jnp.maximum(s.largest, jnp.where(s.verify, 0, jnp.abs(quotient)))
    eps = jnp.finfo(b.dtype).eps
    alpha = (s.rho if s.window is None else dot(s.p, s.r)) / curvature
    stepping = running & ~s.verify
    number = s.code
    for failed, status in (
        (~jnp.isfinite(quotient), Status.non_finite),
        (quotient < -100 * eps * largest, Status.indefinite_matrix),
        (quotient <= eps * largest, Status.singular),
        (~jnp.isfinite(alpha), Status.non_finite),
    ):
        number = jnp.where(stepping & (number == RUNNING) & failed, code(status), number)
    stepped = stepping & (number == RUNNING)
    alpha = jnp.where(stepped, alpha, 0)
    window = s.window
    if window is not None:
        new = jnp.where(stepped, curvature, jnp.inf)
        directions = jnp.concatenate([s.p[None], window.directions[:-1]])
        images = jnp.concatenate([q[None], window.images[:-1]])
        old = jnp.where(restart[None], jnp.inf, window.curvatures[:-1])
        window = Window(directions, images, jnp.concatenate([new[None], old]))
    x = jnp.where(rows(stepped, b), s.x + rows(alpha, b) * s.p, s.x)
    r = jnp.where(rows(stepped, b), s.r - rows(alpha, b) * q, s.r)
    r = jnp.where(rows(restart, b), b - q, r)
    state = State(
        x,
        r,
        s.p,
        window,
        s.rho,
        s.size,
        largest,
        s.last,
        s.verify,
        number,
        s.count + stepped.astype(jnp.int32),
        s.history,
    )
    return state, stepped, restart


def _judge(s: State, norm: Array, stepped: Array, restart: Array, tolerance: Array) -> State:
    """Record the residual's norm and decide whether to go on, and whether to verify."""
    most = s.history.shape[0] - 1
    met = norm <= tolerance
    number = s.code
    for now, status in (
        ((stepped | restart) & ~jnp.isfinite(norm), Status.non_finite),
        (restart & met, Status.converged),
        (restart & (norm > _GAIN * s.last), Status.stagnation),
        ((stepped | restart) & ~met & (s.count >= most), Status.max_iterations),
    ):
        number = jnp.where((number == RUNNING) & now, code(status), number)
    history = s.history
    if norm.ndim:
        history = history.at[s.count, jnp.arange(norm.shape[0])].set(norm)
    else:
        history = history.at[s.count].set(norm)
    return eqx.tree_at(
        lambda s: (s.code, s.history, s.last, s.verify),
        s,
        (number, history, jnp.where(restart, norm, s.last), stepped & met),
    )


def _turn(s: State, z: Array, stepped: Array, restart: Array) -> State:
    """Make the next direction from the preconditioned residual."""
    rho = dot(s.r, z)
    going = (s.code == RUNNING) & ~s.verify
    if s.window is None:
        beta = jnp.where(stepped, rho / s.rho, 0)
        p = jnp.where(rows(restart, z), z, z + rows(beta, z) * s.p)
        size = rho + beta**2 * s.size
        failed = rho
    else:
        along = dot_each(s.window.images, z) / s.window.curvatures
        p = z
        for a, direction in zip(along, s.window.directions, strict=True):
            p = p - rows(a, z) * direction
        size = dot(p, p)
        failed = jnp.abs(dot(p, s.r))  # of either sign: the step's length has it too
    number = s.code
    for now, status in (
        (~jnp.isfinite(failed), Status.non_finite),
        (failed < 0, Status.indefinite_preconditioner),
        (failed == 0, Status.breakdown),
    ):
        number = jnp.where(going & (number == RUNNING) & now, code(status), number)
    return eqx.tree_at(lambda s: (s.p, s.rho, s.size, s.code), s, (p, rho, size, number))


def dot(a: Array, b: Array) -> Array:
    """Return the inner product, or those of the columns."""
    if a.ndim == 1:
        return jnp.vdot(a, b, precision=_PRECISION)
    return jnp.sum(a * b, axis=0)


def dot_each(a: Array, b: Array) -> Array:
    """Return the inner products of the entries of `a` with `b`."""
    return jax.vmap(dot, in_axes=(0, None))(a, b)


def rows(value: Array, like: Array) -> Array:
    """Return a value of each column as an array that meets `like` row by row."""
    return value[None] if like.ndim == 2 else value
