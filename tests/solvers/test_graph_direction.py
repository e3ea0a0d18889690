"""Directions from a network on a graph: known before training, better after, in any numbering."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

import tensornet
from solvers import Status, flexible_cg
from solvers.preconditioners import GraphDirection
from solvers.preconditioners.graph_direction import bound
from solvers.preconditioners.ritz import left
from solvers.problems import diffusion
from solvers.problems.coefficients import smooth
from solvers.sparse import Pattern, from_scipy

pytestmark = pytest.mark.slow
KEY = jax.random.key(0)


def problem(n, seed):
    cells = np.indices((n + 1, n + 1)).reshape(2, -1).T / n
    return diffusion(smooth(cells, seed, amplitude=2.0).reshape(n + 1, n + 1))


def small(**options):
    return GraphDirection(degree=3, width=4, rounds=1, key=KEY, **options)


def shaken(model, size=0.1):
    """The model with weights moved at random, as a training would."""
    leaves, tree = jax.tree.flatten(model.network)
    rng = np.random.default_rng(3)
    moved = [x + jnp.asarray(size * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return eqx.tree_at(lambda m: m.network, model, tree.unflatten(moved))


@eqx.filter_jit
def applied(model, r):
    return model.apply(r)


def test_untrained_it_is_the_chebyshev_iteration_with_jacobi(x64):  # noqa: ARG001
    """Of the error it leaves the polynomial that is 1 at 0 and least on [largest / 60, largest]."""
    a = problem(6, 0).matrix
    root = a.diagonal() ** -0.5
    s = root[:, None] * a.toarray() * root[None]
    v = largest = np.ones(len(s))
    for _ in range(8):
        w = np.abs(s) @ v
        largest = (w / v).max()
        v = w / largest
    low, high = largest / 60, largest
    rest = np.eye(len(s))
    for k in range(4):  # its zeros, of T_4
        zero = (high + low) / 2 + (high - low) / 2 * np.cos((2 * k + 1) * np.pi / 8)
        rest = rest @ (np.eye(len(s)) - s / zero)
    wanted = root[:, None] * ((np.eye(len(s)) - rest) @ np.linalg.inv(s)) * root[None]
    found = applied(GraphDirection(a, degree=4), jnp.eye(len(s)))
    # Its scalars are in single precision.
    np.testing.assert_allclose(found, wanted, atol=1e-5 * abs(wanted).max())


def test_the_bound_holds_and_is_tighter_than_row_sums(x64):  # noqa: ARG001
    s = problem(9, 3).matrix
    matrix = from_scipy(abs(s))
    found = float(bound(matrix.mv, jnp.ones(s.shape[0])))
    assert np.linalg.eigvalsh(s.toarray())[-1] <= found < 0.999 * float(matrix.row_norms().max())


def test_homogeneous_symmetric_and_equivariant(x64):  # noqa: ARG001
    a = problem(7, 1).matrix
    n = a.shape[0]
    model = shaken(small()).analyse(a).setup(a)
    matrix = np.asarray(applied(model, jnp.eye(n)))
    size = abs(matrix).max()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * size)
    r = jnp.asarray(np.random.default_rng(0).normal(size=n))
    d = applied(model, r)
    for c in (1e-3, 7.0, -2.0):
        np.testing.assert_allclose(applied(model, c * r), c * d, rtol=1e-9, atol=1e-12)
    place = np.random.default_rng(1).permutation(n)
    turned = a[place][:, place]
    other = shaken(small()).analyse(turned).setup(turned)
    np.testing.assert_allclose(applied(other, r[place]), d[place], atol=1e-12 * size)
    # Moved weights have changed it, so that none of this was the series alone.
    assert np.abs(d - applied(small(A=a), r)).max() > 1e-3 * np.abs(d).max()


def test_setup_is_traced_and_solutions_are_scipys(x64):  # noqa: ARG001
    a = problem(9, 0).matrix
    n = a.shape[0]
    b = np.random.default_rng(0).normal(size=(n, 2))
    analysed = shaken(small(), 0.03).analyse(Pattern.of(a))
    like = from_scipy(a)

    @jax.jit
    def solve(values, b):
        matrix = like.with_data(values)
        return flexible_cg(matrix, b, analysed.setup(values), rtol=1e-10)

    for c in (1.0, 3.0):
        found = solve(jnp.asarray(c * a.data), jnp.asarray(b))
        assert (found.status == Status.converged).all()
        assert not bool(found.fallback)
        assert found.value.dtype == jnp.float64
        exact = scipy.sparse.linalg.spsolve((c * a).tocsc(), b)
        np.testing.assert_allclose(found.value, exact, atol=1e-8 * abs(exact).max())


def test_single_precision_in_and_around():
    a = problem(8, 2).matrix
    model = small(A=from_scipy(a).astype(jnp.float32))
    assert model.shape == a.shape
    assert model.dtype == jnp.float32
    b = np.random.default_rng(0).normal(size=a.shape[0])
    found = flexible_cg(a, b.astype(np.float32), model, rtol=1e-4)
    assert found.value.dtype == jnp.float32
    assert np.linalg.norm(a @ found.value - b) <= 2e-4 * np.linalg.norm(b)
    with jax.enable_x64(True):
        found = flexible_cg(a, b, model)
        assert found.status == Status.converged
        assert np.linalg.norm(a @ found.value - b) <= 1e-8 * np.linalg.norm(b)


def test_directions_that_are_not_finite_fall_back_to_jacobi(x64):  # noqa: ARG001
    a = problem(8, 2).matrix
    broken = eqx.tree_at(lambda m: m.network.scalars, small(), jnp.full((3, 2), jnp.nan))
    found = flexible_cg(a, np.ones(a.shape[0]), broken.analyse(a).setup(a))
    assert found.status == Status.converged
    assert bool(found.fallback)


def test_what_a_step_leaves_is_least_in_the_energy_along_the_direction(x64):  # noqa: ARG001
    a = problem(5, 0).matrix.toarray()
    rng = np.random.default_rng(0)
    b, d = rng.normal(size=(2, len(a)))
    steps = np.linspace(-1, 1, 20001)
    x = np.linalg.solve(a, b)
    energy = [(x - t * d) @ a @ (x - t * d) for t in steps]
    rest = b - steps[int(np.argmin(energy))] * (a @ d)
    wanted = rest @ rest / (b @ b)
    np.testing.assert_allclose(left(*map(jnp.asarray, (b, d, a @ d))), wanted, rtol=1e-3)


@pytest.mark.parametrize("loss", ["error", "step"])
def test_training_lowers_its_loss_and_files_give_the_model_back(loss, tmp_path):
    train = [problem(n, seed) for seed, n in enumerate((6, 7))]
    result = small().fit(train, key=KEY, steps=60, loss=loss, samples=8, vectors=20)
    losses = result.history.loss
    assert losses[-10:].mean() < losses[:10].mean()
    path = tmp_path / "model.gauntax"
    tensornet.save(path, result.model)
    a = train[0].matrix
    r = jnp.ones(a.shape[0])
    loaded = tensornet.load(path, GraphDirection(degree=3, width=4, rounds=1))
    again, once = (applied(m.analyse(a).setup(a), r) for m in (loaded, result.model))
    np.testing.assert_array_equal(again, once)
    assert np.abs(once - applied(small(A=a), r)).max() > 1e-3 * np.abs(once).max()


def test_training_saves_iterations_on_a_larger_mesh_never_seen():
    pytest.importorskip("skfem", reason="scikit-fem is not installed")
    from solvers.problems import fem

    train = [fem.family("smooth", "square", 3, seed) for seed in range(4)]
    start = GraphDirection(key=KEY)
    trained = start.fit(train, key=KEY, steps=150, samples=20, vectors=60).best_model
    assert fem.held_out("disk", 1000)
    test = fem.family("smooth", "disk", 5, 1000)
    assert test.size > 10 * max(p.size for p in train)
    with jax.enable_x64(True):
        b = test.right_side(0)
        found = [
            flexible_cg(test.matrix, b, m.analyse(test.matrix).setup(test.matrix))
            for m in (start, trained)
        ]
        assert all(f.status == Status.converged and not bool(f.fallback) for f in found)
        before, after = (int(f.iterations) for f in found)
    assert after < 0.8 * before


def fitted(**options):
    return small().fit([problem(4, 0)], key=KEY, **options)


BAD = [
    (lambda: GraphDirection(degree=0), "degree: expected at least 1, got 0"),
    (lambda: GraphDirection(width=0), "width: expected at least 1, got 0"),
    (lambda: GraphDirection(rounds=0), "rounds: expected at least 1, got 0"),
    (lambda: GraphDirection().apply(jnp.ones(3)), "expected setup before apply"),
    (lambda: GraphDirection(problem(4, 0).matrix).apply(jnp.ones(4)), "r: expected 16 rows"),
    (lambda: GraphDirection().setup(jnp.ones(3)), "expected analyse before setup"),
    (lambda: small().fit([], key=KEY), "problems: expected at least one matrix, got none"),
    (lambda: fitted(loss="noise"), "loss: expected one of error, step, got 'noise'"),
    (lambda: fitted(steps=0), "steps: expected at least 1, got 0"),
    (lambda: fitted(samples=0), "samples: expected at least 1, got 0"),
    (lambda: fitted(vectors=0), "vectors: expected at least 1, got 0"),
    (lambda: fitted(batch_size=0), "batch_size: expected at least 1, got 0"),
    (lambda: fitted(learning_rate=0.0), "learning_rate: expected above 0, got 0.0"),
    (
        lambda: GraphDirection().analyse(scipy.sparse.csr_array(np.triu(np.ones((3, 3))))),
        "symmetric",
    ),
    (
        lambda: flexible_cg(scipy.sparse.eye_array(3), np.ones(3), GraphDirection()),
        "expected analyse before shape",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
