"""A preconditioner that promises nothing is tried beside Jacobi, and watched.

Jacobi takes the first steps, then the other one takes as many from the same start, and the better
of the two goes on from where it stands: a trial costs the steps of the loser and nothing else. All
of it is one loop around the iteration, so that the matrix and the preconditioner are compiled once.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..status import Status
from .border import as_preconditioner, in_precision
from .iteration import RUNNING, State, begin, code, dot, iterate

STEPS = 8  # of the trial: with the first residual so many products and one more
LARGE = 30_000  # unknowns from which on a trial is spared
QUICK = (
    60  # where Jacobi seems to need no more steps than this, of which a trial is too large a part
)
_JACOBI, _OTHER, _CHOSEN, _END = range(4)


class Turn(eqx.Module):
    """Both iterations, and whose turn it is."""

    phase: Int[Array, ""]
    jacobi: State
    other: State
    fallback: Bool[Array, ""]


def run(
    matvec: Callable[[Array], Array],
    preconditioner: Any,
    b: Float[Array, "n *many"],
    x0: Float[Array, "n *many"],
    tolerance: Float[Array, "*many"],
    *,
    max_iterations: int,
    directions: int = 0,
) -> tuple[State, Bool[Array, ""]]:
    """Solve A x = b, by Jacobi where a guarded preconditioner is not worth its cost.

    Not worth its cost is one that is not positive or not finite, at first or later on; that after
    `STEPS` steps has more left of the residual or of the error in the energy norm, for most of the
    right-hand sides; or, with `LARGE` systems, any where Jacobi needs few steps.

    Returns:
        The last state, and whether Jacobi reached it.
    """
    trusted = as_preconditioner(preconditioner, b)
    start = begin(b, x0, max_iterations=max_iterations, directions=directions)
    if not getattr(preconditioner, "guarded", False):
        return iterate(matvec, trusted, b, start, tolerance), jnp.zeros((), bool)
    jacobi = in_precision(preconditioner.fallback, preconditioner.dtype)

    def advance(turn: Turn) -> Turn:
        by_jacobi = jnp.where(turn.phase == _CHOSEN, turn.fallback, turn.phase == _JACOBI)
        before = jax.tree.map(functools.partial(jnp.where, by_jacobi), turn.jacobi, turn.other)
        until = jnp.where(turn.phase == _CHOSEN, max_iterations + 1, STEPS)
        apply = functools.partial(jax.lax.cond, by_jacobi, jacobi, trusted)
        state = iterate(matvec, apply, b, before, tolerance, until=until)
        one = jax.tree.map(functools.partial(jnp.where, by_jacobi), state, turn.jacobi)
        other = jax.tree.map(functools.partial(jnp.where, by_jacobi), turn.other, state)
        settled = _settled(one, tolerance)
        broken = (turn.phase == _CHOSEN) & ~turn.fallback & jnp.any(_failed(other))
        fallback = jnp.where(turn.phase == _JACOBI, settled, turn.fallback | broken)
        fallback = jnp.where(turn.phase == _OTHER, _loses(b, other, one), fallback)
        following = jnp.where((turn.phase == _JACOBI) & settled, _CHOSEN, turn.phase + 1)
        following = jnp.where(broken, _CHOSEN, following)
        one = jax.tree.map(functools.partial(jnp.where, broken), _again(other, one), one)
        return Turn(following, one, other, fallback)

    turn = Turn(jnp.int32(_JACOBI), start, start, jnp.zeros((), bool))
    turn = jax.lax.while_loop(lambda turn: turn.phase != _END, advance, turn)
    choose = functools.partial(jnp.where, turn.fallback)
    return jax.tree.map(choose, turn.jacobi, turn.other), turn.fallback


def _settled(jacobi: State, tolerance: Array) -> Bool[Array, ""]:
    """Tell whether Jacobi has ended, or is so fast that a large system is best left to it."""
    going = (jacobi.code == RUNNING) | (jacobi.code == code(Status.max_iterations))
    if jacobi.x.shape[0] >= LARGE and jacobi.history.shape[0] > STEPS:
        first, last = jacobi.history[0], jacobi.history[STEPS]
        going = going & ~(last < first * (tolerance / first) ** (STEPS / QUICK))
    return ~jnp.any(going)


def _loses(b: Array, other: State, jacobi: State) -> Bool[Array, ""]:
    """Tell whether a preconditioner is worse than Jacobi after the same number of steps."""
    energy, least = (dot(b + s.r, s.x) for s in (other, jacobi))  # falls by twice this from x = 0
    rest, most = (dot(s.r, s.r) for s in (other, jacobi))
    worse = ~((energy >= least) & (rest <= most))
    return jnp.any(_failed(other)) | (jnp.mean(worse) > 0.5)


def _failed(state: State) -> Bool[Array, "*many"]:
    """Tell where a preconditioner, or else the matrix, broke the iteration."""
    fine = (RUNNING, code(Status.converged), code(Status.max_iterations), code(Status.stagnation))
    return ~jnp.isin(state.code, jnp.asarray(fine, state.code.dtype))


def _again(broken: State, jacobi: State) -> State:
    """Return the start of a new iteration at the last iterate of a broken one."""
    finite = jnp.all(jnp.isfinite(broken.x))
    running = jnp.full_like(broken.code, RUNNING)
    return eqx.tree_at(
        lambda s: (s.x, s.code, s.verify, s.last, s.largest),
        broken,
        (
            jnp.where(finite, broken.x, jacobi.x),
            running,
            jnp.ones_like(broken.verify),
            jnp.full_like(broken.last, jnp.inf),
            jnp.zeros_like(broken.largest),
        ),
    )
