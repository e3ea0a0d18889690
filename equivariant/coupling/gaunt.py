"""Products of functions on a grid on the sphere."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import e3nn_jax as e3nn
import numpy as np

from ..method import Program, Use
from .fields import Irreps, fields_of
from .gaunt_products import GauntProducts
from .quadrature import Grid, grid
from .rings import through_rings
from .space import Space, pointwise, through
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
    return pointwise(*tables_of(irreps, half=half))


@lru_cache(maxsize=64)
def tables_of(
    irreps: Irreps, *, half: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return tables to points and back, as those of a `Space`.

    The bracket of polynomials is one of a degree less than their product, so it needs fewer points.
    """
    degree = sum(max(ir.l for _, ir in each) for each in irreps)
    # A grid of even degree is exact for the next: where both are one, sums leave together.
    grids = [grid(n // 2 * 2) for n in (degree, max(degree - 1, 0))]
    values, tangents = (len(points.weights) // (2 if half else 1) for points in grids)
    out = [
        analysis(irreps[2], points).T[:size] * (2 if half else 1)
        for points, size in zip(grids, (values, tangents), strict=True)
    ]
    first, second = (
        [
            table[:, :size]
            for table, size in zip(
                components(own, *grids), (values, tangents, tangents), strict=True
            )
        ]
        for own in irreps[:2]
    )
    return first, second, out if grids[0] is not grids[1] else [out[0], out[0]]


def components(irreps: e3nn.Irreps, values: Grid, tangents: Grid) -> list[np.ndarray]:
    """Return tables [d, point]: values, and both components of the scaled gradient."""
    return [
        synthesis(irreps, values).T,
        *(table.T for table in tangent_synthesis(irreps, tangents)),
    ]
