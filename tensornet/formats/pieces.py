"""Checks of the arrays that make up a format."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array

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
        check_dimensions(piece, f"{argument}[{k}]", ndim, axes)
        check_dtype(piece, pieces[0], f"{argument}[{k}]")


def check_dimensions(piece: Array, argument: str, ndim: int, axes: str) -> None:
    """Require `ndim` dimensions, none empty.

    Raises:
        ValueError: another number of dimensions, or an empty one.
    """
    if piece.ndim != ndim:
        raise ValueError(f"{argument}: expected shape {axes}, got {piece.shape}")
    if 0 in piece.shape:
        raise ValueError(f"{argument}: expected no empty dimension, got {piece.shape}")


def check_dtype(array: Array, like: Array, argument: str) -> None:
    """Require one dtype.

    Raises:
        TypeError: the dtypes differ.
    """
    if array.dtype != like.dtype:
        raise TypeError(
            f"{argument}: expected dtype {like.dtype} like the others, got {array.dtype}"
        )
