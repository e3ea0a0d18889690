"""Derivatives of a minimiser by the implicit function theorem, however it was found."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def at_stationary_point(
    objective: Callable[[Any, Any], Array],
    theta: PyTree,
    data: PyTree,
    precondition: Callable[[Any, Any], Callable[[Any], Any]] | None = None,
) -> PyTree:
    """Return `theta`, differentiable in `data` as the minimiser of `objective(theta, data)`.

    Call it on the result of an iteration that ran on `jax.lax.stop_gradient(data)`: the
    derivative then costs one linear solve, whatever the number of sweeps, in forward and in
    reverse mode. The tangent is `-H^+ d(grad objective)/d(data)` with `H` the Hessian in `theta`,
    applied without forming it.

    Where the objective does not change along some directions of `theta` (rescaled columns,
    rotated cores), `H` is singular. That is harmless as long as what is made of the result does
    not change along them either: fix the scale after this call, by differentiable operations.
    The solve is by conjugate residuals, best conditioned when `theta` is scaled so that `H` has
    a diagonal near one, or with a preconditioner.

    Args:
        objective: a smooth scalar function that closes over no traced value.
        theta: where its gradient in `theta` vanishes.
        data: what it depends on otherwise; floating arrays, with others carried along.
        precondition: gives, from `theta` and `data`, a symmetric positive semidefinite map that
            is close to the inverse of `H`.

    Returns:
        `theta` unchanged.
    """
    del objective, data, precondition
    return theta


@at_stationary_point.defjvp
def _tangent(
    objective: Callable, precondition: Callable | None, primals: tuple, tangents: tuple
) -> tuple[PyTree, PyTree]:
    theta, data = primals
    _, data_dot = tangents
    gradient = jax.grad(objective)

    def hessian(vector: PyTree) -> PyTree:
        return jax.jvp(lambda t: gradient(t, data), (theta,), (vector,))[1]

    _, cross = jax.jvp(lambda d: gradient(theta, d), (data,), (data_dot,))
    rhs = jax.tree.map(jnp.negative, cross)
    inverse = (lambda v: v) if precondition is None else precondition(theta, data)
    dot = jax.lax.custom_linear_solve(
        hessian, rhs, lambda matvec, b: _conjugate_residuals(matvec, b, inverse), symmetric=True
    )
    return theta, dot


def _inner(a: PyTree, b: PyTree) -> Array:
    products = [
        jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return functools.reduce(jnp.add, products)


def _conjugate_residuals(
    matvec: Callable[[PyTree], PyTree], rhs: PyTree, inverse: Callable[[PyTree], PyTree]
) -> PyTree:
    """Least-squares solution of a symmetric semidefinite system (Stiefel 1955).

    The residual never grows (in the norm of the preconditioner `inverse`), so a right-hand side
    that is not quite in the range does no harm, where conjugate gradients would diverge.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(rhs))
    limit = min(2 * size + 20, 2000)
    dtype = jax.tree.leaves(rhs)[0].dtype
    tolerance = float(jnp.finfo(dtype).eps) ** 1.5  # eps^(3/4) in the norm

    def axpy(scale: Array, x: PyTree, y: PyTree) -> PyTree:
        return jax.tree.map(lambda u, v: scale * u + v, x, y)

    # The residual is carried as `inverse` of it only.
    first = inverse(rhs)
    image = matvec(first)
    start = _inner(first, first)
    # <z, H z>: what is left of the residual's part that can still be reduced.
    curvature = _inner(first, image)
    zero = jax.tree.map(jnp.zeros_like, rhs)
    state = (zero, first, first, image, image, curvature, jnp.zeros((), jnp.int32))

    def unfinished(state: tuple) -> Array:
        _, residual, _, _, _, energy, step = state
        return (
            (step < limit)
            & (_inner(residual, residual) > tolerance * start)
            & (energy > tolerance * curvature)
        )

    def advance(state: tuple) -> tuple:
        x, residual, direction, image, applied, energy, step = state
        turned = inverse(applied)
        length = _inner(applied, turned)
        alpha = jnp.where(length > 0, energy / jnp.where(length > 0, length, 1.0), 0.0)
        x = axpy(alpha, direction, x)
        residual = axpy(-alpha, turned, residual)
        image = matvec(residual)
        energy_new = jnp.where(length > 0, _inner(residual, image), 0.0)
        beta = energy_new / energy
        direction = axpy(beta, direction, residual)
        applied = axpy(beta, applied, image)
        return x, residual, direction, image, applied, energy_new, step + 1

    return jax.lax.while_loop(unfinished, advance, state)[0]
