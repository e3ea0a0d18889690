"""Conjugate gradient with a preconditioner that stays the same."""

from typing import Any

from .solution import Solution
from .solve import solve


def pcg(
    A: Any,
    b: Any,
    preconditioner: Any = None,
    *,
    x0: Any = None,
    rtol: Any = 1e-8,
    atol: Any = 0.0,
    max_iterations: Any = None,
    throw: bool = True,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A (Hestenes and Stiefel 1952).

    Stops where the 2-norm of the residual, computed from x, is at most `max(rtol |b|, atol)`.
    Works under jit, vmap and grad; gradients in b and in A's values are those of the exact
    solution (by another solve), the preconditioner has none. A loop on the host around many
    solves is faster with this call inside a jitted function, where concrete checks fall away.

    Args:
        A: scipy sparse matrix, matrix of `solvers.sparse`, lineax operator, or a function of
            an array like `b`.
        b: right-hand side (n,), or one a column (n, m).
        preconditioner: one of `solvers.preconditioners`, a sparse matrix, a lineax operator or a
            function; symmetric positive definite. One in float32 is applied in float32.
        x0: first guess; the iteration starts from its best multiple.
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_iterations: steps at most; 10 n and 10 000 at most when left out.
        throw: raise where the iteration met NaN or infinity, if the values are concrete. Other
            outcomes are told by `status` alone.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: shapes that do not fit; or where values are concrete, NaN, a matrix that is
            not symmetric, has a diagonal entry that is not positive, or leaves constants free.
        FloatingPointError: NaN or infinity during the iteration, with `throw`.
    """
    return solve("pcg", A, b, preconditioner, x0, rtol, atol, max_iterations, throw, 0)
