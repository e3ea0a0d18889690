"""Learned preconditioners: positive by construction, better once trained, guarded by Jacobi."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import reverse_cuthill_mckee

import tensornet
from solvers import Status, pcg
from solvers.preconditioners import GraphApproximateInverse, GraphCholesky, Jacobi
from solvers.problems import diffusion
from solvers.problems.coefficients import smooth
from solvers.sparse import Pattern, from_scipy
from tensornet.container import FileFormatError

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def problem(n, seed):
    cells = np.indices((n + 1, n + 1)).reshape(2, -1).T / n
    return diffusion(smooth(cells, seed, amplitude=2.0).reshape(n + 1, n + 1))


KINDS = {
    "inverse": lambda **k: GraphApproximateInverse(start=0.0, width=8, rounds=2, **k),
    "cholesky": lambda **k: GraphCholesky(width=8, rounds=2, **k),
    "renumbered": lambda **k: GraphCholesky(width=8, rounds=2, order="rcm", **k),
    "incomplete": lambda **k: GraphCholesky(width=8, rounds=2, start="incomplete", **k),
}


@eqx.filter_jit
def applied(preconditioner, r):
    return preconditioner.apply(r)


def shaken(model, size):
    """The model with weights moved at random, as a bad training would leave them."""
    leaves, tree = jax.tree.flatten(model.network)
    rng = np.random.default_rng(3)
    moved = [x + jnp.asarray(size * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return eqx.tree_at(lambda m: m.network, model, tree.unflatten(moved))


@pytest.mark.parametrize("kind", KINDS)
def test_any_weights_give_a_symmetric_positive_matrix(kind, x64):  # noqa: ARG001
    a = problem(5, 0).matrix
    model = shaken(KINDS[kind](), 0.3).analyse(a).setup(a)
    matrix = np.asarray(applied(model, jnp.eye(25)))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10 * abs(matrix).max())
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_untrained_forms_are_the_known_ones(x64):  # noqa: ARG001
    a = problem(5, 0).matrix
    dense, eye = a.toarray(), jnp.eye(25)
    root = np.diag(a.diagonal() ** -0.5)
    s = root @ dense @ root
    plain = applied(GraphApproximateInverse(a, start=0.0, epsilon=0.5), eye)
    np.testing.assert_allclose(plain, 1.5 * root @ root, atol=1e-12)
    g = 1.5 * np.eye(25) - 0.5 * s
    found = applied(GraphApproximateInverse(a, epsilon=0.1), eye)
    np.testing.assert_allclose(found, root @ (g @ g.T + 0.1 * np.eye(25)) @ root, atol=1e-12)
    lower = np.tril(s)  # the diagonal is one: symmetric Gauss-Seidel
    wanted = root @ np.linalg.inv(lower @ lower.T) @ root
    np.testing.assert_allclose(applied(GraphCholesky(a), eye), wanted, atol=1e-10)
    order = reverse_cuthill_mckee(a, symmetric_mode=True)
    lower = np.tril(s[order][:, order])
    wanted = np.linalg.inv(lower @ lower.T)
    found = np.asarray(applied(GraphCholesky(a, order="rcm"), eye)) / np.outer(
        *2 * [root.diagonal()]
    )
    np.testing.assert_allclose(found[np.ix_(order, order)], wanted, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("inverse", "noise"),
        ("cholesky", "solutions"),
        ("renumbered", "solutions"),
        ("incomplete", "solutions"),
    ],
)
def test_training_saves_iterations_on_matrices_not_seen(kind, loss, tmp_path):
    train = [problem(n, seed) for seed, n in enumerate((7, 8, 6, 8))]
    start = KINDS[kind](key=KEY)
    result = start.fit(train, key=KEY, steps=150, loss=loss, learning_rate=1e-2)
    losses = result.history.loss
    assert losses[-20:].mean() < 0.95 * losses[:20].mean()
    path = tmp_path / "model.gauntax"
    tensornet.save(path, result.best_model)
    model = tensornet.load(path, KINDS[kind]())
    test = problem(16, 1000)
    with jax.enable_x64(True):
        b = test.right_side(0)
        steps = {
            name: int(pcg(test.matrix, b, m.analyse(test.matrix).setup(test.matrix)).iterations)
            for name, m in (("start", start), ("trained", model), ("jacobi", Jacobi()))
        }
    assert steps["trained"] < steps["start"]
    assert steps["trained"] < 0.75 * steps["jacobi"]
    damaged = path.read_bytes()[:-40]
    path.write_bytes(damaged)
    with pytest.raises(FileFormatError, match="the file is cut"):
        tensornet.load(path, KINDS[kind]())


def test_bad_weights_fall_back_to_jacobi(x64):  # noqa: ARG001
    test = problem(12, 5)
    b = test.right_side(1)
    jacobi = pcg(test.matrix, b, Jacobi(test.matrix))
    for model in (
        shaken(KINDS["inverse"](), 2.0),
        eqx.tree_at(lambda m: m.network.decoder[1].bias, KINDS["cholesky"](), jnp.full(1, np.nan)),
    ):
        found = pcg(test.matrix, b, model.analyse(test.matrix).setup(test.matrix))
        assert found.status == Status.converged
        assert bool(found.fallback)
        assert "fallback" in repr(found)
        assert int(found.iterations) == int(jacobi.iterations)
        np.testing.assert_allclose(found.value, jacobi.value, rtol=1e-6)
    good = GraphApproximateInverse(test.matrix)
    many = pcg(test.matrix, np.stack([b, 2 * b], axis=1), good)
    assert not bool(many.fallback)
    assert int(many.iterations[0]) < 0.6 * int(jacobi.iterations)
    operator = from_scipy(test.matrix)
    assert not bool(pcg(operator.mv, b, good.astype(jnp.float32)).fallback)


def test_setup_is_traced(x64):  # noqa: ARG001
    a = problem(6, 0).matrix
    model = shaken(KINDS["cholesky"](), 0.05).analyse(Pattern.of(a))
    r = jnp.ones(36)
    run = jax.jit(jax.vmap(lambda values: model.setup(values).apply(r)))
    found = run(jnp.stack([jnp.asarray(a.data), 3 * jnp.asarray(a.data)]))
    np.testing.assert_allclose(found[0], 3 * found[1], rtol=1e-6)


BAD = [
    (lambda: GraphApproximateInverse(epsilon=0.0), "epsilon: expected above 0, got 0.0"),
    (lambda: GraphCholesky(start="ilu"), "start: expected one of matrix, incomplete, got 'ilu'"),
    (lambda: GraphCholesky(order="amd"), "order: expected one of natural, rcm, got 'amd'"),
    (lambda: GraphCholesky().fit([], key=KEY), "problems: expected at least one matrix, got none"),
    (
        lambda: GraphCholesky().fit([1], key=KEY, loss="l2"),
        "loss: expected one of noise, solutions",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
