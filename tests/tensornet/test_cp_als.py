import functools
import itertools
import warnings

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, Status, cp_als

pytestmark = pytest.mark.slow

LETTERS = "abcdefgh"


def dense(factors):
    """The sum of outer products, by numpy."""
    n = len(factors)
    inputs = ",".join(f"{c}r" for c in LETTERS[:n])
    return np.einsum(f"{inputs}->{LETTERS[:n]}", *[np.asarray(f, np.float64) for f in factors])


def exact(shape, rank, seed=0, nonnegative=False):
    rng = np.random.default_rng(seed)
    factors = [rng.normal(size=(n, rank)) for n in shape]
    return [np.abs(f) for f in factors] if nonnegative else factors


def distance(decomposition, x):
    tensor = decomposition.tensor
    got = dense((tensor.factors[0] * tensor.weights[None, :], *tensor.factors[1:]))
    return np.linalg.norm(got - x) / np.linalg.norm(x)


def noisy(shape=(5, 6, 7), rank=3, noise=0.1, seed=0):
    x = dense(exact(shape, rank, seed))
    rng = np.random.default_rng(seed + 100)
    return x + noise * np.linalg.norm(x) / np.sqrt(x.size) * rng.normal(size=shape)


@pytest.mark.parametrize(("shape", "rank"), [((6, 5), 2), ((5, 6, 7), 3), ((3, 2, 3, 2, 3), 2)])
def test_recovers_an_exact_rank(shape, rank, dtype):
    x = dense(exact(shape, rank))
    result = cp_als(jnp.asarray(x, dtype), rank)
    floor = 1e-7 if dtype == jnp.float64 else 3e-5
    assert result.status == Status.converged
    assert result.tensor.dtype == result.relative_error.dtype == dtype
    assert distance(result, x) < floor
    assert float(result.relative_error) == pytest.approx(distance(result, x), rel=0.1, abs=1e-6)


def test_finds_the_factors_themselves(x64):
    """CP is unique: with norms, order and signs fixed the factors come out entry by entry."""
    del x64
    known = exact((5, 6, 7), 3)
    result = cp_als(dense(known), 3, rtol=1e-12)
    norms = [np.linalg.norm(f, axis=0) for f in known]
    weights = functools.reduce(np.multiply, norms)
    units = [f / n for f, n in zip(known, norms, strict=True)]
    for k in range(2):  # the largest entry positive, the last mode takes the sign
        sign = np.sign(units[k][np.argmax(np.abs(units[k]), axis=0), range(3)])
        units[k], units[-1] = units[k] * sign, units[-1] * sign
    order = np.argsort(-weights)
    np.testing.assert_allclose(result.tensor.weights, weights[order], rtol=1e-7)
    for got, unit in zip(result.tensor.factors, units, strict=True):
        np.testing.assert_allclose(got, unit[:, order], atol=1e-7)


@pytest.mark.parametrize("shape", [(5, 6, 7), (4, 3, 5, 4)])
def test_plain_sweeps_are_those_of_tensorly(shape, dtype):
    from tensorly.cp_tensor import CPTensor
    from tensorly.decomposition import parafac

    x, rank, sweeps = noisy(shape, 3).astype(dtype), 3, 5
    init = exact(shape, rank, seed=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, errors = parafac(
            x.astype(np.float64),
            rank,
            n_iter_max=sweeps,
            init=CPTensor((np.ones(rank), [f.copy() for f in init])),  # type: ignore[arg-type]
            tol=1e-300,
            return_errors=True,
        )
    start = CP(jnp.ones(rank, dtype), tuple(jnp.asarray(f, dtype) for f in init))
    got = cp_als(x, rank, init=start, rtol=0.0, max_sweeps=sweeps).history
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got, np.array(errors, float), rtol=1e3 * eps)


@hypothesis.given(
    seed=st.integers(0, 99),
    kind=st.sampled_from(["normal", "ties", "low rank"]),
    nonnegative=st.booleans(),
)
def test_error_falls_and_the_result_is_in_normal_form(seed, kind, nonnegative):
    shape, rank = (3, 2, 4), 2
    with jax.enable_x64(True):
        x = np.random.default_rng(seed).normal(size=shape)
        if kind == "ties":
            x = np.sign(x)
        elif kind == "low rank":
            x = dense(exact(shape, 1, seed))
        result = cp_als(x, rank, nonnegative=nonnegative, max_sweeps=60)
        history = np.asarray(result.history)[: int(result.sweeps)]
        assert np.isnan(np.asarray(result.history)[int(result.sweeps) :]).all()
        assert (np.diff(history) <= 1e-12).all()
        assert distance(result, x) == pytest.approx(float(result.relative_error), abs=1e-12)
        assert history[-1] == pytest.approx(float(result.relative_error), abs=1e-7)
        weights = np.asarray(result.tensor.weights)
        assert (weights >= 0).all()
        assert (np.diff(weights) <= 1e-12 * weights[0]).all()
        alive = weights > 0
        for k, factor in enumerate(result.tensor.factors):
            norms = np.linalg.norm(factor, axis=0)
            np.testing.assert_allclose(norms[alive], 1, atol=1e-12)
            assert not nonnegative or float(factor.min()) >= 0
            if k < len(shape) - 1:
                largest = np.take_along_axis(
                    np.asarray(factor), np.argmax(np.abs(factor), axis=0)[None], axis=0
                )[0]
                assert (largest[alive] > 0).all()


def test_one_mode(dtype):
    x = jnp.asarray([3.0, -4.0], dtype)
    result = cp_als(x, 1)
    np.testing.assert_allclose(result.tensor.weights, [5.0], rtol=1e-6)
    np.testing.assert_allclose(result.tensor.to_dense(), x, rtol=1e-6)


def test_single_precision_stops_where_rounding_starts():
    result = cp_als(jnp.asarray(noisy(), jnp.float32), 3)
    assert result.status == Status.converged
    assert int(result.sweeps) < 60
    with jax.enable_x64(True):
        double = cp_als(jnp.asarray(noisy()), 3)
    assert float(result.relative_error) == pytest.approx(float(double.relative_error), rel=1e-4)


def group_tensor(elements, product):
    index = {g: n for n, g in enumerate(elements)}
    x = np.zeros((len(elements),) * 3)
    for g, h in itertools.product(elements, repeat=2):
        x[index[g], index[h], index[product(g, h)]] = 1
    return x


GROUPS = {
    "Z5": (group_tensor(list(range(5)), lambda g, h: (g + h) % 5), 7),
    "S3": (
        group_tensor(
            list(itertools.permutations(range(3))), lambda g, h: tuple(g[h[i]] for i in range(3))
        ),
        9,
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_group_multiplication_tensors_have_their_algebraic_rank(group, x64):
    """The real rank: one for each real character, 3 for a complex pair, 7 for a 2x2 block."""
    del x64
    x, rank = GROUPS[group]
    options = {"init": "random", "starts": 8, "key": jax.random.key(0), "max_sweeps": 300}
    assert distance(cp_als(x, rank, **options), x) < 3e-8
    assert distance(cp_als(x, rank - 1, **options), x) > 0.2


def test_swamp_is_reported(x64):
    """The W tensor: rank 3 but a limit of rank 2, so the error sinks for ever, ever slower."""
    del x64
    w = np.zeros((2, 2, 2))
    w[0, 0, 1] = w[0, 1, 0] = w[1, 0, 0] = 1
    result = cp_als(w, 2)
    assert result.status == Status.stagnated
    assert float(result.relative_error) < 1e-4
    assert float(result.tensor.weights[1]) > 50
    assert cp_als(w, 2, rtol=0.0, max_sweeps=20).status == Status.max_iterations


def test_more_components_than_a_mode_is_long(x64):
    del x64
    x = dense(exact((3, 4, 4), 5))
    result = cp_als(x, 5, max_sweeps=200)
    assert float(result.relative_error) < 1e-2


def test_superfluous_components_stay_finite(dtype):
    x = dense(exact((5, 6, 7), 1))
    result = cp_als(jnp.asarray(x, dtype), 3)
    assert distance(result, x) < 1e-3
    assert all(bool(jnp.isfinite(f).all()) for f in result.tensor.factors)


def test_best_of_several_starts_is_kept(x64):
    del x64
    x = np.random.default_rng(0).normal(size=(5, 6, 7))  # many local minima
    several = cp_als(x, 3, starts=6, key=jax.random.key(3), max_sweeps=50)
    alone = cp_als(x, 3, max_sweeps=50)
    assert float(several.relative_error) < float(alone.relative_error)
    assert distance(several, x) == pytest.approx(float(several.relative_error), rel=1e-9)


def test_given_start_is_used(x64):
    del x64
    known = exact((5, 6, 7), 3)
    init = CP(jnp.asarray([1.0, 2.0, 3.0]), tuple(jnp.asarray(f) for f in known))
    x = np.asarray(init.to_dense())
    result = cp_als(x, 3, init=init)
    assert int(result.sweeps) <= 2
    assert distance(result, x) < 1e-12
