"""The joint weight of a spectral layer: ranks from a share of parameters, and random weights.

A weight is one real tensor [modes of each axis, in, out], or [modes of each axis, channels] where
each channel has its own. Complex numbers are pairs in the last axis of modes, which is twice as
long: (frequency 0, real), (frequency 0, imaginary), (frequency 1, real) and so on.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from tensornet.formats import CP, TensorRing, TensorTrain, Tucker
from tensornet.formats.base import FactoredTensor
from tensornet.validation import check_rank, check_ranks

FORMATS = ("tucker", "cp", "tt", "tr")
Weight = Array | FactoredTensor
Shape = tuple[int, ...]


def check_factorization(factorization: Any, rank: Any) -> None:
    """Require a known format, with a rank if and only if there is one.

    Raises:
        ValueError: another name, a rank without a format, or the reverse.
    """
    if factorization is not None and factorization not in FORMATS:
        raise ValueError(f"factorization: expected None or one of {FORMATS}, got {factorization!r}")
    if factorization is None and rank is not None:
        raise ValueError(f"rank: expected None without a factorization, got {rank!r}")
    if factorization is not None and rank is None:
        raise ValueError(f"rank: expected a share or ranks for {factorization!r}, got None")


def ranks_of(factorization: str, shape: Shape, rank: Any) -> Any:
    """Return the ranks that a share of the dense parameters allows, or check given ones.

    Args:
        factorization: one of `FORMATS`.
        shape: of the weight.
        rank: a share (a float up to 1), a rank, or a tuple of ranks: of a train those between the
            cores, of a ring the one before each core.

    Raises:
        TypeError: neither of these.
        ValueError: a share that not even rank one meets, or ranks out of their range.
    """
    most = _largest(factorization, shape)
    if isinstance(rank, (float, np.floating)):
        if not 0 < rank <= 1:
            raise ValueError(f"rank: expected a share above 0 and up to 1, got {rank}")
        return _of_share(factorization, shape, most, float(rank))
    if factorization == "cp":
        return check_rank(rank, most=most[0], why=f"for a weight of shape {shape}")
    return check_ranks(rank, most, why=f"for a weight of shape {shape}")


def random_weight(
    factorization: str | None,
    shape: Shape,
    rank: Any,
    *,
    deviation: float,
    key: PRNGKeyArray,
    dtype: Any,
) -> Weight:
    """Draw a weight whose entries, those of the dense form, have mean zero and this deviation."""
    if factorization is None:
        return deviation * draw(key, (shape,), dtype)[0]
    ranks = ranks_of(factorization, shape, rank)
    shapes = _pieces(factorization, shape, ranks)
    terms = ranks if factorization == "cp" else math.prod(ranks)
    # An entry is a sum of independent products of one number from each piece.
    each = (deviation / math.sqrt(terms)) ** (1 / len(shapes))
    pieces = tuple(each * x for x in draw(key, tuple(shapes), dtype))
    if factorization == "cp":
        return CP(jnp.ones(ranks, dtype), pieces)
    if factorization == "tucker":
        return Tucker(pieces[0], pieces[1:])
    return TensorTrain(pieces) if factorization == "tt" else TensorRing(pieces)


@partial(jax.jit, static_argnums=(1, 2))
def draw(key: PRNGKeyArray, shapes: tuple[Shape, ...], dtype: Any) -> tuple[Array, ...]:
    """Draw arrays from the normal distribution, in one program."""
    sizes = list(map(math.prod, shapes))
    flat = jnp.split(jax.random.normal(key, (sum(sizes),), dtype), np.cumsum(sizes)[:-1])
    return tuple(x.reshape(shape) for x, shape in zip(flat, shapes, strict=True))


def _pieces(factorization: str, shape: Shape, ranks: Any) -> list[Shape]:
    """Shapes of the arrays that are drawn."""
    if factorization == "cp":
        return [(n, ranks) for n in shape]
    if factorization == "tucker":
        return [tuple(ranks), *zip(shape, ranks, strict=True)]
    ends = (1, *ranks, 1) if factorization == "tt" else (*ranks, ranks[0])
    return [(ends[k], n, ends[k + 1]) for k, n in enumerate(shape)]


def _largest(factorization: str, shape: Shape) -> Shape:
    """Ranks at which every tensor of the shape can be represented."""
    size = math.prod(shape)
    if factorization == "cp":
        return (size // max(shape),)
    if factorization == "tucker":
        return tuple(min(n, size // n) for n in shape)
    left = [math.prod(shape[:k]) for k in range(1, len(shape))]
    bonds = tuple(min(n, size // n) for n in left)
    return bonds if factorization == "tt" else (max(bonds), *bonds)


def _of_share(factorization: str, shape: Shape, most: Shape, share: float) -> Any:
    """The largest ranks, grown together, that hold at most a share of the dense parameters."""
    allowed = share * math.prod(shape)
    # In proportion to the axes in Tucker form, where another rank is reached at every multiple of
    # 1 / size; else the same everywhere.
    proportional = factorization == "tucker"
    candidates: Sequence[Any] = range(1, max(most) + 1)
    if proportional:
        candidates = sorted({j / n for n in shape for j in range(1, n + 1)})

    def ranks(x: Any) -> Any:
        if factorization == "cp":
            return x
        wanted = [math.floor(x * n + 1e-9) if proportional else x for n in shape]
        return tuple(min(max(1, r), m) for r, m in zip(wanted, most, strict=False))

    def held(x: Any) -> int:
        extra = x if factorization == "cp" else 0  # the weights of the terms
        return extra + sum(map(math.prod, _pieces(factorization, shape, ranks(x))))

    found = bisect_right(candidates, allowed, key=held)
    if not found:
        least = held(candidates[0]) / math.prod(shape)
        raise ValueError(
            f"rank: expected a share of at least {least:.3g} (rank one of {factorization!r} for a "
            f"weight of shape {shape}), got {share}"
        )
    return ranks(candidates[found - 1])
