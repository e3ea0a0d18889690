"""What shows at once of a matrix that is not symmetric positive definite."""

import numpy as np

from .matrix import SparseMatrix

ASYMMETRY = 100  # times eps and the largest entry: the difference to the transpose let pass


def check_definite(A: SparseMatrix, b: np.ndarray | None = None) -> None:
    """Require what conjugate gradient needs of a concrete matrix, as far as it shows at once.

    Raises:
        ValueError: NaN, not symmetric, a diagonal entry that is not positive, or constants that
            the matrix maps to zero while `b` has a part along them.
    """
    data, pattern = np.asarray(A.data), A.pattern
    if not np.isfinite(data).all():
        at = int(np.argmax(~np.isfinite(data)))
        raise ValueError(
            f"A: expected finite entries, got {data[at]} in row {pattern.rows[at]}, column "
            f"{pattern.indices[at]}"
        )
    largest = np.abs(data).max(initial=0)
    eps = float(np.finfo(data.dtype).eps)
    mirrored, order = pattern.transposed
    if mirrored == pattern:
        difference = np.abs(data - data[order]).max(initial=0)
    else:
        csr = A.to_scipy()
        difference = np.abs((csr - csr.T).data).max(initial=0)
    if difference > ASYMMETRY * eps * largest:
        raise ValueError(
            "A: expected a symmetric matrix, its difference to the transpose at most "
            f"{ASYMMETRY * eps:.1e} of the largest entry, got {difference / largest:.1e}"
        )
    diagonal = np.asarray(A.diagonal())
    if not (diagonal > 0).all():
        at = int(np.argmax(~(diagonal > 0)))
        raise ValueError(
            "A: expected a positive diagonal, as every positive definite matrix has, got "
            f"{diagonal[at]} in row {at}"
        )
    if b is None:
        return
    sums = pattern.to_scipy(data) @ np.ones(len(diagonal), data.dtype)
    along = np.abs(b.sum(axis=0)) / np.maximum(np.linalg.norm(b, axis=0), 1e-300)
    if np.all(np.abs(sums) <= 100 * eps * diagonal) and np.any(along > len(b) ** 0.5 * 1e-6):
        raise ValueError(
            "A: expected a nonsingular matrix, got one whose rows sum to zero (a Neumann problem "
            "without a fixed value) and a b that is not orthogonal to constants; fix a value"
        )
