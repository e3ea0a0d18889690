"""Real harmonics and their gradients on the sphere, as matrices between coefficients and values.

Coefficients are those of e3nn-jax: component-normalised (the mean of each harmonic squared is 1),
orders from -l to l, polar axis y. In angles a point is (sin beta sin alpha, cos beta, sin beta cos
alpha); order m >= 0 goes with cos(m alpha), order -m with sin(m alpha). Tables depend on the
degrees of the irreps, not on their parities; they are float64, shared between calls, read-only.
"""

from collections.abc import Sequence
from functools import lru_cache

import e3nn_jax as e3nn
import numpy as np
from jaxtyping import Float64

from .legendre import legendre
from .quadrature import Grid, check_degree, read_only


def degrees_of(irreps: e3nn.Irreps | str, argument: str = "irreps") -> tuple[int, ...]:
    """Return the degrees of irreps of multiplicity one, in their order.

    Raises:
        ValueError: no irreps, or a multiplicity other than one.
    """
    parsed = e3nn.Irreps(irreps)
    if not parsed:
        raise ValueError(f"{argument}: expected at least one irrep, got none")
    for position, (multiplicity, irrep) in enumerate(parsed):
        if multiplicity != 1:
            raise ValueError(
                f"{argument}[{position}]: expected multiplicity 1, got {multiplicity}x{irrep}"
            )
    return tuple(irrep.l for _, irrep in parsed)


def harmonics(
    degree: int, points: Float64[np.ndarray, "G 3"]
) -> Float64[np.ndarray, "G {2*degree+1}"]:
    """Return the harmonics of one degree at points of the unit sphere.

    Raises:
        ValueError: a degree that is no integer or negative, or points off the unit sphere.
    """
    return _fields((check_degree(degree),), points)[0]


def tangent(
    degree: int, points: Float64[np.ndarray, "G 3"]
) -> Float64[np.ndarray, "2 G {2*degree+1}"]:
    """Return the gradients of the harmonics of one degree, over sqrt(degree (degree + 1)).

    The components are along unit vectors u (beta grows) and v (alpha grows) that form a
    right-handed frame with the point r: f_u g_v - f_v g_u is r . (grad f x grad g). At the poles,
    alpha is taken as 0. Degree 0 gives zeros.

    Raises:
        ValueError: as for `harmonics`.
    """
    return _fields((check_degree(degree),), points)[1:]


def synthesis(irreps: e3nn.Irreps | str, grid: Grid) -> Float64[np.ndarray, "G d"]:
    """Return the matrix that takes coefficients to values on `grid`.

    Raises:
        ValueError: `irreps` are none or have a multiplicity other than one.
    """
    return _tables(degrees_of(irreps), grid)[0]


def tangent_synthesis(irreps: e3nn.Irreps | str, grid: Grid) -> Float64[np.ndarray, "2 G d"]:
    """Return the matrices that take coefficients to the components of `tangent` on `grid`.

    Raises:
        ValueError: as for `synthesis`.
    """
    return _tables(degrees_of(irreps), grid)[1]


def analysis(irreps: e3nn.Irreps | str, grid: Grid) -> Float64[np.ndarray, "d G"]:
    """Return the matrix that takes values on `grid` to coefficients: `synthesis` by the weights.

    Exact where the grid is exact to the sum of the degrees of the values and of the result.

    Raises:
        ValueError: as for `synthesis`.
    """
    return _analysis(degrees_of(irreps), grid)


@lru_cache(maxsize=256)
def _analysis(degrees: tuple[int, ...], grid: Grid) -> np.ndarray:
    return read_only(_tables(degrees, grid)[0].T * grid.weights)


@lru_cache(maxsize=256)
def _tables(degrees: tuple[int, ...], grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    fields = read_only(_fields(degrees, grid.points))
    return fields[0], fields[1:]


def _fields(degrees: Sequence[int], points: np.ndarray) -> np.ndarray:
    """Return values and both tangent components, each [point, component of the irreps]."""
    x, cosine, z = points.T
    sine = np.hypot(x, z)
    off = np.abs(np.hypot(sine, cosine) - 1)
    if not (off < 1e-9).all():
        raise ValueError(
            f"points: expected points on the unit sphere, got one {np.max(off)} away from it"
        )
    functions = legendre(max(degrees), cosine, sine)
    turn = np.where(sine > 0, z + 1j * x, 1.0) / np.where(sine > 0, sine, 1.0)
    turns = np.cumprod([np.ones_like(turn), *[turn] * max(degrees)], axis=0)  # exp(i m alpha)
    blocks = []
    for n in degrees:
        m = np.arange(-n, n + 1)
        wave = np.where(m[:, None] < 0, turns.imag[abs(m)], turns.real[abs(m)])
        slope = np.where(m[:, None] < 0, turns.real[abs(m)], -turns.imag[abs(m)])
        scale = np.sqrt(max(n * (n + 1), 1))
        values, slopes, over_sine = (f[n, abs(m)] for f in functions)
        blocks.append([values * wave, slopes * wave / scale, over_sine * slope / scale])
    return np.concatenate(blocks, axis=1).transpose(0, 2, 1)
