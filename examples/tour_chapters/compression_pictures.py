"""The pictures of chapter 1."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tensornet import plot

FALSE_COLOUR = (860.0, 650.0, 550.0)  # nm: near infrared, red, green
MEASURED = "#b9bdc7"


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


def images(path: Path, cube: NDArray, rebuilt: Mapping[str, NDArray], wavelengths: NDArray) -> None:
    """Draw the scene before and after, and below each its error a pixel.

    Args:
        path: the PNG file.
        cube: rows x columns x bands.
        rebuilt: cubes by the titles to show.
        wavelengths: of the bands, in nanometres.
    """
    count = len(rebuilt) + 1
    figure = _figure(3.0 * count, 6.3)
    axes = figure.subplots(2, count, squeeze=False)
    red, green, blue = (nearest(wavelengths, wanted) for wanted in FALSE_COLOUR)
    plot.images({"the cube": cube, **rebuilt}, (red, green, blue), axes[0])
    size = np.linalg.norm(cube, axis=2)
    errors = [np.linalg.norm(dense - cube, axis=2) / size for dense in rebuilt.values()]
    top = max(float(np.percentile(error, 99)) for error in errors)
    shown = [
        axis.imshow(error, vmin=0, vmax=top, cmap="magma", interpolation="nearest")
        for axis, error in zip(axes[1, 1:], errors, strict=True)
    ]
    for axis in axes[1]:
        axis.set_axis_off()
    # The place under the cube, which has no error, holds the scale.
    bar = figure.colorbar(shown[0], cax=axes[1, 0].inset_axes((0.8, 0.05, 0.06, 0.9)))
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.yaxis.set_label_position("left")
    bar.set_label("relative error of the pixel")
    figure.savefig(path, dpi=110)


def curves(
    path: Path,
    ours: Mapping[str, Sequence[tuple[float, float]]],
    theirs: Mapping[str, tuple[float, float]],
) -> None:
    """Draw relative error against compression, with a ring at the peer's."""
    figure = _figure(8.4, 5.2)
    axis = plot.compression(ours, figure.subplots())
    ring = {"marker": "o", "markersize": 13, "fillstyle": "none", "linestyle": ""}
    for (ratio, error), colour in zip(theirs.values(), cycle(plot.COLOURS), strict=False):
        axis.plot(ratio, error, color=colour, **ring)
    axis.plot([], [], color=MEASURED, label="TensorLy", **ring)
    _plain_ticks(axis.xaxis)
    _plain_ticks(axis.yaxis)
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
        place = np.unravel_index(int(pixel), cube.shape[:2])
        _broken(axis, wavelengths, cube[place], gaps, color=MEASURED, linewidth=4, label="measured")
        for (label, dense), colour in zip(rebuilt.items(), cycle(plot.COLOURS), strict=False):
            _broken(axis, wavelengths, dense[place], gaps, color=colour, linewidth=1, label=label)
        axis.set_title(f"{name} (row {place[0]}, column {place[1]})", fontsize="medium")
        axis.set_xlabel("wavelength, nm")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, color="0.88", linewidth=0.8)
    axes[0].set_ylabel("radiance, as recorded")
    axes[-1].legend(frameon=False)
    figure.savefig(path, dpi=110)


def _broken(axis, x: NDArray, y: NDArray, gaps: NDArray, **style) -> None:
    axis.plot(np.insert(x, gaps, np.nan), np.insert(y.astype(np.float64), gaps, np.nan), **style)


def _plain_ticks(axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
