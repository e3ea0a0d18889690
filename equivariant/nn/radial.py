"""Functions of distance that vanish smoothly at a cutoff."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from tensornet.validation import as_real


def smooth_cutoff(
    distances: Float[ArrayLike, "*batch"], cutoff: float | int, power: int = 6
) -> Float[Array, "*batch"]:
    """Return a polynomial that is 1 at 0, and 0 at the cutoff with two vanishing derivatives.

    Beyond the cutoff it is exactly zero. (Gasteiger, Gross and Guennemann, "Directional message
    passing for molecular graphs", 2020.)

    Args:
        distances: at least 0.
        cutoff: in the same unit.
        power: of the first term; near 0 the function is 1 - O(r^power).

    Raises:
        ValueError: a cutoff that is not positive, or a power below 2.
    """
    if not cutoff > 0 or not math.isfinite(cutoff):
        raise ValueError(f"cutoff: expected a positive distance, got {cutoff!r}")
    if power < 2:
        raise ValueError(f"power: expected at least 2, got {power!r}")
    distances = as_real(distances, "distances")
    # Clipped, so that no power of a large ratio overflows, in the gradient either.
    x = jnp.minimum(distances / cutoff, 1)
    p = power
    terms = (p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x**2
    return jnp.where(distances < cutoff, 1 - terms * x**p, 0)


class Bessel(eqx.Module):
    """Spherical Bessel functions sqrt(2/c) sin(n pi r/c)/r, times `smooth_cutoff`.

    Attributes:
        cutoff: beyond it all functions are exactly zero.
        number: of functions.
        power: of `smooth_cutoff`.
    """

    cutoff: float = eqx.field(static=True)
    number: int = eqx.field(static=True)
    power: int = eqx.field(static=True)

    def __init__(self, cutoff: float | int, number: int = 8, *, power: int = 6):
        """Choose the functions.

        Raises:
            ValueError: a number below 1, or what `smooth_cutoff` refuses.
        """
        if number < 1:
            raise ValueError(f"number: expected at least 1, got {number!r}")
        smooth_cutoff(0.0, cutoff, power)
        self.cutoff, self.number, self.power = float(cutoff), number, power

    def __call__(self, distances: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch number"]:
        """Evaluate at distances, which may be zero."""
        r = as_real(distances, "distances")[..., None] / self.cutoff
        n = jnp.expand_dims(jnp.arange(1, self.number + 1, dtype=r.dtype), tuple(range(r.ndim - 1)))
        waves = jnp.sinc(r * n) * n * (math.pi * math.sqrt(2) * self.cutoff**-1.5)
        return waves * smooth_cutoff(r * self.cutoff, self.cutoff, self.power)
