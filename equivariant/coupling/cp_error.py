"""How far a CP tensor can be from a bilinear map: a bound that holds for every pair of inputs."""

import itertools
import math

import numpy as np
from jaxtyping import Float64

from .cp_fit import Factors, fitted

_EPS = float(np.finfo(np.float64).eps)
_BITS = 53


def certified_error(tensor: Float64[np.ndarray, "m n k"], factors: Factors) -> tuple[float, float]:
    """Return the error of the tensor in the Frobenius norm, and a bound of the map's.

    The bound is of the largest |z_cp(x, y) - z(x, y)| for |x| = |y| = 1. The residual as a map is
    linear in each unfolding: in x (x) y, and its adjoints in x (x) z and y (x) z. The spectral norm
    of any of the three matrices bounds it; the least is taken, and the rounding of the residual
    and of the norm added. It is that of the factors as they are: what is rounded where they are
    evaluated comes on top.
    """
    residual, rounding = _residual(tensor, factors)
    scale = float(np.abs(residual).max())
    if scale == 0:
        return 0.0, rounding
    residual = residual / scale
    bounds = []
    for mode, size in enumerate(residual.shape):
        matrix = np.moveaxis(residual, mode, 0).reshape(size, -1)
        # A Gram matrix and its eigenvalues are rounded in proportion to the sum of the squares.
        largest = float(np.linalg.eigvalsh(matrix @ matrix.T)[-1])
        slack = (matrix.shape[1] + 16 * size) * _EPS * float(np.vdot(matrix, matrix))
        bounds.append(math.sqrt(max(largest, 0.0) + slack))
    return scale * float(np.linalg.norm(residual)), scale * (1 + 4 * _EPS) * min(bounds) + rounding


def _residual(tensor: np.ndarray, factors: Factors) -> tuple[np.ndarray, float]:
    """Return the residual, and a bound of its rounding in the Frobenius norm.

    The leading bits of the factors are so few that their products and sums are exact, and what is
    rounded are terms smaller by as many bits (Ozaki et al., "Error-free transformations of matrix
    multiplication", 2012): an exact decomposition shows as one.
    """
    rank = len(factors[0])
    bits = (_BITS - 1 - rank.bit_length()) // 3

    def halves(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unit = 2.0 ** (math.frexp(np.abs(factor).max())[1] - bits)
        leading = np.round(factor / unit) * unit
        return leading, factor - leading

    left, middle, last = factors
    leading, *others = itertools.product(halves(left), halves(middle), halves(last))
    residual = tensor - fitted(leading)
    sizes = np.abs(residual)
    for parts in others:
        residual = residual - fitted(parts)
        a, b, c = parts
        sizes = sizes + fitted((np.abs(a), np.abs(b), np.abs(c)))
    return residual, (rank + 16) * _EPS * float(np.linalg.norm(sizes))
