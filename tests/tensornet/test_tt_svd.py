"""Against numpy's singular values, TensorLy, finite differences, and Oseledets' bounds."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorly.decomposition import tensor_train as tensorly_train

from tensornet import Status
from tensornet.decompose import tt_matrix_svd, tt_svd

pytestmark = pytest.mark.slow


def normal(shape, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def exact(shape, ranks, dtype, seed=0):
    """A tensor train of these inner ranks, dense."""
    rng = np.random.default_rng(seed)
    bonds = (1, *ranks, 1)
    x = np.ones((1, 1))
    for k, n in enumerate(shape):
        core = rng.normal(size=(bonds[k], n, bonds[k + 1])) / (bonds[k] * n) ** 0.5
        x = np.tensordot(x, core, (-1, 0)).reshape(-1, bonds[k + 1])
    return jnp.asarray(x.reshape(shape), dtype)


def smooth(n, d):
    grid = np.meshgrid(*[np.linspace(0, 1, n)] * d, indexing="ij")
    total = sum(grid)
    return 1 / (1 + total) + 0.3 * np.sin(3 * total + grid[0] * grid[-1])


def unfoldings(x):
    x = np.asarray(x, np.float64)
    return [x.reshape(int(np.prod(x.shape[:k])), -1) for k in range(1, x.ndim)]


def error(found, x):
    x = np.asarray(x, np.float64)
    dense = np.asarray(found.tensor.to_dense(), np.float64)
    return np.linalg.norm(dense - x) / np.linalg.norm(x)


def assert_left_orthogonal(cores, tol):
    for core in cores[:-1]:
        flat = np.asarray(core, np.float64).reshape(-1, core.shape[-1])
        np.testing.assert_allclose(flat.T @ flat, np.eye(flat.shape[1]), atol=tol)


def test_every_tolerance_is_met(x64):  # noqa: ARG001
    x = smooth(8, 4)
    values = [np.linalg.svd(a, compute_uv=False) for a in unfoldings(x)]
    size = np.linalg.norm(x)
    last = (0,) * 5
    for k in (2, 5, 7, 8, 10, 12):
        rtol = 10.0**-k
        found = tt_svd(x, rtol=rtol)
        assert error(found, x) <= rtol
        np.testing.assert_allclose(found.relative_error, error(found, x), rtol=1e-2, atol=1e-14)
        assert_left_orthogonal(found.tensor.cores, 1e-13)
        assert found.status == Status.converged
        assert int(found.sweeps) == 0
        # Not more than each bond alone would take for its equal share.
        for s, r in zip(values, found.tensor.rank[1:-1], strict=True):
            tails = [np.linalg.norm(s[i:]) for i in range(len(s))]
            assert r <= max(1, sum(t > 0.99 * rtol / 3**0.5 * size for t in tails))
        assert all(a <= b for a, b in zip(last, found.tensor.rank, strict=True))
        last = found.tensor.rank


def test_every_tolerance_is_met_in_float32():
    x = smooth(8, 4).astype(np.float32)
    for rtol in (1e-2, 1e-3, 1e-5):
        assert error(tt_svd(x, rtol=rtol), x) <= rtol


@hypothesis.given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.floats(-5.0, -0.1),
    st.integers(0, 3),
)
@hypothesis.settings(max_examples=6)
def test_tolerance_for_any_shape(shape, exponent, seed):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    found = tt_svd(x, rtol=10**exponent)
    assert found.tensor.shape == tuple(shape)
    assert found.tensor.dtype == jnp.float32
    assert error(found, x) <= 10**exponent


def test_exact_ranks_are_recovered(dtype):
    shape, ranks = (5, 4, 6, 5), (3, 4, 2)
    x = exact(shape, ranks, dtype)
    eps = float(jnp.finfo(dtype).eps)
    for found in (
        tt_svd(x, max_rank=ranks),
        tt_svd(x, rtol=1e3 * eps),
        tt_svd(x, rtol=1e3 * eps, max_rank=10),
    ):
        assert found.tensor.rank == (1, *ranks, 1)
        assert found.tensor.dtype == found.relative_error.dtype == dtype
        assert error(found, x) < 50 * eps
        assert float(found.relative_error) < 50 * eps
        assert_left_orthogonal(found.tensor.cores, 50 * eps)


def test_fixed_ranks_against_tensorly_and_the_bound(dtype):
    x = normal((5, 6, 4, 5), dtype)
    found = tt_svd(x, max_rank=4)
    assert found.tensor.rank == (1, 4, 4, 4, 1)
    peer = tensorly_train(np.asarray(x, np.float64), [1, 4, 4, 4, 1]).to_tensor()
    peer_error = np.linalg.norm(peer - np.asarray(x)) / np.linalg.norm(x)
    assert error(found, x) <= peer_error * (1 + 1e-5)
    np.testing.assert_allclose(found.relative_error, error(found, x), rtol=1e-4)
    tails = [np.linalg.norm(np.linalg.svd(a, compute_uv=False)[4:]) for a in unfoldings(x)]
    best = max(tails) / np.linalg.norm(x)  # no train of these ranks is closer
    assert best <= error(found, x) * (1 + 1e-5)
    assert error(found, x) <= 3**0.5 * best
    # Without a cut nothing is lost.
    full = tt_svd(x, max_rank=1000)
    assert full.tensor.rank == (1, 5, 20, 5, 1)
    assert error(full, x) < 100 * float(jnp.finfo(dtype).eps)


def test_cap_and_tolerance_together(x64):  # noqa: ARG001
    x = smooth(6, 4)
    capped = tt_svd(x, rtol=1e-8, max_rank=(2, 3, 50))
    assert capped.tensor.rank[1:3] == (2, 3)
    assert float(capped.relative_error) > 1e-8
    np.testing.assert_allclose(capped.relative_error, error(capped, x), rtol=1e-6)


def test_matrices(dtype):
    rows, columns = (3, 4, 2), (2, 3, 4)
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(m, n)) for m, n in zip(rows, columns, strict=True)]
    other = [rng.normal(size=(m, n)) for m, n in zip(rows, columns, strict=True)]

    def kron(parts):
        return np.kron(np.kron(parts[0], parts[1]), parts[2])

    matrix = jnp.asarray(kron(blocks) + kron(other), dtype)
    eps = float(jnp.finfo(dtype).eps)
    for found in (
        tt_matrix_svd(matrix, rows, columns, max_rank=2),
        tt_matrix_svd(matrix, rows, columns, rtol=1e3 * eps),
    ):
        assert found.tensor.rank == (1, 2, 2, 1)
        assert found.tensor.row_shape == rows
        assert found.tensor.column_shape == columns
        assert error(found, matrix) < 50 * eps
        assert_left_orthogonal(found.tensor.cores, 50 * eps)
    noisy = normal((24, 24), dtype)
    found = tt_matrix_svd(noisy, rows, columns, rtol=0.3)
    assert error(found, noisy) <= 0.3


def test_transformations(x64):  # noqa: ARG001
    batch = jnp.stack([normal((4, 3, 5, 2), jnp.float64, k) for k in range(3)])

    def f(x):
        found = tt_svd(x, max_rank=(2, 3, 2))
        return found.tensor.to_dense(), found.relative_error

    together = jax.vmap(f)(batch)
    for k in range(3):
        for many, one, traced in zip(together, f(batch[k]), jax.jit(f)(batch[k]), strict=True):
            np.testing.assert_allclose(many[k], one, atol=1e-12)
            np.testing.assert_allclose(traced, one, atol=1e-13)


def test_gradients_are_finite_differences(x64):  # noqa: ARG001
    x, w, v = (normal((3, 4, 2, 3), jnp.float64, k) for k in range(3))

    def loss(x):
        found = tt_svd(x, max_rank=2)
        return jnp.sum(w * found.tensor.to_dense() ** 2) + found.relative_error

    h, f = 1e-5, jax.jit(loss)
    difference = (f(x + h * v) - f(x - h * v)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(jax.grad(f)(x), v), difference, rtol=1e-6)


def test_gradients_are_finite_where_singular_values_repeat(dtype):
    x = np.zeros((4, 4, 4))
    x[range(4), range(4), range(4)] = 1
    x = jnp.asarray(x, dtype)

    def loss(x, rank):
        found = tt_svd(x, max_rank=rank)
        return jnp.sum(found.tensor.to_dense() ** 3) + found.relative_error

    for rank in (4, 2):
        assert np.isfinite(jax.jit(jax.grad(loss), static_argnums=1)(x, rank)).all()
    # At a tensor of exactly the ranks, small changes that keep them pass unchanged: scaling is one.
    value, slope = jax.jvp(lambda x: tt_svd(x, max_rank=4).tensor.to_dense(), (x,), (x,))
    np.testing.assert_allclose(slope, value, atol=100 * jnp.finfo(dtype).eps)


def test_traced_nan_is_a_status(x64):  # noqa: ARG001
    x = normal((4, 4, 4), jnp.float64).at[0, 1, 2].set(jnp.nan)
    assert jax.jit(lambda x: tt_svd(x, max_rank=2))(x).status == Status.non_finite


BAD = [
    (lambda x: tt_svd(x), ValueError, r"rtol, max_rank: expected at least one .* got neither"),
    (lambda x: tt_svd(x, max_rank=(2, 2, 2)), ValueError, r"max_rank: expected 2 ranks, got 3"),
    (lambda x: tt_svd(x, max_rank=0), ValueError, r"max_rank: expected at least 1, got 0"),
    (lambda x: tt_svd(x, max_rank=(2, 0)), ValueError, r"max_rank\[1\]: .* least 1, got 0"),
    (lambda x: tt_svd(x, max_rank=2.5), TypeError, r"max_rank: expected an integer or a sequence"),
    (lambda x: tt_svd(x, max_rank=True), TypeError, r"max_rank: expected an integer"),
    (lambda x: tt_svd(x, rtol=1e-16), ValueError, r"rtol: expected at least 7.1e-15.* got 1e-16"),
    (lambda x: tt_svd(x.astype(jnp.float32), rtol=1e-7), ValueError, r"rtol: .*float32.*1e-07"),
    (lambda x: tt_svd(x, rtol=-1e-3), ValueError, r"rtol: expected .* got -0.001"),
    (lambda x: jax.jit(lambda x: tt_svd(x, rtol=0.1))(x), ValueError,
        r"rtol: expected None inside jit.* give max_rank"),
    (lambda x: jax.grad(lambda x: tt_svd(x, rtol=0.1).relative_error)(x), ValueError,
        r"rtol: expected None inside jit, vmap or grad"),
    (lambda x: tt_svd(x.at[0, 0, 1].set(jnp.inf), rtol=0.1), ValueError,
        r"x: expected finite entries, got 1 .*\(0, 0, 1\)"),
    (lambda x: tt_svd(0 * x, rtol=0.1), ValueError, r"x: expected a nonzero tensor"),
    (lambda x: tt_svd(x[..., :0], rtol=0.1), ValueError, r"x: expected no empty mode.* in mode 2"),
    (lambda x: tt_matrix_svd(x, (4,), (5,), rtol=0.1), ValueError, r"matrix: expected 2 dim"),
    (lambda x: tt_matrix_svd(x[0], (2, 2), (2, 3), rtol=0.1), ValueError,
        r"row_modes: expected a product of 5.* got 4"),
    (lambda x: tt_matrix_svd(x[0], (5, 1), (2, 4), rtol=0.1), ValueError,
        r"column_modes: expected a product of 6.* got 8"),
    (lambda x: tt_matrix_svd(x[0], (5, 1), (6,), rtol=0.1), ValueError,
        r"column_modes: expected 2 sizes like row_modes, got 1"),
    (lambda x: tt_matrix_svd(x[0], 5, (6,), rtol=0.1), TypeError,
        r"row_modes: expected a sequence of integers, got 5"),
    (lambda x: tt_matrix_svd(x[0], (5.0,), (6,), rtol=0.1), TypeError,
        r"row_modes\[0\]: expected an integer, got 5.0"),
    (lambda x: tt_matrix_svd(x[0], (5,), (6,)), ValueError, r"rtol, max_rank: .* got neither"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(call, kind, message, x64):  # noqa: ARG001
    with pytest.raises(kind, match=message):
        call(normal((4, 5, 6), jnp.float64))
