"""What every format shares: size, printing, and the operators that follow from a few others."""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..validation import as_real


def as_arrays(values: Any, argument: str) -> tuple[Array, ...]:
    """Return a list or tuple of arrays as a tuple of real jax arrays.

    Raises:
        TypeError: not a list or tuple, or an entry is not a real array.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(
            f"{argument}: expected a list or tuple of arrays, got {type(values).__name__}"
        )
    return tuple(as_real(value, f"{argument}[{k}]") for k, value in enumerate(values))


def check_pieces(pieces: Sequence[Array], argument: str, ndim: int, axes: str) -> None:
    """Require at least one piece, each of `ndim` dimensions, none empty, all of one dtype.

    Raises:
        ValueError: no pieces, or one with another number of dimensions or an empty one.
        TypeError: the dtypes differ.
    """
    if not pieces:
        raise ValueError(f"{argument}: expected at least one array, got none")
    for k, piece in enumerate(pieces):
        if piece.ndim != ndim:
            raise ValueError(f"{argument}[{k}]: expected shape {axes}, got {piece.shape}")
        if 0 in piece.shape:
            raise ValueError(f"{argument}[{k}]: expected no empty dimension, got {piece.shape}")
        check_dtype(piece, pieces[0], f"{argument}[{k}]")


def check_dtype(array: Array, like: Array, argument: str) -> None:
    """Require one dtype.

    Raises:
        TypeError: the dtypes differ.
    """
    if array.dtype != like.dtype:
        raise TypeError(
            f"{argument}: expected dtype {like.dtype} like the others, got {array.dtype}"
        )


class FactoredTensor(eqx.Module):
    """A tensor held as a network of small arrays.

    A batch made by `jax.vmap` has extra leading dimensions in its arrays; its `shape`, `rank`
    and `n_parameters` are those of one member.
    """

    # numpy scalars and arrays leave `scalar * tensor` to this class.
    __array_ufunc__: ClassVar[None] = None

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that is represented."""

    @property
    @abc.abstractmethod
    def rank(self) -> Any:
        """Rank or ranks of the format."""

    @property
    @abc.abstractmethod
    def n_parameters(self) -> int:
        """How many numbers the format holds."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Type of the entries."""

    @property
    def ndim(self) -> int:
        """How many dimensions the represented tensor has."""
        return len(self.shape)

    @abc.abstractmethod
    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""

    def __repr__(self) -> str:
        try:
            shape, held = self.shape, self.n_parameters
            ratio = math.prod(shape) / held
            size = f"{ratio:.3g}x smaller" if ratio >= 1 else f"{1 / ratio:.3g}x larger"
            return (
                f"{type(self).__name__}(shape={shape}, rank={self.rank}, {held:,} parameters, "
                f"{size} than dense, {jnp.dtype(self.dtype).name})"
            )
        except (AttributeError, TypeError, IndexError):
            # Leaves that are no arrays (filtered trees, specifications) have no shape to show.
            return eqx.tree_pformat(self)
