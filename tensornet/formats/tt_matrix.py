"""Matrices and linear operators in tensor-train format."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..planner import contract
from .base import FactoredTensor, as_arrays
from .chain import check_chain


class TTMatrix(FactoredTensor):
    """A matrix whose rows and columns are both split in modes, held as a tensor train.

    The entry at row (i, j, ...) and column (p, q, ...) is the product of the matrices
    `cores[0][:, i, p, :]`, `cores[1][:, j, q, :]`, ....

    Args:
        cores: one array for each mode, shape (rank before, rows, columns, rank after); the first
            rank and the last are 1.

    Raises:
        ValueError: shapes that do not chain.
        TypeError: not real arrays, or of different dtypes.
    """

    cores: tuple[Float[Array, "..."], ...] = eqx.field(converter=lambda c: as_arrays(c, "cores"))

    def __check_init__(self) -> None:
        check_chain(self.cores, 4, "(rank before, rows, columns, rank after)")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Sizes of the modes of the rows."""
        return tuple(c.shape[-3] for c in self.cores)

    @property
    def column_shape(self) -> tuple[int, ...]:
        """Sizes of the modes of the columns."""
        return tuple(c.shape[-2] for c in self.cores)

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns the matrix has."""
        return math.prod(self.row_shape), math.prod(self.column_shape)

    @property
    def rank(self) -> tuple[int, ...]:
        """Ranks between the cores, with the ones at both ends: one more than there are cores."""
        return (*(c.shape[-4] for c in self.cores), self.cores[-1].shape[-1])

    @property
    def n_parameters(self) -> int:
        """How many numbers the cores hold."""
        ranks, rows, columns = self.rank, self.row_shape, self.column_shape
        return sum(ranks[k] * m * columns[k] * ranks[k + 1] for k, m in enumerate(rows))

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return self.cores[0].dtype

    def to_dense(self) -> Float[Array, "rows columns"]:
        """Return the matrix as an array of shape `shape`."""
        dense = self.cores[0][0]
        rows, columns, _ = dense.shape
        for core in self.cores[1:]:
            dense = contract("ipa,ajqb->ijpqb", dense, core)
            rows, columns = rows * core.shape[1], columns * core.shape[2]
            dense = dense.reshape(rows, columns, core.shape[3])
        return dense[:, :, 0]
