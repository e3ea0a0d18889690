"""Run a contraction in the order its shapes call for."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import opt_einsum
from jaxtyping import Array


@functools.lru_cache(maxsize=4096)
def _order(expression: str, shapes: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    # opt_einsum's own choice takes a greedy-like search from five operands on, which is several
    # times off on this library's networks; dynamic programming is exact and cheap here.
    search = "optimal" if len(shapes) <= 4 else "dp"
    path, _ = opt_einsum.contract_path(expression, *shapes, shapes=True, optimize=search)
    return [tuple(step) for step in path]


def contract(
    expression: str, *operands: Array, precision: Any = jax.lax.Precision.HIGHEST
) -> Array:
    """Contract `operands` as the einsum `expression` says, in an order fixed by their shapes.

    Args:
        expression: einsum subscripts, such as `"ijk,kr->ijr"`.
        operands: arrays of one dtype.
        precision: of the matrix products; the highest by default, since the lower precision that
            accelerators use otherwise breaks orthogonality and equivariance.

    Returns:
        The contraction, in the operands' dtype.

    Raises:
        ValueError: the subscripts do not fit the operands.
    """
    shapes = tuple(jnp.shape(x) for x in operands)
    order = _order(expression, shapes)
    return jnp.einsum(expression, *operands, optimize=order, precision=precision)
