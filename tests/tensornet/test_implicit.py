import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.linalg import at_stationary_point

pytestmark = pytest.mark.slow


def _least_squares(theta, data):
    matrix, rhs = data
    return 0.5 * jnp.sum((matrix @ theta - rhs) ** 2)


def _solve(matrix, rhs):
    stopped = jax.lax.stop_gradient((matrix, rhs))
    theta = jnp.linalg.lstsq(*stopped)[0]
    return at_stationary_point(_least_squares, theta, (matrix, rhs))


def _data(seed=0, rows=12, columns=5):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(rows, columns))), jnp.asarray(rng.normal(size=rows))


def test_identity_in_the_forward_pass(dtype):
    matrix, rhs = (v.astype(dtype) for v in _data())
    theta = jnp.arange(5, dtype=dtype)
    got = at_stationary_point(_least_squares, theta, (matrix, rhs))
    np.testing.assert_array_equal(got, theta)
    assert got.dtype == dtype


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_jacobian_of_least_squares(mode, x64):
    del x64
    matrix, rhs = _data()
    got = mode(_solve, argnums=(0, 1))(matrix, rhs)
    want = mode(lambda a, b: jnp.linalg.solve(a.T @ a, a.T @ b), argnums=(0, 1))(matrix, rhs)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=1e-9 * float(jnp.abs(w).max()))


def test_gauge_directions_do_no_harm(x64):
    """The best rank-1 matrix u v^T, whose scale between u and v is free."""
    del x64
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))

    def objective(theta, x):
        u, v = theta
        return 0.5 * jnp.sum((x - u[:, None] * v[None, :]) ** 2)

    def best(x):
        left, values, right = jnp.linalg.svd(jax.lax.stop_gradient(x), full_matrices=False)
        theta = (left[:, 0] * values[0], right[0])
        u, v = at_stationary_point(objective, theta, x)
        return u[:, None] * v[None, :]

    weight = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    got = jax.grad(lambda x: jnp.sum(weight * best(x)))(x)

    def outside(x):
        u, s, vt = np.linalg.svd(np.asarray(x))
        return float(np.sum(np.asarray(weight) * s[0] * np.outer(u[:, 0], vt[0])))

    step = 1e-5
    for i, j in np.ndindex(4, 3):
        shift = np.zeros((4, 3))
        shift[i, j] = step
        want = (outside(x + shift) - outside(x - shift)) / (2 * step)
        np.testing.assert_allclose(got[i, j], want, rtol=1e-6, atol=1e-8)


def test_inconsistent_right_hand_side_stays_finite(x64):
    """A loss that does change along a null direction of the Hessian: finite, not exploding."""
    del x64
    matrix, rhs = _data()
    matrix = matrix.at[:, -1].set(matrix[:, 0])
    gradient = jax.grad(lambda b: jnp.sum(_solve(matrix, b) * jnp.arange(5.0)))(rhs)
    assert bool(jnp.all(jnp.isfinite(gradient)))
    assert float(jnp.abs(gradient).max()) < 1e3


def test_vmap_and_jit(x64):
    del x64
    pairs = [_data(seed) for seed in range(3)]
    matrices, sides = map(jnp.stack, zip(*pairs, strict=True))
    gradient = jax.grad(lambda a, b: jnp.sum(_solve(a, b) ** 2))
    together = jax.jit(jax.vmap(gradient))(matrices, sides)
    for n in range(3):
        np.testing.assert_allclose(together[n], gradient(*pairs[n]), rtol=1e-8, atol=1e-10)


def test_masks_in_the_data_are_carried_along(x64):
    del x64

    def objective(theta, data):
        x, mask = data
        return 0.5 * jnp.sum(jnp.where(mask, x - theta, 0.0) ** 2)

    def mean(x, mask):
        theta = jnp.mean(jax.lax.stop_gradient(x), where=mask)
        return at_stationary_point(objective, theta, (x, mask))

    mask = jnp.asarray([True, False, True, True])
    gradient = jax.grad(mean)(jnp.arange(4.0), mask)
    np.testing.assert_allclose(gradient, np.asarray(mask) / 3, rtol=1e-12)
