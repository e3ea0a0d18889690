"""Tensor-ring format: a chain of three-way cores closed by a trace."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..planner import Pieces
from . import chain
from .base import ModalTensor
from .decomposition import Decomposition
from .indexing import Action
from .pieces import as_arrays
from .rounding import read_arguments

# Operations up to which the norm is always found by QR, whose cost grows as the sixth power of the
# rank; beyond, only where the transfer matrices show that terms cancel.
_CHEAP = 2e8


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

    def pieces(self) -> Pieces:
        """Return the cores, each tied to the next by one index."""
        return chain.pieces(self.cores, ring=True)

    @eqx.filter_jit
    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        return chain.dense(self.cores)

    def round(self, *, rtol: Any = None, max_rank: Any = None) -> Decomposition:
        """Return a ring of lower ranks near this one, and how near it is.

        The ring is cut open at one bond, then at the next, and rounded as a train both times. For
        a ring this is no best approximation, so nothing is guaranteed: the error is measured.

        Args:
            rtol: look for low ranks at which the measured relative error is at most this. Where
                none are found, the ring itself is returned. Not inside a trace.
            max_rank: an integer, or one for each entry of `rank`: the largest ranks allowed,
                whatever the error. Alone, it works under jit, vmap and grad.

        Returns:
            The rounded ring with the error that was reached.

        Raises:
            ValueError: neither argument, one out of its range, or `rtol` inside a trace.
            TypeError: an argument of a wrong type.
        """
        from .ring_rounding import round_ring  # it makes rings itself

        rtol, most = read_arguments(self, rtol, max_rank, self.rank)
        return round_ring(self, rtol, most)

    def _inner(self, other: Any) -> tuple[Array, Array]:
        # Both are cut open at the bond where least has to be carried along.
        ranks = [r * s for r, s in zip(self.rank, other.rank, strict=True)]
        cut = ranks.index(min(ranks))
        return chain.inner(turned(self.cores, cut), turned(other.cores, cut))

    def _norm(self) -> tuple[Array, Array]:
        cores = turned(self.cores, self.rank.index(min(self.rank)))
        z = cores[0].shape[0]
        cost = sum((z * c.shape[0] * c.shape[1]) * (z * c.shape[2]) ** 2 for c in cores)
        if cost < _CHEAP:
            return chain.norm(cores)
        return chain.fast_norm(cores)

    def _scaled(self, scalar: Array) -> "TensorRing":
        return TensorRing((self.cores[0] * scalar, *self.cores[1:]))

    def _sum(self, other: Any) -> "TensorRing":
        return TensorRing(chain.add(self.cores, other.cores, ring=True))

    def _hadamard(self, other: Any) -> "TensorRing":
        return TensorRing(chain.hadamard(self.cores, other.cores))

    def _transformed(self, actions: tuple[Action, ...]) -> Any:
        cores = chain.transform(self.cores, actions)
        return TensorRing(cores) if isinstance(cores, list) else cores


def turned(cores: tuple[Array, ...], first: int) -> tuple[Array, ...]:
    """Return the cores of the same ring with its modes turned, so that `first` comes first."""
    return cores[first:] + cores[:first]
