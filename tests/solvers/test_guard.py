"""What a guarded preconditioner costs and risks, counted by the host at each product."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.sparse as sp

from solvers import Status
from solvers.krylov import PCG, flexible_cg, pcg
from solvers.krylov.guard import LARGE, STEPS
from solvers.problems import poisson
from solvers.sparse import from_scipy


class Guarded(eqx.Module):
    """A matrix as a preconditioner that `pcg` has to try first."""

    guarded: ClassVar[bool] = True
    diagonal: jax.Array
    matrix: jax.Array  # dense, or the diagonal of one

    @property
    def shape(self):
        return self.diagonal.shape * 2

    @property
    def dtype(self):
        return self.matrix.dtype

    def apply(self, r):
        if self.matrix.ndim == 2:
            return jnp.matmul(self.matrix, r, precision="highest")
        return (self.matrix if r.ndim == 1 else self.matrix[:, None]) * r

    def fallback(self, r):
        return r / (self.diagonal if r.ndim == 1 else self.diagonal[:, None])


def counted(matrix):
    """The matrix as a function that counts its calls on the host."""
    ours, calls = from_scipy(matrix), [0]

    def tell(_):
        calls[0] += 1
        return np.int32(0)

    def product(x):
        zero = jax.pure_callback(tell, jax.ShapeDtypeStruct((), np.int32), x[0])
        return ours.mv(x + zero.astype(x.dtype))

    return product, calls


GRID = (180, 180)


@pytest.mark.parametrize("stiffness", [0.02, 1.0, 4.0, 20.0, 400.0])
def test_falling_back_costs_a_fifth_of_jacobi_at_most(stiffness, x64):  # noqa: ARG001
    laplace = poisson(GRID).matrix
    matrix = sp.csr_array(sp.eye_array(laplace.shape[0]) + stiffness * laplace)
    assert matrix.shape[0] >= LARGE
    rng = np.random.default_rng(0)
    b = rng.normal(size=matrix.shape[0])
    diagonal = jnp.asarray(matrix.diagonal())
    bad = Guarded(diagonal, jnp.asarray(10 ** rng.uniform(-2, 2, matrix.shape[0])))
    product, calls = counted(matrix)
    jacobi = pcg(product, b, lambda r: r / diagonal)
    alone, calls[0] = calls[0], 0
    found = pcg(product, b, bad)
    assert found.status == Status.converged
    assert bool(found.fallback)
    assert calls[0] <= 1.2 * alone
    # Jacobi's own iterates, but for rounding.
    np.testing.assert_allclose(found.value, jacobi.value, atol=1e-7)
    assert abs(int(found.iterations) - int(jacobi.iterations)) <= 1


def spectrum(n=10):
    """A matrix, its eigenvalues and its eigenvectors."""
    matrix = poisson((n, n)).matrix
    return (matrix, *np.linalg.eigh(matrix.toarray()))


def test_a_good_one_costs_the_trial_and_no_more(x64):  # noqa: ARG001
    matrix, values, vectors = spectrum()
    b = np.random.default_rng(1).normal(size=100)
    root = jnp.asarray((vectors * values**-0.5) @ vectors.T)
    product, calls = counted(matrix)
    plain = pcg(product, b, lambda r: jnp.matmul(root, r, precision="highest"))
    alone, calls[0] = calls[0], 0
    found = pcg(product, b, Guarded(jnp.asarray(matrix.diagonal()), root))
    assert not bool(found.fallback)
    assert int(found.iterations) == int(plain.iterations)
    assert calls[0] == alone + STEPS + 1
    np.testing.assert_allclose(found.value, plain.value, rtol=1e-10)
    history = np.asarray(found.residual_history)
    assert np.isfinite(history[: int(found.iterations) + 1]).all()


@pytest.mark.parametrize("share", [1.0, 1e-6])
def test_an_indefinite_one_is_left_whenever_it_shows(share, x64):  # noqa: ARG001
    """Better than Jacobi but for one negative direction, of which b has much or very little."""
    matrix, values, vectors = spectrum()
    inverse = values**-0.5
    inverse[0] *= -1
    parts = np.random.default_rng(2).normal(size=100)
    parts[0] = share
    bad = Guarded(jnp.asarray(matrix.diagonal()), jnp.asarray((vectors * inverse) @ vectors.T))
    b = vectors @ parts
    unguarded = pcg(matrix, b, bad.apply)
    assert unguarded.status == Status.indefinite_preconditioner
    steps = int(unguarded.iterations)
    assert steps < STEPS if share == 1 else steps > STEPS  # in the trial, or after it
    found = pcg(matrix, b, bad)
    assert found.status == Status.converged
    assert bool(found.fallback)
    assert np.linalg.norm(matrix @ found.value - b) <= 1e-8 * np.linalg.norm(b)
    operator = lx.FunctionLinearOperator(
        from_scipy(matrix).mv, jax.eval_shape(lambda: jnp.asarray(b)), lx.positive_semidefinite_tag
    )
    theirs = lx.linear_solve(operator, jnp.asarray(b), PCG(), options={"preconditioner": bad})
    assert bool(theirs.stats["fallback"])
    assert theirs.result == lx.RESULTS.successful


def test_many_right_hand_sides_and_the_flexible_method(x64):  # noqa: ARG001
    matrix, values, vectors = spectrum()
    diagonal = jnp.asarray(matrix.diagonal())
    good = Guarded(diagonal, jnp.asarray((vectors * values**-0.5) @ vectors.T))
    bad = Guarded(diagonal, jnp.full(100, jnp.nan))
    b = np.random.default_rng(3).normal(size=(100, 3))
    b[:, 1] = 0
    for solve in (pcg, flexible_cg):
        for model, fallback in ((good, False), (bad, True)):
            found = solve(matrix, b, model)
            assert bool(jnp.all(found.status == Status.converged))
            assert bool(found.fallback) == fallback
            np.testing.assert_allclose(matrix @ found.value, b, atol=1e-6)


def test_few_steps_are_told_as_they_are(x64):  # noqa: ARG001
    matrix, values, vectors = spectrum()
    good = Guarded(
        jnp.asarray(matrix.diagonal()), jnp.asarray((vectors * values**-0.5) @ vectors.T)
    )
    b = np.random.default_rng(4).normal(size=100)
    found = pcg(matrix, b, good, max_iterations=5)
    assert found.status == Status.max_iterations
    assert int(found.iterations) == 5
    solved = np.linalg.solve(matrix.toarray(), b)
    again = pcg(matrix, b, good, x0=solved)
    assert again.status == Status.converged
    assert int(again.iterations) == 0
