"""Chains of cores, which tensor trains, matrices in that format and rings share."""

from collections.abc import Sequence

from jaxtyping import Array

from .base import check_pieces


def check_chain(cores: Sequence[Array], ndim: int, axes: str, *, ring: bool = False) -> None:
    """Require cores whose neighbouring ranks agree, and ends of 1 (or, in a ring, equal ends).

    Raises:
        ValueError: a core of another number of dimensions, or ranks that differ.
        TypeError: dtypes that differ.
    """
    check_pieces(cores, "cores", ndim, axes)
    for k in range(1, len(cores)):
        if cores[k].shape[0] != cores[k - 1].shape[-1]:
            raise ValueError(
                f"cores[{k}]: expected first dimension {cores[k - 1].shape[-1]} (the last of "
                f"cores[{k - 1}], of shape {cores[k - 1].shape}), got shape {cores[k].shape}"
            )
    last = len(cores) - 1
    first_rank, last_rank = cores[0].shape[0], cores[last].shape[-1]
    if ring and first_rank != last_rank:
        raise ValueError(
            f"cores[{last}]: expected last dimension {first_rank} (the first of cores[0], of "
            f"shape {cores[0].shape}, closes the ring), got shape {cores[last].shape}"
        )
    if not ring and first_rank != 1:
        raise ValueError(f"cores[0]: expected first dimension 1, got shape {cores[0].shape}")
    if not ring and last_rank != 1:
        raise ValueError(f"cores[{last}]: expected last dimension 1, got shape {cores[last].shape}")
