"""Against TensorLy, finite differences, and the bounds that truncation theory gives."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorly
from tensorly.decomposition import tucker as tensorly_tucker

from tensornet import Status
from tensornet.decompose import hooi, hosvd
from tensornet.formats import Tucker

pytestmark = pytest.mark.slow

# One shape and one set of ranks as far as may be: what is compiled is shared.
SHAPE, RANKS = (9, 8, 7), (3, 4, 2)


def normal(shape, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def exact(shape, ranks, dtype, seed=0):
    """A tensor of these multilinear ranks."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=ranks)
    for k, (n, r) in enumerate(zip(shape, ranks, strict=True)):
        x = np.moveaxis(np.tensordot(rng.normal(size=(n, r)) / n**0.5, x, (1, k)), 0, k)
    return jnp.asarray(x, dtype)


def decaying(shape, rate, seed=0):
    """A tensor whose unfoldings have singular values falling by `rate` each."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    for k, n in enumerate(shape):
        q = np.linalg.qr(rng.normal(size=(n, n)))[0] * rate ** np.arange(n)
        x = np.moveaxis(np.tensordot(q, x, (1, k)), 0, k)
    return x


def error(found, x):
    x = np.asarray(x, np.float64)
    dense = np.asarray(found.tensor.to_dense(), np.float64)
    return np.linalg.norm(dense - x) / np.linalg.norm(x)


def assert_orthonormal(tucker, tol):
    for u in tucker.factors:
        u = np.asarray(u, np.float64)
        np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=tol)


@pytest.mark.parametrize("shape", [(12, 10, 9), (40, 3, 2)])
def test_error_controlled(shape, x64):  # noqa: ARG001
    x = decaying(shape, 0.05)
    unfolded = [np.moveaxis(x, k, 0).reshape(n, -1) for k, n in enumerate(shape)]
    values = [np.linalg.svd(a, compute_uv=False) for a in unfolded]
    for rtol in (1e-2, 1e-6, 1e-12):
        found = hosvd(x, rtol=rtol)
        assert found.tensor.shape == shape
        assert error(found, x) <= rtol
        # Past the sums of squares, rounding of the norms is all there is between the two.
        np.testing.assert_allclose(found.relative_error, error(found, x), rtol=1e-2, atol=1e-14)
        assert_orthonormal(found.tensor, 1e-13)
        assert found.status == Status.converged
        assert int(found.sweeps) == 0
        assert found.history.shape == (0,)
        # No rank beyond what each mode alone needs for its equal share.
        share = 0.99 * rtol / len(shape) ** 0.5 * np.linalg.norm(x)
        for s, r in zip(values, found.tensor.rank, strict=True):
            assert r <= max(1, sum(np.linalg.norm(s[i:]) > share for i in range(len(s))))


@hypothesis.given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.floats(-6.0, -0.1),
    st.integers(0, 3),
)
@hypothesis.settings(max_examples=6)
def test_error_controlled_for_any_shape(shape, exponent, seed):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    found = hosvd(x, rtol=max(10**exponent, 1e-5))
    assert error(found, x) <= max(10**exponent, 1e-5)
    assert found.tensor.dtype == jnp.float32


def test_error_controlled_in_float32():
    x = decaying((12, 10, 9), 0.1).astype(np.float32)
    for rtol in (1e-3, 1e-5):
        assert error(hosvd(x, rtol=rtol), x) <= rtol


def test_exact_ranks_are_recovered(dtype):
    shape, ranks = SHAPE, RANKS
    x = exact(shape, ranks, dtype)
    eps = float(jnp.finfo(dtype).eps)
    key = jax.random.key(0)
    for found in (
        hosvd(x, rank=ranks),
        hosvd(x, rank=ranks, method="randomized", key=key),
        hooi(x, ranks),
        hooi(
            x,
            ranks,
            init=Tucker(
                normal(ranks, dtype),
                tuple(normal((n, r), dtype, 3) for n, r in zip(shape, ranks, strict=True)),
            ),
        ),
        hosvd(x, rtol=1e3 * eps),
    ):
        assert found.tensor.rank == ranks
        assert found.tensor.dtype == found.relative_error.dtype == dtype
        assert error(found, x) < 50 * eps
        assert float(found.relative_error) < 50 * eps
        assert found.status == Status.converged
        assert_orthonormal(found.tensor, 50 * eps)


def test_no_worse_than_tensorly(dtype):
    x = normal(SHAPE, dtype)
    core, factors = tensorly_tucker(np.asarray(x, np.float64), rank=RANKS, tol=1e-10)
    peer = tensorly.tucker_to_tensor((core, factors))
    peer_error = np.linalg.norm(peer - np.asarray(x)) / np.linalg.norm(x)
    found = hooi(x, RANKS, rtol=1e-7)
    # Different starts may end in different minima of a random tensor, some per mille apart.
    assert error(found, x) <= peer_error * 1.002
    np.testing.assert_allclose(found.relative_error, error(found, x), rtol=1e-4)
    first = hosvd(x, rank=RANKS)
    assert error(found, x) <= error(first, x) * (1 + 1e-6)
    assert error(first, x) <= 3**0.5 * peer_error
    np.testing.assert_allclose(first.relative_error, error(first, x), rtol=1e-4)
    # A full core loses nothing.
    assert error(hosvd(x, rank=SHAPE), x) < 100 * float(jnp.finfo(dtype).eps)


def noisy(seed=0):
    x = exact(SHAPE, RANKS, jnp.float64)
    noise = normal(SHAPE, jnp.float64, seed + 1)
    return x + 0.3 * jnp.linalg.norm(x.ravel()) / jnp.linalg.norm(noise.ravel()) * noise


def test_history_and_statuses(x64):  # noqa: ARG001
    x = noisy()
    found = hooi(x, RANKS, rtol=1e-9)
    sweeps = int(found.sweeps)
    assert found.status == Status.converged
    assert 2 < sweeps < 100
    assert found.history.shape == (100,)
    assert np.isnan(found.history[sweeps:]).all()
    history = np.asarray(found.history[:sweeps])
    assert (np.diff(history) <= 1e-12).all()
    np.testing.assert_allclose(history[-1], found.relative_error, rtol=1e-12)
    early = hooi(x, RANKS, rtol=1e-9, max_sweeps=2)
    assert early.status == Status.max_iterations
    assert int(early.sweeps) == 2
    np.testing.assert_allclose(early.history, history[:2], rtol=1e-12)
    # From its own result it stops at once.
    again = hooi(x, RANKS, rtol=1e-6, init=found.tensor)
    assert int(again.sweeps) == 1


def test_randomized_needs_power_steps_and_has_them(x64):  # noqa: ARG001
    x = exact((30, 30, 30), (4, 4, 4), jnp.float64)
    noise = normal(x.shape, jnp.float64, 5)
    x = x + 0.3 * jnp.linalg.norm(x.ravel()) / jnp.linalg.norm(noise.ravel()) * noise
    plain = hosvd(x, rank=4)
    random = hosvd(x, rank=4, method="randomized", key=jax.random.key(1))
    assert error(random, x) <= 1.002 * error(plain, x)
    np.testing.assert_allclose(random.relative_error, error(random, x), rtol=1e-8)


def test_transformations(x64):  # noqa: ARG001
    batch = jnp.stack([noisy(k) for k in range(3)])

    def first(x):
        found = hosvd(x, rank=RANKS)
        return found.tensor.to_dense(), found.relative_error

    def best(x):
        found = hooi(x, RANKS, rtol=1e-9)
        return found.tensor.to_dense(), found.relative_error, found.sweeps

    for f in (first, best):
        together = jax.vmap(f)(batch)
        for k in range(3):
            for many, one in zip(together, f(batch[k]), strict=True):
                np.testing.assert_allclose(many[k], one, atol=1e-9)  # sweeps stop at 1e-9
        for traced, one in zip(jax.jit(f)(batch[0]), f(batch[0]), strict=True):
            np.testing.assert_allclose(traced, one, atol=1e-13)


def test_gradients_are_finite_differences(x64):  # noqa: ARG001
    # Near an exact rank the iteration converges fast, to where differences can be taken.
    x = exact((4, 5, 3), (2, 2, 2), jnp.float64)
    x = x + 0.005 * normal(x.shape, jnp.float64, 1)
    w, v = normal(x.shape, jnp.float64, 2), normal(x.shape, jnp.float64, 3)

    def loss(found):
        core = jnp.sum(found.tensor.core**2)  # what orthonormal factors make of it
        return jnp.sum(w * found.tensor.to_dense() ** 2) + core + found.relative_error

    for f in (
        lambda x: loss(hosvd(x, rank=2)),
        lambda x: loss(hooi(x, 2, rtol=0.0, max_sweeps=60)),
    ):
        h = 1e-6
        f = jax.jit(f)
        difference = (f(x + h * v) - f(x - h * v)) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(jax.grad(f)(x), v), difference, rtol=1e-6)


def test_gradients_are_finite_where_singular_values_repeat(dtype):
    x = np.zeros((4, 4, 4))
    x[range(4), range(4), range(4)] = 1
    x = jnp.asarray(x, dtype)

    def loss(found):
        return jnp.sum(found.tensor.to_dense() ** 3) + found.relative_error

    for f in (lambda x: hosvd(x, rank=2), lambda x: hooi(x, 2)):
        assert np.isfinite(jax.jit(jax.grad(lambda x, f=f: loss(f(x))))(x)).all()
    # With nothing cut off the tensor is its own decomposition.
    grad = jax.grad(lambda x: jnp.sum(hosvd(x, rank=4).tensor.to_dense() ** 3))(x)
    np.testing.assert_allclose(grad, 3 * x**2, atol=100 * jnp.finfo(dtype).eps)


def test_traced_nan_is_a_status(x64):  # noqa: ARG001
    x = normal((4, 4, 4), jnp.float64).at[0, 1, 2].set(jnp.nan)
    for f in (lambda x: hosvd(x, rank=2), lambda x: hooi(x, 2)):
        found = jax.jit(f)(x)
        assert found.status == Status.non_finite


BAD = [
    (lambda x: hosvd(x), ValueError, r"rank, rtol: expected exactly one of them, got neither"),
    (lambda x: hosvd(x, rank=2, rtol=0.1), ValueError, r"exactly one of them, got both"),
    (lambda x: hosvd(x, rank=(2, 2)), ValueError, r"rank: expected 3 ranks, got 2"),
    (lambda x: hosvd(x, rank=(2, 6, 2)), ValueError, r"rank\[1\]: .* between 1 and 5.* got 6"),
    (lambda x: hosvd(x, rank=(0, 2, 2)), ValueError, r"rank\[0\]: .* between 1 and 4.* got 0"),
    (lambda x: hosvd(x, rank=(1, 2, 5)), ValueError,
        r"rank\[2\]: expected between 1 and 2 \(the product of the other ranks\), got 5"),
    (lambda x: hosvd(x, rank=2.0), TypeError, r"rank: expected an integer or a sequence of 3"),
    (lambda x: hosvd(x, rank=(2, 2.5, 2)), TypeError, r"rank\[1\]: expected an integer, got 2.5"),
    (lambda x: hosvd(x, rtol=1e-20), ValueError, r"rtol: expected at least 7.1e-15.* got 1e-20"),
    (lambda x: hosvd(x, rtol=1.5), ValueError, r"rtol: expected at least .* below 1, got 1.5"),
    (lambda x: hosvd(x, rank=2, method="fast"), ValueError, r"method: expected .* got 'fast'"),
    (lambda x: hosvd(x, rank=2, method="randomized"), ValueError, r"key: expected .* got None"),
    (lambda x: hosvd(x, rtol=0.1, method="randomized", key=jax.random.key(0)), ValueError,
        r"method: expected 'exact' with rtol, got 'randomized'"),
    (lambda x: jax.jit(lambda x: hosvd(x, rtol=0.1))(x), ValueError,
        r"rtol: expected None inside jit.* give rank"),
    (lambda x: hooi(x, (2, 2, 9)), ValueError, r"rank\[2\]: expected between 1 and 6.* got 9"),
    (lambda x: hooi(x, 2, rtol=-1.0), ValueError, r"rtol: expected at least 0 .* got -1.0"),
    (lambda x: hooi(x, 2, max_sweeps=0), ValueError, r"max_sweeps: expected at least 1, got 0"),
    (lambda x: hooi(x, 2, init="random"), ValueError, r"init: expected .* got 'random'"),
    (lambda x: hooi(x, 2, init=hosvd(x, rank=3).tensor), ValueError,
        r"init: expected shape \(4, 5, 6\) and rank \(2, 2, 2\), got .* rank \(3, 3, 3\)"),
    (lambda x: hosvd(x.at[1, 2, 3].set(jnp.nan), rank=2), ValueError,
        r"x: expected finite entries, got 1 .*\(1, 2, 3\)"),
    (lambda x: hooi(jnp.zeros_like(x), 2), ValueError, r"x: expected a nonzero tensor"),
    (lambda x: hosvd(x[:, :0], rank=2), ValueError, r"x: expected no empty mode.* in mode 1"),
    (lambda x: hosvd(1e200 * x, rank=2), ValueError, r"x: expected entries whose squares"),
    (lambda x: hosvd(1e-200 * x, rank=2), ValueError, r"x: expected entries whose squares"),
    (lambda x: hosvd(x.astype(jnp.complex128), rank=2), TypeError,
        r"x: expected float32 or float64.*complex128"),
    (lambda x: hosvd(x[0, 0, 0], rank=2), ValueError, r"x: expected at least 1 modes"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(call, kind, message, x64):  # noqa: ARG001
    with pytest.raises(kind, match=message):
        call(normal((4, 5, 6), jnp.float64))


def test_an_integer_rank_is_cut_to_what_the_shape_allows(x64):  # noqa: ARG001
    x = normal((10, 2), jnp.float64)
    assert hosvd(x, rank=5).tensor.rank == (2, 2)
    assert hosvd(x, rank=np.int64(5)).tensor.rank == (2, 2)
    assert hosvd(normal((7,), jnp.float64), rank=3).tensor.rank == (1,)
    assert hosvd(normal((3, 4, 20), jnp.float64), rank=50).tensor.rank == (3, 4, 12)
