"""How far an approximation in factored form is from what it stands for."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..status import Status
from .decomposition import Decomposition
from .scaling import scaled_norm, times_power


@eqx.filter_jit
def relative_error(x: Any, approximation: Any) -> Float[Array, ""]:
    """Return the norm of the difference over that of `x`, from the factored forms."""
    norm, exponent = scaled_norm(x)
    error, error_exponent = scaled_norm(x - approximation)
    zero = norm == 0
    ratio = times_power(error / jnp.where(zero, 1.0, norm), error_exponent - exponent)
    return jnp.where(zero & (error > 0), jnp.inf, ratio)


def direct(x: Any, approximation: Any) -> Decomposition:
    """Return an approximation found without iteration, with its measured error."""
    error = relative_error(x, approximation)
    status = Status.where(jnp.isfinite(error), Status.converged, Status.non_finite)
    return Decomposition(
        approximation, error, status, jnp.zeros(0, x.dtype), jnp.asarray(0, jnp.int32)
    )
