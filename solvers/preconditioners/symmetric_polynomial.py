"""Symmetric polynomials of the spectrum, after Doikov and Rodomanov."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..sparse import from_pattern, product
from ..sparse.matrix import take_or_zero
from .base import Preconditioner, pattern_of

_MOST = 4


class SymmetricPolynomial(Preconditioner):
    """P_tau, whose eigenvalue beside that of A is e_tau of A's other eigenvalues.

    Positive definite, as elementary symmetric polynomials of positive numbers are positive. It
    takes the tau largest eigenvalues out of the condition number, which helps where a few stand
    apart and n is not so large that the rest of the trace drowns them. Doikov and Rodomanov,
    "Polynomial preconditioning for gradient methods", 2023.

    Attributes:
        order: tau, from 0 to 4; as many products with the matrix. The traces of its powers up
            to tau are exact: of A^3 and A^4 by the product A A on its own pattern.
    """

    order: int = eqx.field(static=True)

    def __init__(self, A: Any = None, *, order: int = 2):
        if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= _MOST:
            raise ValueError(f"order: expected an integer from 0 to {_MOST}, got {order!r}")
        self.order = order
        self._begin(A)

    def _analyse(self, matrix: Any) -> Any:
        pattern = pattern_of(matrix)
        square = product(pattern, pattern) if self.order > 2 else None
        shared = None
        if square is not None:
            shared = jnp.asarray(square.pattern.find(pattern.rows, pattern.indices))
        zeros = from_pattern(pattern, np.zeros(pattern.nnz, np.float32))
        return zeros, jnp.asarray(pattern.diagonal), square, shared

    def _setup(self, values: Array) -> Any:
        template, diagonal, square, shared = self.analysis
        trace = jnp.sum(take_or_zero(values, diagonal))
        values = values / trace
        sums = [jnp.ones_like(trace), jnp.sum(values * values)]
        if square is not None:
            second = square(values, values)
            sums += [jnp.sum(take_or_zero(second, shared) * values), jnp.sum(second * second)]
        elementary = newton(sums[: self.order])
        signs = [(-1.0) ** j for j in range(self.order + 1)]
        weights = [s * e for s, e in zip(signs, reversed(elementary), strict=True)]
        return template.with_data(values), jnp.stack(weights)

    def _apply(self, r: Array) -> Array:
        matrix, weights = self.state
        z = weights[-1] * r
        for k in reversed(range(self.order)):
            z = matrix.mv(z) + weights[k] * r
        return z


def newton(sums: list[Array]) -> list[Array]:
    """Return e_0, e_1, ... of numbers whose power sums are given, by Newton's identities."""
    found: list[Any] = [jnp.ones_like(sums[0]) if sums else jnp.ones(())]
    for k in range(1, len(sums) + 1):
        terms = [(-1.0) ** (i - 1) * found[k - i] * sums[i - 1] for i in range(1, k + 1)]
        found.append(sum(terms[1:], terms[0]) / k)
    return found
