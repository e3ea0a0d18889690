"""Derivatives of a minimiser by the implicit function theorem, however it was found."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_stationary_point(
    objective: Callable[[Any, Any], Array], theta: PyTree, data: PyTree
) -> PyTree:
    """Return `theta`, differentiable in `data` as the minimiser of `objective(theta, data)`.

    Call it on the result of an iteration that ran on `jax.lax.stop_gradient(data)`: the
    derivative then costs one linear solve, whatever the number of sweeps, in forward and in
    reverse mode. The tangent is `-H^+ d(grad objective)/d(data)` with `H` the Hessian in `theta`,
    applied without forming it.

    Where the objective does not change along some directions of `theta` (rescaled columns,
    rotated cores), `H` is singular. That is harmless as long as what is made of the result does
    not change along them either: fix the scale after this call, by differentiable operations.
    The solve is best conditioned when `theta` is scaled so that `H` has a diagonal near one.

    Args:
        objective: a smooth scalar function that closes over no traced value.
        theta: where its gradient in `theta` vanishes.
        data: what it depends on otherwise; floating arrays, with others carried along.

    Returns:
        `theta` unchanged.
    """
    del objective, data
    return theta


@at_stationary_point.defjvp
def _tangent(objective: Callable, primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    theta, data = primals
    _, data_dot = tangents
    gradient = jax.grad(objective)

    def hessian(vector: PyTree) -> PyTree:
        return jax.jvp(lambda t: gradient(t, data), (theta,), (vector,))[1]

    _, cross = jax.jvp(lambda d: gradient(theta, d), (data,), (data_dot,))
    rhs = jax.tree.map(jnp.negative, cross)
    dot = jax.lax.custom_linear_solve(
        hessian, rhs, lambda matvec, b: _conjugate_residuals(matvec, b), symmetric=True
    )
    return theta, dot


def _inner(a: PyTree, b: PyTree) -> Array:
    products = [
        jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return functools.reduce(jnp.add, products)


def _conjugate_residuals(matvec: Callable[[PyTree], PyTree], rhs: PyTree) -> PyTree:
    """Least-squares solution of a symmetric semidefinite system (Stiefel 1955).

    The residual never grows, so a right-hand side that is not quite in the range does no harm,
    where conjugate gradients would diverge.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(rhs))
    limit = min(2 * size + 20, 2000)
    dtype = jax.tree.leaves(rhs)[0].dtype
    tolerance = float(jnp.finfo(dtype).eps) ** 1.5  # eps^(3/4) in the norm

    def axpy(scale: Array, x: PyTree, y: PyTree) -> PyTree:
        return jax.tree.map(lambda u, v: scale * u + v, x, y)

    zero = jax.tree.map(jnp.zeros_like, rhs)
    image = matvec(rhs)
    start = _inner(rhs, rhs)
    # Against ||b||^2 <b, A b>: what is left of the residual's part that A can still reduce.
    curvature = _inner(rhs, image)
    state = (zero, rhs, rhs, image, image, curvature, jnp.zeros((), jnp.int32))

    def unfinished(state: tuple) -> Array:
        _, residual, _, _, _, energy, step = state
        return (
            (step < limit)
            & (_inner(residual, residual) > tolerance * start)
            & (energy > tolerance * curvature)
        )

    def advance(state: tuple) -> tuple:
        x, residual, direction, image, applied, energy, step = state
        alpha = energy / _inner(applied, applied)
        x = axpy(alpha, direction, x)
        residual = axpy(-alpha, applied, residual)
        image = matvec(residual)
        energy_new = _inner(residual, image)
        beta = energy_new / energy
        direction = axpy(beta, direction, residual)
        applied = axpy(beta, applied, image)
        return x, residual, direction, image, applied, energy_new, step + 1

    return jax.lax.while_loop(unfinished, advance, state)[0]
