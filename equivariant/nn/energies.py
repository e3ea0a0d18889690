"""Energies of isolated atoms, and the scale of what is left."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64


def isolated_atom_energies(counts: Any, energies: Any) -> Float64[np.ndarray, " species"]:
    """Return the energy of each species that explains the energies best, by least squares.

    Where compositions do not tell species apart, it is the solution of the smallest norm.

    Args:
        counts: `[frames, species]`, how many atoms of each a frame has.
        energies: `[frames]`.

    Raises:
        ValueError: no frames, shapes that do not fit, or values that are not finite.
    """
    counts, energies = np.asarray(counts, np.float64), np.asarray(energies, np.float64)
    if counts.ndim != 2 or 0 in counts.shape:
        raise ValueError(f"counts: expected shape [frames, species], got {counts.shape}")
    if energies.shape != counts.shape[:1]:
        raise ValueError(f"energies: expected shape {counts.shape[:1]}, got {energies.shape}")
    for name, values in (("counts", counts), ("energies", energies)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return np.linalg.lstsq(counts, energies, rcond=None)[0]


class ScaleShift(eqx.Module):
    """scale * x + shift, each a number of every species.

    Attributes:
        scale: `[species]`.
        shift: `[species]`.
    """

    scale: Array
    shift: Array

    def __init__(self, scale: Any, shift: Any):
        """Take the numbers of every species.

        Raises:
            ValueError: they are no two vectors of one length.
        """
        self.scale, self.shift = jnp.asarray(scale, float), jnp.asarray(shift, float)
        if self.scale.ndim != 1 or self.shift.shape != self.scale.shape:
            raise ValueError(
                f"scale, shift: expected two shapes [species], got {self.scale.shape} and "
                f"{self.shift.shape}"
            )

    def __call__(self, x: Array, species: Array) -> Array:
        """Apply to `[nodes]`, the species given as positions."""
        scale, shift = self.scale.astype(x.dtype), self.shift.astype(x.dtype)
        return scale[species] * x + shift[species]
