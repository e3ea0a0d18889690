"""Masks, nonnegative factors and bad input of `cp_als`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, Status, cp_als

pytestmark = pytest.mark.slow

SHAPE, RANK = (5, 6, 7), 3


def low_rank(seed=0, nonnegative=False, noise=0.0):
    rng = np.random.default_rng(seed)
    factors = [rng.normal(size=(n, RANK)) for n in SHAPE]
    if nonnegative:
        factors = [np.abs(f) for f in factors]
    x = np.einsum("ir,jr,kr->ijk", *factors)
    return x + noise * rng.normal(size=SHAPE)


def hide(share, seed=1):
    return np.random.default_rng(seed).random(SHAPE) > share


def values(decomposition):
    tensor = decomposition.tensor
    return np.einsum("r,ir,jr,kr->ijk", tensor.weights, *tensor.factors)


def test_missing_entries_are_recovered(dtype):
    x, mask = low_rank(), hide(0.4)
    shown = jnp.asarray(np.where(mask, x, np.nan), dtype)
    result = cp_als(shown, RANK, mask=mask, max_sweeps=2000)
    assert result.status == Status.converged
    assert np.linalg.norm(values(result) - x) < (1e-6 if dtype == jnp.float64 else 1e-3) * (
        np.linalg.norm(x)
    )


def test_masked_fit_is_a_stationary_point_of_the_observed_misfit(x64):
    del x64
    x, mask = low_rank(noise=0.3), hide(0.4)
    result = cp_als(np.where(mask, x, np.nan), RANK, mask=mask, max_sweeps=2000, rtol=1e-15)
    a, b, c = (np.asarray(f) for f in result.tensor.factors)
    a = a * np.asarray(result.tensor.weights)
    residual = np.where(mask, values(result) - x, 0)
    scale = np.linalg.norm(np.where(mask, x, 0))
    for gradient, factor in (
        (np.einsum("ijk,jr,kr->ir", residual, b, c), a),
        (np.einsum("ijk,ir,kr->jr", residual, a, c), b),
        (np.einsum("ijk,ir,jr->kr", residual, a, b), c),
    ):
        assert np.linalg.norm(gradient) * np.linalg.norm(factor) < 1e-5 * scale**2
    error = np.linalg.norm(residual) / scale
    assert float(result.relative_error) == pytest.approx(error, rel=1e-10)


def test_a_mask_that_hides_nothing_changes_nothing(x64):
    del x64
    x = low_rank(noise=0.3)
    masked = cp_als(x, RANK, mask=np.ones(SHAPE, bool), max_sweeps=2000, rtol=1e-15)
    plain = cp_als(x, RANK, rtol=1e-15, max_sweeps=2000)
    np.testing.assert_allclose(values(masked), values(plain), atol=1e-6)


def test_measurements_with_gaps(x64):
    """Interleukin-2 responses, 192 of 4992 missing; imputation takes a thousand sweeps."""
    del x64
    from tensorly.datasets import load_IL2data

    x = np.asarray(load_IL2data().tensor, float)
    mask = np.isfinite(x)
    assert (~mask).sum() == 192
    result = cp_als(x, 3, mask=mask, max_sweeps=200)
    assert float(result.relative_error) < 0.23825


def test_nonnegative_factors_are_recovered(dtype):
    x = low_rank(nonnegative=True)
    result = cp_als(jnp.asarray(x, dtype), RANK, nonnegative=True, max_sweeps=3000, rtol=1e-10)
    assert all(float(f.min()) >= 0 for f in (result.tensor.weights, *result.tensor.factors))
    assert float(result.relative_error) < 1e-3


def test_nonnegative_fit_meets_the_optimality_conditions(x64):
    """Of least squares with A >= 0: the gradient is nonnegative, and zero where A is positive."""
    del x64
    x, mask = low_rank(noise=0.5), hide(0.2)
    result = cp_als(
        np.where(mask, x, np.nan), RANK, mask=mask, nonnegative=True, max_sweeps=3000, rtol=1e-15
    )
    a, b, c = (np.asarray(f) for f in result.tensor.factors)
    a = a * np.asarray(result.tensor.weights)
    gradient = np.einsum("ijk,jr,kr->ir", np.where(mask, values(result) - x, 0), b, c)
    assert gradient.min() > -1e-4
    assert abs(gradient * a).max() < 1e-4


def test_masked_and_nonnegative_agree_with_plain_where_nothing_binds(x64):
    del x64
    x = low_rank(nonnegative=True)
    result = cp_als(
        x, RANK, mask=np.ones(SHAPE, bool), nonnegative=True, max_sweeps=3000, rtol=1e-10
    )
    assert float(result.relative_error) < 1e-3


def bad(match, error: type[Exception] = ValueError, rank=RANK, x=None, **options):
    with pytest.raises(error, match=match):
        cp_als(low_rank() if x is None else x, rank, **options)


def test_bad_data(x64):
    del x64
    x = low_rank()
    x[1, 2, 3] = np.nan
    bad(r"x: expected finite entries, got 1 NaN .* \(1, 2, 3\)", x=x)
    mask = np.ones(SHAPE, bool)
    mask[0, 0, 0] = False
    bad(r"x: expected finite entries, got 1 NaN", x=x, mask=mask)
    x[1, 2, 3] = np.inf
    bad(r"x: expected finite entries, got 1 NaN or infinite", x=x)
    bad(r"x: expected a nonzero tensor, got only zeros in shape \(5, 6, 7\)", x=np.zeros(SHAPE))
    bad(r"x: expected entries whose squares float64 holds, got .* 1.0e\+200", x=1e200 * mask)
    bad(r"x: expected no empty mode, got size 0 in mode 1", x=np.zeros((5, 0, 7)))
    bad(r"x: expected at least 1 modes, got 0", x=np.asarray(1.0))
    bad(r"x: expected float32 or float64.*complex128", TypeError, x=low_rank() * 1j)


def test_bad_rank():
    bad("rank: expected between 1 and 30 .*, got 0", rank=0)
    bad("rank: expected between 1 and 30 .*, got 31", rank=31)
    bad(r"rank(?s:.*)int", TypeError, rank=2.5)  # type: ignore[arg-type]


def test_bad_mask():
    bad(r"mask: expected shape \(5, 6, 7\) like x, got \(5, 6\)", mask=np.ones((5, 6), bool))
    bad(r"mask: expected booleans .*, got int", TypeError, mask=np.ones(SHAPE, int))
    mask = np.ones(SHAPE, bool)
    mask[:, 4] = False
    bad("mask: expected an observed entry in every slice, got none in mode 1 at index 4", mask=mask)


def test_bad_options():
    bad("max_sweeps: expected at least 1, got 0", max_sweeps=0)
    bad("starts: expected at least 1, got 0", starts=0)
    bad("rtol: expected a finite number, at least 0, got -1", rtol=-1.0)
    bad("rtol: expected a finite number, at least 0, got nan", rtol=float("nan"))
    bad('init: expected "svd", "random" or a CP tensor, got \'pca\'', init="pca")
    bad(r"key: expected a jax.random.key for init='random'.* got None", init="random")
    bad(r"key: expected a jax.random.key for .*starts=4.* got None", starts=4)


def test_bad_start():
    def start(shape=SHAPE, rank=RANK):
        return CP(jnp.ones(rank), tuple(jnp.ones((n, rank)) for n in shape))

    wanted = re.escape("init: expected a CP tensor of shape (5, 6, 7) and rank 3, got shape ")
    bad(wanted + re.escape("(5, 6, 8) and rank 3"), init=start((5, 6, 8)))
    bad(wanted + re.escape("(5, 6, 7) and rank 2"), init=start(rank=2))
    negative = CP(-jnp.ones(RANK), tuple(jnp.ones((n, RANK)) for n in SHAPE))
    bad("init.weights: expected no negative entries, got -1.0", init=negative, nonnegative=True)


def test_overflow_on_the_way_is_told(x64):
    del x64
    huge = CP(jnp.full(RANK, 1e300), tuple(1e300 * jnp.ones((n, RANK)) for n in SHAPE))
    with pytest.raises(FloatingPointError, match="NaN or an infinity appeared"):
        cp_als(low_rank(), RANK, init=huge)
    result = cp_als(low_rank(), RANK, init=huge, throw=False)
    assert result.status == Status.non_finite
    assert int(result.sweeps) == 1


def test_nan_inside_a_trace_is_a_status(x64):
    del x64
    x = jnp.asarray(low_rank()).at[0, 0, 0].set(jnp.nan)
    result = jax.jit(lambda x: cp_als(x, RANK))(x)
    assert result.status == Status.non_finite
    assert np.isnan(result.relative_error)
