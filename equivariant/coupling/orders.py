"""Coefficients of irreps sorted by order, as transforms in two steps take them."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .quadrature import read_only


class Orders(NamedTuple):
    """Where each coefficient goes in an array [sign, order, irrep], and back.

    Sign 0 holds order +m and sign 1 order -m, for m from 0 to the largest degree. Places without
    a coefficient (m above the degree, and -0) are to hold zeros:
    `jnp.take(x, gather, axis=-1, mode="fill", fill_value=0)`; back, `y[..., position]` of the
    array with its last three axes flattened.

    Attributes:
        gather: the coefficient at each place, d (out of range) where there is none.
        position: the place of each coefficient in the flattened array.
    """

    gather: Int[np.ndarray, "2 M n"]
    position: Int[np.ndarray, " d"]


@lru_cache(maxsize=256)
def orders_of(degrees: tuple[int, ...]) -> Orders:
    """Return how the coefficients of irreps of these degrees are sorted by order."""
    irrep = np.concatenate([np.full(2 * n + 1, i) for i, n in enumerate(degrees)])
    m = np.concatenate([np.arange(-n, n + 1) for n in degrees])
    shape = (2, max(degrees) + 1, len(degrees))
    position = np.ravel_multi_index(((m < 0).astype(int), abs(m), irrep), shape)
    gather = np.full(shape, len(m))
    gather.reshape(-1)[position] = np.arange(len(m))
    return Orders(read_only(gather), read_only(position))
