"""Products of fields on a grid of rings, whose transforms go in two steps."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensornet.planner import Work

from ..method import Program, Use, planned
from .fields import Field, Fields
from .separable import Separable, separable

# Entries taken by index in a second, over operations of a large matrix product.
_BY_INDEX = 0.005


def through_rings(fields: Fields, use: Use) -> Program:
    """Return the program of products of fields on Gauss-Legendre rings (see `Separable`)."""
    degree = sum(max(ir.l for _, ir in each) for each in fields.irreps)
    first, second, last = (separable(each, degree) for each in fields.irreps)
    cost1, to_first = _synthesis(first, fields.first, use.channels_of(0), use)
    cost2, to_second = _synthesis(second, fields.second, use.channels_of(1), use)
    cost3, back = _analysis(last, fields.out, use)
    points = first.points.shape[0] * first.points.shape[1]
    products = use.rows * sum(len(fields.first[p.first].scale) for p in fields.products)
    everywhere = (*fields.first, *fields.second, *fields.out)
    held = use.rows * sum(len(field.scale) for field in everywhere)
    loop = use.loop(2 * points * products, points * held)

    def run(x: Array, y: Array, _: Any) -> Array:
        f, g = to_first(x), to_second(y)
        sums: dict[int, Array] = {}
        for p in fields.products:
            made = f[p.first] * g[p.second] * p.sign
            sums[p.out] = sums[p.out] + made if p.out in sums else made
        return back([sums[m] for m in range(len(fields.out))])

    return Program((*cost1, *cost2, loop, *cost3), run)


def _synthesis(
    way: Separable, fields: Sequence[Field], channels: int, use: Use
) -> tuple[tuple[Any, ...], Callable[[Array], list[Array]]]:
    """Return cost and function: from coefficients to fields [batch, channels, R, ring, angle]."""
    polar = (way.legendre, way.slopes, way.over_sine)
    rings, angles = way.points.shape[:2]
    order = sorted(range(len(fields)), key=lambda k: fields[k].component == 2)
    tables = [_by_terms(polar[fields[k].component], fields[k]) for k in order]
    widths = [table.shape[2] for table in tables]
    plain = sum(w for k, w in zip(order, widths, strict=True) if fields[k].component < 2)
    shape = (use.batch, channels, *way.orders.gather.shape)
    first_cost, legendre = _step("bcsmn,mnq->bcsmq", shape, np.concatenate(tables, axis=2), use)
    cost = [_by_index(np.prod(shape), use), *first_cost]
    parts = []
    for fourier, start, stop in ((way.fourier, 0, plain), (way.turned, plain, sum(widths))):
        if start < stop:
            inner = (*shape[:4], stop - start)
            own_cost, step = _step("bcsmq,sma->bcqa", inner, fourier, use)
            cost += own_cost
            parts.append((start, stop, step))

    def run(x: Array) -> list[Array]:
        sorted_x = jnp.take(x, way.orders.gather, axis=-1, mode="fill", fill_value=0)
        polar_parts = legendre(sorted_x)
        values = [step(polar_parts[..., start:stop]) for start, stop, step in parts]
        joined = jnp.concatenate(values, axis=2) if len(values) > 1 else values[0]
        found = jnp.split(joined, np.cumsum(widths)[:-1], axis=2)
        by_field = {
            k: f.reshape(*f.shape[:2], -1, rings, angles) for k, f in zip(order, found, strict=True)
        }
        return [by_field[k] for k in range(len(fields))]

    return tuple(cost), run


def _analysis(
    way: Separable, fields: Sequence[Field], use: Use
) -> tuple[tuple[Any, ...], Callable[[list[Array]], Array]]:
    """Return cost and function: from the fields of the result to coefficients."""
    table = np.concatenate([_by_terms(way.weighted, field) for field in fields], axis=2)
    width, angles = table.shape[2], way.points.shape[1]
    shape = (use.batch, use.channels, width, angles)
    inner = (use.batch, use.channels, *way.orders.gather.shape[:2], width)
    cost1, fourier = _step("bcqa,sma->bcsmq", shape, way.fourier, use)
    cost2, legendre = _step("bcsmq,mqn->bcsmn", inner, table.swapaxes(1, 2), use)
    cost = (*cost1, *cost2, _by_index(use.rows * way.orders.gather.size, use))

    def run(values: list[Array]) -> Array:
        flat = [h.reshape(*h.shape[:2], -1, angles) for h in values]
        joined = jnp.concatenate(flat, axis=2) if len(flat) > 1 else flat[0]
        found = legendre(fourier(joined))
        return found.reshape(*found.shape[:2], -1)[..., way.orders.position]

    return cost, run


def _step(
    expression: str, shape: tuple[int, ...], table: np.ndarray, use: Use
) -> tuple[tuple[Any, ...], Callable[[Array], Array]]:
    """Return cost and function of a contraction with a constant table."""
    made = planned(expression, shape, table.shape, use=use)
    cost = (made, made) if use.gradients else (made,)
    return cost, lambda x: made(x, jnp.asarray(table, x.dtype))


def _by_index(entries: Any, use: Use) -> Work:
    factor = 3 if use.gradients else 1
    nbytes = 2 * np.dtype(use.dtype).itemsize * int(entries)
    return Work(factor * int(entries), factor * nbytes, efficiency=_BY_INDEX)


def _by_terms(polar: np.ndarray, field: Field) -> np.ndarray:
    """Return the polar part [M, n, B] of a field for each of its terms: `[M, n, R * B]`."""
    scale = field.scale_of_all(polar.shape[1])
    table = polar[:, :, None] * scale.T[:, :, None]
    return table.reshape(*polar.shape[:2], -1)
