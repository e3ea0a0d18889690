"""Orthonormal bases of the range of a matrix from random samples of it."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from .svd import qr


def randomized_range(
    a: Float[Array, "m n"],
    rank: int,
    *,
    key: PRNGKeyArray,
    oversampling: int = 10,
    power_steps: int = 2,
) -> Float[Array, "m k"]:
    """Return an orthonormal basis that holds most of the range of `a`.

    Halko, Martinsson and Tropp, "Finding structure with randomness", 2011, algorithm 4.4:
    subspace iteration with a QR between the products, without which small singular values drown
    in rounding. Without power steps the basis is poor where the singular values decay slowly.

    Args:
        a: a matrix.
        rank: the number of directions wanted.
        key: of the random samples.
        oversampling: samples beyond `rank`; `k = min(rank + oversampling, m, n)`.
        power_steps: products with `a.T` and `a` that sharpen the decay.
    """

    def mm(x: Array, y: Array) -> Array:
        return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)

    k = min(rank + oversampling, *a.shape)
    q, _ = qr(mm(a, jax.random.normal(key, (a.shape[1], k), a.dtype)))
    for _ in range(power_steps):
        p, _ = qr(mm(a.T, q))
        q, _ = qr(mm(a, p))
    return q
