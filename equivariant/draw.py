"""Random weights, without a compilation for each shape."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_BLOCK = 4096


def normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw from a standard normal distribution, in jax's default float.

    Numbers are drawn in blocks of one size: `jax.random.normal` compiles up to a second for every
    shape, and a potential has thirty.
    """
    dtype = jax.dtypes.canonicalize_dtype(float)
    size = math.prod(shape)
    blocks = [_block(jax.random.fold_in(key, n), dtype) for n in range(-(-size // _BLOCK) or 1)]
    flat = jnp.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    return flat[:size].reshape(shape)


@partial(jax.jit, static_argnums=1)
def _block(key: PRNGKeyArray, dtype: Any) -> Array:
    return jax.random.normal(key, (_BLOCK,), dtype)
