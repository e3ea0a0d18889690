"""Against TensorLy, finite differences, and identities of rings."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorly.decomposition import tensor_ring_als as tensorly_als

from tensornet import Status
from tensornet.decompose import tr_als, tr_svd
from tensornet.formats import TensorRing

pytestmark = pytest.mark.slow


def normal(shape, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def exact(shape, ranks, dtype, seed=0):
    """A tensor ring of these ranks, dense, by numpy."""
    rng = np.random.default_rng(seed)
    d = len(shape)
    cores = [rng.normal(size=(ranks[k], n, ranks[(k + 1) % d])) for k, n in enumerate(shape)]
    x = cores[0]
    for core in cores[1:]:
        x = np.tensordot(x, core, (-1, 0))
    x = np.trace(x, axis1=0, axis2=-1)
    return jnp.asarray(x / np.linalg.norm(x), dtype)


def error(found, x):
    x = np.asarray(x, np.float64)
    dense = np.asarray(found.tensor.to_dense(), np.float64)
    return np.linalg.norm(dense - x) / np.linalg.norm(x)


@hypothesis.given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.floats(-5.0, -0.1),
    st.integers(0, 3),
)
@hypothesis.settings(max_examples=6)
def test_svd_meets_the_tolerance(shape, exponent, seed):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    found = tr_svd(x, rtol=10**exponent)
    assert found.tensor.shape == tuple(shape)
    assert error(found, x) <= 10**exponent
    assert int(found.sweeps) == 0


def test_svd_of_an_exact_ring(dtype):
    x = exact((6, 5, 4), (2, 3, 2), dtype)
    eps = float(jnp.finfo(dtype).eps)
    for rtol in (0.3, 1e-2, 1e3 * eps):
        found = tr_svd(x, rtol=rtol)
        assert error(found, x) <= rtol
        np.testing.assert_allclose(found.relative_error, error(found, x), rtol=1e-2, atol=20 * eps)
        assert found.tensor.dtype == dtype
    # The first unfolding has rank 6, split in 2 and 3.
    assert found.tensor.rank[:2] == (2, 3)
    found = tr_svd(x, max_rank=(2, 3, 100))
    assert error(found, x) < 50 * eps
    capped = tr_svd(x, max_rank=2)
    assert capped.tensor.rank == (2, 2, 2)
    np.testing.assert_allclose(capped.relative_error, error(capped, x), rtol=1e-4)
    both = tr_svd(x, rtol=1e3 * eps, max_rank=(2, 2, 100))
    assert both.tensor.rank[:2] == (2, 2)
    np.testing.assert_allclose(both.relative_error, error(both, x), rtol=1e-4)


def test_als_recovers_exact_rings(dtype):
    eps = float(jnp.finfo(dtype).eps)
    for shape, ranks in [((5, 4, 3, 4), (2, 2, 3, 2)), ((5, 6), (2, 2))]:
        x = exact(shape, ranks, dtype)
        found = tr_als(x, ranks)
        assert found.tensor.rank == ranks
        assert found.tensor.dtype == found.relative_error.dtype == dtype
        assert error(found, x) < 200 * eps
        assert float(found.relative_error) < 200 * eps
        assert found.status == Status.converged


def test_als_against_tensorly(x64):  # noqa: ARG001
    x = exact((6, 5, 4), (2, 2, 2), jnp.float64)
    x = x + 0.02 * normal(x.shape, jnp.float64, 1)
    peer = tensorly_als(
        np.asarray(x), rank=[2, 2, 2, 2], ls_solve="normal_eq", n_iter_max=500, tol=1e-10,
        random_state=0,
    ).to_tensor()  # fmt: skip
    peer_error = np.linalg.norm(peer - np.asarray(x)) / np.linalg.norm(x)
    found = tr_als(x, 2)
    assert error(found, x) <= peer_error * (1 + 1e-4)
    assert found.status == Status.converged
    sweeps = int(found.sweeps)
    history = np.asarray(found.history)
    assert (np.diff(history[:sweeps]) <= 1e-12).all()
    assert np.isnan(history[sweeps:]).all()
    np.testing.assert_allclose(found.relative_error, error(found, x), rtol=1e-10)
    np.testing.assert_allclose(history[sweeps - 1], found.relative_error, rtol=1e-8)

    # A minimum: no core alone can be bettered, as least squares on the dense design shows.
    for k in range(3):
        rest = [found.tensor.cores[(k + 1 + i) % 3] for i in range(2)]
        block = np.tensordot(rest[0], rest[1], (-1, 0))
        order = [(k + 1 + i) % 3 for i in range(2)]
        target = np.asarray(x).transpose(k, *order).reshape(x.shape[k], -1)
        design = block.transpose(1, 2, 3, 0).reshape(target.shape[1], -1)
        _, residual, _, _ = np.linalg.lstsq(design, target.T, rcond=None)
        best = np.sqrt(residual.sum()) / np.linalg.norm(x)
        np.testing.assert_allclose(best, found.relative_error, rtol=1e-5)


def test_starts_and_statuses(x64):  # noqa: ARG001
    x = normal((5, 4, 6), jnp.float64)
    early = tr_als(x, 2, max_sweeps=3)
    assert early.status == Status.max_iterations
    assert int(early.sweeps) == 3
    assert early.history.shape == (3,)
    random = tr_als(x, 2, init="random", key=jax.random.key(0), max_sweeps=20)
    other = tr_als(x, 2, init="random", key=jax.random.key(1), max_sweeps=20)
    assert float(random.relative_error) != float(other.relative_error)
    again = tr_als(x, 2, init=early.tensor, max_sweeps=20)
    assert float(again.relative_error) < float(early.relative_error)
    # Where it says that a slow decay leaves much to go, sweeps beyond do find it.
    keys = [jax.random.key(k) for k in range(6)]
    found = [tr_als(x, 2, init="random", key=k, rtol=1e-2, max_sweeps=60) for k in keys]
    stalled = [f for f in found if f.status == Status.stagnated]
    assert stalled
    for early in stalled:
        later = tr_als(x, 2, init=early.tensor, rtol=1e-6, max_sweeps=60)
        assert float(later.relative_error) < 0.99 * float(early.relative_error)


def test_transformations(x64):  # noqa: ARG001
    batch = jnp.stack([exact((4, 3, 5), (2, 2, 2), jnp.float64, k) for k in range(3)])
    batch = batch + 0.1 * normal(batch.shape, jnp.float64, 9)

    def direct(x):
        found = tr_svd(x, max_rank=2)
        return found.tensor.to_dense(), found.relative_error

    def fitted(x):
        found = tr_als(x, 2, max_sweeps=10)
        return found.tensor.to_dense(), found.relative_error, found.sweeps

    for f in (direct, fitted):
        together = jax.vmap(f)(batch)
        for k in range(3):
            for many, one, traced in zip(together, f(batch[k]), jax.jit(f)(batch[k]), strict=True):
                np.testing.assert_allclose(many[k], one, atol=1e-10)
                np.testing.assert_allclose(traced, one, atol=1e-10)


def test_gradients_are_finite_differences(x64):  # noqa: ARG001
    x = exact((4, 3, 5), (2, 2, 2), jnp.float64)
    x = x + 0.002 * normal(x.shape, jnp.float64, 1)
    w, v = normal(x.shape, jnp.float64, 2), normal(x.shape, jnp.float64, 3)

    def svd(x):
        found = tr_svd(x, max_rank=2)
        return jnp.sum(w * found.tensor.to_dense() ** 2) + found.relative_error

    start = tr_als(x, 2, rtol=0.0, max_sweeps=400).tensor

    def als(x):
        found = tr_als(x, 2, rtol=0.0, max_sweeps=400, init=start)
        return jnp.sum(w * found.tensor.to_dense() ** 2) + found.relative_error

    for f, h in ((jax.jit(svd), 1e-5), (jax.jit(als), 1e-5)):
        difference = (f(x + h * v) - f(x - h * v)) / (2 * h)
        # The minimum is known to the root of the rounding of the error: 1e-8 over h.
        np.testing.assert_allclose(jnp.vdot(jax.grad(f)(x), v), difference, rtol=2e-3)


def test_gradients_are_finite_where_singular_values_repeat(dtype):
    x = np.zeros((4, 4, 4))
    x[range(4), range(4), range(4)] = 1
    x = jnp.asarray(x, dtype)

    def loss(found):
        return jnp.sum(found.tensor.to_dense() ** 3) + found.relative_error

    for f in (
        lambda x: tr_svd(x, max_rank=2),
        lambda x: tr_als(x, 2, max_sweeps=20),
    ):
        assert np.isfinite(jax.jit(jax.grad(lambda x, f=f: loss(f(x))))(x)).all()


def test_traced_nan_is_a_status(x64):  # noqa: ARG001
    x = normal((4, 4, 4), jnp.float64).at[0, 1, 2].set(jnp.nan)
    assert jax.jit(lambda x: tr_svd(x, max_rank=2))(x).status == Status.non_finite
    assert jax.jit(lambda x: tr_als(x, 2))(x).status == Status.non_finite


BAD = [
    (lambda x: tr_svd(x), ValueError, r"rtol, max_rank: expected at least one .* got neither"),
    (lambda x: tr_svd(x, max_rank=(2, 2)), ValueError, r"max_rank: expected 3 ranks, got 2"),
    (lambda x: tr_svd(x, max_rank=-1), ValueError, r"max_rank: expected at least 1, got -1"),
    (lambda x: tr_svd(x, rtol=1e-17), ValueError, r"rtol: expected at least 7.1e-15.* got 1e-17"),
    (lambda x: jax.jit(lambda x: tr_svd(x, rtol=0.1))(x), ValueError,
        r"rtol: expected None inside jit.* give max_rank"),
    (lambda x: tr_svd(x[0, 0], max_rank=2), ValueError, r"x: expected at least 2 modes, got 1"),
    (lambda x: tr_svd(0 * x, max_rank=2), ValueError, r"x: expected a nonzero tensor"),
    (lambda x: tr_als(0 * x, 2), ValueError, r"x: expected a nonzero tensor"),
    (lambda x: tr_als(x, (2, 2)), ValueError, r"rank: expected 3 ranks, got 2"),
    (lambda x: tr_als(x, "2"), TypeError, r"rank: expected an integer or a sequence"),
    (lambda x: tr_als(x, (2, 20, 2)), ValueError, r"rank\[0\]: expected between 1 and 1 .* got 2"),
    (lambda x: tr_als(x, 2, init="random"), ValueError, r"key: expected .* got None"),
    (lambda x: tr_als(x, 2, init="best"), ValueError, r"init: expected .* got 'best'"),
    (lambda x: tr_als(x, 2, init=TensorRing((jnp.ones((1, 4, 1)), jnp.ones((1, 5, 1)),
        jnp.ones((1, 6, 1))))), ValueError, r"init: .* rank \(2, 2, 2\), got .* rank \(1, 1, 1\)"),
    (lambda x: tr_als(x.at[0, 0, 1].set(jnp.nan), 2), ValueError, r"x: expected finite entries"),
    (lambda x: tr_als(x, 2, rtol=2.0), ValueError, r"rtol: expected .* below 1, got 2.0"),
    (lambda x: tr_als(x, 2, max_sweeps=0), ValueError, r"max_sweeps: expected at least 1, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(call, kind, message, x64):  # noqa: ARG001
    with pytest.raises(kind, match=message):
        call(normal((4, 5, 6), jnp.float64))
