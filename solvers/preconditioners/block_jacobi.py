"""The inverse of blocks on the diagonal."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensornet.validation import check_rank

from ..sparse.matrix import take_or_zero
from .base import Preconditioner, pattern_of


class BlockJacobi(Preconditioner):
    """The inverses of the diagonal blocks: of the unknowns at each node, for elasticity.

    Attributes:
        block_size: unknowns of a block, one after the other.
    """

    block_size: int = eqx.field(static=True)

    def __init__(self, A: Any = None, *, block_size: int):
        self.block_size = check_rank(block_size, "block_size")
        self._begin(A)

    def _analyse(self, matrix: Any) -> Any:
        pattern, size = pattern_of(matrix), self.block_size
        if pattern.shape[0] % size:
            raise ValueError(
                f"block_size: expected a divisor of the {pattern.shape[0]} rows, got {size}"
            )
        start = np.arange(0, pattern.shape[0], size)[:, None, None]
        rows = np.broadcast_to(start + np.arange(size)[:, None], (len(start), size, size))
        columns = np.broadcast_to(start + np.arange(size), rows.shape)
        found = pattern.find(rows.ravel(), columns.ravel())
        return jnp.asarray(found.reshape(rows.shape))

    def _setup(self, values: Array) -> Array:
        inverse = jnp.linalg.inv(take_or_zero(values, self.analysis))
        return (inverse + inverse.transpose(0, 2, 1)) / 2

    def _apply(self, r: Array) -> Array:
        blocks = r.reshape(len(self.state), self.block_size, -1)
        return jnp.matmul(self.state, blocks, precision=jax.lax.Precision.HIGHEST).reshape(r.shape)
