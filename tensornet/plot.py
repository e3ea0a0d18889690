"""Pictures of runs and of compressed data; matplotlib is imported when one is drawn.

Each function draws into the `Axes` it is given, or into new ones, and returns them; saving and
showing are the caller's. Colours are those of Okabe and Ito, told apart by colour-blind readers;
lines differ in marker, too.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#000000", "#56B4E9", "#D55E00", "#CC79A7")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_POINTS = 400  # most a learning curve is drawn with
_DOTS = 4000  # about the most a set of a parity plot is drawn with


def history(run: Any, ax: Any = None) -> Any:
    """Draw learning curves: loss against step, on a log scale.

    Long runs are drawn as the mean over equal stretches of steps, with the range in a pale band.

    Args:
        run: a `Fit` (its best step is marked) or a `History`.
        ax: the axes to draw into; new ones when left out.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the run took no step.
    """
    figures = getattr(run, "history", run)
    loss = np.asarray(figures.loss, float)
    if not len(loss):
        raise ValueError("run: expected at least one step, got none")
    ax = _axes(ax)
    stretches = np.array_split(np.arange(len(loss)), min(_POINTS, len(loss)))
    middle = [1 + stretch.mean() for stretch in stretches]
    with np.errstate(invalid="ignore"):  # the last step of a run may be infinite
        mean, low, high = (
            [of(loss[stretch]) for stretch in stretches] for of in (np.mean, np.min, np.max)
        )
    ax.fill_between(middle, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    ax.plot(middle, mean, color=COLOURS[0], label="training")
    if len(figures.validation_steps):
        steps, values = figures.validation_steps, figures.validation["loss"]
        few = len(steps) <= 40
        style = {"marker": _MARKERS[1], "markersize": 4} if few else {}
        ax.plot(steps, values, color=COLOURS[1], label="validation", **style)
        if hasattr(run, "best_step"):
            best = f"best, step {run.best_step}"
            ax.plot(run.best_step, run.best_loss, "*", color=COLOURS[3], ms=10, label=best)
    return _finish(ax, "step", "loss", y_log=bool(np.any(loss > 0)))


def convergence(decompositions: Mapping[str, Any], ax: Any = None) -> Any:
    """Draw the relative error after each sweep, on a log scale.

    Args:
        decompositions: `Decomposition`s by the name to show.
        ax: the axes to draw into; new ones when left out.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = _axes(ax)
    for (name, one), colour, marker in _styled(decompositions):
        errors = np.asarray(one.history, float)
        errors = errors[np.isfinite(errors)]
        if not len(errors):  # a direct method: one value, no sweeps
            ax.axhline(float(one.relative_error), color=colour, linestyle="--", label=name)
            continue
        style = {"marker": marker, "markevery": max(1, len(errors) // 10), "markersize": 4}
        ax.plot(np.arange(1, len(errors) + 1), errors, color=colour, label=name, **style)
    return _finish(ax, "sweep", "relative error (Frobenius norm)", y_log=True)


def compression(points: Mapping[str, Sequence[Any]], ax: Any = None) -> Any:
    """Draw the relative error against the compression ratio, both on log scales.

    Args:
        points: by format's name, pairs of compression ratio (dense over stored parameters) and
            relative error; drawn in the order of the ratios.
        ax: the axes to draw into; new ones when left out.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = _axes(ax)
    for (name, pairs), colour, marker in _styled(points):
        ratio, error = np.asarray(sorted(pairs), float).reshape(-1, 2).T
        ax.plot(ratio, error, color=colour, marker=marker, markersize=5, label=name)
    ax.set_xscale("log")
    x = "compression ratio (dense over stored parameters)"
    return _finish(ax, x, "relative error (Frobenius norm)", y_log=True)


def images(
    cubes: Mapping[str, Any],
    bands: tuple[int, int, int] | None = None,
    axes: Any = None,
) -> np.ndarray:
    """Draw images side by side in false colour, all stretched as the first one is.

    Args:
        cubes: arrays `(rows, columns, bands)` or `(rows, columns)` by their titles, the
            original first: its 2nd and 98th percentiles become black and full colour.
        bands: the three shown as red, green and blue; spread evenly when left out.
        axes: as many axes as images; new ones in a row when left out.

    Returns:
        The axes, one-dimensional.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no images, shapes that differ, or another number of axes.
    """
    arrays = {name: np.asarray(cube, float) for name, cube in cubes.items()}
    if not arrays:
        raise ValueError("cubes: expected at least one image, got none")
    first = next(iter(arrays.values()))
    for name, array in arrays.items():
        if array.ndim not in (2, 3) or array.shape != first.shape:
            raise ValueError(
                f"cubes[{name!r}]: expected 2 or 3 modes and the shape {first.shape} of the "
                f"first, got {array.shape}"
            )
    if axes is None:
        columns, rows = len(arrays), first.shape[0] / first.shape[1]
        size = (3 * columns, 3 * min(max(rows, 0.3), 3) + 0.4)
        _, axes = _pyplot().subplots(1, columns, figsize=size, layout="constrained")
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != len(arrays):
        raise ValueError(f"axes: expected {len(arrays)} (the images), got {len(axes)}")
    if first.ndim == 3:
        chosen = np.linspace(0, first.shape[2] - 1, 5)[3:0:-1] if bands is None else bands
        shown = [int(band) for band in chosen]
        arrays = {name: array[..., shown] for name, array in arrays.items()}
        first = first[..., shown]
    low, high = np.nanpercentile(first, [2, 98], axis=(0, 1))
    span = np.where(high > low, high - low, 1.0)
    for ax, (name, array) in zip(axes, arrays.items(), strict=True):
        stretched = np.clip((array - low) / span, 0, 1)
        ax.imshow(stretched, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(name, fontsize="medium")
        ax.set_axis_off()
    return axes


def prediction(truth: Any, predicted: Any, *, given: Any = None, axes: Any = None) -> np.ndarray:
    """Draw what was given, the truth, what a model made of it, and how far it is off.

    Truth and prediction share their colours; the error has its own, zero in the middle.

    Args:
        truth: `(rows, columns)`.
        predicted: of the same shape.
        given: the model's input, of any such shape; left out, so is its picture.
        axes: three axes, four with `given`; new ones in a row when left out.

    Returns:
        The axes, one-dimensional.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: shapes that differ, or another number of axes.
    """
    truth, predicted = np.asarray(truth, float), np.asarray(predicted, float)
    if truth.ndim != 2 or predicted.shape != truth.shape:
        raise ValueError(
            f"predicted: expected two modes and the shape {truth.shape} of truth, "
            f"got {predicted.shape}"
        )
    low, high = truth.min(), truth.max()
    error = predicted - truth
    most = np.abs(error).max() or 1.0
    panels = [
        ("truth", truth, "viridis", low, high),
        ("prediction", predicted, "viridis", low, high),
    ]
    panels.append((f"error, at most {most:.2g}", error, "RdBu_r", -most, most))
    if given is not None:
        field = np.asarray(given, float)
        panels.insert(0, ("input", field, "cividis", field.min(), field.max()))
    if axes is None:
        _, axes = _pyplot().subplots(
            1, len(panels), figsize=(2.6 * len(panels), 2.9), layout="constrained"
        )
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != len(panels):
        raise ValueError(f"axes: expected {len(panels)}, got {len(axes)}")
    for ax, (title, field, colours, least, largest) in zip(axes, panels, strict=True):
        # The first index runs to the right, the second upwards.
        ax.imshow(field.T, origin="lower", cmap=colours, vmin=least, vmax=largest)
        ax.set_title(title, fontsize="medium")
        ax.set_axis_off()
    return axes


def parity(quantities: Mapping[str, Mapping[str, tuple[Any, Any]]], axes: Any = None) -> np.ndarray:
    """Draw predictions against the truth, one picture a quantity; the diagonal is perfection.

    Args:
        quantities: by their names, which label the axes, pairs of truth and prediction by the name
            of a set. Of what is not finite nothing is drawn, of many points every so many.
        axes: as many axes as quantities; new ones in a row when left out.

    Returns:
        The axes, one-dimensional.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no quantities, shapes that differ, or another number of axes.
    """
    if not quantities:
        raise ValueError("quantities: expected at least one, got none")
    if axes is None:
        size = (3.6 * len(quantities), 3.5)
        _, axes = _pyplot().subplots(1, len(quantities), figsize=size, layout="constrained")
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != len(quantities):
        raise ValueError(f"axes: expected {len(quantities)}, got {len(axes)}")
    for ax, (quantity, sets) in zip(axes, quantities.items(), strict=True):
        middle = 0.0
        for (name, (truth, predicted)), colour, _ in _styled(sets):
            x, y = np.asarray(truth, float).ravel(), np.asarray(predicted, float).ravel()
            if x.shape != y.shape:
                raise ValueError(
                    f"quantities[{quantity!r}][{name!r}]: expected as many predictions as truths, "
                    f"got {len(y)} and {len(x)}"
                )
            known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
            shown = known[:: max(1, len(known) // _DOTS)]
            error = np.sqrt(np.mean((y - x)[known] ** 2)) if len(known) else np.nan
            label = f"{name}, RMSE {error:.3g}"
            middle = float(np.mean(x[known])) if len(known) else middle
            ax.plot(x[shown], y[shown], ".", color=colour, markersize=3, alpha=0.5, label=label)
        ax.axline((middle, middle), slope=1, color="0.5", linewidth=0.8, zorder=0)
        _finish(ax, f"{quantity}, truth", f"{quantity}, prediction", y_log=False)
    return axes


def _styled(named: Mapping[str, Any]) -> Any:
    return zip(named.items(), cycle(COLOURS), cycle(_MARKERS), strict=False)


def _finish(ax: Any, x: str, y: str, *, y_log: bool) -> Any:
    if y_log:
        ax.set_yscale("log")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(visible=True, which="major", color="0.88", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def _axes(ax: Any) -> Any:
    return _pyplot().subplots(layout="constrained")[1] if ax is None else ax


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("tensornet.plot needs matplotlib: pip install 'gauntax[plot]'") from error
    return plt
