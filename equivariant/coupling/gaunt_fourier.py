"""Products of functions on the sphere as products of Fourier series on the torus."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensornet.planner import Work

from ..bilinear import BilinearMap
from ..method import Method, Program, Use
from ..weighting import weighted
from .fields import Fields, Irreps, fields_of, refuse_weights
from .fourier import coefficients, convolve, from_torus, sample_shape, samples, to_torus
from .space import Space, through

# Share of the rate of a large matrix product that small Fourier transforms reach.
_FFT = 0.02


@dataclass(frozen=True)
class GauntFourier(Method):
    """The same products as on the grid, by convolution of Fourier series or by FFT of them."""

    name: ClassVar[str] = "gaunt-fourier"

    def __post_init__(self):
        """Check.

        Raises:
            ValueError: weights per path, or a Clebsch-Gordan coupling that takes too many products;
                names the paths.
        """
        refuse_weights(self.map, self.name)
        fields_of(self.map)

    def programs(self, use: Use) -> dict[str, Program]:
        """Return programs for the map, by name."""
        return fourier_programs(self.map, fields_of, use)


def fourier_programs(
    bilinear: BilinearMap, fields: Callable[..., Fields], use: Use
) -> dict[str, Program]:
    """Return the programs of a map on the torus, given what finds its fields."""

    def cores(inner: Use) -> dict[str, Program]:
        found = fields(bilinear)
        return {
            "convolution": through(_convolving(found.irreps), found, inner),
            "fft": through(_sampling(found.irreps), found, inner),
        }

    return weighted(bilinear, cores, use)


def _degrees(irreps: Irreps) -> tuple[int, int, int]:
    l1, l2, l3 = (max(ir.l for _, ir in each) for each in irreps)
    return l1, l2, l3


def _planes(f: Array, degree: int) -> Array:
    return f.reshape(*f.shape[:-1], 2, degree + 1, degree + 1)


@lru_cache(maxsize=64)
def _convolving(irreps: Irreps) -> Space:
    l1, l2, l3 = _degrees(irreps)

    def multiply(f: Array, g: Array, tangent: bool) -> Array:
        batch = np.broadcast_shapes(f.shape[:-1], g.shape[:-1])
        f, g = (jnp.broadcast_to(h, (*batch, h.shape[-1])) for h in (f, g))
        made = convolve(_planes(f, l1), _planes(g, l2), l3, tangent=tangent)
        return made.reshape(*batch, -1)

    def price(use: Use, entering: float | int, products: float | int, leaving: float | int) -> Work:
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

    def price(use: Use, entering: float | int, products: float | int, leaving: float | int) -> Work:
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
    return Space(first, second, out, enter, multiply, leave, price)
