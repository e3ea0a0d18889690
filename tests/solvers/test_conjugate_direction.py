"""The direction network: homogeneous, of any size, and better once trained."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from solvers import Status, flexible_cg
from solvers.preconditioners import ConjugateDirection
from solvers.preconditioners.depthwise import coarser, depthwise, finer
from solvers.preconditioners.ritz import lanczos, ritz_samples
from solvers.problems import balls, boxes, poisson, poisson_around

pytestmark = pytest.mark.slow
KEY = jax.random.key(0)


def normal(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(dtype))


@pytest.mark.parametrize("grid", [(5, 4), (3, 4, 5)])
def test_depthwise_is_the_grouped_convolution_with_its_gradients(grid):
    weights, h = normal(2, 3 ** len(grid)), normal(2, 3, *grid, seed=1)

    def reference(weights, h):
        kernel = weights.reshape(2, 1, *(3,) * len(grid))
        out = jax.lax.conv_general_dilated(
            jnp.swapaxes(h, 0, 1), kernel, (1,) * len(grid), "SAME", feature_group_count=2
        )
        return jnp.swapaxes(out, 0, 1)

    def slopes(f):
        return jax.grad(lambda w, h: jnp.sum(jnp.sin(f(w, h))), argnums=(0, 1))(weights, h)

    found = [depthwise(weights, h), *slopes(depthwise)]
    for ours, theirs in zip(found, [reference(weights, h), *slopes(reference)], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_coarser_grids_are_means_of_pairs_and_finer_ones_its_transpose():
    h, g = normal(1, 1, 5, 4), normal(1, 1, 3, 2, seed=1)
    padded = np.zeros((6, 4))
    padded[:5] = h[0, 0]
    np.testing.assert_allclose(
        coarser(h)[0, 0], padded.reshape(3, 2, 2, 2).mean(axis=(1, 3)), rtol=1e-5
    )
    up = finer(g, (5, 4))
    assert up.shape == h.shape
    np.testing.assert_allclose(4 * jnp.sum(coarser(h) * g), jnp.sum(h * up), rtol=1e-4)


def test_obstacles_have_rows_of_the_identity(x64):  # noqa: ARG001
    free = boxes((6, 7), 1, 0)
    assert 0 < free.sum() < free.size
    dense = np.asarray(poisson_around(jnp.asarray(free), jnp.eye(42)))
    mask = free.ravel() == 1
    np.testing.assert_array_equal(dense[~mask], np.eye(42)[~mask])
    whole = poisson((6, 7)).matrix.toarray()
    np.testing.assert_array_equal(dense[np.ix_(mask, mask)], whole[np.ix_(mask, mask)])
    np.testing.assert_array_equal(dense, dense.T)
    some = balls((30, 30), 1, 0) == 0
    # A ball of radius r covers pi r^2 of the square, less what lies outside.
    assert 0 < some.mean() < np.pi * 0.2**2


def test_homogeneous_on_any_grid_and_exact_in_obstacles():
    free = boxes((9, 9), 2, 0)
    model = ConjugateDirection(free, dimensions=2, channels=4, key=KEY)
    apply, r = eqx.filter_jit(model.apply), normal(81)
    d = apply(r)
    np.testing.assert_allclose(apply(1e-3 * r), 1e-3 * d, rtol=1e-4, atol=1e-7)
    assert float(jnp.abs(apply(-r) + d).max()) > 1e-3  # but not linear
    np.testing.assert_array_equal(apply(0 * r), 0)
    np.testing.assert_array_equal(d[free.ravel() == 0], r[free.ravel() == 0])
    many = apply(jnp.stack([r, -r], axis=1))
    np.testing.assert_allclose(many[:, 0], d, rtol=1e-4, atol=1e-6)
    assert eqx.filter_jit(model.on(np.ones((6, 3))).apply)(jnp.ones(18)).shape == (18,)


def test_lanczos_gives_what_scipy_finds():
    matrix = poisson((7, 6)).matrix
    basis, diagonal, beside = lanczos(
        lambda x: jnp.asarray(matrix @ np.asarray(x)), np.asarray(normal(42)).astype(float), 42
    )
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-10)
    tridiagonal = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    ends = scipy.sparse.linalg.eigsh(matrix, k=1, which="LA")[0]
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal)[-1], ends[0], rtol=1e-8)


def test_low_vectors_weigh_nine_times_as_much():
    """Of a diagonal matrix Ritz vectors are axes, once the Krylov space is the whole."""
    values = np.arange(1.0, 11.0)
    rng = np.random.default_rng(0)
    found = ritz_samples(lambda x: jnp.asarray(values * np.asarray(x)), values**0, 10, 4000, rng)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    share = (found**2).mean(axis=0)
    # 81 times the square; of the norm's five low terms the mean of 1 / chi^2 takes 3 / 5.
    np.testing.assert_allclose(share[:5].sum() / share[5:].sum(), 81 * 3 / 5, rtol=0.1)


def test_training_saves_iterations_on_larger_grids_with_other_obstacles():
    frees = [np.ones((12, 12), np.float32), boxes((12, 12), 1, 0)]
    start = ConjugateDirection(dimensions=2, key=KEY)
    result = start.fit(
        poisson_around, frees, key=KEY, steps=800, samples=300, vectors=60, learning_rate=1e-2
    )
    loss = result.history.loss
    assert loss[-20:].mean() < 0.7 * loss[:20].mean()
    free = jnp.asarray(balls((24, 24), 3, 7))
    b = normal(24 * 24, seed=5) * free.ravel()
    product = functools.partial(poisson_around, free)
    plain = flexible_cg(product, b, rtol=1e-4)
    trained = flexible_cg(product, b, result.model.on(free), rtol=1e-4)
    assert plain.status == trained.status == Status.converged
    assert int(trained.iterations) < 0.5 * int(plain.iterations)
    rest = b - product(trained.value)
    assert float(jnp.linalg.norm(rest) / jnp.linalg.norm(b)) <= 1.01e-4


def fitted(**options):
    masks = [np.ones((4, 4), np.float32)]
    return ConjugateDirection(dimensions=2).fit(poisson_around, masks, key=KEY, **options)


BAD = [
    (lambda: ConjugateDirection(np.full((4, 4), np.nan), dimensions=2), "free: expected 1 where"),
    (lambda: ConjugateDirection(dimensions=2).on(np.full((4, 4), 0.5)), "free: expected 1 where"),
    (lambda: fitted(vectors=0), "vectors: expected at least 1, got 0"),
    (lambda: fitted(steps=0), "steps: expected at least 1, got 0"),
    (lambda: fitted(learning_rate=-1.0), "learning_rate: expected above 0, got -1.0"),
    (lambda: balls((4, 4), -1, 0), "count: expected at least 0, got -1"),
    (lambda: boxes((0, 4), 1, 0), r"grid: expected points along every axis, got \(0, 4\)"),
    (lambda: poisson_around(jnp.ones((3, 3)), jnp.ones(8)), "x: expected 9 rows for the grid"),
    (lambda: ConjugateDirection(dimensions=4), "dimensions: expected 2 or 3, got 4"),
    (lambda: ConjugateDirection(np.ones(4)), r"free: expected a grid of 3 axes.* \(4,\)"),
    (lambda: ConjugateDirection(channels=0), "channels: expected at least 1"),
    (lambda: ConjugateDirection().apply(jnp.ones(4)), r"expected a grid \(on\), got none"),
    (lambda: ConjugateDirection(np.ones((2, 2, 2))).apply(jnp.ones(4)), "r: expected 8 rows"),
    (
        lambda: ConjugateDirection().fit(poisson_around, [], key=KEY),
        "frees: expected masks of one shape, at least one",
    ),
    (
        lambda: flexible_cg(lambda x: x, np.ones(9), ConjugateDirection(np.ones((2, 2, 2)))),
        "preconditioner: expected 9 rows, got 8",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
