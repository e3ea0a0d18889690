"""What methods that multiply functions on the sphere share: which maps, and which weights."""

import abc
from dataclasses import dataclass

from ..method import Method, Program, Use
from ..weighting import weighted
from .fields import fields_of


@dataclass(frozen=True)
class GauntProducts(Method):
    """Sums of products of functions and of their gradients, in some space.

    Weights per degree are factors of coefficients; with the Clebsch-Gordan coupling several
    products are summed.
    """

    def __post_init__(self):
        """Check.

        Raises:
            ValueError: weights per path, or a Clebsch-Gordan coupling that takes too many products;
                names the paths.
        """
        if self.map.weights == "per-path":
            raise ValueError(
                "method: expected one that keeps paths apart, as their weights are given one by "
                f"one, got {self.name!r}, which cannot weight {self.map.listed(self.map.triples)}"
            )
        fields_of(self.map)

    def programs(self, use: Use) -> dict[str, Program]:
        """Return programs for the map, by name."""
        return weighted(self.map, self.cores, use)

    @abc.abstractmethod
    def cores(self, use: Use) -> dict[str, Program]:
        """Return programs for the map with weights of one, by name."""
