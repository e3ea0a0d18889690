"""Static sparse constants, such as Clebsch-Gordan coefficients: contracted term by term.

Gathering by index is many times slower than dense products on every device. What wins for a few
hundred coefficients is a program with the coefficients written out: the components of the dense
operands as separate rows, each result a sum of products of rows, all fused into a few loops.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .network import Labels, volume
from .rows import Terms, layers, sum_of_products

if TYPE_CHECKING:
    from .assemble import Assembly
    from .plan import Step

MOST_TERMS = 640  # beyond this many coefficients dense products are better
_MOST_WRITTEN = 160  # beyond this many a program of one operation for each compiles too slowly
_LEAST_ZEROS = 0.5  # share of zeros below which dense products are always better


def unrolled(start: "Assembly") -> "Assembly | None":
    """Contract the sparse constants term by term, where that is possible; else return None."""
    made, found = start.branch(), False
    for position, constant in start.network.constants:
        if position not in made.live:
            continue
        zeros = 1 - constant.nonzeros / max(1, constant.value.size)
        if constant.nonzeros <= MOST_TERMS and zeros >= _LEAST_ZEROS:
            found |= _contract(made, position, constant.value)
    return made if found else None


def _contract(made: "Assembly", position: int, coefficients: np.ndarray) -> bool:
    own = made.live[position]
    constants = {p for p, _ in made.network.constants}
    if len(set(own)) < len(own) or own != made.network.axes(position):
        return False
    dense = [p for p, term in made.live.items() if p != position and set(term) & set(own)]
    if not 1 <= len(dense) <= 3 or constants & set(dense):
        return False
    outside = {x for p, t in made.live.items() if p not in (position, *dense) for x in t}
    outside |= set(made.network.kept_output)
    batch = tuple(dict.fromkeys(x for p in dense for x in made.live[p] if x not in own))
    if not set(batch) <= outside:
        return False
    kept = tuple(x for x in own if x in outside)
    # Components last, as equivariant features are stored, unless an operand has them first.
    first = made.live[dense[0]][0] in own and made.live[dense[0]][-1] not in own
    output = kept + batch if first else batch + kept
    sizes, rates = made.network.sizes, made.rates
    rows = volume(batch, sizes)
    inputs = (*dense, position)
    orders = tuple(made.live[p] for p in inputs)
    moved = sum(made.nbytes(order) for order in orders) + made.nbytes(output)
    terms = int(np.count_nonzero(coefficients))
    if terms > _MOST_WRITTEN:
        table = _terms(coefficients.reshape([sizes[x] for x in own]), own, kept, orders[:-1])
        terms = table.rows * sum(len(group.taken) for group in layers(table)[1])
    flops = terms * rows * (len(dense) + 1)
    # Products of rows are shared, and what is loaded stays in registers.
    seconds = rates.loop_seconds(terms * rows / 2, moved, 0, rate=rates.vector)
    made.add_step(
        "unroll",
        inputs,
        orders,
        orders,
        output,
        batch,
        tuple(x for x in own if x not in kept),
        (1, 1, terms, rows),
        flops,
        moved,
        0,
        seconds,
    )
    return True


def unroll(
    step: "Step", arrays: Sequence[jax.Array], coefficients: np.ndarray, sizes: Mapping[str, int]
) -> jax.Array:
    """Run one unrolled step.

    Args:
        step: the step; its last operand is the constant.
        arrays: the dense operands.
        coefficients: the constant.
        sizes: of all indices.
    """
    *orders, own = step.orders
    batch = step.batch
    kept = tuple(x for x in own if x in step.output)
    coefficients = coefficients.reshape([sizes[x] for x in own])  # without axes of length 1
    if np.count_nonzero(coefficients) > _MOST_WRITTEN:
        return _in_groups(step, arrays, _terms(coefficients, own, kept, orders), kept, sizes)
    shape = [sizes[x] for x in batch]
    rows = [
        _rows(array, order, own, batch, shape) for array, order in zip(arrays, orders, strict=True)
    ]
    where = np.argwhere(coefficients)
    results: dict[tuple[int, ...], Any] = defaultdict(lambda: defaultdict(list))
    for index in where:
        at = dict(zip(own, (int(i) for i in index), strict=True))
        c = coefficients[tuple(index)].item()
        factors = tuple(tuple(at[x] for x in order if x in at) for order in orders)
        result = tuple(at[x] for x in kept)
        # Coefficients of one size share a multiplication; rounding must not split them.
        results[result][float(f"{abs(c):.5e}")].append((c, factors))
    dtype = arrays[0].dtype
    zero = jnp.zeros(shape, dtype)
    products: dict[tuple[Any, ...], jax.Array] = {}
    parts = []
    for result in np.ndindex(*(sizes[x] for x in kept)):
        total = None
        for terms in results[result].values():
            scale = terms[0][0]
            group = None
            for c, factors in terms:
                if factors not in products:
                    product = rows[0][factors[0]]
                    for table, f in zip(rows[1:], factors[1:], strict=True):
                        product = lax.mul(product, table[f])
                    products[factors] = product
                term = products[factors]
                if group is None:
                    group = term
                else:
                    group = lax.add(group, term) if c * scale > 0 else lax.sub(group, term)
            assert group is not None
            group = lax.mul(group, lax.full(shape, scale, dtype))
            total = group if total is None else lax.add(total, group)
        parts.append(zero if total is None else total)
    if not kept:
        return parts[0]
    first = step.output[: len(kept)] == kept
    stacked = jnp.stack(parts, axis=0 if first else -1)
    return stacked.reshape([sizes[x] for x in step.output])


def _terms(coefficients: np.ndarray, own: Labels, kept: Labels, orders: Sequence[Labels]) -> Terms:
    """The sum that a constant stands for, components numbered in the constant's order of axes."""
    where = dict(zip(own, np.nonzero(coefficients), strict=True))
    sizes = dict(zip(own, coefficients.shape, strict=True))

    def numbered(labels: Labels) -> list[int]:
        number = np.zeros(np.count_nonzero(coefficients), int)
        for x in labels:
            number = number * sizes[x] + where[x]
        return number.tolist()

    index = [numbered(tuple(x for x in own if x in order)) for order in (kept, *orders)]
    values = coefficients[tuple(where.values())].tolist()
    return Terms(volume(kept, sizes), tuple(zip(*index, strict=True)), tuple(values))


def _in_groups(
    step: "Step",
    arrays: Sequence[jax.Array],
    terms: Terms,
    kept: Labels,
    sizes: Mapping[str, int],
) -> jax.Array:
    batch, own = step.batch, step.orders[-1]
    shape = [sizes[x] for x in batch]
    flat = []
    for array, order in zip(arrays, step.orders[:-1], strict=True):
        mine = tuple(x for x in own if x in order)
        held = tuple(x for x in batch if x in order)
        turned = array.transpose([order.index(x) for x in (*mine, *held)])
        rows = turned.reshape(volume(mine, sizes), *turned.shape[len(mine) :])
        spread = (0, *(1 + batch.index(x) for x in held))
        flat.append(lax.broadcast_in_dim(rows, (rows.shape[0], *shape), spread))
    value = sum_of_products(flat, terms).reshape([sizes[x] for x in (*kept, *batch)])
    return value.transpose([(*kept, *batch).index(x) for x in step.output])


def _rows(
    array: jax.Array, order: Labels, own: Labels, batch: Labels, shape: Sequence[int]
) -> dict[tuple[int, ...], jax.Array]:
    """Components of a dense operand by their index, each with the axes of the batch."""
    inner = [i for i, x in enumerate(order) if x in own]
    # Split and not indexed: the gradient is one concatenation, not a sum of padded components.
    found: dict[tuple[int, ...], jax.Array] = {(): array}
    for i in inner:
        ones = (1,) * array.shape[i]
        found = {
            (*index, k): part
            for index, whole in found.items()
            for k, part in enumerate(lax.split(whole, ones, axis=i))
        }
    left = [x for x in order if x not in own]
    mine = [x for x in batch if x in order]
    turned = [left.index(x) for x in mine]
    spread = [batch.index(x) for x in mine]

    def of_batch(part: jax.Array) -> jax.Array:
        part = lax.squeeze(part, inner)
        part = part if left == mine else part.transpose(turned)
        return part if len(mine) == len(batch) else lax.broadcast_in_dim(part, shape, spread)

    return {index: of_batch(part) for index, part in found.items()}
