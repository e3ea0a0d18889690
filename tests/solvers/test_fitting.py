"""Losses against numpy, and operators that are trained, resumed, and trained in low precision."""

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.operators import FNO, TFNO, Normalized, evaluate, fit, relative_h1, relative_l2

pytestmark = pytest.mark.slow

KEY = jax.random.key(1)

# Losses.


def pair(shape):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), rng.normal(size=shape)


@pytest.mark.usefixtures("x64")
def test_l2():
    a, b = pair((3, 2, 5, 6))
    flat = [np.linalg.norm((a - b)[k]) / np.linalg.norm(b[k]) for k in range(3)]
    np.testing.assert_allclose(relative_l2(a, b), np.mean(flat), rtol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(3, 2, 5), (2, 1, 5, 4), (2, 1, 3, 5, 4)])
@pytest.mark.parametrize("boundary", ["periodic", "one-sided"])
def test_h1(shape, boundary):
    a, b = pair(shape)

    def norm(x):
        total = np.sum(x**2)
        for axis in range(1, x.ndim):
            h = 1 / x.shape[axis]
            wide = np.pad(x, [(0, 0)] * axis + [(1, 1)] + [(0, 0)] * (x.ndim - axis - 1), "wrap")
            periodic = np.moveaxis(np.gradient(wide, h, axis=axis), axis, 0)[1:-1]
            slope = np.gradient(x, h, axis=axis) if boundary == "one-sided" else periodic
            total += np.sum(slope**2)
        return np.sqrt(total)

    expected = np.mean([norm(p - t) / norm(t) for p, t in zip(a, b, strict=True)])
    np.testing.assert_allclose(relative_h1(a, b, boundary=boundary), expected, rtol=1e-13)


@hypothesis.given(st.floats(-3, 3), st.sampled_from([2, 5]))
def test_relative_errors_of_a_multiple(scale, n):
    """Of (1 + s) y against y the error is |s| in either norm, whatever y."""
    y = np.random.default_rng(n).normal(size=(2, 1, n, n + 1)).astype(np.float32)
    x = (1 + np.float32(scale)) * y
    for error in (relative_l2(x, y), relative_h1(x, y), relative_h1(x, y, boundary="one-sided")):
        np.testing.assert_allclose(error, abs(scale), rtol=1e-5, atol=1e-5)


def test_a_truth_of_zeros_is_no_nan():
    value, gradient = jax.value_and_grad(relative_l2)(jnp.ones((1, 1, 4)), jnp.zeros((1, 1, 4)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_bad_losses():
    x = jnp.zeros((1, 1, 4))
    with pytest.raises(ValueError, match="prediction: expected the shape"):
        relative_l2(x, jnp.zeros((1, 1, 5)))
    with pytest.raises(ValueError, match="boundary: expected one of"):
        relative_h1(x, x, boundary="dirichlet")
    with pytest.raises(ValueError, match="truth: expected at least 2 points along axis 2, got 1"):
        relative_h1(x[..., :1], x[..., :1])


# Training: the antiderivative of a periodic function of mean zero.


def integrals(rows, n=32, seed=0):
    rng = np.random.default_rng(seed)
    k = np.arange(1, 6)
    z = (rng.normal(size=(rows, 5)) + 1j * rng.normal(size=(rows, 5))) / k
    wave = np.exp(2j * np.pi * np.outer(k, np.arange(n) / n))
    x, y = (z @ wave).real, (z / (2j * np.pi * k) @ wave).real
    return x[:, None].astype(np.float32), 3 + 10 * y[:, None].astype(np.float32)


def model(**options):
    given = {"modes": (12,), "in_channels": 1, "out_channels": 1, "width": 8, "layers": 2}
    given |= {"key": KEY, "coordinates": False}
    return (TFNO if "rank" in options else FNO)(**{**given, **options})


TRAIN = {"key": KEY, "epochs": 60, "batch_size": 16, "learning_rate": 1e-2, "loss": "l2"}


def test_a_trained_operator_is_as_good_on_a_finer_grid():
    result = fit(model(rank=0.5), integrals(64), **TRAIN, validation=integrals(32, seed=1))
    held_out = {str(n): integrals(32, n, seed=1) for n in (32, 45, 64)}
    figures = evaluate(result.model, held_out)
    assert isinstance(result.model, Normalized)
    assert figures["32"]["l2"] < 0.02
    np.testing.assert_allclose(
        result.history.validation["loss"][-1], figures["32"]["l2"], rtol=1e-4
    )
    # Its MLPs make frequencies that the coarse grid takes for lower ones: not to rounding.
    for n in ("45", "64"):
        assert figures[n]["l2"] < 1.2 * figures["32"]["l2"]
        assert figures[n]["h1"] < 0.05
    # The normalizers stay as the data were.
    np.testing.assert_allclose(result.model.outputs.mean, [3.0], atol=1e-5)


class CrashError(Exception):
    pass


def test_killed_and_resumed_training_ends_with_the_same_weights(tmp_path):
    data = integrals(48)
    arguments = {**TRAIN, "epochs": 8, "checkpoint_every": 5}
    whole = fit(model(), data, **arguments, checkpoint=tmp_path / "whole")

    def crash(report):
        if report.step >= 12:
            raise CrashError

    with pytest.raises(CrashError):
        fit(model(), data, **arguments, checkpoint=tmp_path / "run", callback=crash)
    resumed = fit(model(), data, **arguments, checkpoint=tmp_path / "run")
    assert eqx.tree_equal(resumed.model, whole.model)
    np.testing.assert_array_equal(resumed.history.loss, whole.history.loss)
    with pytest.raises(ValueError, match=r"checkpoint: .* is of another run: .*weight"):
        fit(model(width=6), data, **arguments, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="is of another run: hyperparameters learning_rate"):
        fit(model(), data, **{**arguments, "learning_rate": 1e-3}, checkpoint=tmp_path / "run")


def test_low_precision_trains_as_well():
    losses = {}
    for precision in ("full", "mixed", "half"):
        result = fit(model(precision=precision), integrals(64), **{**TRAIN, "epochs": 30})
        losses[precision] = float(np.mean(result.history.loss[-12:]))
        assert np.isfinite(result.history.loss).all()
    assert losses["mixed"] < 1.05 * losses["full"] + 2e-3
    assert losses["half"] < 1.05 * losses["full"] + 2e-3


def test_bad_data():
    x, y = integrals(4)
    for data, message in [
        ((x, y[:3]), "data: expected as many truths as inputs, got 3 and 4"),
        ((x[0], y), r"data\[0\]: expected \[rows, channels, \*grid\], got shape"),
        ((x, np.where(y > 3, np.nan, y)), r"data\[1\]: expected finite entries, got"),
        ((x, np.ones_like(y)), r"data \(y\): expected channel 0 to vary, got 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(model(), data, **TRAIN)
    with pytest.raises(ValueError, match="loss: expected a function or one of"):
        fit(model(), (x, y), **{**TRAIN, "loss": "l3"})
    with pytest.raises(ValueError, match="steps, epochs: expected one of them"):
        fit(model(), (x, y), **{**TRAIN, "steps": 3})
    with pytest.raises(ValueError, match=r"data\['a'\]\[0\]: expected finite entries"):
        evaluate(model(), {"a": (np.full_like(x, np.nan), y)})
