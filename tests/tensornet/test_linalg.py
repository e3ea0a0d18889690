"""Against numpy's SVD, eigh and QR, finite differences, and identities of the factors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tensornet.linalg import (
    eigh,
    gram_floor,
    left_singular,
    qr,
    randomized_range,
    rank_for,
    svd,
)

pytestmark = pytest.mark.slow

SHAPES = [(5, 5), (7, 3), (3, 5), (2, 9)]


def matrix(shape, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def with_values(s, n, dtype, seed=0):
    """A matrix [len(s), n] of singular values s."""
    rng = np.random.default_rng(seed)
    m = len(s)
    u = np.linalg.qr(rng.normal(size=(m, m)))[0]
    v = np.linalg.qr(rng.normal(size=(n, m)))[0]
    return jnp.asarray((u * s) @ v.T, dtype)


def weights(shape, dtype=jnp.float64):
    return jnp.cos(jnp.arange(float(np.prod(shape)), dtype=dtype)).reshape(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_factors(shape, dtype):
    a = matrix(shape, dtype)
    tol = 20 * jnp.finfo(dtype).eps
    u, s, vt = svd(a)
    k = min(shape)
    assert u.shape == (shape[0], k)
    assert vt.shape == (k, shape[1])
    assert u.dtype == s.dtype == vt.dtype == dtype
    np.testing.assert_allclose((u * s[None, :]) @ vt, a, atol=tol * 5)
    np.testing.assert_allclose(u.T @ u, np.eye(k), atol=tol)
    np.testing.assert_allclose(vt @ vt.T, np.eye(k), atol=tol)
    np.testing.assert_allclose(s, np.linalg.svd(np.asarray(a), compute_uv=False), atol=tol * 5)


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 5)])
def test_gradients_are_finite_differences(shape, x64):  # noqa: ARG001
    a, w = matrix(shape, jnp.float64), weights(shape)

    def by_svd(a):
        u, s, vt = svd(a)
        polar = jnp.sum(w * (u @ vt))
        return polar + jnp.sum(((u[:, :1] * s[0] ** 1.5) @ vt[:1] * w) ** 2) + jnp.sum(s**3)

    def by_qr(a):
        q, r = qr(a)
        return jnp.sum(q**2 * weights(q.shape)) + jnp.sum(r * weights(r.shape))

    def by_left(a):
        u, s = left_singular(a, rank=1)
        return jnp.sum(w * (u[:, :1] @ (u[:, :1].T @ a))) + jnp.sum(s * weights(s.shape))

    def by_eigh(a):
        e, v = eigh(a @ a.T)
        top = v[:, -1:]
        return jnp.sum(weights((len(e), len(e))) * (top @ top.T)) + e[-1] ** 2

    for loss in (by_svd, by_qr, by_left, by_eigh):
        check_grads(jax.jit(loss), (a,), order=1, rtol=1e-6, atol=1e-6)  # both modes


def test_second_derivative(x64):  # noqa: ARG001
    def loss(a):
        u, s, vt = svd(a)
        low = (u[:, :2] * s[None, :2]) @ vt[:2]
        return jnp.sum(low**2 * weights(low.shape)) + jnp.sum(left_singular(a, rank=2)[1] ** 3)

    check_grads(jax.jit(loss), (matrix((4, 5), jnp.float64),), order=2, rtol=1e-5, atol=1e-5)


def test_repeated_values_give_the_exact_gradient(x64):  # noqa: ARG001
    # The polar factor, the nuclear norm and the sum of squares do not see which vectors were
    # taken. Of a = q (orthogonal): d polar = q skew(q^T da), d nuclear = polar, d squares = 2 a.
    q = jnp.linalg.qr(matrix((4, 4), jnp.float64))[0]
    w = weights((4, 4))

    def polar(a):
        u, _, vt = svd(a)
        return jnp.sum(w * (u @ vt))

    skew = 0.5 * (q.T @ w - w.T @ q)
    np.testing.assert_allclose(jax.grad(polar)(q), q @ skew, atol=1e-13)
    np.testing.assert_allclose(jax.grad(lambda a: jnp.sum(svd(a)[1]))(q), q, atol=1e-13)

    def projected(a):  # onto a space that holds all repeats
        u, s = left_singular(a, rank=4)
        return jnp.sum((u @ (u.T @ a)) ** 2) + jnp.sum(s**2)

    np.testing.assert_allclose(jax.grad(projected)(q), 4 * q, atol=1e-13)

    # Of a symmetric matrix with two pairs of repeats: the space of the upper pair, and a sum over
    # all values. By perturbation theory d projector = offdiagonal blocks of da over the gap 1.
    def space(a):
        e, v = eigh(a)
        return jnp.sum(w * (v[:, 2:] @ v[:, 2:].T)) + jnp.sum(e**3)

    a = jnp.diag(jnp.asarray([2.0, 2.0, 1.0, 1.0]))
    blocks = np.kron(1 - np.eye(2), np.ones((2, 2)))
    expected = 0.5 * (w + w.T) * blocks + 3 * a @ a
    np.testing.assert_allclose(jax.grad(space)(a), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4), (3, 6), (12, 3)])
def test_vanishing_values_give_finite_gradients(shape, dtype):
    low = matrix((shape[0], 2), dtype) @ matrix((2, shape[1]), dtype, 1)
    w = weights(shape, dtype)

    def truncated(a):
        u, s, vt = svd(a)
        return jnp.sum(w * ((u[:, :2] * s[None, :2]) @ vt[:2]))

    def projected(a):
        u = left_singular(a, rank=2)[0][:, :2]
        return jnp.sum(w * (u @ (u.T @ a)))

    # The truncation's derivative at a matrix of that rank: the projection on its tangent space.
    u, _, vt = np.linalg.svd(np.asarray(low, np.float64))
    left, right = u[:, 2:] @ u[:, 2:].T, vt[2:].T @ vt[2:]
    expected = np.asarray(w) - left @ np.asarray(w) @ right
    tol = 2000 * jnp.finfo(dtype).eps
    gradients = jax.jit(lambda a: (jax.grad(truncated)(a), jax.grad(projected)(a)))(low)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, expected, atol=tol)

    @jax.jit
    def all_gradients(a):
        def total(f, a):
            return sum(jnp.sum(part) for part in f(a))

        by_rank = functools.partial(left_singular, rank=2)
        return [jax.grad(functools.partial(total, f))(a) for f in (svd, qr, left_singular, by_rank)]

    for a in (low, jnp.zeros(shape, dtype)):
        assert all(np.isfinite(gradient).all() for gradient in all_gradients(a))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_qr_of_deficient_matrices(shape, x64):  # noqa: ARG001
    # The third column depends on the first two, and the change keeps that: then q r = a holds to
    # first order, and the columns stay orthonormal.
    def deficient(t):
        base = matrix(shape, jnp.float64) + t * matrix(shape, jnp.float64, 1)
        return base.at[:, 2].set((2 + t) * base[:, 0] - base[:, 1])

    a, da = jax.jvp(deficient, (0.0,), (1.0,))
    (q, r), (dq, dr) = jax.jvp(qr, (a,), (da,))
    np.testing.assert_allclose(q @ r, a, atol=1e-14)
    np.testing.assert_allclose(dq @ r + q @ dr, da, atol=1e-12)
    np.testing.assert_allclose(q.T @ dq + dq.T @ q, np.zeros((4, 4)), atol=1e-12)
    assert abs(float(r[2, 2])) < 1e-14  # it is deficient


SPECTRA = {
    "geometric": np.logspace(0, -18, 30),
    "exact rank": np.r_[np.ones(5), np.zeros(25)],
    "steps": np.r_[np.ones(5), np.full(5, 1e-5), np.full(5, 1e-10), np.full(15, 1e-13)],
    "cliff": np.r_[1.0, np.full(29, 1e-9)],
    "flat": np.linspace(1, 0.1, 30),
    "zero": np.zeros(30),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_left_singular_resolves_eps(name, dtype):
    # 20000 columns also take the path by chunks, on CPU.
    for n in (40, 20000):
        a = with_values(SPECTRA[name], n, dtype)
        exact = np.asarray(a, np.float64)
        s_exact = np.linalg.svd(exact, compute_uv=False)
        u, s = left_singular(a)
        eps = float(jnp.finfo(dtype).eps)
        u = np.asarray(u, np.float64)
        np.testing.assert_allclose(u.T @ u, np.eye(30), atol=60 * eps)
        np.testing.assert_allclose(s, s_exact, atol=100 * eps)
        for k in (5, 10, 20):
            error = np.linalg.norm(exact - u[:, :k] @ (u[:, :k].T @ exact))
            assert error <= np.linalg.norm(s_exact[k:]) + 100 * eps


@pytest.mark.parametrize("name", ["exact rank", "flat", "steps"])
def test_left_singular_for_a_rank_and_for_a_tolerance(name, dtype):
    a = with_values(SPECTRA[name], 200, dtype)
    exact = np.asarray(a, np.float64)
    eps = float(jnp.finfo(dtype).eps)
    tail = np.linalg.norm(np.linalg.svd(exact, compute_uv=False)[5:])
    u = np.asarray(jax.jit(lambda a: left_singular(a, rank=5))(a)[0][:, :5], np.float64)
    assert np.linalg.norm(exact - u @ (u.T @ exact)) <= tail * (1 + 1e-6) + 100 * eps

    floor = gram_floor(dtype)
    for rtol in (2 * floor, 0.5 * floor):
        u, s = left_singular(a, rtol=rtol)
        r = rank_for(s, rtol * float(np.linalg.norm(exact)))
        u = np.asarray(u[:, :r], np.float64)
        error = np.linalg.norm(exact - u @ (u.T @ exact)) / np.linalg.norm(exact)
        assert error <= rtol * 1.05
        assert r == rank_for(np.linalg.svd(exact, compute_uv=False), rtol * np.linalg.norm(exact))


def test_vmap_is_the_loop(dtype):
    batch = jnp.stack([matrix((3, 5), dtype), jnp.ones((3, 5), dtype), jnp.zeros((3, 5), dtype)])
    tol = 50 * jnp.finfo(dtype).eps

    def rebuilt(a):
        u, s, vt = svd(a)
        q, r = qr(a)
        v, _ = left_singular(a, rank=1)
        return (u * s[None, :]) @ vt, q @ r, v[:, :1] @ (v[:, :1].T @ a)

    together = jax.jit(jax.vmap(rebuilt))(batch)
    rebuilt = jax.jit(rebuilt)
    for k in range(3):
        for one, alone in zip(together, rebuilt(batch[k]), strict=True):
            np.testing.assert_allclose(one[k], alone, atol=tol)


def test_rank_for():
    s = np.array([4.0, 3.0, 2.0, 1.0])
    assert rank_for(s, 0.0) == 4
    assert rank_for(s, 1.0) == 3
    assert rank_for(s, 5.0**0.5 - 1e-9) == 3
    assert rank_for(s, 5.0**0.5 + 1e-9) == 2
    assert rank_for(s, 100.0) == 1
    assert rank_for(np.zeros(3), 0.0) == 1


def test_randomized_range(dtype):
    eps = float(jnp.finfo(dtype).eps)
    noisy = with_values(np.r_[np.ones(5), np.full(25, 0.1)], 300, dtype)
    for a, rank in ((noisy, 5), (with_values(SPECTRA["exact rank"], 300, dtype), 5)):
        q = jax.jit(lambda a, r=rank: randomized_range(a, r, key=jax.random.key(0)))(a)
        assert q.shape == (30, 15)
        exact, basis = np.asarray(a, np.float64), np.asarray(q, np.float64)
        np.testing.assert_allclose(basis.T @ basis, np.eye(15), atol=60 * eps)
        missed = np.linalg.norm(exact - basis @ (basis.T @ exact))
        tail = np.linalg.norm(np.linalg.svd(exact, compute_uv=False)[rank:])
        assert missed <= tail + 100 * eps
    # Power steps are what finds the leading space within noise.
    leading = np.linalg.svd(np.asarray(noisy, np.float64))[0][:, :5]
    found = [
        np.linalg.norm(np.asarray(q, np.float64).T @ leading)
        for q in (
            randomized_range(noisy, 5, key=jax.random.key(0), oversampling=0, power_steps=p)
            for p in (0, 2)
        )
    ]
    assert 5**0.5 - found[1] < 1e-3 < 5**0.5 - found[0]


def test_nan_stays_visible(x64):  # noqa: ARG001
    a = matrix((4, 6), jnp.float64).at[1, 2].set(jnp.nan)
    for f in (svd, qr, left_singular, functools.partial(left_singular, rank=2)):
        assert all(np.isnan(part).any() for part in f(a))
