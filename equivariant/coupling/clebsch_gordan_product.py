"""Products with the coupling tensor itself."""

from functools import lru_cache
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from ..bilinear import BilinearMap
from ..method import Method, Program, Use
from ..weighting import weighted
from .contraction import contractions
from .path_weights import by_path


class ClebschGordan(Method):
    """Any coupling and any weights, by the tensor [d1, d2, d_out]."""

    name: ClassVar[str] = "clebsch-gordan"

    def programs(self, use: Use) -> dict[str, Program]:
        """Return programs for the map, by name."""
        found = {}
        if self.map.weights != "per-path":
            found |= weighted(self.map, lambda inner: contractions(_tensor(self.map), inner), use)
        if self.map.weights == "per-path" or self.map.n_terms > 1:
            found |= by_path(self.map, use)
        return found


@lru_cache(maxsize=64)
def _tensor(bilinear: BilinearMap) -> Float64[np.ndarray, "d1 d2 d"]:
    return bilinear.tensor()
