"""The screened repulsion of nuclei at short range."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .radial import smooth_cutoff

# The universal screening function: shares and exponents.
_SHARES = (0.18175, 0.50986, 0.28022, 0.02817)
_EXPONENTS = (3.19980, 0.94229, 0.40290, 0.20162)
# Bohr radius in angstrom, and e^2 / (4 pi epsilon_0) in eV angstrom (CODATA 2018).
_BOHR = 0.529177210903
_COULOMB = 14.3996454784255


class ZBL(eqx.Module):
    """Ziegler, Biersack and Littmark's universal repulsion, cut off smoothly. In eV and angstrom.

    It keeps atoms apart where no data teach a model to.

    Attributes:
        numbers: atomic number of each species.
        cutoff: where it ends.
        power: of `smooth_cutoff`.
    """

    numbers: tuple[int, ...] = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)
    power: int = eqx.field(static=True)

    def __init__(self, numbers: Sequence[int], *, cutoff: float | int = 1.5, power: int = 6):
        """Fix species and cutoff.

        Raises:
            ValueError: atomic numbers that are not positive, or what `smooth_cutoff` refuses.
        """
        if not numbers or min(numbers) < 1:
            raise ValueError(f"numbers: expected atomic numbers, got {tuple(numbers)}")
        smooth_cutoff(0.0, cutoff, power)
        self.numbers, self.cutoff, self.power = tuple(numbers), float(cutoff), power

    def __call__(self, distances: Array, first: Array, second: Array) -> Array:
        """Return the energy of each pair.

        Args:
            distances: `[pairs]`, above 0.
            first: `[pairs]`, species of one atom, as positions in `numbers`.
            second: `[pairs]`, of the other.
        """
        numbers = np.array(self.numbers, np.float64)
        charge, size = (jnp.asarray(z, distances.dtype) for z in (numbers, numbers**0.23))
        length = 0.8854 * _BOHR / (size[first] + size[second])
        ratio = distances / length
        screening = sum(
            (share * jnp.exp(-exponent * ratio))
            for share, exponent in zip(_SHARES, _EXPONENTS, strict=True)
        )
        energy = _COULOMB * charge[first] * charge[second] / distances * screening
        return energy * smooth_cutoff(distances, self.cutoff, self.power)
