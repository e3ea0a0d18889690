"""Numbers as a mantissa and a power of two, so that long products neither overflow nor vanish."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int


def times_power(x: Float[Array, "*shape"], exponent: Int[Array, ""]) -> Float[Array, "*shape"]:
    """Return `x * 2**exponent`, exactly where that is a normal number."""
    half = exponent // 2  # in two steps, since the power alone may be no normal number
    return x * _power_of_two(half, x.dtype) * _power_of_two(exponent - half, x.dtype)


def rescale(x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Int[Array, ""]]:
    """Return `x` scaled by a power of two so that its largest entry is near 1, and the exponent.

    The exponent is a constant in derivatives: `times_power(*rescale(x))` has those of `x`.
    """
    info = jnp.finfo(x.dtype)
    largest = lax.stop_gradient(jnp.max(jnp.abs(x)))
    bits = lax.bitcast_convert_type(largest, _INTEGER[x.dtype.name]) >> info.nmant
    exponent = jnp.clip(bits.astype(jnp.int32) - (info.maxexp - 1), *_normal(x.dtype))
    return x * _power_of_two(-exponent, x.dtype), exponent


def norm_of_overlaps(
    overlaps: Float[Array, "..."],
    exponent: Int[Array, ""],
    accurate: Callable[[], tuple[Float[Array, ""], Int[Array, ""]]],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Return the norm, as mantissa and exponent, whose square is the sum of `overlaps`.

    Where they cancel for the most part, so that the sum has lost digits, `accurate` is asked.
    """
    square = jnp.sum(overlaps)
    odd = exponent % 2
    root = jnp.sqrt(jnp.maximum(square * (1 + odd).astype(square.dtype), 0.0))
    cancelled = square < _CANCELLED * jnp.sum(jnp.abs(overlaps))
    return lax.cond(cancelled, accurate, lambda: (root, (exponent - odd) // 2))


_CANCELLED = 1 / 64  # share left of the sum without signs
_INTEGER = {"float32": jnp.int32, "float64": jnp.int64}


def _normal(dtype: Any) -> tuple[int, int]:
    # Exponents whose powers of two, and their inverses, are normal numbers.
    most = int(jnp.finfo(dtype).maxexp) - 2
    return -most, most


def _power_of_two(exponent: Int[Array, ""], dtype: Any) -> Float[Array, ""]:
    # From the bits: exp2 is off by roundings in float32.
    info = jnp.finfo(dtype)
    exponent = jnp.clip(exponent, *_normal(dtype)) + (info.maxexp - 1)
    bits = exponent.astype(_INTEGER[jnp.dtype(dtype).name]) << info.nmant
    return lax.bitcast_convert_type(bits, dtype)


@jax.custom_jvp
def scaled_norm(x: Any) -> tuple[Float[Array, ""], Int[Array, ""]]:
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
    return (mantissa, exponent), (tangent, np.zeros((), jax.dtypes.float0))
