"""Products through a CP decomposition of the coupling tensor."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ..bilinear import BilinearMap
from ..method import Method, Program, Use
from ..weighting import weighted
from .cp import CPCoupling, decompose_coupling


@dataclass(frozen=True)
class CPProduct(Method):
    """z = C^T ((A x) * (B y)): exact where the rank suffices, else to a certified error.

    Attributes:
        rank: number of components, or the most where `rtol` is given too.
        rtol: relative error of the tensor, in the Frobenius norm.
    """

    rank: int | None = None
    rtol: float | None = None

    name: ClassVar[str] = "cp"

    def __post_init__(self):
        """Decompose.

        Raises:
            TypeError: a rank or tolerance of the wrong type.
            ValueError: weights per path, neither rank nor rtol, or what `decompose_coupling`
                refuses.
        """
        if self.map.weights == "per-path":
            raise ValueError(
                f"method: 'cp' decomposes one tensor, so weights cannot differ from path to path; "
                f"got weights='per-path' for {self.map.listed(self.map.triples)}"
            )
        self.coupling  # noqa: B018  decomposed now, so that what is refused is refused here

    @property
    def coupling(self) -> CPCoupling:
        """The decomposition."""
        return _decomposed(self.map, self.rank, self.rtol)

    @property
    def error_bound(self) -> float:
        """Certified bound of the error over |x| |y|, for weights of one."""
        return self.coupling.error_bound

    def programs(self, use: Use) -> dict[str, Program]:
        """Return programs for the map, by name."""
        return weighted(self.map, self._cores, use)

    def _cores(self, use: Use) -> dict[str, Program]:
        a, b, c = (factor.T for factor in self.coupling.factors)
        rows = (use.batch, use.channels)
        shapes = (*rows, len(a)), (*rows, len(b)), a.shape, b.shape, c.shape
        made = use.product("bci,bcj,ir,jr,kr->bck", *shapes)

        def run(x: Array, y: Array, _: Array | None) -> Array:
            x, y = (jnp.broadcast_to(z, (len(z), use.channels, z.shape[-1])) for z in (x, y))
            return made(x, y, *(jnp.asarray(table, x.dtype) for table in (a, b, c)))

        return {f"rank {self.coupling.rank}": Program((made,), run)}


@lru_cache(maxsize=64)
def _decomposed(bilinear: BilinearMap, rank: int | None, rtol: float | None) -> CPCoupling:
    return decompose_coupling(bilinear.tensor(), rank=rank, rtol=rtol)
