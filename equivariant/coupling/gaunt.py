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
    """Return values at the points, or at one of each two opposite ones, which is half of them."""
    points = grid(sum(max(ir.l for _, ir in each) for each in irreps))
    size = len(points.weights) // (2 if half else 1)
    out = analysis(irreps[2], points).T[:size] * (2 if half else 1)
    return Space(
        components(irreps[0], points)[..., :size],
        components(irreps[1], points)[..., :size],
        out,
        enter=lambda f, _: f,
        multiply=lambda f, g, _: f * g,
        leave=lambda h: h,
        price=pointwise(size),
    )


def pointwise(size: int) -> Callable[[Use, float | int, float | int, float | int], Work]:
    """Return what products at so many points cost (see `Space`)."""
    return lambda use, entering, products, leaving: use.loop(
        2 * size * products, size * (entering + leaving)
    )


def components(irreps: e3nn.Irreps, points: Grid) -> np.ndarray:
    """Return tables [3, d, point]: values and both components of the scaled gradient."""
    whole = [synthesis(irreps, points)[None], tangent_synthesis(irreps, points)]
    return np.concatenate(whole).transpose(0, 2, 1)
