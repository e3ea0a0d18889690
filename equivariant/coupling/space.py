"""Products of fields in a space that tables lead into and out of."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from tensornet.planner import Work

from ..method import Program, Table, Use, times_table
from .fields import Fields

# Operations that taking an entry from among others costs.
_JUMP = 8
# Columns that products on a CPU compute side by side.
_COLUMNS = 16
# Terms that a result in single precision is summed of at once: more lose digits.
_TERMS = 1024


class Space(NamedTuple):
    """Where fields are multiplied: Q numbers stand for a function.

    Q may be another for values than for the components of gradients. Arrays that `enter` takes are
    [..., Q], those that `leave` returns [..., Q of the result]; between them they are what
    `multiply` takes and returns. Where a function gets a bool, it tells whether arrays are of
    gradients' components.

    Attributes:
        first, second: from coefficients to components 0, 1, 2 of a field, [d, Q] each.
        out: from what a function is by products of values, and by products of gradients'
            components, to coefficients, [Q, d] each. The same array where they may be summed.
        enter: gets an array.
        multiply: gets two arrays.
        leave: gets a sum of products.
        price: what these three cost, for a number of functions that enter, are multiplied, leave.
    """

    first: Sequence[Float64[np.ndarray, "d1 Q1"]]
    second: Sequence[Float64[np.ndarray, "d2 Q2"]]
    out: Sequence[Float64[np.ndarray, "Q d"]]
    enter: Callable[[Array, bool], Array]
    multiply: Callable[[Array, Array, bool], Array]
    leave: Callable[[Array], Array]
    price: Callable[[Use, bool, float, float, float], Work]

    def kind(self, tangent: bool) -> int:
        """Return which of `out` is for products of values or of components."""
        return int(tangent and self.out[1] is not self.out[0])


def pointwise(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], out: Sequence[np.ndarray]
) -> Space:
    """Return a space of values at points, multiplied one by one.

    Points that count for nothing fill vectors up, which products on a CPU come in: 72 points take
    longer than 80.
    """
    filled = [_filled(table, 0) for table in out]

    def price(use: Use, tangent: bool, entering: float, products: float, leaving: float) -> Work:
        size = len(filled[tangent])
        return use.loop(2 * size * products, size * (entering + leaving))

    return Space(
        [_filled(table, 1) for table in first],
        [_filled(table, 1) for table in second],
        filled if out[0] is not out[1] else filled[:1] * 2,
        enter=lambda f, _: f,
        multiply=lambda f, g, _: f * g,
        leave=lambda h: h,
        price=price,
    )


def _filled(table: np.ndarray, axis: int, more: int | None = None) -> np.ndarray:
    widths = [(0, 0)] * table.ndim
    widths[axis] = (0, -table.shape[axis] % _COLUMNS if more is None else more)
    return np.pad(table, widths)


def _more(components: int, use: Use) -> int:
    """Return how many zeros make coefficients columns that a CPU's products are fast with.

    Columns of a result, and of a gradient, come in 16, 8, or 4 at a time and then one by one: 81
    coefficients take longer than 84, 25 longer than 32. The copies cost less from ten on.
    """
    if (use.device or jax.default_backend()) != "cpu" or components <= _COLUMNS // 2:
        return 0
    beyond = components % _COLUMNS
    return -components % (_COLUMNS if beyond > 4 else 4)


def through(space: Space, fields: Fields, use: Use) -> Program:
    """Return the program that takes both inputs into a space, multiplies there, and returns."""
    tangent = [fields.first[p.first].component > 0 for p in fields.products]
    first, second = (_entrance(space, fields, side, use) for side in (0, 1))
    sums = sorted({(p.out, space.kind(t)) for p, t in zip(fields.products, tangent, strict=True)})
    back = _exit(space, fields, sums, use)
    prices = []
    for t in sorted(set(tangent)):
        entering = sum(
            use.batch * use.channels_of(side) * len(field.scale)
            for side, own in enumerate((fields.first, fields.second))
            for field in own
            if (field.component > 0) == t
        )
        products = [p for p, own in zip(fields.products, tangent, strict=True) if own == t]
        made = use.rows * sum(len(fields.first[p.first].scale) for p in products)
        leaving = use.rows * sum(len(fields.out[m].scale) for m in {p.out for p in products})
        prices.append(space.price(use, t, entering, made, leaving))

    def run(x: Array, y: Array, _: Any) -> Array:
        f, g = first.run(x), second.run(y)
        found: dict[tuple[int, int], Array] = {}
        for p, t in zip(fields.products, tangent, strict=True):
            made = space.multiply(f[p.first], g[p.second], t)
            made = made if p.sign > 0 else -made
            key = (p.out, space.kind(t))
            found[key] = found[key] + made if key in found else made
        return back.run([found[key] for key in sums])

    return Program((*first.cost, *second.cost, *prices, *back.cost), run)


class _Way(NamedTuple):
    """Into the space for one input, or back: what it costs and how."""

    cost: tuple[Any, ...]
    run: Callable[[Any], Any]


def _entrance(space: Space, fields: Fields, side: int, use: Use) -> _Way:
    tables = (space.first, space.second)[side]
    own = (fields.first, fields.second)[side]
    irreps, channels = fields.irreps[side], use.channels_of(side)
    rows = use.batch * channels
    groups = {field.members: _runs(irreps, field.members) for field in own}
    steps, copied = [], 0
    for field in own:
        kept = np.concatenate([tables[field.component][run] for run in groups[field.members]])
        columns = kept[:, None] * _repeated(field.scale, irreps, field.members).T[:, :, None]
        columns = columns.reshape(len(kept), -1)
        steps.append(times_table(_filled(columns, 0, _more(len(kept), use)), channels, use))
    for runs in groups.values():
        size = sum(run.stop - run.start for run in runs)
        copied += size if runs != [slice(0, irreps.dim)] or _more(size, use) else 0

    def run(x: Array) -> list[Array]:
        parts = {}
        for members, runs in groups.items():
            part = _joined([x[..., run] for run in runs])
            parts[members] = _padded(part, _more(part.shape[-1], use))
        return [
            space.enter(
                step.run(parts[field.members]).reshape(*x.shape[:2], len(field.scale), -1),
                field.component > 0,
            )
            for step, field in zip(steps, own, strict=True)
        ]

    moved = use.loop(_JUMP * copied * rows, 2 * copied * rows)
    cost = (*(c for step in steps for c in step.cost), moved)
    return _Way(cost, run)


def _exit(space: Space, fields: Fields, sums: Sequence[tuple[int, int]], use: Use) -> _Way:
    irreps = fields.irreps[2]
    steps: list[list[tuple[slice, Table]]] = []
    left = [fields.out[m] for m, _ in sums]
    for field, (_, kind) in zip(left, sums, strict=True):
        table = space.out[kind]
        kept = np.concatenate([table[:, run] for run in _runs(irreps, field.members)], axis=1)
        rows = kept * _repeated(field.scale, irreps, field.members)[:, None]
        rows = rows.reshape(-1, rows.shape[2])
        rows = _filled(rows, 1, _more(rows.shape[1], use))
        edges = np.linspace(0, len(rows), -(-len(rows) // _TERMS) + 1).astype(int).tolist()
        parts = [slice(*pair) for pair in itertools.pairwise(edges)]
        steps.append([(part, times_table(rows[part], use.channels, use)) for part in parts])
    pieces = _pieces(irreps, [field.members for field in fields.out])
    copied = irreps.dim * use.rows if len(pieces) > 1 else 0

    def run(found: list[Array]) -> Array:
        results: dict[tuple[int, ...], Array] = {}
        for h, parts, field in zip(found, steps, left, strict=True):
            flat = space.leave(h).reshape(*h.shape[:2], -1)
            for part, step in parts:
                made = step.run(flat[..., part])
                known = results.get(field.members)
                results[field.members] = made if known is None else known + made
        # Of each group's results without the zeros that fill them up.
        return _joined([results[members][..., run] for members, run in pieces])

    own = (c for parts in steps for _, step in parts for c in step.cost)
    return _Way((*own, use.loop(_JUMP * copied, 2 * copied)), run)


def _padded(x: Array, more: int) -> Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)]) if more else x


def _joined(arrays: Sequence[Array]) -> Array:
    return jnp.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]


def _repeated(scale: np.ndarray, irreps: e3nn.Irreps, members: Sequence[int]) -> np.ndarray:
    """Repeat a factor of each member for its components."""
    return np.repeat(scale, [_dimension(irreps, n) for n in members], axis=1)


def _dimension(irreps: e3nn.Irreps, position: int) -> int:
    _, irrep = tuple(irreps)[position]
    return irrep.dim


def _runs(irreps: e3nn.Irreps, members: Sequence[int]) -> list[slice]:
    """Return the components of some irreps, neighbours joined."""
    runs: list[slice] = []
    slices = irreps.slices()
    for own in (slices[n] for n in members):
        if runs and runs[-1].stop == own.start:
            runs[-1] = slice(runs[-1].start, own.stop)
        else:
            runs.append(own)
    return runs


def _pieces(
    irreps: e3nn.Irreps, groups: Sequence[tuple[int, ...]]
) -> list[tuple[tuple[int, ...], slice]]:
    """Return from which group's result, and where there, all components come in their order."""
    places: dict[int, tuple[tuple[int, ...], slice]] = {}
    for members in groups:
        end = 0
        for n in members:
            start, end = end, end + _dimension(irreps, n)
            places[n] = (members, slice(start, end))
    pieces: list[tuple[tuple[int, ...], slice]] = []
    for _, (members, own) in sorted(places.items()):
        if pieces and pieces[-1][0] == members and pieces[-1][1].stop == own.start:
            pieces[-1] = (members, slice(pieces[-1][1].start, own.stop))
        else:
            pieces.append((members, own))
    return pieces
