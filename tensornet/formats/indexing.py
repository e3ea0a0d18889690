"""Read an index into a tensor held in factored form, and apply it to one axis of an array."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..planner import contract
from ..validation import as_real, is_traced
from .letters import letters

# What is done to one mode. None: nothing. Three numbers: a slice. A scalar: one position is taken,
# and the mode goes. A vector: the mode is summed against it, and goes. A matrix: multiplied.
Action = None | tuple[int | None, int | None, int | None] | Int[Array, ""] | Float[Array, "..."]


def drops(action: Action) -> bool:
    """Tell whether an action removes the mode."""
    return isinstance(action, jax.Array) and action.ndim < 2


def apply_to_axis(array: Float[Array, "..."], axis: int, action: Action) -> Float[Array, "..."]:
    """Apply an action to one axis."""
    if action is None:
        return array
    if isinstance(action, tuple):
        return array[(slice(None),) * axis + (slice(*action),)]
    if action.ndim == 0:
        action = jnp.where(action < 0, action + array.shape[axis], action)
        return lax.dynamic_index_in_dim(array, action, axis, keepdims=False)
    names, new = letters(array.ndim + 1)[:-1], letters(array.ndim + 1)[-1]
    old = names[axis]
    if action.ndim == 1:
        return contract(f"{names},{old}->{names.replace(old, '')}", array, action)
    return contract(f"{names},{new}{old}->{names.replace(old, new)}", array, action)


def read_index(index: Any, shape: Sequence[int]) -> tuple[Action, ...]:
    """Return one action for each mode.

    Raises:
        IndexError: too many indices, or a position outside its mode.
        TypeError: something else than integers, slices and `...`.
        ValueError: a slice that selects nothing.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    dots = [k for k, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError(f"index: expected at most one '...', got {len(dots)}")
    given = len(parts) - len(dots)
    if given > len(shape):
        raise IndexError(
            f"index: expected at most {len(shape)} entries for shape {tuple(shape)}, got {given}"
        )
    at = dots[0] if dots else len(parts)
    parts[at : at + len(dots)] = [slice(None)] * (len(shape) - given)
    pairs = enumerate(zip(parts, shape, strict=True))
    return tuple(_read(part, mode, size) for mode, (part, size) in pairs)


def _read(part: Any, mode: int, size: int) -> Action:
    if isinstance(part, slice):
        if len(range(*part.indices(size))) == 0:
            raise ValueError(
                f"index: expected a slice that selects something of mode {mode} (size {size}), "
                f"got {part}"
            )
        return None if part == slice(None) else (part.start, part.stop, part.step)
    if is_traced(part):
        if part.ndim == 0 and jnp.issubdtype(part.dtype, jnp.integer):
            return part  # its range cannot be checked
        raise TypeError(f"index: expected an integer for mode {mode}, got {part}")
    try:
        if isinstance(part, (bool, np.bool_)):
            raise TypeError
        position = operator.index(part)
    except TypeError:
        raise TypeError(
            f"index: expected an integer, a slice or '...' for mode {mode}, "
            f"got {part!r} ({type(part).__name__})"
        ) from None
    if not -size <= position < size:
        raise IndexError(
            f"index: expected between {-size} and {size - 1} in mode {mode} (size {size}), "
            f"got {position}"
        )
    return jnp.asarray(position % size, jnp.int32)


def read_multiplier(
    matrix_or_vector: Any, mode: Any, shape: Sequence[int], dtype: Any
) -> tuple[Action, ...]:
    """Return one action for each mode: that of `matrix_or_vector` in `mode`, and nothing else.

    Raises:
        TypeError: `mode` is not an integer, or not a real array of the tensor's dtype.
        ValueError: no such mode, or an array that does not fit it.
    """
    if isinstance(mode, bool) or not isinstance(mode, (int, np.integer)):
        raise TypeError(f"mode: expected an integer, got {mode!r} ({type(mode).__name__})")
    d = len(shape)
    if not -d <= mode < d:
        raise ValueError(
            f"mode: expected between {-d} and {d - 1} for shape {tuple(shape)}, got {mode}"
        )
    array = as_real(matrix_or_vector, "matrix_or_vector")
    size = shape[int(mode)]
    if array.ndim not in (1, 2) or array.shape[-1] != size or 0 in array.shape:
        raise ValueError(
            f"matrix_or_vector: expected shape (n, {size}) or ({size},) for mode {mode}, "
            f"got {array.shape}"
        )
    if array.dtype != dtype:
        raise TypeError(
            f"matrix_or_vector: expected dtype {dtype} like the tensor, got {array.dtype}"
        )
    return tuple(array if k == mode % d else None for k in range(d))
