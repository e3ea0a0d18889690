"""Preconditioners against their definitions in dense numpy, and through conjugate gradient."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import reverse_cuthill_mckee

from solvers import Status, pcg
from solvers.preconditioners import (
    BlockJacobi,
    Chebyshev,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
    SparseApproximateInverse,
    SymmetricPolynomial,
)
from solvers.problems import anisotropic, diffusion
from solvers.problems.coefficients import inclusions
from solvers.sparse import Pattern, from_scipy

pytestmark = pytest.mark.slow


def rough(n=7):
    """Diffusion of high contrast on n x n unknowns."""
    cells = np.indices((n + 1, n + 1)).reshape(2, -1).T / n
    return diffusion(inclusions(cells, 0, contrast=100.0).reshape(n + 1, n + 1)).matrix


A = rough()
N = A.shape[0]
ALL = {
    "jacobi": lambda a=None: Jacobi(a),
    "block": lambda a=None: BlockJacobi(a, block_size=7),
    "chebyshev": lambda a=None: Chebyshev(a),
    "polynomial": lambda a=None: SymmetricPolynomial(a, order=3),
    "ic": lambda a=None: IncompleteCholesky(a),
    "ic rcm": lambda a=None: IncompleteCholesky(a, order="rcm"),
    "fsai": lambda a=None: SparseApproximateInverse(a),
    "fsai 2": lambda a=None: SparseApproximateInverse(a, power=2),
}


@eqx.filter_jit
def applied(preconditioner, r):
    return preconditioner.apply(r)


def dense(preconditioner, n=N):
    dtype = preconditioner.dtype
    return np.asarray(applied(preconditioner, jnp.eye(n, dtype=dtype)))


@pytest.mark.parametrize("name", ALL)
def test_symmetric_positive_and_of_two_phases(name, x64):  # noqa: ARG001
    whole = ALL[name](A)
    matrix = dense(whole)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * abs(matrix).max())
    assert np.linalg.eigvalsh(matrix).min() > 0
    # The same in two phases, the second one traced, for values of another matrix.
    analysed = ALL[name]().analyse(Pattern.of(A))
    other = sp.csr_array(2 * A)

    @jax.jit
    def run(values, r):
        return analysed.setup(values).apply(r)

    r = jnp.asarray(np.random.default_rng(0).normal(size=N))
    wanted = ALL[name](other).apply(r)
    np.testing.assert_allclose(run(jnp.asarray(other.data), r), wanted, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(run(jnp.asarray(A.data), r), matrix @ r, rtol=1e-9, atol=1e-13)
    single = whole.astype(jnp.float32)
    assert single.dtype == np.float32
    found = pcg(A, np.ones(N), single)
    assert found.status == Status.converged
    assert int(found.iterations) <= 1.3 * int(pcg(A, np.ones(N)).iterations)


def test_jacobi_and_blocks_are_inverses_of_parts(x64):  # noqa: ARG001
    a = A.toarray()
    np.testing.assert_allclose(dense(Jacobi(A)), np.diag(1 / np.diag(a)), rtol=1e-14)
    blocks = np.kron(np.eye(7), np.ones((7, 7))) * a
    np.testing.assert_allclose(
        dense(BlockJacobi(A, block_size=7)), np.linalg.inv(blocks), atol=1e-12
    )
    with pytest.raises(ValueError, match="block_size: expected a divisor of the 49 rows, got 5"):
        BlockJacobi(A, block_size=5)


def test_chebyshev_is_its_polynomial(x64):  # noqa: ARG001
    """1 - z p(z) = T_k((b + a - 2 z) / (b - a)) / T_k((b + a) / (b - a)) on the scaled matrix."""
    found = Chebyshev(A, degree=5, ratio=20)
    top = float(found.state.largest)
    root = np.diag(A.diagonal() ** -0.5)
    values, vectors = np.linalg.eigh(root @ A.toarray() @ root)
    assert values[-1] <= top < 1.12 * values[-1]
    low = top / 20
    t = np.polynomial.chebyshev.Chebyshev.basis(5)
    rest = t((top + low - 2 * values) / (top - low)) / t((top + low) / (top - low))
    wanted = root @ vectors @ np.diag((1 - rest) / values) @ vectors.T @ root
    np.testing.assert_allclose(dense(found), wanted, atol=1e-12)


def elementary(values, order):
    return sum(math.prod(c) for c in itertools.combinations(values, order))


@pytest.mark.parametrize("order", range(5))
def test_polynomial_has_elementary_symmetric_eigenvalues(order, x64):  # noqa: ARG001
    rng = np.random.default_rng(order)
    spectrum = rng.uniform(1, 3, 7)
    q = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    b = q @ np.diag(spectrum) @ q.T
    found = dense(SymmetricPolynomial(sp.csr_array((b + b.T) / 2), order=order), 7)
    wanted = [elementary(np.delete(spectrum, i), order) for i in range(7)]
    wanted = np.array(wanted) / spectrum.sum() ** order  # scaled by the trace
    np.testing.assert_allclose(np.diag(q.T @ found @ q), wanted, rtol=1e-12)
    np.testing.assert_allclose(q.T @ found @ q - np.diag(wanted), 0, atol=1e-12)


def test_polynomial_condition_numbers_are_the_published_ones(x64):  # noqa: ARG001
    spectrum = np.array([1e6, 1e5, 1e4, 3, 2, 1.5, 1])
    a = sp.csr_array(np.diag(spectrum))
    for order, wanted in enumerate((1e6, 9.9e4, 9.0e3, 7.5, 3.1)):
        product = np.diag(dense(SymmetricPolynomial(a, order=order), 7)) * spectrum
        np.testing.assert_allclose(product.max() / product.min(), wanted, rtol=0.02)


@pytest.mark.parametrize("power", [1, 2])
def test_approximate_inverse_is_kolotilina_and_yeremins(power, x64):  # noqa: ARG001
    a = anisotropic((5, 6)).matrix
    found = SparseApproximateInverse(a, power=power)
    g = found.state[0].to_dense()
    np.testing.assert_allclose(np.diag(g @ a.toarray() @ g.T), 1, rtol=1e-12)
    places = np.linalg.matrix_power((a.toarray() != 0).astype(int), power) > 0
    assert (np.asarray(g != 0) <= np.tril(places)).all()
    for i in range(30):  # each row by its definition
        own = np.flatnonzero(np.tril(places)[i])
        row = np.linalg.inv(a.toarray()[np.ix_(own, own)])[-1]
        np.testing.assert_allclose(g[i, own], row / row[-1] ** 0.5, rtol=1e-9)


def zero_fill(a):
    """IC(0) as the textbook has it, dense and entry by entry."""
    factor = np.tril(a.toarray())
    for i in range(len(factor)):
        for j in np.flatnonzero(factor[i, :i]):
            factor[i, j] -= factor[i, :j] @ factor[j, :j]
            factor[i, j] /= factor[j, j]
        factor[i, i] = (factor[i, i] - factor[i, :i] @ factor[i, :i]) ** 0.5
    return factor


def test_incomplete_cholesky_is_the_textbooks(x64):  # noqa: ARG001
    a = anisotropic((6, 5), ratio=0.1).matrix
    wanted = zero_fill(a)
    found = IncompleteCholesky(a)
    np.testing.assert_allclose(dense(found, 30), np.linalg.inv(wanted @ wanted.T), rtol=1e-9)
    # On a pattern that has room for it, the factor is Cholesky's and the inverse exact.
    full = IncompleteCholesky(a, power=6)
    np.testing.assert_allclose(dense(full, 30), np.linalg.inv(a.toarray()), rtol=1e-9)
    few, many = (IncompleteCholesky(a, power=3, drop=d) for d in (0.2, 0.001))
    sizes = [int(m.analysis[0].used.sum()) for m in (found, few, many, full)]
    assert sizes[0] <= sizes[1] < sizes[2] < sizes[3]
    steps = [int(pcg(a, np.ones(30), m).iterations) for m in (found, few, many, full)]
    assert steps[0] >= steps[1] >= steps[2] >= steps[3] == 1
    # Another order is another factor, of the matrix renumbered by the same library.
    rows = reverse_cuthill_mckee(a, symmetric_mode=True)
    assert not np.array_equal(rows, np.arange(30))
    wanted = zero_fill(a[rows][:, rows])
    inverse = np.linalg.inv(wanted @ wanted.T)
    found = IncompleteCholesky(a, order="rcm")
    np.testing.assert_allclose(dense(found, 30)[np.ix_(rows, rows)], inverse, rtol=1e-9)
    few, many = (IncompleteCholesky(a, power=3, drop=d, order="rcm") for d in (0.2, 0.001))
    assert few.analysis[0].used.sum() < many.analysis[0].used.sum()
    with pytest.raises(TypeError, match=r"with drop: .* typical values, got a pattern alone"):
        IncompleteCholesky(drop=0.1).analyse(Pattern.of(a))


def test_incomplete_cholesky_raises_the_diagonal_where_it_must(x64):  # noqa: ARG001
    """Kershaw's matrix is positive definite, its IC(0) has a negative pivot."""
    a = np.array([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]])
    assert np.linalg.eigvalsh(a).min() > 0
    with np.errstate(invalid="ignore"):
        assert np.isnan(zero_fill(sp.csr_array(a))).any()
    found = dense(IncompleteCholesky(sp.csr_array(a)), 4)
    assert np.linalg.eigvalsh(found).min() > 0
    assert pcg(sp.csr_array(a), np.ones(4), IncompleteCholesky(sp.csr_array(a))).status == (
        Status.converged
    )


def test_setup_is_mapped_over_matrices(x64):  # noqa: ARG001
    analysed = SparseApproximateInverse().analyse(Pattern.of(A))
    matrix = from_scipy(A)
    scales = jnp.asarray([1.0, 2.0, 5.0])
    b = jnp.ones(N)

    def solve(values):
        return pcg(matrix.with_data(values), b, analysed.setup(values))

    found = jax.jit(jax.vmap(solve))(scales[:, None] * matrix.data[None])
    assert bool(jnp.all(found.status == Status.converged))
    np.testing.assert_allclose(found.value[0] / 2, found.value[1], rtol=1e-6)
    np.testing.assert_allclose(found.value[0] / 5, found.value[2], rtol=1e-6)


@pytest.mark.parametrize("method", ["smoothed-aggregation", "ruge-stuben"])
def test_multigrid_is_symmetric_refreshed_and_as_good_as_pyamgs(method, x64):  # noqa: ARG001
    pyamg = pytest.importorskip("pyamg", reason="pyamg is not installed")
    a, other = rough(16), sp.csr_array(3 * rough(16))
    n = a.shape[0]
    found = Multigrid(a, method=method, coarsest=20)
    assert len(found.state[0]) >= 1
    matrix = dense(found, n)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * abs(matrix).max())
    assert np.linalg.eigvalsh(matrix).min() > 0
    # The coarse matrices are Galerkin's, and three times the matrix gives a third of the inverse.
    _, down, up = found.state[0][0]
    p = up.to_scipy().toarray()
    np.testing.assert_allclose(down.to_scipy().toarray(), p.T)
    coarse = np.linalg.inv(p.T @ a.toarray() @ p) if len(found.state[0]) == 1 else None
    if coarse is not None:
        np.testing.assert_allclose(found.state[1], coarse, rtol=1e-8, atol=1e-12)
    analysed = Multigrid(method=method, coarsest=20).analyse(a)
    r = jnp.asarray(np.random.default_rng(0).normal(size=n))
    again = eqx.filter_jit(lambda values: analysed.setup(values).apply(r))(jnp.asarray(other.data))
    np.testing.assert_allclose(again, matrix @ r / 3, rtol=1e-9, atol=1e-12)
    # As many iterations as pyamg's own cycle with symmetric Gauss-Seidel.
    solver = {
        "ruge-stuben": pyamg.ruge_stuben_solver,
        "smoothed-aggregation": pyamg.smoothed_aggregation_solver,
    }[method](sp.csr_matrix(a), max_coarse=20)
    history = []
    solver.solve(np.asarray(r), tol=1e-8, accel="cg", residuals=history)
    assert int(pcg(a, r, found).iterations) <= 1.3 * len(history)
    with pytest.raises(TypeError, match=r"Multigrid: .* typical values, got a pattern alone"):
        Multigrid().analyse(Pattern.of(a))


def with_entry(value):
    a = A.tolil()
    a[3, 3] = value
    return sp.csr_array(a)


BAD = [
    (lambda: Jacobi(with_entry(0.0)), "A: expected a positive diagonal.* got 0.0 in row 3"),
    (lambda: Jacobi(with_entry(np.nan)), "A: expected finite entries, got nan in row 3, column 3"),
    (lambda: Jacobi(A[:, :-1]), "A: expected a square matrix, got 49 x 48"),
    (lambda: Jacobi().setup(np.ones(3)), "Jacobi: expected analyse before setup"),
    (lambda: Jacobi().analyse(A).apply(jnp.ones(N)), "Jacobi: expected setup before apply"),
    (
        lambda: Jacobi().analyse(A).setup(np.ones(3)),
        r"values: expected shape \(217,\).* got \(3,\)",
    ),
    (lambda: Jacobi().analyse(A).setup(anisotropic((7, 7)).matrix), "another pattern"),
    (lambda: Jacobi(A).apply(jnp.ones(3)), r"r: expected 49 rows, got shape \(3,\)"),
    (lambda: pcg(rough(6), np.ones(36), Jacobi(A)), "preconditioner: expected 36 rows, got 49"),
    (lambda: Chebyshev(degree=0), "degree: expected at least 1, got 0"),
    (lambda: Chebyshev(ratio=1), "ratio: expected above 1, got 1"),
    (lambda: SymmetricPolynomial(order=5), "order: expected an integer from 0 to 4, got 5"),
    (lambda: IncompleteCholesky(drop=1), "drop: expected at least 0 and below 1, got 1"),
    (lambda: IncompleteCholesky(order="amd"), "order: expected one of natural, rcm, got 'amd'"),
    (lambda: Multigrid(method="geometric"), "method: expected one of smoothed-aggregation"),
    (lambda: SparseApproximateInverse(power=0), "power: expected at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message, x64):  # noqa: ARG001
    with pytest.raises(ValueError, match=message):
        call()
