"""Matrices from MatrixMarket files, and the examples that pyamg ships."""

import os
from pathlib import Path
from typing import Any

import scipy.io
import scipy.sparse

from ..sparse.pattern import canonical
from .problem import Problem


def read_matrix_market(path: str | os.PathLike[str]) -> Problem:
    """Read a symmetric real matrix from a MatrixMarket file (`.mtx`, also compressed).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a MatrixMarket file, or not a square sparse real matrix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file, got none")
    try:
        matrix: Any = scipy.io.mmread(path, spmatrix=False)
    except Exception as error:
        raise ValueError(f"{path}: expected a MatrixMarket file, got {error}") from error
    return _square(path.stem, scipy.sparse.csr_array(matrix))


def _square(name: str, matrix: Any) -> Problem:
    if matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "fiu":
        raise ValueError(
            f"{name}: expected a square matrix of real numbers, got {matrix.dtype} of shape "
            f"{matrix.shape}"
        )
    csr: Any = canonical(matrix).astype(float)
    return Problem(name, csr)
