"""Products of functions on a grid on the sphere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import e3nn_jax as e3nn
import numpy as np

from ..bilinear import BilinearMap
from ..method import Method, Program, Use
from ..weighting import weighted
from .fields import Fields, Irreps, fields_of, refuse_weights
from .quadrature import Grid, grid
from .rings import through_rings
from .space import Space, through
from .sphere import analysis, synthesis, tangent_synthesis


@dataclass(frozen=True)
class GauntGrid(Method):
    """Values and gradients at points of the sphere, multiplied point by point, then integrated.

    Exact: the points integrate products of three harmonics without error. Weights per degree are
    factors of coefficients; with the Clebsch-Gordan coupling several such products are summed.
    """

    name: ClassVar[str] = "gaunt-grid"

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
        return grid_programs(self.map, fields_of, use)


def grid_programs(
    bilinear: BilinearMap, fields: Callable[..., Fields], use: Use
) -> dict[str, Program]:
    """Return the programs of a map on the grid, given what finds its fields."""

    def cores(inner: Use) -> dict[str, Program]:
        plain, antipodal = fields(bilinear), fields(bilinear, antipodal=True)
        return {
            "all points": through(_space(plain.irreps, half=False), plain, inner),
            "half the points": through(_space(plain.irreps, half=True), antipodal, inner),
            "rings": through_rings(plain, inner),
        }

    return weighted(bilinear, cores, use)


@lru_cache(maxsize=64)
def _space(irreps: Irreps, *, half: bool) -> Space:
    """Return values at the points, or at one of each two opposite ones, which is half of them."""
    points = grid(sum(max(ir.l for _, ir in each) for each in irreps))
    size = len(points.weights) // (2 if half else 1)
    out = analysis(irreps[2], points).T[:size] * (2 if half else 1)
    return Space(
        _components(irreps[0], points)[..., :size],
        _components(irreps[1], points)[..., :size],
        out,
        enter=lambda f, _: f,
        multiply=lambda f, g, _: f * g,
        leave=lambda h: h,
        price=lambda use, entering, products, leaving: use.loop(
            2 * size * products, size * (entering + leaving)
        ),
    )


def _components(irreps: e3nn.Irreps, points: Grid) -> np.ndarray:
    """Return tables [3, d, point]: values and both components of the scaled gradient."""
    whole = [synthesis(irreps, points)[None], tangent_synthesis(irreps, points)]
    return np.concatenate(whole).transpose(0, 2, 1)
