"""Matrices and linear operators in tensor-train format."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..planner import Pieces, contract
from ..validation import as_real
from . import chain
from .base import FactoredTensor, describe
from .chain_rounding import round_chain
from .indexing import Action, read_index
from .pieces import as_arrays
from .rounding import read_arguments
from .tensor_train import TensorTrain


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
        chain.check_chain(self.cores, 4, "(rank before, rows, columns, rank after)")

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

    @property
    def T(self) -> "TTMatrix":  # noqa: N802  the name arrays have
        """The transpose."""
        return TTMatrix([jnp.swapaxes(core, 1, 2) for core in self.cores])

    def pieces(self) -> Pieces:
        """Return the cores; rows and columns consist of one index from each."""
        d = len(self.cores)
        rows, columns = [tuple((name, k) for k in range(d)) for name in ("row", "column")]
        return Pieces(
            self.cores,
            tuple((("rank", k), rows[k], columns[k], ("rank", k + 1)) for k in range(d)),
            (rows, columns),
        )

    def __getitem__(self, index: Any) -> Any:
        """Return an entry as a scalar array, or a row or column as a `TensorTrain`.

        Args:
            index: `[row, column]` with integers, numbered as in the dense matrix; `:` for one of
                them gives a row or column, a tensor of shape `column_shape` or `row_shape`.

        Raises:
            IndexError: a position outside the matrix, or too many.
            TypeError: a slice that is not `:`, or another kind of index.
        """
        actions = read_index(index, self.shape)
        if any(isinstance(action, tuple) for action in actions):
            raise TypeError(
                f"index: expected an integer or ':' for rows and columns of a TTMatrix, got {index}"
            )
        if actions == (None, None):
            return self
        return _select(self, *actions)

    def __matmul__(self, other: Any) -> Any:
        """Return the product with a `TTMatrix`, a `TensorTrain`, a vector or a matrix.

        Args:
            other: a `TTMatrix` with `row_shape`, or a `TensorTrain` with `shape`, equal to this
                one's `column_shape` (ranks multiply); or an array of shape (columns,) or
                (columns, n), for which the result is an array.

        Raises:
            ValueError: shapes that do not fit.
            TypeError: something else, or another dtype.
        """
        if isinstance(other, TTMatrix):
            self._check_factor(other, other.row_shape, self.column_shape)
            return _times_matrix(self, other)
        if isinstance(other, TensorTrain):
            self._check_factor(other, other.shape, self.column_shape)
            return _times_train(self, other)
        if isinstance(other, FactoredTensor):
            raise TypeError(
                f"@: expected a TTMatrix, a TensorTrain or an array, got {describe(other)}"
            )
        array = as_real(other, "@")
        if array.ndim not in (1, 2):
            raise ValueError(f"@: expected a vector or a matrix, got shape {array.shape}")
        self._check_factor(array, array.shape[0], self.shape[1])
        return _times_array(self, array)

    def __rmatmul__(self, other: Any) -> Float[Array, "..."]:
        return (self.T @ as_real(other, "@").T).T

    def round(self, *, rtol: Any = None, max_rank: Any = None) -> "TTMatrix":
        """Return a matrix near this one with smaller ranks, as `TensorTrain.round` does.

        Args:
            rtol: the error is at most this times the Frobenius norm. Not inside a trace.
            max_rank: an integer, or one for each entry of `rank`: the largest ranks allowed.

        Raises:
            ValueError: neither argument, one out of its range, or `rtol` inside a trace.
            TypeError: an argument of a wrong type.
        """
        rtol, most = read_arguments(self, rtol, max_rank, self.rank)
        return self._from_train(round_chain(self._train(), rtol, most))

    def _check_factor(self, other: Any, size: Any, expected: Any) -> None:
        if size != expected:
            raise ValueError(
                f"@: expected {expected} to follow {self!r}, got {size} of {describe(other)}"
            )
        if other.dtype != self.dtype:
            raise TypeError(f"@: expected equal dtypes, got {self.dtype} and {other.dtype}")

    def _split_shape(self) -> tuple[Any, ...]:
        return self.row_shape, self.column_shape

    def _train(self) -> tuple[Array, ...]:
        # The cores with rows and columns merged in one mode.
        return tuple(c.reshape(c.shape[0], -1, c.shape[-1]) for c in self.cores)

    def _from_train(self, cores: chain.Cores) -> "TTMatrix":
        sizes = zip(cores, self.row_shape, self.column_shape, strict=True)
        return TTMatrix([c.reshape(c.shape[0], m, n, c.shape[2]) for c, m, n in sizes])

    def _inner(self, other: Any) -> tuple[Array, Array]:
        return chain.inner(self._train(), other._train())

    def _norm(self) -> tuple[Array, Array]:
        return chain.norm(self._train())

    def _scaled(self, scalar: Array) -> "TTMatrix":
        return TTMatrix((self.cores[0] * scalar, *self.cores[1:]))

    def _sum(self, other: Any) -> "TTMatrix":
        return self._from_train(chain.add(self._train(), other._train()))

    def _hadamard(self, other: Any) -> "TTMatrix":
        return self._from_train(chain.hadamard(self._train(), other._train()))


@eqx.filter_jit
def _select(a: TTMatrix, row: Action, column: Action) -> Any:
    rows = (None,) * len(a.cores) if row is None else _digits(row, a.row_shape)
    columns = (None,) * len(a.cores) if column is None else _digits(column, a.column_shape)
    cores = []
    for core, i, j in zip(a.cores, rows, columns, strict=True):
        # A kept mode stays a mode of size 1 where the other one is all there is.
        if i is not None:
            core = jax.lax.dynamic_slice_in_dim(core, i, 1, axis=1)
        if j is not None:
            core = jax.lax.dynamic_slice_in_dim(core, j, 1, axis=2)
        cores.append(core.reshape(core.shape[0], -1, core.shape[3]))
    if row is None or column is None:
        return TensorTrain(cores)
    return chain.dense(cores).reshape(())


def _digits(position: Any, shape: tuple[int, ...]) -> list[Array]:
    digits = []
    position = jnp.where(position < 0, position + math.prod(shape), position)
    for size in reversed(shape):
        digits.append(position % size)
        position = position // size
    return digits[::-1]


@eqx.filter_jit
def _times_matrix(a: TTMatrix, b: TTMatrix) -> TTMatrix:
    cores = []
    for left, right in zip(a.cores, b.cores, strict=True):
        core = contract("amkb,cknd->acmnbd", left, right)
        p, q, m, n, r, s = core.shape
        cores.append(core.reshape(p * q, m, n, r * s))
    return TTMatrix(cores)


@eqx.filter_jit
def _times_train(a: TTMatrix, x: TensorTrain) -> TensorTrain:
    cores = []
    for left, right in zip(a.cores, x.cores, strict=True):
        core = contract("amnb,cnd->acmbd", left, right)
        p, q, m, r, s = core.shape
        cores.append(core.reshape(p * q, m, r * s))
    return TensorTrain(cores)


@eqx.filter_jit
def _times_array(a: TTMatrix, x: Array) -> Array:
    return contract("ij,j...->i...", a, x)
