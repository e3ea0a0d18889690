"""Tensor-train format: a chain of three-way cores."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..planner import Pieces
from . import chain
from .base import ModalTensor
from .chain_rounding import round_chain
from .indexing import Action
from .pieces import as_arrays
from .rounding import read_arguments


class TensorTrain(ModalTensor):
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
        chain.check_chain(self.cores, 3, "(rank before, size, rank after)")

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

    def pieces(self) -> Pieces:
        """Return the cores, each tied to the next by one index."""
        return chain.pieces(self.cores)

    def round(self, *, rtol: Any = None, max_rank: Any = None) -> "TensorTrain":
        """Return a tensor train near this one with smaller ranks.

        Args:
            rtol: the error is at most this times the norm. Ranks then depend on the data, so not
                inside a trace.
            max_rank: an integer, or one for each entry of `rank`: the largest ranks allowed,
                whatever the error. Alone, it works under jit, vmap and grad.

        Returns:
            The tensor train, all its cores but the last left-orthogonal.

        Raises:
            ValueError: neither argument, one out of its range, or `rtol` inside a trace.
            TypeError: an argument of a wrong type.

        Source: Oseledets 2011, algorithm 2.
        """
        rtol, most = read_arguments(self, rtol, max_rank, self.rank)
        return TensorTrain(round_chain(self.cores, rtol, most))

    def _inner(self, other: Any) -> tuple[Array, Array]:
        return chain.inner(self.cores, other.cores)

    def _norm(self) -> tuple[Array, Array]:
        return chain.norm(self.cores)

    def _scaled(self, scalar: Array) -> "TensorTrain":
        return TensorTrain((self.cores[0] * scalar, *self.cores[1:]))

    def _sum(self, other: Any) -> "TensorTrain":
        return TensorTrain(chain.add(self.cores, other.cores))

    def _hadamard(self, other: Any) -> "TensorTrain":
        return TensorTrain(chain.hadamard(self.cores, other.cores))

    def _transformed(self, actions: tuple[Action, ...]) -> Any:
        cores = chain.transform(self.cores, actions)
        return TensorTrain(cores) if isinstance(cores, list) else cores
