"""Tensor-train format: a chain of three-way cores."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..planner import contract
from .base import FactoredTensor, as_arrays
from .chain import check_chain


class TensorTrain(FactoredTensor):
    """`x[i, j, ...]` is the product of the matrices `cores[0][:, i, :]`, `cores[1][:, j, :]`, ....

    Args:
        cores: one array for each mode, shape (rank before, size, rank after); the first rank and
            the last are 1.

    Raises:
        ValueError: shapes that do not chain.
        TypeError: not real arrays, or of different dtypes.

    Source: I. V. Oseledets, Tensor-train decomposition, SIAM J. Sci. Comput. 33 (2011).
    """

    cores: tuple[Float[Array, "..."], ...] = eqx.field(converter=lambda c: as_arrays(c, "cores"))

    def __check_init__(self) -> None:
        check_chain(self.cores, 3, "(rank before, size, rank after)")

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(c.shape[-2] for c in self.cores)

    @property
    def rank(self) -> tuple[int, ...]:
        """Ranks between the cores, with the ones at both ends: one more than there are modes."""
        return (*(c.shape[-3] for c in self.cores), self.cores[-1].shape[-1])

    @property
    def n_parameters(self) -> int:
        """How many numbers the cores hold."""
        ranks = self.rank
        return sum(ranks[k] * n * ranks[k + 1] for k, n in enumerate(self.shape))

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return self.cores[0].dtype

    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        dense = self.cores[0].reshape(-1, self.cores[0].shape[2])
        for core in self.cores[1:]:
            dense = contract("ia,aj->ij", dense, core.reshape(core.shape[0], -1))
            dense = dense.reshape(-1, core.shape[2])
        return dense.reshape(self.shape)
