"""The transform between coefficients and values on the sphere in two steps.

On a grid of rings, each a full turn of the same angles, the sum over degrees (Legendre, for each
order) and the sum over orders (Fourier) separate: some L^3 operations instead of L^4.
"""

from dataclasses import dataclass
from functools import lru_cache

import e3nn_jax as e3nn
import numpy as np
from jaxtyping import Float64

from .legendre import legendre
from .orders import Orders, orders_of
from .quadrature import check_degree, read_only
from .sphere import degrees_of


@dataclass(frozen=True, eq=False)
class Separable:
    """Both steps for some irreps, on a grid of B rings of A points.

    With coefficients X sorted by order, [..., s, m, n] (see `Orders`):

        values:    "...smn,mnb->...smb" with `legendre`,  then "...smb,sma->...ba" with `fourier`
        u:         the same with `slopes` and `fourier`
        v:         the same with `over_sine` and `turned`
        analysis:  "...ba,sma->...smb" with `fourier`,  then "...smb,mnb->...smn" with `weighted`

    u and v are the components of `sphere.tangent`. Each step is a matrix product, in a batch over
    the order m for the Legendre step; the Fourier step is one with (s, m) flattened.

    Attributes:
        orders: how coefficients are sorted.
        points: Cartesian.
        legendre, slopes, over_sine: the polar parts of values, u and v.
        weighted: `legendre` times the quadrature weights of the points of its ring.
        fourier: cos(m alpha) for s = 0, sin(m alpha) for s = 1.
        turned: -sin(m alpha) for s = 0, cos(m alpha) for s = 1.
    """

    orders: Orders
    points: Float64[np.ndarray, "B A 3"]
    legendre: Float64[np.ndarray, "M n B"]
    slopes: Float64[np.ndarray, "M n B"]
    over_sine: Float64[np.ndarray, "M n B"]
    weighted: Float64[np.ndarray, "M n B"]
    fourier: Float64[np.ndarray, "2 M A"]
    turned: Float64[np.ndarray, "2 M A"]


def separable(irreps: e3nn.Irreps | str, degree: int) -> Separable:
    """Return the transform for `irreps` on a Gauss-Legendre grid that is exact to `degree`.

    It has B = ceil((degree + 1) / 2) rings of A = degree + 1 points. Transforms for different
    irreps and the same degree share the points.

    Raises:
        ValueError: `irreps` are none or have a multiplicity other than one, or `degree` is not an
            integer or is negative.
    """
    return _separable(degrees_of(irreps), check_degree(degree))


@lru_cache(maxsize=256)
def _separable(degrees: tuple[int, ...], degree: int) -> Separable:
    cosine, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    sine = np.sqrt((1 - cosine) * (1 + cosine))
    alpha = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    points = [np.multiply.outer(sine, f(alpha)) for f in (np.sin, np.cos)]
    points.insert(1, np.broadcast_to(cosine[:, None], points[0].shape))

    values, slopes, over_sine = (
        np.stack([f[n, : max(degrees) + 1] for n in degrees], axis=1)
        for f in legendre(max(degrees), cosine, sine)
    )
    scale = np.sqrt(np.maximum([n * (n + 1) for n in degrees], 1))[:, None]
    angles = np.multiply.outer(np.arange(max(degrees) + 1), alpha)
    cos, sin = np.cos(angles), np.sin(angles)
    return Separable(
        orders_of(degrees),
        read_only(np.stack(points, axis=-1)),
        read_only(values),
        read_only(slopes / scale),
        read_only(over_sine / scale),
        read_only(values * weights / (2 * (degree + 1))),
        read_only(np.stack([cos, sin])),
        read_only(np.stack([-sin, cos])),
    )
