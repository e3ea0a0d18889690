"""Darcy's flow through random ground: pairs of coefficient and pressure to learn from.

-div(a grad u) = f on the unit square, u = 0 around it. The coefficient a is made from a Gaussian
random field g of covariance (tau^2 - Laplace)^-alpha with zero slope at the boundary and mean zero:
two values, by the sign of g, or the exponential of g. Fields are given at the points k / n,
k = 0, ..., n - 1, along either axis, so that points of one resolution are among those of twice it,
and a seed stands for the same functions at every resolution.

The two values, source, alpha and tau given here were fitted to the small data set that
neuraloperator comes with: correlation of its coefficients (to 0.01 at all lags), and pressures.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse.linalg
from jaxtyping import Float

from tensornet import cache

from . import fem, stencil

COEFFICIENTS = ("piecewise", "log-normal")
METHODS = ("five-point", "elements")
VALUES = (1.0, 20.0)
SOURCE = 51.8
ALPHA, TAU = 2.75, 9.0
_WAVES = 128  # of the cosine series along either axis


def gaussian_field(
    points: Float[np.ndarray, " n"], seed: int, *, alpha: float = ALPHA, tau: float = TAU
) -> Float[np.ndarray, "n n"]:
    """Return a Gaussian random field of variance about one at a grid of points.

    Args:
        points: of either axis, between 0 and 1.
        seed: of the field, whatever the points.
        alpha: smoothness.
        tau: inverse length.
    """
    k = np.arange(_WAVES)
    squares = np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2)
    deviation = (squares + tau**2) ** (-alpha / 2)
    deviation[0, 0] = 0.0
    number = deviation * np.random.default_rng(seed).normal(size=deviation.shape)
    # Of the orthonormal cosines, sqrt(2) cos(pi k x) but for k = 0.
    waves = np.cos(np.pi * np.outer(points, k)) * np.where(k == 0, 1.0, np.sqrt(2.0))
    return waves @ number @ waves.T / np.sqrt(np.sum(deviation**2))


def coefficient(
    points: Float[np.ndarray, " n"],
    seed: int,
    *,
    kind: str = "piecewise",
    values: tuple[float, float] = VALUES,
    alpha: float = ALPHA,
    tau: float = TAU,
) -> Float[np.ndarray, "n n"]:
    """Return a random coefficient at a grid of points.

    Args:
        points: of either axis.
        seed: of the field.
        kind: `"piecewise"`, `values` by the sign of the Gaussian field, or `"log-normal"`, its
            exponential.
        values: the smaller and the larger one.
        alpha: of the Gaussian field.
        tau: of the same.

    Raises:
        ValueError: an unknown kind, values that are not positive.
    """
    if kind not in COEFFICIENTS:
        raise ValueError(f"kind: expected one of {COEFFICIENTS}, got {kind!r}")
    if min(values) <= 0:
        raise ValueError(f"values: expected positive ones, got {values}")
    field = gaussian_field(points, seed, alpha=alpha, tau=tau)
    return np.exp(field) if kind == "log-normal" else np.where(field >= 0, values[1], values[0])


def pressure(
    cells: Float[np.ndarray, "n n"], *, source: float = SOURCE
) -> Float[np.ndarray, "n+1 n+1"]:
    """Return the pressure at the corners of cells of given coefficients, by five points each."""
    n = len(cells)
    problem = stencil.diffusion(cells)
    load = np.full(problem.size, source / n**2)
    matrix: Any = problem.matrix
    inner: Any = scipy.sparse.linalg.spsolve(matrix.tocsc(), load)
    return np.pad(inner.reshape(n - 1, n - 1), 1)


def darcy(
    resolution: int,
    count: int,
    *,
    seed: int = 0,
    kind: str = "piecewise",
    refine: int | None = None,
    method: str = "five-point",
    values: tuple[float, float] = VALUES,
    source: float = SOURCE,
    alpha: float = ALPHA,
    tau: float = TAU,
) -> tuple[Float[np.ndarray, "count 1 n n"], Float[np.ndarray, "count 1 n n"]]:
    """Return coefficients and pressures; what was made before comes from the cache.

    Args:
        resolution: points along either axis.
        count: how many pairs.
        seed: of the first pair; the next have the next seeds.
        kind: of the coefficient, see `coefficient`.
        refine: cells of the computation between two points; as many as make 128 cells or more
            along an axis, when left out.
        method: `"five-point"` finite volumes, or linear `"elements"` by scikit-fem, for which the
            cells must be a power of two.
        values: of the coefficient.
        source: f.
        alpha: of the Gaussian field.
        tau: of the same.

    Returns:
        Coefficients and pressures in single precision, with one channel.

    Raises:
        ValueError: an argument out of its range.
        ImportError: `"elements"` without scikit-fem.
    """
    for name, value in {"resolution": resolution, "count": count}.items():
        if isinstance(value, bool) or value < 2 - (name == "count"):
            raise ValueError(f"{name}: expected at least {2 - (name == 'count')}, got {value}")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    between = refine or -(-128 // resolution)
    law = {"kind": kind, "values": values, "source": source, "alpha": alpha, "tau": tau}
    key = {"resolution": resolution, "count": count, "seed": seed, "refine": between, **law}
    key |= {"method": method, "version": 1}
    made = cache.cached(
        "darcy", key, lambda: _pairs(resolution, count, seed, between, method, law), kind="npz"
    )
    return made["x"], made["y"]


def read_darcy(
    path: str | os.PathLike[str], *, values: tuple[float, float] = VALUES
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read neuraloperator's small data set, repacked as arrays `darcy_train_16.x`, `.y` and so on.

    Args:
        path: of the npz file.
        values: what False and True of the coefficient stand for.

    Returns:
        Coefficients and pressures [count, 1, n, n] in single precision, as `"train"` and `"test"`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file, got none")
    found = {}
    with np.load(path) as arrays:
        for part in ("train", "test"):
            names = [f"darcy_{part}_16.{letter}" for letter in "xy"]
            missing = [name for name in names if name not in arrays]
            if missing:
                raise ValueError(f"{path}: expected {missing[0]!r} in it, got {sorted(arrays)}")
            x, y = (arrays[name] for name in names)
            if x.shape != y.shape or x.ndim != 3:
                raise ValueError(f"{path}: expected equal shapes (count, n, n), got {x.shape}")
            high = np.where(x, values[1], values[0])
            found[part] = (high[:, None].astype(np.float32), y[:, None].astype(np.float32))
    return found


def _pairs(
    resolution: int, count: int, seed: int, between: int, method: str, law: dict[str, Any]
) -> dict[str, np.ndarray]:
    cells = resolution * between
    corners = np.arange(resolution) / resolution
    middles = (np.arange(cells) + 0.5) / cells
    field = {name: law[name] for name in ("kind", "values", "alpha", "tau")}
    x, y = [], []
    for k in range(seed, seed + count):
        x.append(coefficient(corners, k, **field))
        if method == "elements":
            u = _by_elements(cells, k, law["source"], field)
        else:
            u = pressure(coefficient(middles, k, **field), source=law["source"])
        y.append(u[:cells:between, :cells:between])
    stack = [np.stack(z)[:, None].astype(np.float32) for z in (x, y)]
    return {"x": stack[0], "y": stack[1]}


def _by_elements(cells: int, seed: int, source: float, field: dict[str, Any]) -> np.ndarray:
    """The pressure at the corners of cells by linear elements, some of whose nodes these are."""
    refinements = cells.bit_length() - 1
    if cells != 2**refinements:
        raise ValueError(f"resolution, refine: expected a power of two cells, got {cells}")
    mesh = fem.mesh("square", refinements)
    middles = (np.arange(cells) + 0.5) / cells
    table = coefficient(middles, seed, **field)

    def of(points: np.ndarray) -> np.ndarray:
        i, j = np.minimum((points * cells).astype(int), cells - 1).T
        return table[i, j]

    matrix: Any = fem.diffusion(mesh, of).matrix
    ends = mesh.p[:, mesh.t]
    a, b = ends[:, 1] - ends[:, 0], ends[:, 2] - ends[:, 0]
    areas = np.abs(a[0] * b[1] - a[1] * b[0]) / 2
    load = np.zeros(mesh.p.shape[1])
    np.add.at(load, mesh.t, areas[None] / 3)
    free = mesh.interior_nodes()
    u = np.zeros(mesh.p.shape[1])
    solved: Any = scipy.sparse.linalg.spsolve(matrix.tocsc(), source * load[free])
    u[free] = solved
    grid = np.zeros((cells + 1, cells + 1))
    where = np.rint(mesh.p * cells).astype(int)
    on = np.all(np.abs(mesh.p * cells - where) < 1e-9, axis=0)
    grid[where[0, on], where[1, on]] = u[on]
    return grid
