"""The inverse of the diagonal."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..sparse.matrix import spread, take_or_zero
from .base import Preconditioner, pattern_of


class Jacobi(Preconditioner):
    """Division by the diagonal; `Jacobi(A)`, or `Jacobi().analyse(pattern).setup(values)`."""

    def __init__(self, A: Any = None):
        self._begin(A)

    def _analyse(self, matrix: Any) -> Any:
        return jnp.asarray(pattern_of(matrix).diagonal)

    def _setup(self, values: Array) -> Array:
        return 1 / take_or_zero(values, self.analysis)

    def _apply(self, r: Array) -> Array:
        return spread(self.state, r) * r
