"""The leading left singular vectors alone, by subspace iteration on the Gram matrix."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .svd import _eps, _gram, _mm, gram_floor, left_singular

# Columns beyond the rank: the convergence is that of the gap behind them.
_OVERSAMPLING = 8
_SLOW = 0.5  # a step that leaves more of the residual than this: all eigenvectors come sooner
_ROUNDING = 8  # eps of the whole by which a product of many terms rounds
_SMALLEST_SHARE = 4  # of the rows: wider subspaces take as long as all eigenvectors


def leading_left(
    a: Float[Array, "m n"], rank: int, *, start: Float[Array, "m r"] | None = None
) -> tuple[Float[Array, "m rank"], Float[Array, ""]]:
    """Return the leading `rank` left singular vectors, and the squared norm of what they miss.

    As good as `left_singular(a, rank=rank)`, which it turns to where the singular values decay
    slowly behind the rank, and for derivatives. It takes products for the most: LAPACK's
    eigenvectors of all of a matrix of 200 rows cost 5 ms, and the threads of its BLAS go on
    spinning and take the cores from the products that follow, which was a third of an HOOI's time.

    Args:
        a: a matrix; with more rows than columns `left_singular` does it.
        rank: how many vectors.
        start: where the vectors are expected, as from the sweep before.
    """
    m, n = a.shape
    if m > n or _SMALLEST_SHARE * (rank + _OVERSAMPLING) > m:
        return _all(a, rank)
    return _leading(a, rank, start)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _leading(a: Array, rank: int, start: Array | None) -> tuple[Array, Array]:
    m, width = a.shape[0], rank + _OVERSAMPLING
    gram = _gram(a)
    energy = jnp.trace(gram)
    scale = jnp.where(energy > 0, energy, 1.0)
    extra = width if start is None else width - start.shape[1]
    first = jnp.asarray(np.random.default_rng(0).normal(size=(m, extra)), a.dtype)
    if start is not None:
        first = jnp.concatenate([start, first], axis=1)

    def far(state: tuple[Array, ...]) -> Array:
        missed, before = state[:2]
        return (missed > _ROUNDING * _eps(a)) & ((missed < _SLOW * before) | jnp.isinf(before))

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        # Two products an orthonormalization: a column keeps what is above eps of the largest.
        v, _ = jnp.linalg.qr(_mm(gram, state[2]))
        image = _mm(gram, v)
        # Rayleigh and Ritz: the leading vectors within the span of v, and how far they are from
        # being eigenvectors. Matrices this small LAPACK does on one thread.
        w, turn = jnp.linalg.eigh(_mm(v.T, image), symmetrize_input=True)
        w, turn = w[::-1][:rank], turn[:, ::-1][:, :rank]
        u = _mm(v, turn)
        rest = _mm(image, turn) - u * w[None, :]
        missed = jnp.sqrt(jnp.sum(rest * rest)) / scale
        return missed, state[0], image, u, energy - jnp.sum(w)

    far_off = jnp.full((), jnp.inf, a.dtype)
    state = (far_off, far_off, first, jnp.zeros((m, rank), a.dtype), energy)
    missed, _, _, u, dropped = lax.while_loop(far, step, state)
    tail = jnp.sqrt(jnp.maximum(dropped, 0.0) / scale)
    # The iteration stopped short, or what is dropped is below the rounding of squares.
    poor = (missed > _ROUNDING * _eps(a)) | (tail < gram_floor(a.dtype))
    return lax.cond(poor, lambda: _all(a, rank), lambda: (u, dropped))


@_leading.defjvp
def _leading_jvp(rank: int, primals: Any, tangents: Any) -> Any:
    return jax.jvp(lambda a: _all(a, rank), primals[:1], tangents[:1])


def _all(a: Array, rank: int) -> tuple[Array, Array]:
    u, s = left_singular(a, rank=rank)
    return u[:, :rank], jnp.sum(s[rank:] ** 2)
