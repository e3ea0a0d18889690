"""Numbers as a mantissa and a power of two, so that long products neither overflow nor vanish."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def times_power(x: Float[Array, "*shape"], exponent: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Return `x * 2**exponent`, exactly where that is a normal number."""
    limit = float(jnp.finfo(x.dtype).maxexp - 2)
    for _ in range(3):  # in steps that are normal numbers themselves
        step = jnp.clip(exponent, -limit, limit)
        x = x * _power_of_two(step)
        exponent = exponent - step
    return x


def rescale(x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
    """Return `x` scaled by a power of two so that its largest entry is near 1, and the exponent.

    The exponent is a constant in derivatives: `times_power(*rescale(x))` has those of `x`.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(x)))
    largest = jnp.where(jnp.isfinite(largest), largest, jnp.ones_like(largest))
    exponent = jnp.frexp(largest)[1].astype(x.dtype)
    return times_power(x, -exponent), exponent


def _power_of_two(exponent: Float[Array, ""]) -> Float[Array, ""]:
    # From the bits: exp2 is off by roundings in float32.
    info = jnp.finfo(exponent.dtype)
    integer = jnp.int32 if info.bits == 32 else jnp.int64
    bits = (exponent.astype(integer) + (info.maxexp - 1)) << info.nmant
    return lax.bitcast_convert_type(bits, exponent.dtype)


@jax.custom_jvp
def scaled_norm(x: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the Frobenius norm of a format as mantissa and exponent of two.

    The value comes from orthogonal transformations where the format has them. The derivative is
    `<x, dx> / norm(x)`, which needs none, and 0 at zero.
    """
    return x._norm()


@scaled_norm.defjvp
def _scaled_norm_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    mantissa, exponent = scaled_norm(x)
    (_, power), (product, _) = jax.jvp(x._inner, (x,), (dx,))
    zero = mantissa == 0
    quotient = product / jnp.where(zero, jnp.ones_like(mantissa), mantissa)
    tangent = times_power(quotient, power - 2 * exponent)
    tangent = jnp.where(zero, jnp.zeros_like(tangent), tangent)
    return (mantissa, exponent), (tangent, jnp.zeros_like(exponent))
