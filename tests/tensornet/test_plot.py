"""Pictures: what is drawn is what was given, labelled; absence of matplotlib is said clearly."""

import subprocess
import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

import tensornet
from tensornet import plot
from tensornet.status import Status
from tensornet.training import Fit, History

mpl.use("Agg")
from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def run(losses, validation=None, best=(0, float("nan"))):
    steps = np.array(sorted(validation or {}), int)
    values = {"loss": np.array([validation[s] for s in steps])} if validation else {}
    figures = History({"loss": np.asarray(losses)}, steps, values)
    return Fit(None, None, None, figures, Status.max_iterations, len(losses), *best)


def drawn(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def saved(ax):
    """Lay the picture out and draw it: warnings are errors in the tests."""
    ax.figure.canvas.draw()


def test_learning_curves():
    ax = plot.history(run([4.0, 2.0, 1.0], {1: 5.0, 3: 3.0}, best=(3, 3.0)))
    lines = drawn(ax)
    np.testing.assert_array_equal(lines["training"], [[1, 4], [2, 2], [3, 1]])
    np.testing.assert_array_equal(lines["validation"], [[1, 5], [3, 3]])
    np.testing.assert_array_equal(lines["best, step 3"], [[3, 3]])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "loss", "log")
    saved(ax)


def test_long_runs_are_averaged_and_negative_losses_are_linear():
    losses = -np.arange(4000.0)
    (line,) = drawn(plot.history(run(losses))).values()
    assert len(line) == 400
    # Stretches of ten steps; the mean of -s over steps s..s+9 (the first step is number 1).
    np.testing.assert_allclose(line, [[5.5 + 10 * i, -4.5 - 10 * i] for i in range(400)])
    ax = plot.history(run(losses).history, plt.subplots()[1])
    assert ax.get_yscale() == "linear"
    saved(ax)
    saved(plot.history(run([1.0, np.inf])))
    with pytest.raises(ValueError, match="run: expected at least one step, got none"):
        plot.history(run([]))


def test_convergence():
    def one(history):
        errors = jnp.asarray(history)
        sweeps = jnp.asarray(len(history))
        return tensornet.Decomposition(
            tensornet.CP(jnp.ones(1), (jnp.ones((2, 1)),)),
            jnp.asarray(0.25),
            Status.converged,
            errors,
            sweeps,
        )

    _, ax = plt.subplots()
    assert plot.convergence({"als": one([0.5, 0.3, jnp.nan]), "direct": one([])}, ax) is ax
    lines = drawn(ax)
    np.testing.assert_allclose(lines["als"], [[1, 0.5], [2, 0.3]], rtol=1e-6)
    np.testing.assert_allclose(lines["direct"][:, 1], 0.25)
    assert (ax.get_xlabel(), ax.get_yscale()) == ("sweep", "log")
    assert "relative error" in ax.get_ylabel()
    saved(ax)


def test_compression():
    points = {"Tucker": [(30.0, 0.1), (10.0, 0.01)], "CP": [(50.0, 0.2)], "none": []}
    ax = plot.compression(points)
    lines = drawn(ax)
    np.testing.assert_array_equal(lines["Tucker"], [[10, 0.01], [30, 0.1]])
    np.testing.assert_array_equal(lines["CP"], [[50, 0.2]])
    colours = [line.get_color() for line in ax.get_lines()]
    markers = [line.get_marker() for line in ax.get_lines()]
    assert len(set(colours)) == len(set(markers)) == 3
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "dense over stored" in ax.get_xlabel()
    saved(ax)


def test_images_share_the_stretch_of_the_first():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(6, 8, 10))
    axes = plot.images({"before": before, "after": before + 1}, bands=(7, 3, 1))
    assert [ax.get_title() for ax in axes] == ["before", "after"]
    first, second = (np.asarray(ax.get_images()[0].get_array()) for ax in axes)
    chosen = before[..., [7, 3, 1]]
    low, high = np.percentile(chosen, [2, 98], axis=(0, 1))
    np.testing.assert_allclose(first, np.clip((chosen - low) / (high - low), 0, 1))
    np.testing.assert_allclose(second, np.clip((chosen + 1 - low) / (high - low), 0, 1))
    saved(axes[0])
    # One band, one image, constant; and axes of the caller's.
    (ax,) = plot.images({"flat": np.ones((3, 4))}, axes=plt.subplots()[1])
    np.testing.assert_array_equal(ax.get_images()[0].get_array(), 0)
    saved(ax)
    assert len(plot.images({"few bands": np.ones((3, 4, 1))})) == 1


def test_bad_images():
    with pytest.raises(ValueError, match="cubes: expected at least one image, got none"):
        plot.images({})
    with pytest.raises(ValueError, match=r"cubes\['b'\]: .*shape \(2, 3\) of the first.*\(3, 2\)"):
        plot.images({"a": np.ones((2, 3)), "b": np.ones((3, 2))})
    with pytest.raises(ValueError, match=r"cubes\['a'\]: expected 2 or 3 modes.*got \(2,\)"):
        plot.images({"a": np.ones(2)})
    with pytest.raises(ValueError, match=r"axes: expected 1 \(the images\), got 2"):
        plot.images({"a": np.ones((2, 2))}, axes=plt.subplots(1, 2)[1])


def test_colours_are_told_apart_in_grey_pairs():
    """Neighbours in the cycle differ in lightness as well as in hue."""
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in plot.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # sRGB
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16  # CIE L*
    assert np.all(np.abs(np.diff(lightness)) > 5)


def test_matplotlib_is_asked_for_only_when_drawing(monkeypatch):
    program = "import sys, tensornet.plot; print('matplotlib' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout == "False\n"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'gauntax\[plot\]'"):
        plot.convergence({})


def test_prediction():
    rng = np.random.default_rng(0)
    truth, predicted, given = rng.normal(size=(3, 5, 4))
    axes = plot.prediction(truth, predicted, given=given)
    assert [ax.get_title().split(",")[0] for ax in axes] == [
        "input",
        "truth",
        "prediction",
        "error",
    ]
    shown = [np.asarray(ax.get_images()[0].get_array()).T for ax in axes]
    for got, expected in zip(shown, (given, truth, predicted, predicted - truth), strict=True):
        np.testing.assert_array_equal(got, expected)
    limits = [ax.get_images()[0].get_clim() for ax in axes]
    assert limits[1] == limits[2] == (truth.min(), truth.max())
    assert limits[3][0] == -limits[3][1] == -np.abs(predicted - truth).max()
    saved(axes[0])
    assert len(plot.prediction(truth, truth)) == 3
    with pytest.raises(ValueError, match=r"predicted: expected two modes and the shape \(5, 4\)"):
        plot.prediction(truth, predicted[:4])
    with pytest.raises(ValueError, match="axes: expected 3, got 4"):
        plot.prediction(truth, predicted, axes=axes)


def test_parity():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(50, 3))
    made = truth + 0.1
    made[0, 0] = np.nan
    axes = plot.parity({"energy": {"one": (truth, made), "two": (truth[:2], truth[:2])}})
    (one, two), legend = axes[0].get_lines()[:2], axes[0].get_legend().get_texts()
    assert len(one.get_xdata()) == 149
    np.testing.assert_allclose(one.get_ydata() - one.get_xdata(), 0.1)
    assert len(two.get_xdata()) == 6
    assert [text.get_text() for text in legend] == ["one, RMSE 0.1", "two, RMSE 0"]
    assert axes[0].get_ylabel() == "energy, prediction"
    saved(axes[0])
    with pytest.raises(ValueError, match=r"quantities\['a'\]\['b'\]: expected as many predictions"):
        plot.parity({"a": {"b": (truth, truth[:4])}})
    with pytest.raises(ValueError, match="quantities: expected at least one, got none"):
        plot.parity({})
