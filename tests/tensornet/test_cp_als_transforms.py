"""`cp_als` under jit, vmap and grad."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, Status, cp_als

pytestmark = pytest.mark.slow

SHAPE, RANK = (5, 6, 7), 3


def tensors(count, noise=0.1, shape=SHAPE, rank=RANK):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=(count, n, rank)) for n in shape)
    x = np.einsum("bir,bjr,bkr->bijk", a, b, c)
    return jnp.asarray(x + noise * rng.normal(size=x.shape))


def test_jit_is_eager(x64):
    del x64
    x = tensors(1)[0]
    eager, compiled = cp_als(x, RANK), jax.jit(lambda x: cp_als(x, RANK))(x)
    assert compiled.status == eager.status
    tolerance = 1e-6
    np.testing.assert_allclose(compiled.relative_error, eager.relative_error, rtol=tolerance)
    for got, want in zip(compiled.tensor.factors, eager.tensor.factors, strict=True):
        np.testing.assert_allclose(got, want, atol=tolerance)


def test_vmap_is_a_loop(x64):
    """More tensors than are worked on at a time, so that places are handed over."""
    del x64
    xs = tensors(150, shape=(3, 4, 5), rank=2)
    together = jax.jit(jax.vmap(lambda x: cp_als(x, 2, max_sweeps=100)))(xs)
    assert len(set(np.asarray(together.sweeps).tolist())) > 3
    for n in range(0, 150, 7):
        alone = cp_als(xs[n], 2, max_sweeps=100)
        assert int(together.sweeps[n]) == int(alone.sweeps)
        np.testing.assert_allclose(together.relative_error[n], alone.relative_error, rtol=1e-9)
        np.testing.assert_allclose(together.history[n], alone.history, rtol=1e-7)
        np.testing.assert_allclose(together.tensor.weights[n], alone.tensor.weights, rtol=1e-6)
        assert bool(
            jax.tree.map(lambda s: s[n], together.status) == alone.status  # noqa: B023
        )


def test_vmap_over_tensors_with_several_starts_and_over_keys(x64):
    del x64
    xs = tensors(3, shape=(3, 4, 5), rank=2)
    keys = jax.random.split(jax.random.key(0), 3)

    def fit(x, key):
        return cp_als(x, 2, key=key, starts=4, max_sweeps=50)

    both = jax.vmap(fit)(xs, keys)
    over_keys = jax.vmap(lambda key: fit(xs[0], key))(keys)
    alone = fit(xs[0], keys[0])
    np.testing.assert_allclose(both.relative_error[0], alone.relative_error, rtol=1e-9)
    np.testing.assert_allclose(over_keys.relative_error[0], alone.relative_error, rtol=1e-9)


def test_one_bad_tensor_does_not_spoil_the_batch(x64):
    del x64
    xs = tensors(3, shape=(3, 4, 5), rank=2).at[1, 0, 0, 0].set(jnp.nan)
    result = jax.vmap(lambda x: cp_als(x, 2))(xs)
    good = np.isfinite(np.asarray(result.relative_error))
    assert good.tolist() == [True, False, True]
    assert np.asarray(result.status == Status.non_finite).tolist() == [False, True, False]


def central_difference(function, x, direction, step):
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def seen(result, weight):
    """A number that depends on all that comes out."""
    factors = sum(jnp.sum(weight.ravel()[: f.size] * f.ravel()) for f in result.tensor.factors)
    dense = jnp.sum(weight * result.tensor.to_dense())
    return dense + factors + result.tensor.weights[0] + result.relative_error


@pytest.mark.parametrize("kind", ["plain", "masked", "nonnegative"])
def test_gradient_is_a_finite_difference(kind, x64):
    del x64
    rng = np.random.default_rng(5)
    x = tensors(1)[0]
    options = {}
    if kind == "masked":
        options["mask"] = jnp.asarray(rng.random(SHAPE) > 0.2)
    if kind == "nonnegative":
        x = jnp.abs(x)
        options["nonnegative"] = True
    weight, direction = (jnp.asarray(rng.normal(size=SHAPE)) for _ in range(2))

    @jax.jit
    def loss(x):
        return seen(cp_als(x, RANK, rtol=0.0, max_sweeps=400, **options), weight)

    gradient = jax.grad(loss)(x)
    got = jnp.sum(gradient * direction)
    want = central_difference(loss, x, direction, 1e-5)
    assert float(got) == pytest.approx(float(want), rel=1e-4)
    if kind == "masked":
        assert float(jnp.abs(jnp.where(options["mask"], 0.0, gradient)).max()) == 0


def test_gradient_is_finite_on_a_superdiagonal_tensor(dtype):
    """Equal weights: nothing tells the components apart by size."""
    x = jnp.zeros((3, 3, 3), dtype).at[jnp.arange(3), jnp.arange(3), jnp.arange(3)].set(1.0)

    def loss(x):
        result = cp_als(x, 3)
        return jnp.sum(result.tensor.to_dense() ** 2) + result.relative_error

    gradient = jax.grad(loss)(x)
    assert bool(jnp.isfinite(gradient).all())
    assert float(jnp.abs(gradient).max()) < 1e2


def test_gradient_of_a_batch_is_that_of_each(x64):
    del x64
    xs = tensors(2, shape=(3, 4, 5), rank=2)
    gradient = jax.grad(lambda x: jnp.sum(cp_als(x, 2, rtol=1e-14).tensor.to_dense() ** 3))
    together = jax.vmap(gradient)(xs)
    for n in range(2):
        np.testing.assert_allclose(together[n], gradient(xs[n]), rtol=1e-4, atol=1e-6)


def test_size_of_the_gradient_program_does_not_depend_on_the_sweeps(x64):
    del x64

    def equations(sweeps):
        loss = jax.grad(lambda x: cp_als(x, RANK, max_sweeps=sweeps).relative_error)
        return str(jax.make_jaxpr(loss)(tensors(1)[0])).count(" = ")

    assert equations(10) == equations(1000)


@pytest.mark.parametrize("shape", [(24, 24, 24), (12, 12, 12, 12)])
def test_a_sweep_reads_the_tensor_twice_and_never_copies_it(shape):
    x = jnp.ones(shape)
    start = CP(jnp.ones(2), tuple(jnp.ones((n, 2)) for n in shape))

    def fit(x):
        return cp_als(x, 2, init=start, max_sweeps=9).tensor

    text = str(jax.jit(fit).lower(x).compile().as_text())
    size = int(np.prod(shape))
    operations = [
        operation
        for sizes, operation in re.findall(r"= f32\[([\d,]+)\]\S* (\w+)\(", text)
        if int(np.prod([int(n) for n in sizes.split(",")])) == size
    ]
    assert operations
    assert not {"copy", "transpose"} & set(operations)


def test_what_comes_out_is_known_from_shapes():
    """Shapes alone tell what comes out."""
    out = jax.eval_shape(lambda x: cp_als(x, 4), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert out.tensor.shape == SHAPE
    assert out.tensor.rank == 4
    assert out.history.shape == (500,)
