"""Where alternating least squares for CP starts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ..formats import CP
from ..linalg import eigh
from ..planner import contract
from .cp_sweep import Factors

_ASIDE = 0.01


def random_factors(
    key: PRNGKeyArray, shape: tuple[int, ...], rank: int, dtype: jnp.dtype, nonnegative: bool
) -> Factors:
    """Return normally distributed factors, rank first; their absolute values if nonnegative."""
    # One draw, cut up: each call of the generator adds to what is compiled.
    numbers = jax.random.normal(key, (rank, sum(shape)), dtype)
    numbers = jnp.abs(numbers) if nonnegative else numbers
    return tuple(jnp.split(numbers, np.cumsum(shape)[:-1], axis=1))


def svd_factors(x: Array, rank: int, nonnegative: bool) -> Factors:
    """Return the leading left singular vectors of each unfolding, rank first.

    The first mode is updated before its factor is used, so it gets none.

    Where a mode is smaller than the rank, the columns left over are filled with pseudorandom
    numbers, the same always. With `nonnegative` each vector is replaced by its positive part, after
    turning it so that this is the larger one.
    """
    fill = np.random.default_rng(0)
    factors = []
    for mode, size in enumerate(x.shape):
        if mode == 0 and x.ndim > 1:
            factors.append(jnp.ones((rank, size), x.dtype))
            continue
        _, vectors = eigh(_mode_gram(x, mode))
        leading = vectors[:, ::-1][:, :rank].T
        scale = 1 / math.sqrt(size)
        noise = scale * fill.standard_normal((rank, size))
        # Exact singular vectors of a symmetric tensor can be a saddle point: step beside it.
        leading = leading + jnp.asarray(_ASIDE * noise[: leading.shape[0]], x.dtype)
        factor = jnp.concatenate([leading, jnp.asarray(noise[leading.shape[0] :], x.dtype)])
        if nonnegative:
            positive = jnp.sum(jnp.maximum(factor, 0.0) ** 2, axis=1, keepdims=True)
            negative = jnp.sum(jnp.minimum(factor, 0.0) ** 2, axis=1, keepdims=True)
            factor = jnp.maximum(jnp.where(negative > positive, -factor, factor), 0.0)
            # No exact zeros to start from: multiplied into the others' they would be hard to leave.
            factor = factor + 0.1 * scale
        factors.append(factor)
    return tuple(factors)


def given_factors(init: CP, nonnegative: bool) -> Factors:
    """Return a CP tensor's factors, rank first, with the weights in the first."""
    factors = tuple(f.T for f in init.factors)
    factors = (factors[0] * init.weights[:, None], *factors[1:])
    return tuple(jnp.maximum(f, 0.0) for f in factors) if nonnegative else factors


def _mode_gram(x: Array, mode: int) -> Array:
    """Return the unfolding of `mode` times its transpose, without a permuted copy of `x`."""
    before, size = math.prod(x.shape[:mode]), x.shape[mode]
    blocks = x.reshape(before, size, -1)
    if before == 1:
        return contract("ib,jb->ij", blocks[0], blocks[0])
    if blocks.shape[2] == 1:
        return contract("bi,bj->ij", blocks[:, :, 0], blocks[:, :, 0])
    if x.size < 1 << 16:  # small: copying is cheaper than a loop
        return contract("aib,ajb->ij", blocks, blocks)

    def add(total: Array, block: Array) -> tuple[Array, None]:
        return total + contract("ib,jb->ij", block, block), None

    return jax.lax.scan(add, jnp.zeros((size, size), x.dtype), blocks)[0]
