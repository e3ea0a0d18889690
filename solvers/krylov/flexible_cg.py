"""Conjugate gradient for preconditioners that change from step to step."""

from typing import Any

from tensornet.validation import check_rank

from .solution import Solution
from .solve import solve


def flexible_cg(
    A: Any,
    b: Any,
    preconditioner: Any = None,
    *,
    directions: int = 2,
    x0: Any = None,
    rtol: Any = 1e-8,
    atol: Any = 0.0,
    max_iterations: Any = None,
    throw: bool = True,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A with any preconditioner.

    Each new direction is made A-orthogonal to the last ones (Notay 2000; with two of them the
    iteration of Kaneda et al. 2022), so the preconditioner may be nonlinear, not symmetric, or
    not positive: a network. All else is as in `pcg`.

    Args:
        A: as in `pcg`.
        b: as in `pcg`.
        preconditioner: a function of a residual, or what `pcg` takes.
        directions: how many of the last directions; each costs two vectors.
        x0: as in `pcg`.
        rtol: as in `pcg`.
        atol: as in `pcg`.
        max_iterations: as in `pcg`.
        throw: as in `pcg`.

    Raises:
        TypeError, ValueError, FloatingPointError: as in `pcg`.
    """
    directions = check_rank(directions, "directions")
    return solve(
        "flexible_cg", A, b, preconditioner, x0, rtol, atol, max_iterations, throw, directions
    )
