"""Truncation to a rank or to an error, and the error that it makes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..formats import Decomposition
from ..linalg import gram_floor, left_singular, rank_for
from ..planner import contract
from ..status import Status


class Budget:
    """The error that truncations may still make, on the host.

    Truncations by orthonormal bases make errors that are orthogonal to each other, so their
    squares add. Each takes at most an equal share of what is left.
    """

    def __init__(self, x: Array, rtol: float, steps: int) -> None:
        self.norm = float(_norm(x))
        eps = float(jnp.finfo(x.dtype).eps)
        # Rounding takes its part: of the sums, and of the products made later.
        self.left = max(rtol * (1 - eps**0.5) - 8 * eps, 0.0) ** 2 * self.norm**2
        self.steps = steps
        self.dropped = 0.0

    def truncate(self, x: Array, rows: int, most: int | None = None) -> tuple[Array, Array]:
        """Return an orthonormal basis `u` and `u.T @ a`, close enough to `a = x.reshape(rows, -1)`.

        `most` caps the rank, whatever the error; what that adds is not taken from the budget.
        """
        share = self.left / self.steps
        relative = share**0.5 / self.norm
        gram = relative >= gram_floor(x.dtype)
        u, values = _left(x, rows, gram)
        if gram:
            # The squares hold an error of less than eps of the largest.
            share -= float(jnp.finfo(x.dtype).eps) * self.norm**2
        s = np.asarray(values, np.float64)
        rank = rank_for(s, share**0.5)
        capped = most is not None and rank > most
        rank = most if capped else rank
        dropped = float(np.sum(s[rank:] ** 2))
        self.left -= 0.0 if capped else dropped
        self.dropped += dropped
        self.steps -= 1
        return _project(x, u, rank)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _left(x: Array, rows: int, gram: bool) -> tuple[Array, Array]:
    a = x.reshape(rows, -1)
    return left_singular(a, rtol=1.0 if gram else 0.0)


@functools.partial(jax.jit, static_argnums=2)
def _project(x: Array, u: Array, rank: int) -> tuple[Array, Array]:
    u = u[:, :rank]
    return u, contract("nr,np->rp", u, x.reshape(u.shape[0], -1))


def norm(x: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the Frobenius norm, with gradient 0 where it vanishes."""
    return _root(jnp.sum(x * x))


_norm = jax.jit(norm)


def _root(squared: Array) -> Array:
    # NaN stays; what rounding made negative is 0.
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0 * squared)


def projection_error(
    x: Float[Array, "..."],
    dropped: Float[Array, ""],
    dense: Callable[[], Array],
) -> Float[Array, ""]:
    """Return the relative error of an orthogonal projection of `x`.

    Args:
        x: the tensor.
        dropped: the squared norm of what was projected out.
        dense: makes the projection. It is called where rounding blurs `dropped`, which as a sum
            of squares of singular values holds an error of about eps of the whole.
    """
    whole = norm(x)
    share = dropped / whole / whole
    trusted = 1000 * float(jnp.finfo(x.dtype).eps)
    return jax.lax.cond(share > trusted, lambda: _root(share), lambda: norm(x - dense()) / whole)


def error_by_norms(
    x: Float[Array, "..."], kept: Float[Array, "..."], dense: Callable[[], Array]
) -> Float[Array, ""]:
    """Return the relative error of an orthogonal projection of `x` with coordinates `kept`.

    `dense` makes the projection; it is called where the difference of the norms is blurred.
    """
    whole = norm(x)
    share = norm(kept) / whole
    share = (1 - share) * (1 + share)
    # Sums over all entries round by more than eps; this leaves the error right to a percent.
    trusted = float(jnp.finfo(x.dtype).eps) ** 0.3
    return jax.lax.cond(share > trusted, lambda: _root(share), lambda: norm(x - dense()) / whole)


def squares(s: Float[Array, " k"], rank: int) -> Float[Array, ""]:
    """Return the sum of the squares of the singular values beyond `rank`."""
    return jnp.sum(s[rank:] ** 2)


def direct(tensor: Any, error: Float[Array, ""]) -> Decomposition:
    """Return what a method without iteration found."""
    status = Status.where(jnp.isfinite(error), Status.converged, Status.non_finite)
    sweeps: Int[Array, ""] = jnp.asarray(0, jnp.int32)
    return Decomposition(tensor, error, status, jnp.zeros(0, error.dtype), sweeps)
