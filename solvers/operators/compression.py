"""A trained dense operator as a tensorized one, to be trained on from there."""

import dataclasses
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from tensornet.decompose import cp_als, hooi, hosvd, tr_svd, tt_svd

from .fitting import Normalized
from .fno import FNO, TFNO
from .spectral import replaced
from .weight import FORMATS, Weight, ranks_of

_SWEEPS = 50  # of alternating least squares: training goes on from there anyway


def tensorize(
    model: Any,
    *,
    factorization: str = "tucker",
    rank: Any = None,
    rtol: float | None = None,
    key: PRNGKeyArray | None = None,
) -> Any:
    """Decompose the spectral weights of a dense model.

    Args:
        model: an `FNO`, or one between normalizers.
        factorization: `"tucker"`, `"cp"`, `"tt"` or `"tr"`.
        rank: a share of the dense parameters, or ranks, see `ranks_of`; a ring's are what its
            decomposition can use of them.
        rtol: or the relative error of every weight at most, by which ranks are chosen; not for
            `"cp"`.
        key: of `"cp"`, where the rank is above an axis.

    Returns:
        A `TFNO` of the same function but for the error of the weights.

    Raises:
        TypeError: not such a model.
        ValueError: weights that are tensorized already, an unknown format, a rank out of its
            range, neither rank nor rtol, or both.
    """
    if isinstance(model, Normalized):
        made = tensorize(model.model, factorization=factorization, rank=rank, rtol=rtol, key=key)
        return replaced(model, model=made)
    if not isinstance(model, FNO):
        raise TypeError(f"model: expected an FNO, got {type(model).__name__}")
    if factorization not in FORMATS:
        raise ValueError(f"factorization: expected one of {FORMATS}, got {factorization!r}")
    if (rank is None) == (rtol is None):
        raise ValueError(f"rank, rtol: expected one of them, got {rank} and {rtol}")
    if rtol is not None and factorization == "cp":
        raise ValueError("rtol: expected a rank for 'cp', whose ranks no error determines")
    blocks = []
    for k, block in enumerate(model.blocks):
        weight = block.spectral.weight
        if not isinstance(weight, jax.Array):
            raise ValueError(f"model: expected dense weights, got {weight!r} in block {k}")
        smaller = _decomposed(weight, factorization, rank, rtol, key)
        blocks.append(replaced(block, spectral=replaced(block.spectral, weight=smaller)))
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
    made = object.__new__(TFNO)
    for name, value in (fields | {"blocks": tuple(blocks)}).items():
        object.__setattr__(made, name, value)
    return made


def _decomposed(weight: Any, factorization: str, rank: Any, rtol: Any, key: Any) -> Weight:
    ranks: Any = None if rank is None else ranks_of(factorization, weight.shape, rank)
    if factorization == "cp":
        return cp_als(weight, ranks, key=key, max_sweeps=_SWEEPS).tensor
    if factorization == "tucker":
        if ranks is None:
            return hosvd(weight, rtol=rtol).tensor
        return hooi(weight, ranks, max_sweeps=_SWEEPS).tensor
    if factorization == "tt":
        return tt_svd(weight, rtol=rtol, max_rank=ranks).tensor
    return tr_svd(weight, rtol=rtol, max_rank=ranks).tensor
