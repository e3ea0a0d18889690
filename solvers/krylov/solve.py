"""From checked arguments to a solution: one compiled program, differentiated implicitly."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from tensornet.validation import as_real, check_finite, is_traced

from ..status import Status
from . import guard
from .border import (
    as_function,
    check_preconditioner,
    check_system,
    check_tolerances,
)
from .iteration import code, dot, outcome, rows
from .solution import Solution


def solve(
    function: str,
    A: Any,
    b: Any,
    preconditioner: Any,
    x0: Any,
    rtol: Any,
    atol: Any,
    max_iterations: Any,
    throw: bool,
    directions: int,
) -> Solution:
    """Check the arguments, solve, and raise for NaN where `throw` says so."""
    A, b = check_system(A, b)
    most = check_tolerances(rtol, atol, max_iterations, b.shape[0])
    preconditioner = check_preconditioner(preconditioner, b)
    if x0 is not None:
        x0 = as_real(x0, "x0").astype(b.dtype)
        check_finite(x0, "x0")
        if x0.shape != b.shape:
            raise ValueError(f"x0: expected the shape of b, {b.shape}, got {x0.shape}")
    tolerances = jnp.asarray([rtol, atol], b.dtype)
    solution = compiled(A, preconditioner, b, x0, tolerances, most, directions)
    number = solution.status._value
    if throw and not is_traced(number) and bool(jnp.any(number == code(Status.non_finite))):
        raise FloatingPointError(f"{function}: {Status[Status.non_finite]}")
    return solution


@eqx.filter_jit
def compiled(
    A: Any,
    preconditioner: Any,
    b: Array,
    x0: Array | None,
    tolerances: Array,
    max_iterations: int,
    directions: int,
) -> Solution:
    """Solve; gradients in b and in the matrix's values are those of the exact solution."""
    matvec = as_function(A, b)

    def run(matvec: Any, b: Array) -> tuple[Array, Any]:
        start = jnp.zeros_like(b)
        if x0 is not None:
            # Its best multiple: as good a start as zero for right-hand sides of derivatives.
            length = dot(x0, matvec(x0))
            share = jnp.where(length > 0, dot(x0, b) / jnp.where(length > 0, length, 1), 0)
            start = rows(share, b) * x0
        tolerance = jnp.maximum(tolerances[0] * jnp.sqrt(dot(b, b)), tolerances[1])
        state, fallback = guard.run(
            matvec,
            preconditioner,
            b,
            start,
            tolerance,
            max_iterations=max_iterations,
            directions=directions,
        )
        return state.x, (state.code, state.count, state.history, fallback)

    value, (number, count, history, fallback) = jax.lax.custom_linear_solve(
        matvec, b, run, symmetric=True, has_aux=True
    )
    return Solution(value, outcome(number), count, history, fallback)
