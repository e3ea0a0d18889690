"""Tensor-ring format: a chain of three-way cores closed by a trace."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from . import chain
from .base import ModalTensor
from .indexing import Action
from .pieces import as_arrays


class TensorRing(ModalTensor):
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
        chain.check_chain(self.cores, 3, "(rank before, size, rank after)", ring=True)

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

    @eqx.filter_jit
    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        return chain.dense(self.cores)

    def _inner(self, other: Any) -> tuple[Array, Array]:
        # Both are cut open at the bond where least has to be carried along.
        ranks = [r * s for r, s in zip(self.rank, other.rank, strict=True)]
        cut = ranks.index(min(ranks))
        return chain.inner(_turned(self.cores, cut), _turned(other.cores, cut))

    def _norm(self) -> tuple[Array, Array]:
        return chain.norm(_turned(self.cores, self.rank.index(min(self.rank))))

    def _scaled(self, scalar: Array) -> "TensorRing":
        return TensorRing((self.cores[0] * scalar, *self.cores[1:]))

    def _sum(self, other: Any) -> "TensorRing":
        return TensorRing(chain.add(self.cores, other.cores, ring=True))

    def _hadamard(self, other: Any) -> "TensorRing":
        return TensorRing(chain.hadamard(self.cores, other.cores))

    def _transformed(self, actions: tuple[Action, ...]) -> Any:
        cores = chain.transform(self.cores, actions)
        return TensorRing(cores) if isinstance(cores, list) else cores


def _turned(cores: tuple[Array, ...], first: int) -> tuple[Array, ...]:
    """Return the cores of the same ring with its modes turned, so that `first` comes first."""
    return cores[first:] + cores[:first]
