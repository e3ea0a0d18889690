"""Products of functions on a grid on the sphere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import e3nn_jax as e3nn
import numpy as np

from tensornet.planner import Work

from ..method import Program, Use
from .fields import Irreps, fields_of
from .gaunt_products import GauntProducts
from .quadrature import Grid, grid
from .rings import through_rings
from .space import Space, through
from .sphere import analysis, synthesis, tangent_synthesis


@dataclass(frozen=True)
class GauntGrid(GauntProducts):
    """Values and gradients at points of the sphere, multiplied point by point, then integrated.

    Exact: the points integrate products of three harmonics without error.
    """

    name: ClassVar[str] = "gaunt-grid"

    def cores(self, use: Use) -> dict[str, Program]:
        """Return programs for the map with weights of one, by name."""
        plain = fields_of(self.map)
        found = {
            "all points": through(_space(plain.irreps, half=False), plain, use),
            "rings": through_rings(plain, use),
        }
        if all(field.component == 0 for field in plain.first):
            # Brackets fall into so many parts that they gain nothing.
            antipodal = fields_of(self.map, antipodal=True)
            found["half the points"] = through(_space(plain.irreps, half=True), antipodal, use)
        return found


@lru_cache(maxsize=64)
def _space(irreps: Irreps, *, half: bool) -> Space:
    """Return values at the points, or at one of each two opposite ones, which is half of them.

    The bracket of polynomials is one of a degree less than their product, so it needs fewer points.
    """
    degree = sum(max(ir.l for _, ir in each) for each in irreps)
    grids = [grid(degree), grid(max(degree - 1, 0))]
    sizes = [len(points.weights) // (2 if half else 1) for points in grids]
    first, second = (_components(own, grids, sizes) for own in irreps[:2])
    out = [
        analysis(irreps[2], points).T[:size] * (2 if half else 1)
        for points, size in zip(grids, sizes, strict=True)
    ]
    return Space(
        first,
        second,
        out if grids[0] is not grids[1] else [out[0], out[0]],
        enter=lambda f, _: f,
        multiply=lambda f, g, _: f * g,
        leave=lambda h: h,
        price=pointwise(*sizes),
    )


def _components(irreps: e3nn.Irreps, grids: list[Grid], sizes: list[int]) -> list[np.ndarray]:
    values, tangents = (components(irreps, points) for points in grids)
    return [values[0][:, : sizes[0]], *tangents[1:, :, : sizes[1]]]


def pointwise(
    values: int, tangents: int
) -> Callable[[Use, bool, float | int, float | int, float | int], Work]:
    """Return what products at so many points cost (see `Space`)."""

    def price(
        use: Use, tangent: bool, entering: float | int, products: float | int, leaving: float | int
    ) -> Work:
        size = tangents if tangent else values
        return use.loop(2 * size * products, size * (entering + leaving))

    return price


def components(irreps: e3nn.Irreps, points: Grid) -> np.ndarray:
    """Return tables [3, d, point]: values and both components of the scaled gradient."""
    whole = [synthesis(irreps, points)[None], tangent_synthesis(irreps, points)]
    return np.concatenate(whole).transpose(0, 2, 1)
