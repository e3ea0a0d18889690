"""What decompositions check of their arguments where these are concrete."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..status import Status, name
from ..validation import as_real, check_finite, check_modes, is_traced


@eqx.filter_jit
def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x))


def check_data(x: ArrayLike, argument: str, least: int = 1) -> Float[Array, "..."]:
    """Return `x` as a real array, with at least `least` modes, finite and not all zeros.

    Raises:
        TypeError: not an array of real numbers.
        ValueError: too few modes, an empty mode, NaN or infinity, only zeros, or entries whose
            squares the dtype cannot hold.
    """
    array = check_array(x, argument, least)
    if not is_traced(array):
        check_norm(array, argument, _norm(array))
    return array


def check_array(x: ArrayLike, argument: str, least: int = 1) -> Float[Array, "..."]:
    """Return `x` as a real array, with at least `least` modes; the rest is `check_norm`'s.

    Raises:
        TypeError: not an array of real numbers.
        ValueError: too few modes, or an empty mode.
    """
    array = as_real(x, argument)
    check_modes(array, argument, least)
    return array


def check_norm(array: Array, argument: str, whole: Array) -> None:
    """Require entries of a finite and nonzero norm `whole`, which a program may have taken anyway.

    Raises:
        ValueError: NaN or infinity, only zeros, or entries whose squares the dtype cannot hold.
    """
    norm = float(whole)
    if not math.isfinite(norm):
        check_finite(array, argument)
        raise ValueError(
            f"{argument}: expected entries whose squares sum to a finite {array.dtype}, got "
            f"{float(jnp.max(jnp.abs(array))):.1e} as the largest; rescale"
        )
    if norm == 0:
        if bool(jnp.any(array)):
            raise ValueError(
                f"{argument}: expected entries whose squares {array.dtype} can hold, got "
                f"{float(jnp.max(jnp.abs(array))):.1e} as the largest; rescale"
            )
        raise ValueError(
            f"{argument}: expected a nonzero tensor, got only zeros in shape {array.shape}"
        )


def check_eager(x: Array, argument: str, instead: str) -> None:
    """Require concrete data, since ranks are to be chosen from it.

    Raises:
        ValueError: `x` is traced; the message tells to give `instead`.
    """
    if is_traced(x):
        raise ValueError(
            f"{argument}: expected None inside jit, vmap or grad, where ranks cannot depend on the "
            f"data; give {instead} there"
        )


def check_change(rtol: Any) -> float:
    """Return the least relative change of the error as a float.

    Raises:
        TypeError: not a number.
        ValueError: negative, or not below 1.
    """
    if isinstance(rtol, bool) or not isinstance(rtol, (int, float, np.floating, np.integer)):
        raise TypeError(f"rtol: expected a number, got {rtol!r} ({type(rtol).__name__})")
    if not 0 <= float(rtol) < 1:
        raise ValueError(f"rtol: expected at least 0 and below 1, got {rtol}")
    return float(rtol)


def check_key(key: Any, reason: str) -> None:
    """Require a key.

    Raises:
        ValueError: it is None.
    """
    if key is None:
        raise ValueError(f"key: expected a jax.random.key, which {reason} needs, got None")


def check_outcome(function: str, status: Status, throw: bool) -> None:
    """Raise for a NaN or an infinity where the outcome is concrete and `throw` is set.

    Raises:
        FloatingPointError: the iteration met NaN or infinity.
    """
    if throw and not is_traced(status) and name(status) == "non_finite":
        raise FloatingPointError(f"{function}: {Status[Status.non_finite]}")
