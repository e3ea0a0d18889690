"""What a solve checks of its arguments, and how it makes operators of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import scipy.sparse
from jaxtyping import Array

from tensornet.validation import as_real, check_finite, is_traced

from ..sparse import SparseMatrix, as_matrix
from ..sparse.definite import check_definite


def check_system(A: Any, b: Any) -> tuple[Any, Array]:
    """Return the matrix (ours, a lineax operator, or a callable) and the right-hand side.

    Raises:
        TypeError: something else.
        ValueError: shapes that do not fit; or where values are concrete, NaN, a matrix that is
            not symmetric or has a diagonal entry that is not positive, or a matrix without a
            fixed constant for a right-hand side it does not reach.
    """
    b = as_real(b, "b")
    if b.ndim not in (1, 2) or 0 in b.shape:
        raise ValueError(f"b: expected shape (n,) or (n, m) without an empty axis, got {b.shape}")
    check_finite(b, "b")
    if scipy.sparse.issparse(A):
        A = as_matrix(A)
    if isinstance(A, SparseMatrix):
        rows, columns = A.shape
        if rows != columns:
            raise ValueError(f"A: expected a square matrix, got {rows} x {columns}")
        if A.dtype != b.dtype:
            A = A.astype(b.dtype)
    elif isinstance(A, lx.AbstractLinearOperator):
        rows = _lineax_size(A)
    elif callable(A):
        rows = b.shape[0]
        found = jax.eval_shape(A, b)
        if found.shape != b.shape or found.dtype != b.dtype:
            raise ValueError(
                f"A: expected a function that keeps {b.dtype}{b.shape}, got one that returns "
                f"{found.dtype}{found.shape}"
            )
    else:
        raise TypeError(
            "A: expected a scipy sparse matrix, a matrix of solvers.sparse, a lineax operator or "
            f"a callable, got {type(A).__name__}"
        )
    if b.shape[0] != rows:
        raise ValueError(f"b: expected {rows} rows, as many as A has, got shape {b.shape}")
    if isinstance(A, SparseMatrix) and not is_traced(A, b):
        check_definite(A, np.asarray(b))
    return A, b


def as_function(A: Any, like: Array) -> Callable[[Array], Array]:
    """Return the product of a checked matrix with arrays of the shape of `like`."""
    if isinstance(A, SparseMatrix):
        return A.mv
    if isinstance(A, lx.AbstractLinearOperator):
        return A.mv if like.ndim == 1 else columnwise(A, A.mv)
    return A


def columnwise(A: Any, matvec: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return the product of a checked matrix with each column of an array."""
    return matvec if isinstance(A, SparseMatrix) else jax.vmap(matvec, in_axes=1, out_axes=1)


def as_preconditioner(M: Any, b: Array) -> Callable[[Array, Array], Array]:
    """Return what applies a preconditioner, in its own precision, to a residual of known norm."""
    if M is None:
        return lambda r, _: r
    function = getattr(M, "apply", None)
    if function is None:
        function = as_function(M, b)
    return in_precision(function, getattr(M, "dtype", b.dtype))


def in_precision(function: Any, dtype: Any) -> Callable[[Array, Array], Array]:
    """Return a function of a residual and its norm that works in another precision."""

    def apply(r: Array, norm: Array) -> Array:
        if dtype == r.dtype:
            return function(r)
        # In a shorter range of numbers the residual could vanish.
        scale = jnp.where(norm > 0, norm, 1)
        scale = scale[None] if r.ndim == 2 else scale
        return function((r / scale).astype(dtype)).astype(r.dtype) * scale

    return apply


def check_preconditioner(M: Any, b: Array) -> Any:
    """Return a preconditioner that can be applied: ours, a matrix, lineax's, or a callable.

    Raises:
        TypeError: something else.
        ValueError: a matrix or a preconditioner of another size.
    """
    if scipy.sparse.issparse(M):
        M = as_matrix(M).astype(b.dtype)
    size = None
    if isinstance(M, lx.AbstractLinearOperator):
        size = _lineax_size(M)
    elif hasattr(M, "shape"):
        size = M.shape[0]
    known = M is None or hasattr(M, "apply") or callable(M) or size is not None
    if not known or isinstance(M, (np.ndarray, jax.Array)):
        raise TypeError(
            "preconditioner: expected one of solvers.preconditioners, a sparse matrix, a lineax "
            f"operator or a callable, got {type(M).__name__}"
        )
    if size is not None and size != b.shape[0]:
        raise ValueError(f"preconditioner: expected {b.shape[0]} rows, got {size}")
    return M


def check_tolerances(rtol: Any, atol: Any, max_iterations: Any, size: int) -> int:
    """Return the largest number of iterations; 10 n and 10 000 at most when left out.

    Raises:
        TypeError: not numbers.
        ValueError: negative, or no tolerance at all.
    """
    for name, value in {"rtol": rtol, "atol": atol}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
            raise TypeError(f"{name}: expected a number, got {value!r} ({type(value).__name__})")
        if not value >= 0:
            raise ValueError(f"{name}: expected at least 0, got {value}")
    if rtol == 0 and atol == 0:
        raise ValueError("rtol, atol: expected one of them above 0, got neither")
    if max_iterations is None:
        return min(10 * size, 10_000)
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, (int, np.integer)):
        raise TypeError(f"max_iterations: expected an integer, got {max_iterations!r}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations: expected at least 1, got {max_iterations}")
    return int(max_iterations)


def _lineax_size(A: lx.AbstractLinearOperator) -> int:
    shapes = [leaf.shape for leaf in jax.tree.leaves((A.in_structure(), A.out_structure()))]
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise ValueError(f"A: expected an operator on one vector, into its own space, got {shapes}")
    return shapes[0][0]
