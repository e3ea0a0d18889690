"""Wigner matrices that turn a direction onto the axis of the harmonics, smooth at every direction.

A rotation of the real harmonics about their axis y mixes m with -m by the angle m a, which is the
sparse matrix X(a); about x it is J X(a) J, with J the half turn that exchanges x and y. A direction
(sin b sin a, cos b, sin b cos a) is turned onto y by J X(-b) J X(-a). Sines and cosines of a and b
are quotients of the direction's components, those of their multiples products: no angle is formed.
Where the direction is along y, so that a has no derivative, x and y are exchanged beforehand.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensornet.planner import contract

from .coupling.tables import clebsch_gordan

# Directions whose cosine to the axis is larger are exchanged.
_POLAR = 0.8


def onto_axis(vectors: Float[Array, "edges 3"], degree: int) -> list[Float[Array, "edges d d"]]:
    """Return for each l up to `degree` a matrix D with D Y_l(vector) = Y_l(y), y of unit length.

    D belongs to a rotation; of all that do this, which one differs from direction to direction, and
    jumps between some. A map that commutes with rotations about y, applied between D and its
    transpose, has all derivatives everywhere but at vectors of length zero, where D is that of one
    direction. Vectors and matrices are in e3nn's order (x, y, z), and real basis.
    """
    squares = (vectors**2).sum(1, keepdims=True)
    there = squares > 0
    a, b, c = (vectors / jnp.sqrt(jnp.where(there, squares, 1))).T
    c = jnp.where(there[:, 0], c, 1)
    exchanged = jnp.abs(b) > _POLAR
    x, y, z = (jnp.where(exchanged, *pair) for pair in ((b, a), (a, b), (-c, c)))
    height = jnp.sqrt(x**2 + z**2)
    around = _multiples(z / height, x / height, degree)
    down = _multiples(y, height, degree)
    found = [jnp.ones((len(vectors), 1, 1), vectors.dtype)]
    for n in range(1, degree + 1):
        table, exchange = (jnp.asarray(part, vectors.dtype) for part in _tables(n))
        size = 2 * n + 1
        steep = jnp.stack([*reversed(down[1][1 : n + 1]), *down[0][: n + 1]], axis=1)
        steep = contract("em,mk->ek", steep, table).reshape(-1, size, size)
        cosines = jnp.stack([*reversed(around[0][1 : n + 1]), *around[0][: n + 1]], axis=1)
        sines = jnp.stack([*reversed(around[1][1 : n + 1]), *(-s for s in around[1][: n + 1])], 1)
        turned = steep * cosines[:, None] + steep[:, :, ::-1] * sines[:, None]
        swapped = contract("eij,jk->eik", turned, exchange)
        found.append(jnp.where(exchanged[:, None, None], swapped, turned))
    return found


def _multiples(cosine: Array, sine: Array, degree: int) -> tuple[list[Array], list[Array]]:
    """Return cosines and sines of 0, 1, ..., `degree` times an angle."""
    cosines, sines = [jnp.ones_like(cosine)], [jnp.zeros_like(sine)]
    for _ in range(degree):
        c, s = cosines[-1], sines[-1]
        cosines.append(c * cosine - s * sine)
        sines.append(s * cosine + c * sine)
    return cosines, sines


@lru_cache(maxsize=64)
def _tables(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what makes J X(-b) J of the sines (m < 0) and cosines of m b, flat, and J."""
    exchange = half_turn(degree)
    size = 2 * degree + 1
    table = np.zeros((size, size, size))
    for m in range(size):
        order = m - degree
        cosine = degree + abs(order)
        table[cosine] += np.outer(exchange[:, m], exchange[m])
        if order:
            sine = degree - abs(order)
            table[sine] += np.sign(order) * np.outer(exchange[:, m], exchange[size - 1 - m])
    return table.reshape(size, -1), exchange


@lru_cache(maxsize=64)
def half_turn(degree: int) -> np.ndarray:
    """Return J, the Wigner matrix of the half turn (x, y, z) -> (y, x, -z).

    Each degree comes of the one below, coupled with degree 1.
    """
    if degree == 0:
        return np.ones((1, 1))
    one = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
    if degree == 1:
        return one
    table = clebsch_gordan(degree - 1, 1, degree)
    below = half_turn(degree - 1)
    scale = 2 * degree + 1
    return scale * np.einsum("ijk,ia,jb,abc->kc", table, below, one, table, optimize=True)
