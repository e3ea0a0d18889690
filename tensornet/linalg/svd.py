"""Singular values, eigenvalues and QR with gradients that stay finite where vectors are not unique.

Where singular values repeat or vanish, the vectors that belong to them are fixed only up to a
rotation, and the textbook derivatives divide by zero. A loss that sees only the space of those
vectors, and the values by a symmetric function of them, has a derivative all the same. It is found
by leaving the rotation's own part out, which is what the rules below do (compare Townsend,
"Differentiating the singular value decomposition", 2016; Walter and Lehmann, "Algorithmic
differentiation of linear algebra functions", 2010). To keep to such losses, project: use
`u @ (u.T @ a)`, not `(u * s) @ vt`, whose vectors and values only together undo the choice.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Entries of a chunk that stays near the cache: on CPU, products of a wide matrix of few rows with
# its transpose are faster by chunks of columns, twice at 60 rows, by a fifth at 200 (float64).
_CHUNK, _CHUNKED_ROWS = 2**18, 250
_GAP = 32  # gaps below this many eps of the largest value are rounding, not gaps


def _mm(a: Array, b: Array) -> Array:
    # The highest precision: what accelerators use otherwise breaks orthogonality.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _eps(a: Array) -> float:
    return float(jnp.finfo(a.dtype).eps)


def gram_floor(dtype: Any) -> float:
    """Return the relative size below which singular values from a Gram matrix are rounding.

    The Gram matrix holds squares, so what lies below about sqrt(eps) of the largest is lost:
    4.5e-8 in float64, 1.0e-3 in float32.
    """
    return 3.0 * float(jnp.finfo(dtype).eps) ** 0.5


def _reciprocal(x: Array, least: Array) -> Array:
    # 1 / x, and 0 where |x| <= least; no infinity arises, also not in a derivative of this.
    tiny = jnp.abs(x) <= least
    return jnp.where(tiny, 0.0, 1.0 / jnp.where(tiny, 1.0, x))


def _svd_forward(
    a: Float[Array, "m n"],
) -> tuple[Float[Array, "m k"], Float[Array, " k"], Float[Array, "k n"]]:
    m, n = a.shape
    if m > 2 * n:  # the singular values are those of R; one pass over the long side
        q, r = jnp.linalg.qr(a)
        u, s, vt = jnp.linalg.svd(r, full_matrices=False)
        return _mm(q, u), s, vt
    if n > 2 * m:
        q, r = jnp.linalg.qr(a.T)
        u, s, vt = jnp.linalg.svd(r.T, full_matrices=False)
        return u, s, _mm(vt, q.T)
    u, s, vt = jnp.linalg.svd(a, full_matrices=False)
    return u, s, vt


@jax.custom_jvp
def svd(
    a: Float[Array, "m n"],
) -> tuple[Float[Array, "m k"], Float[Array, " k"], Float[Array, "k n"]]:
    """Return the thin singular value decomposition `a = (u * s) @ vt`, `k = min(m, n)`.

    Works under jit, vmap, and both modes of differentiation. Where singular values repeat or
    vanish the derivative is finite, and exact for losses that see only the spaces of the vectors
    there, or the polar factor `u @ vt`.

    Args:
        a: a matrix.

    Returns:
        `u` with orthonormal columns, `s` descending, `vt` with orthonormal rows.
    """
    return _svd_forward(a)


@svd.defjvp
def _svd_jvp(primals: Any, tangents: Any) -> Any:
    (a,), (da,) = primals, tangents
    m, n = a.shape
    u, s, vt = svd(a)
    least = _GAP * _eps(a) * s[:1]
    dp = _mm(_mm(u.T, da), vt.T)
    ds = jnp.diagonal(dp)
    # The rotations of u and v: the common one divides by the gaps s_j - s_i, the opposite one by
    # the sums s_j + s_i. Only the common one is free where values repeat.
    common = 0.5 * (dp + dp.T) * _reciprocal(s[None, :] - s[:, None], least[:, None])
    opposite = 0.5 * (dp - dp.T) * _reciprocal(s[None, :] + s[:, None], least[:, None])
    du = _mm(u, common + opposite)
    dv = _mm(vt.T, common - opposite)
    inverse = _reciprocal(s, least)
    if m > n:
        rest = _mm(da, vt.T)
        du = du + (rest - _mm(u, _mm(u.T, rest))) * inverse[None, :]
    if n > m:
        rest = _mm(da.T, u)
        dv = dv + (rest - _mm(vt.T, _mm(vt, rest))) * inverse[None, :]
    return (u, s, vt), (du, ds, dv.T)


@jax.custom_jvp
def eigh(a: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Return the eigenvalues, ascending, and eigenvectors of a symmetric matrix.

    Only the symmetric part of `a` counts. Where eigenvalues repeat the derivative is finite, and
    exact for losses that see only the space of the vectors there.

    Args:
        a: a symmetric matrix.

    Returns:
        `w` and `v` with `a = (v * w) @ v.T`.
    """
    w, v = jnp.linalg.eigh(a, symmetrize_input=True)
    return w, v


@eigh.defjvp
def _eigh_jvp(primals: Any, tangents: Any) -> Any:
    (a,), (da,) = primals, tangents
    w, v = eigh(a)
    least = _GAP * _eps(a) * jnp.max(jnp.abs(w), keepdims=True)
    dp = _mm(_mm(v.T, 0.5 * (da + da.T)), v)
    dv = _mm(v, dp * _reciprocal(w[None, :] - w[:, None], least[:, None]))
    return (w, v), (jnp.diagonal(dp), dv)


@jax.custom_jvp
def qr(a: Float[Array, "m n"]) -> tuple[Float[Array, "m k"], Float[Array, "k n"]]:
    """Return the reduced QR decomposition `a = q @ r`, `k = min(m, n)`.

    Where a column of `a` lies in the span of those before it, its column of `q` is arbitrary and
    textbook derivatives divide by zero. Here that column turns only as far as the columns before
    it make it turn, and `dr` takes what the span of `q` can hold, so that
    `dq @ r + q @ dr = da` but for what such a column would gain outside that span; `dr` is
    triangular but for such columns. Exact for full rank, and along changes that keep the rank;
    finite always.

    Args:
        a: a matrix, of any shape.

    Returns:
        `q` with orthonormal columns and `r` upper triangular.
    """
    q, r = jnp.linalg.qr(a)
    return q, r


@qr.defjvp
def _qr_jvp(primals: Any, tangents: Any) -> Any:
    (a,), (da,) = primals, tangents
    k = min(a.shape)
    q, r = qr(a)
    # X solves X r = da on the leading k columns, with 0 in the columns whose pivot vanishes.
    square = r[:, :k]
    pivots = jnp.abs(jnp.diagonal(square))
    # A NaN pivot counts as sound, so that NaN stays visible.
    dead = pivots <= _GAP * _eps(a) * jnp.max(jnp.abs(r))
    square = jnp.where(dead[None, :], jnp.eye(k, dtype=a.dtype), square)
    x = jnp.where(dead[None, :], 0.0, da[:, :k])
    x = lax.linalg.triangular_solve(square, x, left_side=False, lower=False)
    qx = _mm(q.T, x)
    lower = jnp.tril(qx, -1)
    turn = lower - lower.T
    dq = _mm(q, turn - qx) + x
    dr = _mm(q.T, da) - _mm(turn, r)
    return (q, r), (dq, dr)


def _gram(a: Array) -> Array:
    m, n = a.shape
    width = max(_CHUNK // m, 1)
    if n < 4 * width or m > _CHUNKED_ROWS:
        return _mm(a, a.T)

    def by_chunks(a: Array) -> Array:
        def add(k: Array, total: Array) -> Array:
            chunk = lax.dynamic_slice_in_dim(a, k * width, width, axis=1)
            return total + _mm(chunk, chunk.T)

        rest = a[:, n - n % width :]
        return lax.fori_loop(0, n // width, add, _mm(rest, rest.T))

    return lax.platform_dependent(a, cpu=by_chunks, default=lambda a: _mm(a, a.T))


def _left_gram(a: Array) -> tuple[Array, Array, Array]:
    # (u, s, least): the vectors, the values, and the size of value that is noise.
    w, v = jnp.linalg.eigh(_gram(a), symmetrize_input=False)
    s = jnp.sqrt(jnp.maximum(w[::-1], 0.0))
    # Values below this differ by less than their squares resolve.
    return v[:, ::-1], s, (_GAP * _eps(a)) ** 0.5 * s[0]


def _left_refined(a: Array, u: Array) -> tuple[Array, Array, Array]:
    # From the vectors of the Gram route to full accuracy, by products only: a QR of a matrix with
    # a long side takes ten times as long. The rows of u.T a are graded, and scaled to length one
    # their Gram matrix resolves sqrt(eps) of each row. Row i holds at most eps s_0^2 / s_j of the
    # part that belongs to row j, or s_j where that is less: sqrt(eps) s_0 beyond its own size.
    # So eps s_0 is resolved, as by an SVD of a.
    b = _mm(u.T, a)
    length = jnp.sqrt(jnp.sum(b * b, axis=1))
    safe = jnp.where(length > 0, length, 1.0)
    c = b / safe[:, None]
    w, v = jnp.linalg.eigh(_gram(c), symmetrize_input=False)
    small = length[:, None] * v * jnp.sqrt(jnp.maximum(w, 0.0))[None, :]
    turn, s, _ = jnp.linalg.svd(small, full_matrices=False)
    return _mm(u, turn), s, _GAP * _eps(a) * s[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _left(a: Array, rank: int | None, gram: bool) -> tuple[Array, Array, Array]:
    m, n = a.shape
    if 2 * m > n and (m > n or not gram):
        u, s, _ = _svd_forward(a)
        return u, s, _GAP * _eps(a) * s[0]
    fast = _left_gram(a)
    if not gram:
        return _left_refined(a, fast[0])
    if rank is None or rank >= m:
        return fast
    tail = jnp.sqrt(jnp.sum(fast[1][rank:] ** 2) / jnp.sum(fast[1] ** 2))
    # Also a zero matrix, whose tail is NaN, takes the fast result.
    return lax.cond(tail < gram_floor(a.dtype), lambda: _left_refined(a, fast[0]), lambda: fast)


@_left.defjvp
def _left_jvp(rank: int | None, gram: bool, primals: Any, tangents: Any) -> Any:
    (a,), (da,) = primals, tangents
    m, n = a.shape
    u, s, least = _left(a, rank, gram)
    # u turns as the eigenvectors of a a^T do; the right vectors, never formed, are not needed.
    ua = _mm(u.T, a)
    mixed = _mm(_mm(u.T, da), ua.T)
    # A gap counts by s_j^2 - s_i^2 against what of it is resolved, for either route.
    size = jnp.maximum(jnp.maximum(s[None, :], s[:, None]), least)
    gap = (s[None, :] - s[:, None]) * (s[None, :] + s[:, None])
    du = _mm(u, (mixed + mixed.T) * _reciprocal(gap, least * size))
    ds = jnp.diagonal(mixed) * _reciprocal(s, least)
    if m > n:
        rest = _mm(da, ua.T)
        rest = rest - _mm(u, _mm(u.T, rest))
        du = du + rest * _reciprocal(s**2, least**2)[None, :]
    return (u, s, least), (du, ds, jnp.zeros_like(least))


def left_singular(
    a: Float[Array, "m n"], *, rank: int | None = None, rtol: float | None = None
) -> tuple[Float[Array, "m k"], Float[Array, " k"]]:
    """Return the left singular vectors and the singular values, `k = min(m, n)`.

    The eigenvectors of `a @ a.T` give them fast, but only down to `gram_floor` of the largest.
    Say what the result is for, and that route is taken where it is good enough. With neither
    argument the accurate route is taken.

    Args:
        a: a matrix.
        rank: how many vectors will be kept. If those dropped hold less than the floor, as in a
            matrix of exactly that rank, the accurate route is taken inside the trace.
        rtol: the least error, relative to the norm of `a`, by which the rank will be chosen.

    Returns:
        `u` with orthonormal columns and `s` descending.
    """
    gram = rank is not None if rtol is None else rtol >= gram_floor(a.dtype)
    u, s, _ = _left(a, rank if rtol is None else None, gram)
    return u, s


def rank_for(s: Any, threshold: float) -> int:
    """Return the smallest rank, at least 1, whose dropped values have 2-norm <= `threshold`.

    Runs on the host: a rank is a shape.

    Args:
        s: singular values, descending.
        threshold: absolute.
    """
    tails = np.sqrt(np.cumsum(np.asarray(s, np.float64)[::-1] ** 2))[::-1]
    return max(1, int(np.sum(tails > threshold)))
