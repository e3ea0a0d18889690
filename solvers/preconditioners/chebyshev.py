"""Chebyshev polynomials of the matrix scaled by its diagonal: products only."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensornet.validation import check_rank

from ..sparse import SparseMatrix, from_pattern
from ..sparse.matrix import spread
from .base import Preconditioner, pattern_of

_LANCZOS = 12
_MARGIN = 1.1  # above the Ritz value, which lies below the largest eigenvalue


class Chebyshev(Preconditioner):
    """The Chebyshev iteration of a fixed number of steps from zero (Saad 2003, 12.3).

    Its polynomial is positive on (0, largest], so it is positive definite wherever the bound on
    the largest eigenvalue holds: a Ritz value with a margin, or the largest row sum if less.

    Attributes:
        degree: steps; one fewer products with the matrix.
        ratio: of the ends of the interval that it is smallest on.
    """

    degree: int = eqx.field(static=True)
    ratio: float = eqx.field(static=True)

    def __init__(self, A: Any = None, *, degree: int = 4, ratio: float | int = 30.0):
        self.degree = check_rank(degree, "degree")
        if not ratio > 1:
            raise ValueError(f"ratio: expected above 1, got {ratio}")
        self.ratio = float(ratio)
        self._begin(A)

    def _analyse(self, matrix: Any) -> Any:
        pattern = pattern_of(matrix)
        return from_pattern(pattern, np.zeros(pattern.nnz, np.float32))

    def _setup(self, values: Array) -> Any:
        return smoother(self.analysis.with_data(values))

    def _apply(self, r: Array) -> Array:
        scalars = coefficients(self.ratio, self.degree)
        d = self.state.change(jnp.asarray(scalars[0], r.dtype), jnp.zeros_like(r), r)
        return self.state.after(d, d, r, scalars[1:])


class Smoother(eqx.Module):
    """What the Chebyshev iteration needs of a matrix, and its steps in loops of one product."""

    matrix: SparseMatrix
    inverse: Float[Array, " n"]  # of the diagonal
    largest: Float[Array, ""]  # eigenvalue of the scaled matrix, bounded

    def change(self, scalars: Array, d: Array, r: Array) -> Array:
        """Return a step's change from the last one's and the residual."""
        return scalars[0] * d + (scalars[1] / self.largest) * (spread(self.inverse, r) * r)

    def before(self, r: Array, degree: int, ratio: float) -> tuple[Array, Array]:
        """Return the iterate after `degree` steps from zero, and its residual."""

        def step(carry: Any, scalars: Array) -> tuple[Any, None]:
            d, x, r = carry
            d = self.change(scalars, d, r)
            return (d, x + d, r - self.matrix.mv(d)), None

        zero = jnp.zeros_like(r)
        scalars = jnp.asarray(coefficients(ratio, degree), r.dtype)
        return jax.lax.scan(step, (zero, zero, r), scalars)[0][1:]

    def after(self, d: Array, x: Array, r: Array, scalars: np.ndarray) -> Array:
        """Return the iterate after further steps; d is in x and not yet taken from r."""

        def step(carry: Any, scalars: Array) -> tuple[Any, None]:
            d, x, r = carry
            r = r - self.matrix.mv(d)
            d = self.change(scalars, d, r)
            return (d, x + d, r), None

        return jax.lax.scan(step, (d, x, r), jnp.asarray(scalars, r.dtype))[0][1]


def smoother(matrix: SparseMatrix) -> Smoother:
    """Return the smoother of a matrix."""
    inverse = 1 / matrix.diagonal()
    return Smoother(matrix, inverse, largest_eigenvalue(matrix, inverse))


def coefficients(ratio: float, degree: int) -> np.ndarray:
    """Return two scalars for each step: of the last change, and of the residual over `largest`."""
    middle, half = (1 + 1 / ratio) / 2, (1 - 1 / ratio) / 2
    sigma = middle / half
    rho, rows = 1 / sigma, [(0.0, 1 / middle)]
    for _ in range(degree - 1):
        new = 1 / (2 * sigma - rho)
        rows.append((new * rho, 2 * new / half))
        rho = new
    return np.array(rows)


def largest_eigenvalue(matrix: SparseMatrix, inverse: Float[Array, " n"]) -> Float[Array, ""]:
    """Return an upper estimate of the largest eigenvalue of the scaled matrix, by Lanczos."""
    n, dtype = matrix.shape[0], matrix.dtype
    root = jnp.sqrt(inverse)
    # A start of every frequency that is the same on every machine.
    v = jnp.asarray(np.random.default_rng(0).normal(size=n), dtype)
    v = v / jnp.sqrt(jnp.sum(v * v))

    def step(carry: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
        old, v, beta = carry
        w = root * matrix.mv(root * v) - beta * old
        alpha = jnp.sum(w * v)
        w = w - alpha * v
        beta = jnp.sqrt(jnp.sum(w * w))
        return (v, w / jnp.where(beta > 0, beta, 1), beta), (alpha, beta)

    steps = min(_LANCZOS, n)
    _, (alphas, betas) = jax.lax.scan(
        step, (jnp.zeros_like(v), v, jnp.zeros((), dtype)), None, length=steps
    )
    off = betas[:-1]
    ritz = jnp.linalg.eigvalsh(jnp.diag(alphas) + jnp.diag(off, 1) + jnp.diag(off, -1))[-1]
    bound = jnp.max(inverse * matrix.row_norms())
    return jnp.minimum(_MARGIN * ritz, bound)
