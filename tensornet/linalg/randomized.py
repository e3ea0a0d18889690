"""Orthonormal bases of the range of a matrix from random samples of it."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from .svd import eigh, qr


def _mm(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _orthonormal(b: Float[Array, "n k"]) -> Float[Array, "n k"]:
    # As good as a QR for a basis to multiply with, and ten times as fast where n is large. The
    # eigenvectors of the Gram matrix leave columns of graded lengths; scaled to length one they
    # are nearly orthogonal, so that doing it again makes them orthonormal, but for those that
    # are rounding.
    least = float(jnp.finfo(b.dtype).eps)
    for _ in range(2):
        _, v = eigh(_mm(b.T, b))
        b = _mm(b, v)
        squared = jnp.sum(b * b, axis=0)
        # The bound only guards against columns of zeros.
        safe = jnp.maximum(squared, least**3 * jnp.max(squared))
        b = b * lax.rsqrt(jnp.where(safe > 0, safe, 1.0))[None, :]
    return b


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
    subspace iteration, orthonormalized after each product, without which small singular values
    drown in rounding. Without power steps the basis is poor where singular values decay slowly.

    Args:
        a: a matrix.
        rank: the number of directions wanted.
        key: of the random samples.
        oversampling: samples beyond `rank`; `k = min(rank + oversampling, m, n)`.
        power_steps: products with `a.T` and `a` that sharpen the decay.
    """
    k = min(rank + oversampling, *a.shape)
    b = _mm(a, jax.random.normal(key, (a.shape[1], k), a.dtype))
    for _ in range(power_steps):
        b = _mm(a, _orthonormal(_mm(a.T, _orthonormal(b))))
    return qr(b)[0]
