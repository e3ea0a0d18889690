"""Tensor-ring format: a chain of three-way cores closed by a trace."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..planner import contract
from .base import FactoredTensor, as_arrays
from .chain import check_chain


class TensorRing(FactoredTensor):
    """`x[i, j, ...]` is the trace of `cores[0][:, i, :] @ cores[1][:, j, :] @ ...`.

    Args:
        cores: one array for each mode, shape (rank before, size, rank after); the last core's rank
            after is the first core's rank before.

    Raises:
        ValueError: shapes that do not chain or close.
        TypeError: not real arrays, or of different dtypes.

    Source: Q. Zhao et al., Tensor ring decomposition, arXiv 1606.05535 (2016).
    """

    cores: tuple[Float[Array, "..."], ...] = eqx.field(converter=lambda c: as_arrays(c, "cores"))

    def __check_init__(self) -> None:
        check_chain(self.cores, 3, "(rank before, size, rank after)", ring=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(c.shape[-2] for c in self.cores)

    @property
    def rank(self) -> tuple[int, ...]:
        """One rank for each core, the one before it; the first also closes the ring.

        TensorLy repeats the first rank at the end; here it is counted once.
        """
        return tuple(c.shape[-3] for c in self.cores)

    @property
    def n_parameters(self) -> int:
        """How many numbers the cores hold."""
        ranks = (*self.rank, self.rank[0])
        return sum(ranks[k] * n * ranks[k + 1] for k, n in enumerate(self.shape))

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return self.cores[0].dtype

    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        dense = self.cores[0]
        for core in self.cores[1:-1]:
            dense = contract("zia,ajb->zijb", dense, core)
            dense = dense.reshape(dense.shape[0], -1, core.shape[2])
        if len(self.cores) == 1:
            return contract("aia->i", dense)
        return contract("zia,ajz->ij", dense, self.cores[-1]).reshape(self.shape)
