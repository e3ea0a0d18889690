"""Truncation to a rank or to an error, and the error that it makes."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
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
        self.norm = float(norm(x))
        eps = float(jnp.finfo(x.dtype).eps)
        # Rounding takes its part: of the sums, and of the products made later.
        self.left = max(rtol * (1 - eps**0.5) - 8 * eps, 0.0) ** 2 * self.norm**2
        self.steps = steps

    def truncate(self, a: Array, most: int | None = None) -> tuple[Array, Array]:
        """Return an orthonormal basis `u` and `u.T @ a`, close enough to `a`.

        `most` caps the rank, whatever the error; what that adds is not taken from the budget.
        """
        share = self.left / self.steps
        relative = (share**0.5) / self.norm
        u, s = _values(a, relative)
        if relative >= gram_floor(a.dtype):
            # The squares hold an error of less than eps of the largest.
            share -= float(jnp.finfo(a.dtype).eps) * self.norm**2
        rank = rank_for(s, share**0.5)
        rank, capped = (rank, False) if most is None else (min(rank, most), rank > most)
        if not capped:
            self.left -= float(jnp.sum(s[rank:] ** 2))
        self.steps -= 1
        return _project(a, u, rank)


def _share_of(rtol: float, dtype: Any) -> float:
    # Only the route depends on it, so that few functions are compiled.
    return 1.0 if rtol >= gram_floor(dtype) else 0.0


def _values(a: Array, rtol: float) -> tuple[Array, Array]:
    return _left(a, _share_of(rtol, a.dtype))


@eqx.filter_jit
def _left(a: Array, rtol: float) -> tuple[Array, Array]:
    return left_singular(a, rtol=rtol)


@functools.partial(jax.jit, static_argnums=2)
def _project(a: Array, u: Array, rank: int) -> tuple[Array, Array]:
    u = u[:, :rank]
    return u, contract("nr,np->rp", u, a)


def norm(x: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the Frobenius norm, with gradient 0 where it vanishes."""
    squared = jnp.sum(x * x)
    return _root(squared)


def _root(squared: Array) -> Array:
    positive = squared > 0
    root = jnp.sqrt(jnp.where(positive, squared, 1.0))
    return jnp.where(positive | jnp.isnan(squared), root, jnp.zeros_like(root))


def projection_error(
    x: Float[Array, "..."], kept: Float[Array, "..."], dense: Callable[[], Array]
) -> Float[Array, ""]:
    """Return the relative error of an orthogonal projection of `x`.

    Args:
        x: the tensor.
        kept: its coordinates in the orthonormal basis projected on.
        dense: makes the projection. It is called where the error is so small that the difference
            of the norms does not resolve it.
    """
    whole = norm(x)
    share = norm(kept) / whole
    squared = (1 - share) * (1 + share)
    resolved = squared > float(jnp.finfo(x.dtype).eps) ** 0.3
    return jax.lax.cond(resolved, lambda: _root(squared), lambda: norm(x - dense()) / whole)


def direct(tensor: Any, error: Float[Array, ""]) -> Decomposition:
    """Return what a method without iteration found."""
    status = Status.where(jnp.isfinite(error), Status.converged, Status.non_finite)
    sweeps: Int[Array, ""] = jnp.asarray(0, jnp.int32)
    return Decomposition(tensor, error, status, jnp.zeros(0, error.dtype), sweeps)
