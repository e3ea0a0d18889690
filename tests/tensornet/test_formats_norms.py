"""Norms of the formats: range, cancellation, derivatives."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, TensorRing, TensorTrain, TTMatrix, Tucker

pytestmark = pytest.mark.slow

FORMATS = [CP, Tucker, TensorTrain, TensorRing, TTMatrix]
KINDS = pytest.mark.parametrize("kind", FORMATS)
MODAL = pytest.mark.parametrize("kind", FORMATS[:4])


def transfer_log_norm(cores):
    """Log of the norm in float64, by the transfer matrix with its scale kept apart."""
    carried, total = np.ones((1, 1)), 0.0
    for core in cores:
        core = np.asarray(core, np.float64)
        carried = np.einsum("ab,anc,bnd->cd", carried, core, core)
        scale = np.abs(carried).max()
        carried, total = carried / scale, total + math.log(scale)
    return (math.log(carried[0, 0]) + total) / 2


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_log_norm_of_a_long_chain_whose_norm_leaves_the_range(scale):
    rng = np.random.default_rng(8)
    ranks = [1, *[4] * 199, 1]
    cores = [
        (scale * rng.standard_normal((a, 8, b))).astype(np.float32)
        for a, b in itertools.pairwise(ranks)
    ]
    x = TensorTrain(cores)
    expected = transfer_log_norm(cores)
    assert abs(expected) > 200  # beyond float32, which ends at exp(88)
    got = float(x.log_norm())
    assert math.isfinite(got)
    # Half a rounding for each core, and that of the logarithm itself.
    assert abs(got - expected) < 200 * 6e-8 + 6e-8 * abs(expected) * 2
    assert float(x.norm()) == (math.inf if scale == 1.0 else 0.0)


@MODAL
def test_log_norm_of_modes_whose_product_leaves_the_range(kind, dtype):
    d, scale = 6, {"float32": 1e20, "float64": 1e150}[dtype.name]
    column, core = np.full((3, 1), scale, dtype), np.full((1, 3, 1), scale, dtype)
    x = {
        CP: lambda: CP(np.ones(1, dtype), [column] * d),
        Tucker: lambda: Tucker(np.ones((1,) * d, dtype), [column] * d),
        TensorTrain: lambda: TensorTrain([core] * d),
        TensorRing: lambda: TensorRing([core] * d),
    }[kind]()
    expected = d * (math.log(scale) + 0.5 * math.log(3))
    assert abs(float(x.log_norm()) - expected) < 8 * float(jnp.finfo(dtype).eps) * expected


@KINDS
def test_norm_of_a_small_difference_keeps_its_digits(kind, dtype, formats):
    # The square of the difference is below the rounding of the squares it is the difference of.
    rng = np.random.default_rng(9)
    case = formats.MAIN[kind]
    x, y = formats.make(kind, case, rng, dtype), formats.make(kind, case, rng, dtype)
    eps = float(jnp.finfo(dtype).eps)
    step = eps**0.6
    got = float(jax.jit(lambda x, y: (x + y * step - x).norm())(x, y))
    expected = step * np.linalg.norm(formats.dense(y))
    rounding = 16 * eps * formats.size(x)
    assert rounding < 0.5 * expected
    assert abs(got - expected) < rounding


@KINDS
@pytest.mark.usefixtures("x64")
def test_gradients_of_norm_and_inner(kind, formats):
    rng = np.random.default_rng(10)
    x, y, d = (formats.make(kind, formats.MAIN[kind], rng, "float64") for _ in range(3))

    def moved(t):
        return jax.tree.map(lambda a, b: a + t * b, x, d)

    @jax.jit
    @jax.value_and_grad
    def mixed(z):
        return z.norm() + 0.3 * z.inner(y)

    h = 1e-5
    numeric = (mixed(moved(h))[0] - mixed(moved(-h))[0]) / (2 * h)
    pairs = zip(jax.tree.leaves(mixed(x)[1]), jax.tree.leaves(d), strict=True)
    np.testing.assert_allclose(sum(jnp.sum(a * b) for a, b in pairs), numeric, rtol=1e-7)

    value, gradient = mixed(0 * x if kind is CP else jax.tree.map(jnp.zeros_like, x))
    assert value == 0
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


@pytest.mark.usefixtures("x64")
def test_gradient_of_log_norm(formats):
    rng = np.random.default_rng(11)
    x, y = (formats.make(TensorTrain, formats.MAIN[TensorTrain], rng, "float64") for _ in range(2))
    got = jax.jit(jax.grad(lambda t: (x + t * y).log_norm()))(0.3)
    a, b = formats.dense(x), formats.dense(y)
    z = a + 0.3 * b
    np.testing.assert_allclose(got, np.sum(z * b) / np.sum(z * z), rtol=1e-11)


@pytest.mark.parametrize("kind", [CP, TensorTrain])
@pytest.mark.usefixtures("x64")
def test_second_derivative_of_norm(kind, formats):
    rng = np.random.default_rng(11)
    x, y = (formats.make(kind, formats.MAIN[kind], rng, "float64") for _ in range(2))
    got = jax.jit(jax.hessian(lambda t: (x + t * y).norm()))(0.3)
    a, b = formats.dense(x), formats.dense(y)
    z = a + 0.3 * b
    norm = np.linalg.norm(z)
    expected = np.sum(b * b) / norm - np.sum(z * b) ** 2 / norm**3
    np.testing.assert_allclose(got, expected, rtol=1e-8)


@KINDS
@pytest.mark.usefixtures("x64")
def test_vmap_is_a_loop(kind, formats):
    rng = np.random.default_rng(12)
    members = [formats.make(kind, formats.MAIN[kind], rng, "float64") for _ in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    assert batch.shape == members[0].shape
    assert batch.rank == members[0].rank
    assert batch.n_parameters == members[0].n_parameters
    other = members[0]

    @jax.jit
    def measures(z):
        return z.norm(), (z + other).to_dense()

    norms, sums = jax.jit(jax.vmap(measures))(batch)
    for k, member in enumerate(members):
        norm, total = measures(member)
        np.testing.assert_allclose(norms[k], norm, rtol=1e-12)
        np.testing.assert_allclose(sums[k], total, rtol=0, atol=1e-13 * formats.size(member))
