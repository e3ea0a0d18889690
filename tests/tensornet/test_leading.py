"""The leading singular vectors by iteration, against numpy's SVD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.linalg import leading, leading_left, left_singular

M, N, RANK = 60, 90, 5


def matrix(values, dtype, seed=0):
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.normal(size=(M, len(values))))
    v, _ = np.linalg.qr(rng.normal(size=(N, len(values))))
    return jnp.asarray((u * values) @ v.T, dtype)


SPECTRA = {
    "a gap": np.r_[5.0, 4, 3, 2, 1, np.full(40, 0.02)],
    "slow decay": 1 / np.arange(1, 51),
    "flat": np.linspace(1, 0.9, 50),
    "no gap": np.ones(50),
    "exactly of the rank": np.r_[5.0, 4, 3, 2, 1],
    "of a lower rank": np.r_[5.0, 4, 3],
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("warm", [False, True])
def test_equals_numpy(name, warm, dtype):
    values = SPECTRA[name]
    a = matrix(values, dtype)
    exact_u, exact_s, _ = np.linalg.svd(np.asarray(a, np.float64))
    start = None
    if warm:
        rng = np.random.default_rng(1)
        near = exact_u[:, :RANK] + 0.05 * rng.normal(size=(M, RANK))
        start = jnp.asarray(np.linalg.qr(near)[0], dtype)
    u, missed = jax.jit(lambda a: leading_left(a, RANK, start=start))(a)
    eps = float(jnp.finfo(dtype).eps)
    assert u.dtype == dtype
    np.testing.assert_allclose(u.T @ u, np.eye(RANK), atol=30 * eps)
    # However close to the next value the last is, what is caught is as much as can be.
    caught = np.linalg.norm(np.asarray(u, np.float64).T @ np.asarray(a, np.float64)) ** 2
    np.testing.assert_allclose(caught, np.sum(exact_s[:RANK] ** 2), rtol=100 * eps)
    np.testing.assert_allclose(
        missed, np.sum(exact_s[RANK:] ** 2), atol=100 * eps * np.sum(exact_s**2)
    )
    if name == "a gap":
        space = exact_u[:, :RANK] @ exact_u[:, :RANK].T
        np.testing.assert_allclose(u @ u.T, space, atol=300 * eps)


@pytest.mark.usefixtures("x64")
def test_a_gap_needs_no_other_route(monkeypatch):
    """The iteration's own result is what comes out where it converges, and only there."""
    unknown = (jnp.full((M, RANK), jnp.nan), jnp.asarray(jnp.nan))
    monkeypatch.setattr(leading, "_all", lambda *_: unknown)
    for name, own in (("a gap", True), ("flat", False), ("exactly of the rank", False)):
        u, _ = leading_left(matrix(SPECTRA[name], "float64"), RANK)
        assert bool(jnp.all(jnp.isfinite(u))) == own, name


@pytest.mark.usefixtures("x64")
def test_derivative_is_that_of_the_exact_route():
    a = matrix(SPECTRA["a gap"], "float64")
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(M, M)))

    def loss(route):
        def of(a):
            u = route(a)
            return jnp.sum(weight * (u @ u.T))

        return of

    ours = jax.grad(loss(lambda a: leading_left(a, RANK)[0]))(a)
    exact = jax.grad(loss(lambda a: left_singular(a, rank=RANK)[0][:, :RANK]))(a)
    np.testing.assert_allclose(ours, exact, atol=1e-12)
    step = jnp.asarray(np.random.default_rng(3).normal(size=(M, N)))
    of = loss(lambda a: leading_left(a, RANK)[0])
    difference = (of(a + 1e-5 * step) - of(a - 1e-5 * step)) / 2e-5
    np.testing.assert_allclose(jnp.vdot(ours, step), difference, rtol=1e-6)


def test_zeros_and_nan(dtype):
    u, missed = leading_left(jnp.zeros((M, N), dtype), RANK)
    assert missed == 0
    np.testing.assert_allclose(u.T @ u, np.eye(RANK), atol=1e-5)
    bad = jnp.ones((M, N), dtype).at[3, 4].set(jnp.nan)
    assert not np.all(np.isfinite(leading_left(bad, RANK)[0]))
