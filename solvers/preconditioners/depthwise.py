"""Convolutions of each channel by itself, three points wide, and halving of grids.

One loop over the grid, all neighbours read in it: twenty times faster on a CPU than the general
convolution, whose channels are here mixed by a product apart.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float


@jax.custom_vjp
def depthwise(
    weights: Float[Array, "channels places"], h: Float[Array, "channels many *grid"]
) -> Float[Array, "channels many *grid"]:
    """Return h convolved with its channel's weights, zero outside of the grid.

    Args:
        weights: one for each of the 3^d neighbours, the last axis running fastest.
        h: fields on a grid.
    """
    return _sum(weights, h)


def _sum(weights: Array, h: Array) -> Array:
    return jax.lax.platform_dependent(
        weights, h, cpu=_in_calls, default=lambda weights, h: _taps(weights, _around(h))
    )


def _in_calls(weights: Array, h: Array) -> Array:
    # XLA would work out on a CPU what is read here, and what is made, once for each of its
    # readers; calls that are not inlined keep them apart.
    with set_xla_metadata(inlineable="false"):
        return _taps(weights, _around(h))


@jax.jit
def _around(h: Array) -> Array:
    return jax.lax.optimization_barrier(_padded(h))


@jax.jit
def _taps(weights: Array, padded: Array) -> Array:
    shape = tuple(n - 2 for n in padded.shape[2:])
    total = jnp.zeros((*padded.shape[:2], *shape), padded.dtype)
    for k, step in enumerate(itertools.product(range(3), repeat=len(shape))):
        window = (..., *(slice(s, s + n) for s, n in zip(step, shape, strict=True)))
        total = total + jnp.expand_dims(weights[:, k], range(1, padded.ndim)) * padded[window]
    return jax.lax.optimization_barrier(total)


def _forward(weights: Array, h: Array) -> tuple[Array, tuple[Array, Array]]:
    return _sum(weights, h), (weights, h)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    weights, h = kept
    padded, g = jax.lax.optimization_barrier((_padded(h), g))

    def slope(_: None, step: Array) -> tuple[None, Array]:
        window = jax.lax.dynamic_slice(padded, (0, 0, *step), h.shape)
        # To vectors first: a sum down to a number at once is not vectorized.
        partial = jax.lax.optimization_barrier(jnp.sum(g * window, axis=(1, 2)))
        return None, jnp.sum(partial.reshape(len(h), -1), axis=1)

    steps = np.array(list(itertools.product(range(3), repeat=h.ndim - 2)), np.int32)
    _, slopes = jax.lax.scan(slope, None, jnp.asarray(steps))
    return slopes.T.astype(weights.dtype), _sum(weights[:, ::-1], g)


depthwise.defvjp(_forward, _backward)


def _padded(h: Array) -> Array:
    return jnp.pad(h, [(0, 0), (0, 0)] + [(1, 1)] * (h.ndim - 2))


def coarser(h: Float[Array, "channels many *grid"]) -> Float[Array, "channels many *half"]:
    """Return means over pairs of points along each axis, of a zero beyond an odd end."""
    odd = [n % 2 for n in h.shape[2:]]
    if any(odd):
        h = jnp.pad(h, [(0, 0), (0, 0)] + [(0, n) for n in odd])
    # Eight reads in one loop take a fifth of the time of XLA's sum over short axes.
    corners = itertools.product(range(2), repeat=h.ndim - 2)
    parts = [h[(..., *(slice(first, None, 2) for first in corner))] for corner in corners]
    return functools.reduce(jnp.add, parts) / len(parts)


def finer(h: Float[Array, "channels many *half"], grid: tuple[int, ...]) -> Array:
    """Return the same values on a grid twice as fine, each on a pair of points along each axis."""
    # Not by `jnp.repeat`, a gather, which would be worked out again by everything that reads it.
    half = h.shape[2:]
    h = h.reshape(*h.shape[:2], *(size for n in half for size in (n, 1)))
    h = jnp.broadcast_to(h, (*h.shape[:2], *(size for n in half for size in (n, 2))))
    h = h.reshape(*h.shape[:2], *(2 * n for n in half))
    return h[(slice(None), slice(None), *(slice(n) for n in grid))]
