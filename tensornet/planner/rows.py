"""Products of rows by many coefficients, as a program whose length does not grow with them.

Written out, some hundred coefficients make a program that takes a second to compile. Here a row
of one operand meets all rows of the result at once: they take the other operand's rows in another
order, each times a coefficient of its own. For Clebsch-Gordan coefficients, where a pair of
components meets few others, that is a tenth of the operations in the program and not twice the
arithmetic.

XLA makes what computes an operand part of the loop that reads it, once for every time it is read,
and writes out what two loops gather alike. On a CPU each loop is therefore a call that is not
inlined, which also has the rows in memory as rows.
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_CALLS = 2  # so that two threads compile


class Terms(NamedTuple):
    """A sum of products of rows.

    Attributes:
        rows: of the result.
        places: for each term, the row of the result and that of every operand.
        values: the coefficient of each term.
    """

    rows: int
    places: tuple[tuple[int, ...], ...]
    values: tuple[Any, ...]

    def transposed(self, operand: int, rows: int) -> "Terms":
        """The same sum as a map to an operand of `rows` rows, the result in its place."""

        def swapped(at: tuple[int, ...]) -> tuple[int, ...]:
            found = list(at)
            found[0], found[operand + 1] = at[operand + 1], at[0]
            return tuple(found)

        return Terms(rows, tuple(map(swapped, self.places)), self.values)


class Group(NamedTuple):
    """The terms that share their rows of all operands but one.

    Attributes:
        fixed: those rows, in the order of the operands.
        taken: for each layer, the row of the one operand that each row of the result takes.
        values: its coefficients, zero where a row of the result takes nothing.
    """

    fixed: tuple[int, ...]
    taken: np.ndarray
    values: np.ndarray


@functools.lru_cache(maxsize=256)
def layers(terms: Terms) -> tuple[int, tuple[Group, ...]]:
    """Return the operand whose rows are taken in other orders, and the groups of terms."""
    operands = len(terms.places[0]) - 1
    ways = [(q, _groups(terms, q)) for q in range(operands)]
    return min(ways, key=lambda way: sum(len(group.taken) for group in way[1]))


def _groups(terms: Terms, operand: int) -> tuple[Group, ...]:
    found: Any = defaultdict(lambda: defaultdict(list))
    for (result, *at), value in zip(terms.places, terms.values, strict=True):
        taken = at.pop(operand)
        found[tuple(at)][result].append((taken, value))
    groups = []
    for fixed, results in found.items():
        depth = max(map(len, results.values()))
        taken = np.zeros((depth, terms.rows), np.int32)
        values = np.zeros((depth, terms.rows), np.asarray(terms.values).dtype)
        for result, pairs in results.items():
            for layer, pair in enumerate(pairs):
                taken[layer, result], values[layer, result] = pair
        groups.append(Group(fixed, taken, values))
    return tuple(groups)


def sum_of_products(arrays: Sequence[jax.Array], terms: Terms) -> jax.Array:
    """Sum products of rows.

    Linear in every operand, and its derivatives are sums of the same kind.

    Args:
        arrays: the operands, rows first, the other axes alike.
        terms: the sum.

    Returns:
        The result, rows first.
    """
    return _sum.bind(*arrays, terms=terms)


def _lowered(*arrays: jax.Array, terms: Terms) -> jax.Array:
    return _loop(*arrays, terms=terms)


def _lowered_to_calls(*arrays: jax.Array, terms: Terms) -> jax.Array:
    calls = min(_CALLS, len(layers(terms)[1]))
    with set_xla_metadata(inlineable="false"):
        parts = [_loop(*arrays, terms=terms, first=k, every=calls) for k in range(calls)]
    return functools.reduce(lax.add, parts)


@functools.partial(jax.jit, static_argnames=("terms", "first", "every"))
def _loop(*arrays: jax.Array, terms: Terms, first: int = 0, every: int = 1) -> jax.Array:
    """Sum the groups of terms numbered `first`, `first + every`, ..."""
    operand, groups = layers(terms)
    flat = [x.reshape(x.shape[0], -1) for x in arrays]
    moving = flat.pop(operand)
    fixed = [lax.split(x, (1,) * x.shape[0], axis=0) for x in flat]
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,)
    )

    def layer(taken: np.ndarray, values: np.ndarray) -> jax.Array:
        row = (1, moving.shape[1])
        rows = lax.gather(moving, taken[:, None], numbers, row, mode="promise_in_bounds")
        scale = jnp.asarray(values, moving.dtype)
        return lax.mul(rows, lax.broadcast_in_dim(scale, rows.shape, (0,)))

    def products(group: Group) -> jax.Array:
        value = functools.reduce(lax.add, map(layer, group.taken, group.values))
        for rows, at in zip(fixed, group.fixed, strict=True):
            value = lax.mul(value, lax.broadcast_in_dim(rows[at], value.shape, (0, 1)))
        return value

    total = functools.reduce(lax.add, map(products, groups[first::every]))
    return total.reshape(terms.rows, *arrays[0].shape[1:])


def _abstract(*arrays: Any, terms: Terms) -> Any:
    return arrays[0].update(shape=(terms.rows, *arrays[0].shape[1:]))


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, terms: Terms) -> tuple[Any, Any]:
    value = _sum.bind(*primals, terms=terms)
    parts = [
        _sum.bind(*primals[:p], tangent, *primals[p + 1 :], terms=terms)
        for p, tangent in enumerate(tangents)
        if type(tangent) is not ad.Zero
    ]
    return value, functools.reduce(lax.add, parts)


def _transpose(cotangent: Any, *operands: Any, terms: Terms) -> list[Any]:
    found: list[Any] = [None] * len(operands)
    for p, x in enumerate(operands):
        if not ad.is_undefined_primal(x):
            continue
        if type(cotangent) is ad.Zero:
            found[p] = ad.Zero(x.aval)
        else:
            others = [*operands[:p], cotangent, *operands[p + 1 :]]
            found[p] = _sum.bind(*others, terms=terms.transposed(p, x.aval.shape[0]))
    return found


def _batched(
    arrays: Sequence[Any], dims: Sequence[int | None], *, terms: Terms
) -> tuple[jax.Array, int]:
    size = next(x.shape[d] for x, d in zip(arrays, dims, strict=True) if d is not None)
    moved = [
        jnp.broadcast_to(x[:, None], (x.shape[0], size, *x.shape[1:]))
        if d is None
        else jnp.moveaxis(x, d, 1)
        for x, d in zip(arrays, dims, strict=True)
    ]
    return _sum.bind(*moved, terms=terms), 1


_sum = Primitive("sum_of_row_products")
_sum.def_impl(lambda *arrays, terms: _jitted(arrays, terms))
_sum.def_abstract_eval(_abstract)
ad.primitive_jvps[_sum] = _jvp
ad.primitive_transposes[_sum] = _transpose
batching.primitive_batchers[_sum] = _batched
mlir.register_lowering(_sum, mlir.lower_fun(_lowered, multiple_results=False))
mlir.register_lowering(
    _sum, mlir.lower_fun(_lowered_to_calls, multiple_results=False), platform="cpu"
)
_jitted = jax.jit(sum_of_products, static_argnames="terms")
