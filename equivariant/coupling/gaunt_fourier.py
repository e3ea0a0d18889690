"""Products of functions on the sphere as products of Fourier series on the torus."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensornet.planner import Work

from ..method import Program, Use
from .fields import Irreps, fields_of
from .fourier import coefficients, convolve, from_torus, sample_shape, samples, to_torus
from .gaunt import components
from .gaunt_products import GauntProducts
from .quadrature import Grid
from .space import Space, pointwise, through

# Share of the rate of a large matrix product that small Fourier transforms reach.
_FFT = 0.02


@dataclass(frozen=True)
class GauntFourier(GauntProducts):
    """The same products as on the grid, of Fourier series: by samples of them or by convolution.

    Samples are taken by FFT, or by matrices that hold the whole way from coefficients to them.
    """

    name: ClassVar[str] = "gaunt-fourier"

    def cores(self, use: Use) -> dict[str, Program]:
        """Return programs for the map with weights of one, by name."""
        found = fields_of(self.map)
        return {
            "matrices": through(_matrices(found.irreps), found, use),
            "fft": through(_sampling(found.irreps), found, use),
            "convolution": through(_convolving(found.irreps), found, use),
        }


def _degrees(irreps: Irreps) -> tuple[int, int, int]:
    l1, l2, l3 = (max(ir.l for _, ir in each) for each in irreps)
    return l1, l2, l3


def _planes(f: Array, degree: int) -> Array:
    return f.reshape(*f.shape[:-1], 2, degree + 1, degree + 1)


@lru_cache(maxsize=64)
def _matrices(irreps: Irreps) -> Space:
    """Return samples on half the torus, which is once the sphere: all orders of the other half.

    There are rings of T + l3 + 1 samples at beta = 2 pi b / B, and the pole. Products, series of
    degree T = l1 + l2 in beta, need B = 2 T + 1; brackets have a degree less.
    """
    l1, l2, _ = _degrees(irreps)
    values, tangents = (_places(irreps, top) for top in (l1 + l2, max(l1 + l2 - 1, 0)))
    first, second = (components(each, values[0], tangents[0]) for each in irreps[:2])
    return pointwise(first, second, [values[1], tangents[1]])


def _places(irreps: Irreps, top: int) -> tuple[Grid, np.ndarray]:
    """Return samples and the way back from there, for products of degree `top`."""
    *_, l3 = _degrees(irreps)
    turn = top + l3 + 1
    alpha = 2 * np.pi * np.arange(turn) / turn
    beta = 2 * np.pi * np.arange(1, top + 1) / (2 * top + 1)
    b, a = (part.ravel() for part in np.meshgrid(beta, alpha, indexing="ij"))
    b, a = np.append(0.0, b), np.append(0.0, a)
    points = np.stack([np.sin(b) * np.sin(a), np.cos(b), np.sin(b) * np.cos(a)], axis=-1)
    places = Grid(points, np.full(len(points), 1 / len(points)), 0)

    # Coefficients of v, u >= 0; the sample at -beta is (-1)^v times that at beta, order by order.
    v, u = np.arange(l3 + 1)[:, None, None], np.arange(top + 1)[:, None]
    mirrored = np.exp(-1j * u * b) + (-1.0) ** v * np.exp(1j * u * b)
    series = 1j**v * np.exp(-1j * v * a) * mirrored / (turn * (2 * top + 1))
    series[..., 0] = np.where(v[..., 0] == 0, 1 / (2 * top + 1), 0)
    planes = np.stack([series.real, series.imag]).reshape(-1, len(b))
    return places, planes.T @ from_torus(irreps[2], top).dense


@lru_cache(maxsize=64)
def _convolving(irreps: Irreps) -> Space:
    l1, l2, l3 = _degrees(irreps)

    def multiply(f: Array, g: Array, tangent: bool) -> Array:
        batch = np.broadcast_shapes(f.shape[:-1], g.shape[:-1])
        f, g = (jnp.broadcast_to(h, (*batch, h.shape[-1])) for h in (f, g))
        made = convolve(_planes(f, l1), _planes(g, l2), l3, tangent=tangent)
        return made.reshape(*batch, -1)

    def price(
        use: Use, _: bool, entering: float | int, products: float | int, leaving: float | int
    ) -> Work:
        width, height = (2 * l1 + 1) * (2 * l2 + 1), (2 * l1 + 1) * (2 * l2 + 1)
        moved = 2 * (2 * l1 + 1) ** 2 * entering + 8 * width * height * products
        return use.loop(8 * width * height * products, moved + 2 * leaving)

    return _space(irreps, lambda f, _: f, multiply, lambda h: h, price)


@lru_cache(maxsize=64)
def _sampling(irreps: Irreps) -> Space:
    l1, l2, l3 = _degrees(irreps)
    shape = sample_shape(l1, l2, l3)

    def enter(f: Array, tangent: bool) -> Array:
        degree = math.isqrt(f.shape[-1] // 2) - 1
        return samples(_planes(f, degree), shape, tangent=tangent)

    def leave(h: Array) -> Array:
        found = coefficients(h, l3, l1 + l2)
        return found.reshape(*found.shape[:-3], -1)

    def price(
        use: Use, _: bool, entering: float | int, products: float | int, leaving: float | int
    ) -> Work:
        points, factor = math.prod(shape), 3 if use.gradients else 1
        operations = 2.5 * points * math.log2(points) * (entering + leaving)
        entries = points * (6 * (entering + leaving) + 3 * products)
        nbytes = entries * np.dtype(use.dtype).itemsize
        return Work(factor * operations, factor * nbytes, efficiency=_FFT)

    return _space(irreps, enter, lambda f, g, _: f * g, leave, price)


def _space(irreps: Irreps, enter: Any, multiply: Any, leave: Any, price: Any) -> Space:
    l1, l2, _ = _degrees(irreps)
    first, second = (to_torus(each).dense for each in irreps[:2])
    out = from_torus(irreps[2], l1 + l2).dense
    return Space([*first], [*second], [out, out], enter, multiply, leave, price)
