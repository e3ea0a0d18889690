"""Levenberg-Marquardt for the CP format, with a ridge that falls as the error does.

Alternating least squares slows down long before the ranks at which coupling tensors become exact,
and below them its components grow without end, cancelling one another. Here all factors move at
once, and a ridge on them, in proportion to the squared error left, holds their size until it is of
use to let them grow. Where the rank suffices the error vanishes quadratically, and the ridge with
it. Damped Gauss-Newton steps from conjugate gradients on products with the Gram matrices: Sorber,
Van Barel and De Lathauwer, "Optimization-based algorithms for tensor decompositions", 2013.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float64

from tensornet import contract

# Rank first: [rank, size] for each mode.
Factors = tuple[np.ndarray, np.ndarray, np.ndarray]

# The ridge over the squared relative error: how much growth of the components a gain is worth.
# One after the other, each until its progress ends.
RIDGES = (0.1, 0.01, 1e-3)
_FIRST_RIDGE = 1e-3
# Norms of the components over that of the tensor, beyond which no iterate is kept: evaluated in
# float32, components that cancel to one part in a hundred lose two of seven digits.
_LARGEST_AMPLIFICATION = 100.0

_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 0.1, 1e-15, 1e6
_INNER_STEPS = 100
_INNER_REDUCTION = 1e-2  # of the energy that conjugate gradients leave
_SLOW, _PATIENCE = 1e-4, 3  # progress has ended after so many steps that gain less than this
_EXACT = 1e-15


class Fit(NamedTuple):
    """Factors and the relative Frobenius error they leave."""

    factors: Factors
    error: float


def fitted(factors: Factors) -> np.ndarray:
    """Return the tensor of three modes that the factors stand for."""
    left, middle, last = factors
    pairs = left[:, :, None] * middle[:, None, :]
    flat = pairs.reshape(len(pairs), -1).T @ last
    return flat.reshape(left.shape[1], middle.shape[1], last.shape[1])


def amplification(tensor: np.ndarray, factors: Factors) -> float:
    """Return the sum of the norms of the components over that of the tensor."""
    return float(_component_norms(factors).sum() / np.linalg.norm(tensor))


def _component_norms(factors: Sequence[np.ndarray]) -> np.ndarray:
    return np.prod([np.linalg.norm(f, axis=1) for f in factors], axis=0)


def refine(
    tensor: Float64[np.ndarray, "m n k"],
    factors: Factors,
    *,
    ridges: Sequence[float] = RIDGES,
    steps: int = 200,
    target: float = _EXACT,
    capacity: int = 0,
) -> Fit:
    """Lower the error of a CP tensor from where its factors stand.

    Args:
        tensor: not zero.
        factors: where to start.
        ridges: over the squared relative error, in descending order.
        steps: the most to take.
        target: stop at this relative error.
        capacity: rank that the step is compiled for; that of the factors if it is larger.

    Returns:
        The iterate of least error among those whose components do not cancel too far, or the last
        one if all do.
    """
    norm = float(np.linalg.norm(tensor))
    rank = len(factors[0])
    cuts = tuple(int(n) for n in np.cumsum(tensor.shape)[:-1])
    x = np.concatenate([f / np.cbrt(norm) for f in factors], axis=1)
    x = np.pad(_balanced(x, cuts), ((0, max(capacity - rank, 0)), (0, 0)))
    best = None
    ridges = list(ridges)
    damping, growth, slow = _FIRST_DAMPING, 2.0, 0
    with on_the_host():
        problem = jnp.asarray(tensor / norm)
        residual = _residual(problem, x, cuts)
        squared = float(jnp.sum(residual * residual))
        ridge = min(_FIRST_RIDGE, ridges[0] * squared)
        for _ in range(steps):
            trial = _step(problem, jnp.asarray(x), residual, ridge, damping, cuts)
            new, new_squared = np.asarray(trial.x), float(trial.squared)
            cost = squared + ridge * _energy(x)
            gain = cost - (new_squared + ridge * _energy(new))
            if gain > 0:
                x, residual, squared = _balanced(new, cuts), trial.residual, new_squared
                trust = min(gain / float(trial.predicted), 1.0)
                damping = max(damping * max(1 / 3, 1 - (2 * trust - 1) ** 3), _LEAST_DAMPING)
                growth = 2.0
                ridge = min(ridge, ridges[0] * squared)
                slow = slow + 1 if gain < _SLOW * cost else 0
                if _component_norms(np.split(x, cuts, axis=1)).sum() <= _LARGEST_AMPLIFICATION:
                    if best is None or squared < best[1]:
                        best = x, squared
                elif best is not None:
                    break
            else:
                damping *= growth
                growth *= 2
            if squared <= target**2:
                break
            if slow == _PATIENCE or damping > _MOST_DAMPING:
                ridges.pop(0)
                if not ridges:
                    break
                ridge = ridges[0] * squared
                damping, growth, slow = min(damping, _FIRST_DAMPING), 2.0, 0
    if best is not None:
        x, squared = best
    left, middle, last = np.split(np.cbrt(norm) * x[:rank], cuts, axis=1)
    return Fit((left, middle, last), float(np.sqrt(squared)))


@contextlib.contextmanager
def on_the_host() -> Iterator[None]:
    """Compute in float64 at once, also inside a trace; on a CPU, if jax sees one."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.ensure_compile_time_eval())
        stack.enter_context(jax.enable_x64(True))
        with contextlib.suppress(RuntimeError):  # there is no CPU among the platforms
            stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        yield


class _Trial(NamedTuple):
    x: Array
    residual: Array
    squared: Array
    predicted: Array  # by how much the step should lower twice the cost


def _parts(x: Array, cuts: tuple[int, ...]) -> list[Array]:
    return jnp.split(x, np.asarray(cuts), axis=1)


@functools.partial(jax.jit, static_argnames="cuts")
def _residual(tensor: Array, x: Array, cuts: tuple[int, ...]) -> Array:
    return tensor - contract("ri,rj,rk->ijk", *_parts(x, cuts))


@functools.partial(jax.jit, static_argnames="cuts")
def _step(
    tensor: Array,
    x: Array,
    residual: Array,
    ridge: ArrayLike,
    damping: ArrayLike,
    cuts: tuple[int, ...],
) -> _Trial:
    """Take a damped Gauss-Newton step.

    Factors lie side by side in one array `[rank, m + n + k]`.
    """
    factors = _parts(x, cuts)
    grams = [contract("ri,si->rs", f, f) for f in factors]
    weights = [grams[1] * grams[2], grams[0] * grams[2], grams[0] * grams[1]]
    shift = jnp.asarray(ridge + damping, x.dtype)
    identity = jnp.eye(len(x), dtype=x.dtype)
    inverses = [jnp.linalg.inv(w + shift * identity) for w in weights]

    def precondition(v: Array) -> Array:
        blocks = zip(inverses, _parts(v, cuts), strict=True)
        return jnp.concatenate([contract("rs,si->ri", m, p) for m, p in blocks], axis=1)

    def curvature(v: Array) -> Array:
        parts = _parts(v, cuts)
        cross = [contract("ri,si->rs", f, p) for f, p in zip(factors, parts, strict=True)]
        blocks = [
            contract("rs,si->ri", weights[k], parts[k])
            + contract("rs,si->ri", grams[j] * cross[i] + grams[i] * cross[j], factors[k])
            for k, i, j in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
        ]
        return jnp.concatenate(blocks, axis=1) + shift * v

    left, middle, last = factors
    correlations = [
        contract("ijk,rj,rk->ri", residual, middle, last),
        contract("ijk,ri,rk->rj", residual, left, last),
        contract("ijk,ri,rj->rk", residual, left, middle),
    ]
    downhill = jnp.concatenate(correlations, axis=1) - ridge * x
    step = _conjugate_gradients(curvature, precondition, downhill)
    new = x + step
    missing = _residual(tensor, new, cuts)
    predicted = jnp.sum(step * downhill) + damping * jnp.sum(step * step)
    return _Trial(new, missing, jnp.sum(missing * missing), predicted)


def _conjugate_gradients(curvature: Callable, precondition: Callable, right: Array) -> Array:
    first = precondition(right)
    energy = jnp.sum(right * first)

    def going(state: Any) -> Array:
        count, *_, left = state
        return (count < _INNER_STEPS) & (left > _INNER_REDUCTION * energy)

    def onward(state: Any) -> Any:
        count, x, rest, direction, before = state
        product = curvature(direction)
        length = before / jnp.sum(direction * product)
        rest = rest - length * product
        image = precondition(rest)
        left = jnp.sum(rest * image)
        return count + 1, x + length * direction, rest, image + left / before * direction, left

    start = (jnp.asarray(0), jnp.zeros_like(right), right, first, energy)
    return jax.lax.while_loop(going, onward, start)[1]


def _balanced(x: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    """Give each component the same norm in all modes; one that vanished becomes zero."""
    parts = np.split(x, cuts, axis=1)
    norms = np.stack([np.linalg.norm(p, axis=1) for p in parts])
    alive = norms.min(axis=0) > 0
    safe = np.where(alive, norms, 1.0)
    scales = np.where(alive, np.exp(np.log(safe).mean(axis=0)), 0.0) / safe
    return np.concatenate([p * s[:, None] for p, s in zip(parts, scales, strict=True)], axis=1)


def _energy(x: np.ndarray) -> float:
    return float(np.vdot(x, x))
