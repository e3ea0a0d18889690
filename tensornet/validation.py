"""Checks at the eager border: what an argument must be, and an error that says what came.

Shapes, dtypes and static values are checked always. Data (NaN, all zeros) is checked only
where it is concrete; inside a trace a `Status` travels with the result instead.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float


def is_traced(*trees: Any) -> bool:
    """Tell whether any leaf of `trees` is a tracer, so that its values cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def as_real(x: ArrayLike, argument: str) -> Float[Array, "..."]:
    """Return `x` as a float32 or float64 array; integers become the default float.

    Raises:
        TypeError: `x` is not an array of real numbers in float32 or float64.
    """
    try:
        array = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: expected an array, got {type(x).__name__}") from error
    if jnp.issubdtype(array.dtype, jnp.integer):
        array = array.astype(jnp.result_type(float))
    if array.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"{argument}: expected float32 or float64 (or integers), got {array.dtype}")
    return array


def check_modes(x: Array, argument: str, least: int = 1) -> None:
    """Require at least `least` modes, none of them empty.

    Raises:
        ValueError: too few modes, or a mode of size zero.
    """
    if x.ndim < least:
        raise ValueError(
            f"{argument}: expected at least {least} modes, got {x.ndim} (shape {x.shape})"
        )
    if 0 in x.shape:
        empty = x.shape.index(0)
        raise ValueError(
            f"{argument}: expected no empty mode, got size 0 in mode {empty} (shape {x.shape})"
        )


def check_finite(x: Array, argument: str) -> None:
    """Require finite entries where the values are concrete.

    Raises:
        ValueError: an entry is NaN or infinite; the message counts them and names the first.
    """
    if is_traced(x):
        return
    with jax.ensure_compile_time_eval():  # a constant inside a trace can be looked at
        bad = ~jnp.isfinite(x)
    if np.asarray(bad).any():
        where = np.argwhere(np.asarray(bad))
        first = tuple(int(i) for i in where[0])
        raise ValueError(
            f"{argument}: expected finite entries, got {len(where)} NaN or infinite, "
            f"the first at index {first}"
        )


def check_rank(rank: Any, argument: str = "rank", *, most: int | None = None, why: str = "") -> int:
    """Return `rank` as a positive int, at most `most` (with `why` saying where that comes from).

    Raises:
        TypeError: `rank` is not an integer.
        ValueError: `rank` is below 1 or above `most`.
    """
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)):
        raise TypeError(f"{argument}: expected an integer, got {rank!r} ({type(rank).__name__})")
    if rank < 1 or (most is not None and rank > most):
        bound = "at least 1" if most is None else f"between 1 and {most}"
        raise ValueError(f"{argument}: expected {bound}{f' ({why})' if why else ''}, got {rank}")
    return int(rank)


def check_ranks(
    ranks: Any, most: Sequence[int | None], argument: str = "rank", *, why: str = ""
) -> tuple[int, ...]:
    """Return `ranks` as a tuple of ints, one for each entry of `most` (an upper bound or None).

    A single integer is used for every entry, cut to its bound.

    Raises:
        TypeError: not an integer or a sequence of integers.
        ValueError: another count than `most`, or a rank out of its range.
    """
    if isinstance(ranks, (int, np.integer)) and not isinstance(ranks, bool):
        check_rank(ranks, argument)
        return tuple(int(ranks) if m is None else min(int(ranks), m) for m in most)
    if isinstance(ranks, str) or not isinstance(ranks, Sequence):
        raise TypeError(
            f"{argument}: expected an integer or a sequence of {len(most)} integers, got {ranks!r}"
        )
    if len(ranks) != len(most):
        raise ValueError(f"{argument}: expected {len(most)} ranks, got {len(ranks)}: {ranks!r}")
    return tuple(
        check_rank(r, f"{argument}[{n}]", most=m, why=why)
        for n, (r, m) in enumerate(zip(ranks, most, strict=True))
    )


def check_truncation(rtol: Any, dtype: Any, argument: str = "rtol") -> float:
    """Return `rtol` as a float that truncation in `dtype` can reach.

    Raises:
        TypeError: `rtol` is not a real number.
        ValueError: `rtol` is negative, not below 1, or below what the precision resolves.
    """
    if isinstance(rtol, bool) or not isinstance(rtol, (int, float, np.floating, np.integer)):
        raise TypeError(f"{argument}: expected a number, got {rtol!r} ({type(rtol).__name__})")
    least = 32 * float(jnp.finfo(dtype).eps)
    if not 0 <= float(rtol) < 1:
        raise ValueError(f"{argument}: expected at least {least:.1e} and below 1, got {rtol}")
    if float(rtol) < least:
        raise ValueError(
            f"{argument}: expected at least {least:.1e}, the least {jnp.dtype(dtype)} "
            f"resolves, got {rtol}"
        )
    return float(rtol)


def check_same_shape(a: Any, b: Any, operation: str) -> None:
    """Require two formats of equal shape.

    Raises:
        ValueError: the shapes differ; the message holds both.
    """
    if a.shape != b.shape:
        raise ValueError(f"{operation}: expected equal shapes, got {a.shape} and {b.shape}")
