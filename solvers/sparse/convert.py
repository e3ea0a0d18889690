"""Sparse matrices from scipy, scikit-fem and lineax, in the layout that multiplies fastest."""

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import scipy.sparse

from tensornet.validation import is_traced

from .dia import DIA, count_diagonals
from .ell import ELL
from .matrix import SparseMatrix
from .pattern import Pattern, canonical

LAYOUTS = {"ell": ELL, "dia": DIA}
_DIAGONALS = 48  # more are not written out
_FILL = 0.6  # share of the diagonals' places that must be entries


def from_pattern(pattern: Pattern, data: Any, *, layout: str = "auto") -> SparseMatrix:
    """Return a matrix with these values, in the order of the pattern; they may be traced.

    Args:
        pattern: where the entries are.
        data: a value for each entry.
        layout: `"ell"`, `"dia"`, or `"auto"`: by diagonals where few of them hold the entries.

    Raises:
        ValueError: an unknown layout, or not one value for each entry.
    """
    if layout == "auto":
        diagonals = count_diagonals(pattern)
        few = diagonals <= _DIAGONALS and pattern.nnz >= _FILL * diagonals * pattern.shape[0]
        layout = "dia" if few else "ell"
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected 'auto', 'ell' or 'dia', got {layout!r}")
    return LAYOUTS[layout].build(pattern, data)


def from_scipy(matrix: Any, *, layout: str = "auto", dtype: Any = None) -> SparseMatrix:
    """Return a scipy sparse matrix (what scikit-fem assembles is one) for XLA.

    Explicit zeros stay, duplicates are summed. The precision is the matrix's own where jax has
    it switched on.

    Args:
        matrix: any scipy sparse matrix or array.
        layout: as for `from_pattern`.
        dtype: float32 or float64; the matrix's own when left out.

    Raises:
        TypeError: not a scipy sparse matrix of real numbers.
        ValueError: an unknown layout.
    """
    csr: Any = canonical(matrix)
    data = jnp.asarray(csr.data if dtype is None else csr.data.astype(dtype))
    return from_pattern(Pattern(csr.shape, csr.indptr, csr.indices), data, layout=layout)


def as_matrix(A: Any) -> SparseMatrix:
    """Return a sparse matrix from what holds one: ours, scipy's, or lineax's with entries.

    lineax: `MatrixLinearOperator`, whose zeros are left out (so concrete values),
    `DiagonalLinearOperator` and `TridiagonalLinearOperator`, also traced.

    Raises:
        TypeError: anything else; an operator without entries cannot become a matrix.
    """
    if isinstance(A, SparseMatrix):
        return A
    if scipy.sparse.issparse(A):
        return from_scipy(A)
    if isinstance(A, lx.TaggedLinearOperator):
        return as_matrix(A.operator)
    if isinstance(A, lx.DiagonalLinearOperator):
        diagonal = jax.tree.leaves(lx.diagonal(A))[0].ravel()
        n = len(diagonal)
        return from_pattern(Pattern((n, n), np.arange(n + 1), np.arange(n)), diagonal)
    if isinstance(A, lx.TridiagonalLinearOperator):
        return _tridiagonal(A)
    if isinstance(A, lx.MatrixLinearOperator) and not is_traced(A.matrix):
        return from_scipy(scipy.sparse.csr_array(np.asarray(A.matrix)))
    raise TypeError(
        "A: expected a matrix with entries (solvers.sparse, scipy.sparse, or lineax's matrix, "
        f"diagonal or tridiagonal operator with concrete zeros), got {type(A).__name__}"
    )


def _tridiagonal(A: lx.TridiagonalLinearOperator) -> SparseMatrix:
    n = len(A.diagonal)
    lengths = np.minimum(np.arange(n) + 2, n) - np.maximum(np.arange(n) - 1, 0)
    rows = np.repeat(np.arange(n), lengths)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    step = np.arange(len(rows)) - indptr[rows]
    pattern = Pattern((n, n), indptr, np.maximum(rows - 1, 0) + step)
    offset = pattern.indices - pattern.rows
    of_row = {-1: 0, 0: n - 1, 1: 2 * n - 1}
    start = np.vectorize(of_row.get)(offset)
    at = start + np.where(offset == -1, pattern.rows - 1, pattern.rows)
    joined = jnp.concatenate([A.lower_diagonal, A.diagonal, A.upper_diagonal])
    return from_pattern(pattern, joined[at])
