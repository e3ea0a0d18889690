"""The pictures of chapter 1."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLOURS = {
    "CP": "#d1495b",
    "Tucker": "#2e6fbb",
    "tensor train": "#2a9d6f",
    "tensor ring": "#8a5fbf",
}
MEASURED = "#b9bdc7"
FALSE_COLOUR = (860.0, 650.0, 550.0)  # nm: near infrared, red, green


def _figure(width: float, height: float):
    # A figure of its own, so that no state of pyplot is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def nearest(wavelengths: NDArray, wanted: float) -> int:
    """Return the band nearest to a wavelength."""
    return int(np.argmin(np.abs(wavelengths - wanted)))


Stretch = tuple[NDArray, NDArray]


def false_colour(
    cube: NDArray, wavelengths: NDArray, stretch: Stretch | None = None
) -> tuple[NDArray, Stretch]:
    """Return three bands as red, green and blue, each stretched from its low to its high value.

    Without a stretch it is from the 2nd to the 98th percentile of each band. It is returned for
    the next image.
    """
    picked = cube[:, :, [nearest(wavelengths, wanted) for wanted in FALSE_COLOUR]]
    picked = picked.astype(np.float64)
    if stretch is None:
        stretch = tuple(np.percentile(picked, (2, 98), axis=(0, 1)))
    low, high = stretch
    return np.clip((picked - low) / (high - low), 0, 1), (low, high)


def images(
    path: Path,
    cube: NDArray,
    rebuilt: Mapping[str, NDArray],
    wavelengths: NDArray,
    labels: Mapping[str, str],
) -> None:
    """Draw the scene before and after, and below each its error a pixel."""
    count = len(rebuilt) + 1
    figure = _figure(3.0 * count, 6.3)
    axes = figure.subplots(2, count, squeeze=False)
    colours, stretch = false_colour(cube, wavelengths)
    axes[0, 0].imshow(colours)
    axes[0, 0].set_title("the cube", fontsize=11)
    axes[1, 0].axis("off")
    size = np.linalg.norm(cube, axis=2)
    errors = {name: np.linalg.norm(dense - cube, axis=2) / size for name, dense in rebuilt.items()}
    top = max(float(np.percentile(error, 99)) for error in errors.values())
    shown = None
    for column, (name, dense) in enumerate(rebuilt.items(), 1):
        axes[0, column].imshow(false_colour(dense, wavelengths, stretch)[0])
        axes[0, column].set_title(labels[name].replace(", ", "\n", 1), fontsize=11)
        shown = axes[1, column].imshow(errors[name], vmin=0, vmax=top, cmap="magma")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    if shown is not None:
        # The place under the cube, which has no error, holds the scale.
        bar = figure.colorbar(shown, cax=axes[1, 0].inset_axes((0.8, 0.05, 0.06, 0.9)))
        bar.ax.yaxis.set_ticks_position("left")
        bar.ax.yaxis.set_label_position("left")
        bar.set_label("relative error of the pixel")
    figure.savefig(path, dpi=110)


def curves(
    path: Path,
    ours: Mapping[str, Sequence[tuple[float, float]]],
    theirs: Mapping[str, tuple[float, float]],
) -> None:
    """Draw relative error against compression."""
    figure = _figure(8.4, 5.2)
    axis = figure.subplots()
    for name, points in ours.items():
        ratio, error = zip(*points, strict=True)
        axis.plot(ratio, error, "o-", color=COLOURS.get(name), label=name, linewidth=2)
    for name, (ratio, error) in theirs.items():
        axis.plot(ratio, error, "o", markersize=13, fillstyle="none", color=COLOURS.get(name))
    axis.plot([], [], "o", markersize=11, fillstyle="none", color="#5b6478", label="TensorLy")
    axis.set_xscale("log")
    axis.set_yscale("log")
    _plain_ticks(axis.xaxis, "{:g}x")
    _plain_ticks(axis.yaxis, "{:g}")
    axis.set_xlabel("times smaller than the cube")
    axis.set_ylabel("relative error")
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def spectra(
    path: Path, cube: NDArray, rebuilt: Mapping[str, NDArray], wavelengths: NDArray
) -> None:
    """Draw the spectra of a dark, a middling and a bright pixel, measured and rebuilt."""
    near_infrared = cube[:, :, nearest(wavelengths, FALSE_COLOUR[0])].ravel()
    order = np.argsort(near_infrared)
    chosen = {
        "a dark pixel": order[len(order) // 100],
        "a middling pixel": order[len(order) // 2],
        "a bright pixel": order[-len(order) // 100],
    }
    figure = _figure(13.0, 4.2)
    axes = figure.subplots(1, len(chosen), sharey=True)
    # The bands where water vapour absorbs are not in the data: no line is drawn over them.
    gaps = np.flatnonzero(np.diff(wavelengths) > 3 * np.median(np.diff(wavelengths))) + 1
    for axis, (name, pixel) in zip(axes, chosen.items(), strict=True):
        row, column = np.unravel_index(int(pixel), cube.shape[:2])
        _broken(axis, wavelengths, cube[row, column], gaps, color=MEASURED, linewidth=3.5)
        for label, dense in rebuilt.items():
            _broken(
                axis, wavelengths, dense[row, column], gaps, color=COLOURS.get(label), linewidth=1.1
            )
        axis.set_title(f"{name} (row {row}, column {column})", fontsize=11)
        axis.set_xlabel("wavelength, nm")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, alpha=0.25)
    axes[0].set_ylabel("radiance, as recorded")
    _legend(axes[-1], {"measured": MEASURED, **{n: COLOURS.get(n, "#888") for n in rebuilt}})
    figure.savefig(path, dpi=110)


def _broken(axis, x: NDArray, y: NDArray, gaps: NDArray, **style) -> None:
    axis.plot(np.insert(x, gaps, np.nan), np.insert(y.astype(np.float64), gaps, np.nan), **style)


def _legend(axis, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in colours.items()
    ]
    axis.legend(handles=lines, frameon=False, fontsize=10)


def _plain_ticks(axis, form: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))
    axis.set_minor_formatter(NullFormatter())
