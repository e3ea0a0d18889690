"""Conjugate gradient against scipy's, numpy's direct solves and finite differences."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.sparse as sp

import tensornet
from solvers import Status
from solvers.krylov import PCG, flexible_cg, pcg
from solvers.sparse import from_scipy

N = 8


def poisson(dtype=np.float64, n=N):
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sp.eye_array(n)
    return sp.csr_array(sp.kron(line, eye) + sp.kron(eye, 1.5 * line)).astype(dtype)


def free_line(n=30):
    """The one-dimensional Neumann problem: constants are mapped to zero."""
    inner = np.r_[1, 2 * np.ones(n - 2), 1.0]
    return sp.diags_array([inner, -np.ones(n - 1), -np.ones(n - 1)], offsets=[0, -1, 1]).tocsr()


def normal(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def residual(a, x, b):
    return np.linalg.norm(a @ np.asarray(x) - b, axis=0) / np.linalg.norm(b, axis=0)


def scipy_iterations(a, b, rtol, M=None):
    count = [0]

    def callback(_):
        count[0] += 1

    _, info = sp.linalg.cg(a, b, rtol=rtol, M=M, callback=callback)
    assert info == 0
    return count[0]


def test_iterates_are_scipys(dtype):
    a, b = poisson(dtype), normal(N * N, dtype=dtype)
    rtol = 1e-8 if dtype == np.float64 else 1e-5
    found = pcg(a, b, rtol=rtol)
    assert found.status == Status.converged
    assert not bool(found.fallback)
    assert found.value.dtype == dtype
    assert residual(a, found.value, b) <= rtol
    assert abs(int(found.iterations) - scipy_iterations(a, b, rtol)) <= 1
    history = np.asarray(found.residual_history)
    steps = int(found.iterations)
    np.testing.assert_allclose(history[0], np.linalg.norm(b), rtol=1e-5)
    assert np.isfinite(history[: steps + 1]).all()
    assert np.isnan(history[steps + 1 :]).all()
    assert history[steps] <= rtol * np.linalg.norm(b)


def test_preconditioned_iterates_are_scipys(x64):  # noqa: ARG001
    scale = np.exp(2 * normal(N * N, seed=1))
    a = sp.csr_array(sp.diags_array(scale) @ poisson() @ sp.diags_array(scale))
    b = normal(N * N, seed=2)
    inverse = sp.diags_array(1 / a.diagonal()).tocsr()
    wanted = scipy_iterations(a, b, 1e-8, inverse)
    diagonal = jnp.asarray(1 / a.diagonal())
    forms = {
        "matrix": inverse,
        "lineax": lx.DiagonalLinearOperator(diagonal),
        "function": lambda r: diagonal * r,
    }
    for form in forms.values():
        found = pcg(a, b, form)
        assert found.status == Status.converged
        assert abs(int(found.iterations) - wanted) <= 1
    assert wanted < 0.7 * int(pcg(a, b).iterations)
    # In the flexible method the same preconditioner gives the same iterates.
    flexible = flexible_cg(a, b, forms["function"], directions=1)
    assert abs(int(flexible.iterations) - wanted) <= 1


def test_flexible_method_takes_what_is_not_linear(x64):  # noqa: ARG001
    a, b = poisson(), normal(N * N)

    def crooked(r):  # not linear, not symmetric, of the wrong sign
        return -(r + 0.3 * jnp.abs(jnp.roll(r, 1)))

    found = flexible_cg(a, b, crooked)
    assert found.status == Status.converged
    assert residual(a, found.value, b) <= 1e-8


def test_flexible_method_is_the_iteration_of_kaneda(x64):  # noqa: ARG001
    """Directions are A-orthogonal to the last two, written out after the paper."""
    a, b = poisson(), normal(N * N)
    r, last, norms = b.copy(), [], [np.linalg.norm(b)]
    for _ in range(20):
        d = r + 0.3 * np.abs(np.roll(r, 1))
        for p in last:
            d = d - (d @ (a @ p)) / (p @ (a @ p)) * p
        last = [d, *last[:1]]
        r = r - (d @ r) / (d @ (a @ d)) * (a @ d)
        norms.append(np.linalg.norm(r))
    found = flexible_cg(a, b, lambda r: r + 0.3 * jnp.abs(jnp.roll(r, 1)), max_iterations=20)
    np.testing.assert_allclose(found.residual_history, norms, rtol=1e-6)


def test_many_right_hand_sides_each_stop_by_themselves(x64):  # noqa: ARG001
    a = poisson()
    easy = a @ np.ones(N * N)
    b = np.stack([normal(N * N), np.zeros(N * N), easy, 1e-9 * normal(N * N)], axis=1)
    found = pcg(a, b)
    assert found.value.shape == b.shape
    assert bool(jnp.all(found.status == Status.converged))
    alone = [pcg(a, column) for column in b.T]
    assert found.iterations.tolist() == [int(one.iterations) for one in alone]
    for k, one in enumerate(alone):
        np.testing.assert_allclose(found.value[:, k], one.value, rtol=1e-6, atol=1e-14)
    np.testing.assert_array_equal(found.value[:, 1], 0)


def test_first_guess_and_absolute_tolerance(x64):  # noqa: ARG001
    a, b = poisson(), normal(N * N)
    x = np.linalg.solve(a.toarray(), b)
    assert int(pcg(a, b, x0=x).iterations) == 0
    near = pcg(a, b, x0=x + 1e-6 * normal(N * N, seed=1))
    assert near.status == Status.converged
    assert int(near.iterations) < 0.7 * int(pcg(a, b).iterations)
    loose = pcg(a, b, rtol=0, atol=0.1)
    assert loose.status == Status.converged
    assert 1e-4 < residual(a, loose.value, b) * np.linalg.norm(b) <= 0.1


def test_mixed_precision(x64):  # noqa: ARG001
    a, b = poisson(), 1e-30 * normal(N * N)
    inverse = np.linalg.inv(a.toarray()).astype(np.float32)
    single = from_scipy(sp.csr_array(inverse))
    assert single.dtype == np.float32
    found = pcg(a, b, lx.MatrixLinearOperator(jnp.asarray(inverse, jnp.float64)))
    mixed = pcg(a, b, single)
    assert mixed.status == found.status == Status.converged
    assert mixed.value.dtype == np.float64
    assert residual(a, mixed.value, b) <= 1e-8
    assert int(mixed.iterations) <= 3


def outcomes():
    a = from_scipy(poisson())
    b = jnp.asarray(normal(N * N))
    neumann = from_scipy(free_line())
    return {
        "indefinite_matrix": lambda: pcg(lambda x: a.mv(x) - 4.0 * x, b),
        "negative matrix": lambda: pcg(lambda x: -a.mv(x), b),
        "indefinite_preconditioner": lambda: pcg(a, b, lambda r: -r),
        "breakdown": lambda: pcg(a, b, lambda r: 0 * r),
        "max_iterations": lambda: pcg(a, b, max_iterations=5),
        "stagnation": lambda: pcg(a, b, rtol=1e-17),
        "singular": lambda: pcg(neumann.mv, b[:30]),
        "non_finite": lambda: pcg(lambda x: a.mv(x) * jnp.nan, b, throw=False),
    }


OUTCOMES = [
    *("indefinite_matrix", "negative matrix", "indefinite_preconditioner", "breakdown"),
    *("max_iterations", "stagnation", "singular", "non_finite"),
]


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_outcome_is_told(name, x64):  # noqa: ARG001
    found = outcomes()[name]()
    wanted = "indefinite_matrix" if name == "negative matrix" else name
    assert tensornet.status.name(found.status) == wanted
    assert np.isfinite(found.value).all()
    assert len(Status[found.status]) > 80
    if name == "max_iterations":
        assert int(found.iterations) == 5
    if name == "stagnation":
        assert residual(poisson(), found.value, normal(N * N)) < 1e-14


def test_consistent_singular_systems_are_solved(x64):  # noqa: ARG001
    line = free_line()
    b = normal(30)
    found = pcg(line, b - b.mean())
    assert found.status == Status.converged
    assert residual(line, found.value, b - b.mean()) <= 1e-8


def test_gradients_are_finite_differences(x64):  # noqa: ARG001
    a = from_scipy(poisson(n=4))
    pattern = a.pattern
    b, w = jnp.asarray(normal(16)), jnp.asarray(normal(16, seed=1))

    @jax.jit
    def loss(data, b):
        return jnp.sum(w * pcg(a.with_data(data), b, rtol=1e-13).value ** 2)

    slopes = jax.jit(jax.grad(loss, (0, 1)))(a.data, b)
    change = normal(pattern.nnz, seed=2)
    change = change + change[pattern.transposed[1]]  # stays symmetric
    h, change_b = 1e-5, normal(16, seed=3)
    for slope, (da, db) in zip(slopes, ((change, 0 * b), (0 * change, change_b)), strict=True):
        up, down = loss(a.data + h * da, b + h * db), loss(a.data - h * da, b - h * db)
        along = jnp.vdot(slope, da if slope.shape == da.shape else db)
        np.testing.assert_allclose(along, (up - down) / (2 * h), rtol=1e-6)


def test_transformations(x64):  # noqa: ARG001
    a = from_scipy(poisson(n=5))
    b = jnp.asarray(normal(3, 25))

    def solve(data, b):
        return pcg(a.with_data(data), b)

    many = jnp.stack([a.data, 2 * a.data, 0.5 * a.data])
    together = jax.jit(jax.vmap(solve))(many, b)
    assert bool(jnp.all(together.status == Status.converged))
    for k in range(3):
        one = pcg(a.with_data(many[k]), b[k])
        np.testing.assert_allclose(together.value[k], one.value, rtol=1e-7)
        assert int(together.iterations[k]) == int(one.iterations)


def test_sharded_right_hand_sides(x64):  # noqa: ARG001
    a = from_scipy(poisson())
    b = jnp.asarray(normal(N * N, 4))
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    found = pcg(a, b)
    for spec in (jax.P(None, "d"), jax.P("d", None)):
        spread = jax.device_put(b, jax.NamedSharding(mesh, spec))
        apart = pcg(a, spread)
        np.testing.assert_allclose(apart.value, found.value, atol=1e-9)
        assert apart.iterations.tolist() == found.iterations.tolist()


def test_lineax_operators_and_solver(x64):  # noqa: ARG001
    a, b = poisson(), jnp.asarray(normal(N * N))
    ours = from_scipy(a)
    operator = lx.FunctionLinearOperator(
        ours.mv, jax.eval_shape(lambda: b), lx.positive_semidefinite_tag
    )
    plain = pcg(a, b)
    assert int(pcg(operator, b).iterations) == int(plain.iterations)
    options = {"preconditioner": lambda r: r / ours.diagonal()}
    found = lx.linear_solve(operator, b, PCG(), options=options)
    assert found.result == lx.RESULTS.successful
    assert abs(int(found.stats["num_steps"]) - int(plain.iterations)) <= 2
    assert residual(a, found.value, b) <= 1e-8
    short = lx.linear_solve(operator, b, PCG(max_steps=3), throw=False)
    assert short.result == lx.RESULTS.max_steps_reached
    slope = jax.grad(lambda b: jnp.sum(lx.linear_solve(operator, b, PCG(rtol=1e-12)).value))(b)
    np.testing.assert_allclose(slope, np.linalg.solve(a.toarray(), np.ones(N * N)), rtol=1e-8)
    untagged = lx.FunctionLinearOperator(ours.mv, jax.eval_shape(lambda: b))
    with pytest.raises(ValueError, match="positive_semidefinite_tag, got none"):
        lx.linear_solve(untagged, b, PCG())


def with_entry(value, row=3, column=3):
    a = poisson().tolil()
    a[row, column] = value
    return sp.csr_array(a)


ONES = np.ones(N * N)
BAD = [
    (lambda: pcg(poisson()[:, :-1], ONES), ValueError, "A: expected a square matrix, got 64 x 63"),
    (lambda: pcg(poisson(), ONES[:-1]), ValueError, r"b: expected 64 rows.*, got shape \(63,\)"),
    (lambda: pcg(poisson(), ONES.reshape(8, 4, 2)), ValueError, r"b: expected shape \(n,\)"),
    (lambda: pcg(poisson(), ONES * np.nan), ValueError, "b: expected finite entries, got 64"),
    (lambda: pcg(with_entry(np.nan), ONES), ValueError, "A: expected finite .* row 3, column 3"),
    (
        lambda: pcg(with_entry(1.0, 3, 4), ONES),
        ValueError,
        "A: expected a symmetric .* at most 2.2e-14",
    ),
    (lambda: pcg(with_entry(1.0, 3, 60), ONES), ValueError, "A: expected a symmetric matrix"),
    (lambda: pcg(with_entry(0.0), ONES), ValueError, "A: .* positive diagonal.* got 0.0 in row 3"),
    (lambda: pcg(with_entry(-1.0), ONES), ValueError, "A: .* positive diagonal.* got -1.0 in row"),
    (lambda: pcg("A", ONES), TypeError, "A: expected a scipy sparse matrix.* got str"),
    (lambda: pcg(lambda x: x[1:], ONES), ValueError, "A: expected a function that keeps"),
    (lambda: pcg(poisson(), ONES, 3.0), TypeError, "preconditioner: expected .* got float"),
    (lambda: pcg(poisson(), ONES, poisson(n=3)), ValueError, "preconditioner: expected 64 rows"),
    (lambda: pcg(poisson(), ONES, x0=ONES[1:]), ValueError, r"x0: .* \(64,\), got \(63,\)"),
    (lambda: pcg(poisson(), ONES, rtol=-1), ValueError, "rtol: expected at least 0, got -1"),
    (lambda: pcg(poisson(), ONES, rtol=0), ValueError, "rtol, atol: expected one of them above 0"),
    (lambda: pcg(poisson(), ONES, rtol="1"), TypeError, "rtol: expected a number, got '1'"),
    (lambda: pcg(poisson(), ONES, max_iterations=0), ValueError, "max_iterations: .* got 0"),
    (lambda: flexible_cg(poisson(), ONES, directions=0), ValueError, "directions: .* got 0"),
    (
        lambda: pcg(lambda x: x * np.nan, ONES),
        FloatingPointError,
        "pcg: A NaN or an infinity appeared",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments_are_named(call, error, message, x64):  # noqa: ARG001
    with pytest.raises(error, match=message):
        call()


def test_neumann_without_a_fixed_value_is_named(x64):  # noqa: ARG001
    line = free_line()
    with pytest.raises(ValueError, match="Neumann problem without a fixed value"):
        pcg(line, normal(30))
