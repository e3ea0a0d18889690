"""Memory limits: a contraction cut into equal slices that run one after the other.

Slices of indices in the output are stacked, slices of summed indices are added up; each becomes
one `lax.scan`, so the program does not grow with their number. In the gradient every slice is
computed again, so that nothing of it is stored.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from . import execute
from .network import Network, divisors, volume

if TYPE_CHECKING:
    from .plan import Plan

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def limit_bytes(limit: int | str) -> int:
    """Read a memory limit: bytes, or text such as `"2GB"` or `"512 MiB"`.

    Raises:
        ValueError: not a positive amount of memory.
    """
    value: float | int
    if isinstance(limit, str):
        text = limit.strip().upper()
        number = text.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
        unit = text[len(number) :].strip()
        try:
            value = float(number) * {**_UNITS, **_BINARY}[unit]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f'memory_limit: expected bytes or text such as "2GB", got {limit!r}'
            ) from error
    else:
        value = limit
    if isinstance(value, bool) or not value > 0:
        raise ValueError(f"memory_limit: expected a positive amount, got {limit!r}")
    return int(value)


def sliced_plan(
    network: Network, limit: int, make: Callable[[Network], "Plan"], *, gradients: bool
) -> "Plan":
    """Cut more and more indices until the plan of a slice meets the limit.

    Args:
        network: what is contracted.
        limit: bytes for temporaries and result.
        make: plans one slice.
        gradients: count what the gradient needs too.

    Raises:
        ValueError: no slicing meets the limit; the message names the smallest peak found.
    """

    def plan_of(counts: dict[str, int]) -> "Plan":
        return cut_plan(network, counts, make, gradients=gradients)

    counts: dict[str, int] = {}
    best = plan_of(counts)
    while best.peak_bytes > limit:
        options = [(plan_of(more), more) for more in _cuts(network, counts)]
        meeting = [o for o in options if o[0].peak_bytes <= limit]
        if meeting:
            best, counts = min(meeting, key=lambda o: (o[0].seconds, o[0].n_slices))
            break
        smallest = min(options, key=lambda o: (o[0].peak_bytes, o[0].n_slices), default=None)
        if smallest is None or smallest[0].peak_bytes >= best.peak_bytes:
            raise ValueError(
                f"memory_limit: no slicing of {network.expression!r} needs at most {limit} "
                f"bytes; the smallest achievable peak is {best.peak_bytes} bytes"
            )
        best, counts = smallest
    for label in list(counts):  # an earlier cut may have been finer than the last one needs
        for d in (1, *divisors(counts[label])):
            coarser = plan_of({x: n for x, n in {**counts, label: d}.items() if n > 1})
            if coarser.peak_bytes <= limit and coarser.seconds <= best.seconds:
                best, counts = coarser, dict(coarser.slices)
                break
    return best


def cut_plan(
    network: Network,
    counts: dict[str, int],
    make: Callable[[Network], "Plan"],
    *,
    gradients: bool,
) -> "Plan":
    """Plan with given cuts.

    Raises:
        ValueError: a label is unknown, or its length is not a multiple of the parts.
    """
    for label, n in counts.items():
        size = network.sizes.get(label)
        if size is None:
            raise ValueError(f"slices: index {label!r} is not in {network.expression!r}")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1 or size % n:
            raise ValueError(
                f"slices: index {label!r} of size {size} cannot be cut into {n} equal parts"
            )
    counts = {x: n for x, n in counts.items() if n > 1}
    return _with_peak(make(network.sliced(counts)), network, counts, gradients)


def _cuts(network: Network, counts: dict[str, int]) -> list[dict[str, int]]:
    """Every way to cut one index further."""
    return [
        {**counts, label: d}
        for label, size in network.sizes.items()
        for d in divisors(size)
        if d > counts.get(label, 1) and d % counts.get(label, 1) == 0
    ]


def _with_peak(part: "Plan", network: Network, counts: dict[str, int], gradients: bool) -> "Plan":
    """The plan of all slices, from that of one; its peak counts what surrounds the slices."""
    item = network.itemsize
    part_sizes = part.network.sizes
    peak = part.peak_bytes
    if gradients:  # what the steps leave is kept, and each gets a gradient of its size
        made = sum(volume(step.output, part_sizes) for step in part.steps)
        peak = 4 * item * made + sum(step.copied for step in part.steps)
    ordered = sorted(counts.items(), key=lambda kv: (kv[0] not in network.output, kv[0]))
    labels = [x for x, _ in ordered]
    given = set(network.arguments)
    for p, term in enumerate(network.terms):
        cut = [x for x in labels if x in term]
        whole = item * math.prod(network.shapes[p])
        if cut:
            # Cut along its leading axes an operand is used in place; else a copy of it is cut,
            # and the loop may hold another. Two of its parts are in use at once.
            peak += 2 * item * math.prod(part.network.shapes[p])
            peak += 2 * whole * (not _in_place(term, cut, part_sizes))
        if gradients and p in given:  # a gradient that slices add to is held three times
            peak += whole * (3 if cut != labels else 1)
            peak += 2 * item * math.prod(part.network.shapes[p]) * bool(cut)
    if counts:
        stacked = [x for x in labels if x in network.output]
        copies = 1 if _in_place(network.output, stacked, part_sizes) else 2
        copies += 1 if len(stacked) < len(labels) else 0
        peak += copies * item * math.prod(network.output_shape)
    # A few per cent for alignment and for small things the count leaves out.
    peak = math.ceil(1.02 * peak)
    return dataclasses.replace(part, network=network, slices=tuple(ordered), peak_bytes=peak)


def _in_place(term: Sequence[str], cut: Sequence[str], part_sizes: dict[str, int]) -> bool:
    """Tell whether the parts of a tensor lie one after the other as it is stored."""
    return list(term[: len(cut)]) == list(cut) and all(part_sizes[x] == 1 for x in cut[:-1])


def run_slices(
    plan: "Plan", arrays: Sequence[jax.Array], *, strip_exponent: bool, merge: bool
) -> Any:
    """Run a plan's steps slice by slice; return the value and its log scale, if any."""
    network = plan.network
    counts = dict(plan.slices)
    stacked = [x for x, _ in plan.slices if x in network.output]
    summed = [x for x, _ in plan.slices if x not in network.output]
    arrays = [
        _cut(array, term, stacked + summed, counts)
        for array, term in zip(arrays, network.terms, strict=True)
    ]

    def one(parts: Sequence[jax.Array]) -> Any:
        return execute.run_steps(plan, parts, strip_exponent=strip_exponent, merge=merge)

    def inner(parts: Sequence[jax.Array]) -> Any:
        return _added(one, parts, _Cuts(network, summed, counts)) if summed else one(parts)

    if not stacked:
        return inner(arrays)
    cuts = _Cuts(network, stacked, counts)

    @jax.checkpoint
    def body(number: jax.Array, moving: list[jax.Array]) -> Any:
        return number + 1, inner(cuts.parts(arrays, moving, number))

    first = jnp.zeros((), jnp.int32)
    _, (value, log) = lax.scan(body, first, cuts.moving(arrays), length=cuts.total)
    if strip_exponent:
        top = jnp.max(log)
        value = value * _lifted(jnp.exp(log - top), value)
        log = top
    return _joined(value, network, stacked, counts), log


def _cut(
    array: jax.Array, term: Sequence[str], labels: Sequence[str], counts: dict[str, int]
) -> jax.Array:
    """Split the cut axes of an operand into (slices, part) and lead with the slices.

    An axis of length 1 that is broadcast is left alone, and its slices are not led with.
    """
    order = [x for x in labels if x in term and array.shape[term.index(x)] != 1]
    if not order:
        return array
    shape: list[int] = []
    at: dict[str, int] = {}
    for x, n in zip(term, array.shape, strict=True):
        if x in order:
            at[x] = len(shape)
            shape += [counts[x], n // counts[x]]
        else:
            shape.append(n)
    lead = [at[x] for x in order]
    rest = [i for i in range(len(shape)) if i not in lead]
    return array.reshape(shape).transpose(*lead, *rest)


class _Cuts:
    """Which operands a group of cut indices slices, and which part of each a slice needs."""

    def __init__(self, network: Network, labels: Sequence[str], counts: dict[str, int]):
        self.labels, self.counts = labels, counts
        self.total = math.prod(counts[x] for x in labels)
        self.cut = [
            [any(x == y and n != 1 for y, n in zip(term, shape, strict=True)) for x in labels]
            for term, shape in zip(network.terms, network.shapes, strict=True)
        ]

    def moving(self, arrays: Sequence[jax.Array]) -> list[jax.Array]:
        """Operands that every slice needs another part of: a scan runs through them."""
        return [
            array.reshape(self.total, *array.shape[len(cut) :])
            for array, cut in zip(arrays, self.cut, strict=True)
            if all(cut)
        ]

    def parts(
        self, arrays: Sequence[jax.Array], moving: Sequence[jax.Array], number: jax.Array
    ) -> list[jax.Array]:
        """The part of every operand that one slice needs."""
        given = iter(moving)
        found = []
        for array, cut in zip(arrays, self.cut, strict=True):
            if all(cut):
                found.append(next(given))
            elif any(cut):
                depth = sum(cut)
                flat = array.reshape(math.prod(array.shape[:depth]), *array.shape[depth:])
                index = self._index(number, cut)
                found.append(lax.dynamic_index_in_dim(flat, index, keepdims=False))
            else:
                found.append(array)
        return found

    def _index(self, number: jax.Array, cut: Sequence[bool]) -> jax.Array:
        """Which part of an operand cut by some of the labels belongs to a slice."""
        index = jnp.zeros_like(number)
        after = self.total
        for x, c in zip(self.labels, cut, strict=True):
            after //= self.counts[x]
            if c:
                index = index * self.counts[x] + (number // after) % self.counts[x]
        return index


def _added(
    one: Callable[[Sequence[jax.Array]], Any], arrays: Sequence[jax.Array], cuts: _Cuts
) -> Any:
    """Add up the slices of summed indices."""

    @jax.checkpoint
    def body(carry: Any, moving: list[jax.Array]) -> Any:
        number, total, scale = carry
        value, log = one(cuts.parts(arrays, moving, number))
        if scale is None:
            return (number + 1, total + value, None), None
        top = jnp.maximum(scale, log)
        old, new = jnp.exp(scale - top), jnp.exp(log - top)
        total = total * old.astype(value.dtype) + value * new.astype(value.dtype)
        return (number + 1, total, top), None

    moving = cuts.moving(arrays)
    first = jnp.zeros((), jnp.int32)
    shape = jax.eval_shape(lambda: one(cuts.parts(arrays, [x[0] for x in moving], first)))
    start = jnp.zeros(shape[0].shape, shape[0].dtype)
    log = None if shape[1] is None else jnp.full((), -jnp.inf, shape[1].dtype)
    (_, value, log), _ = lax.scan(body, (first, start, log), moving, length=cuts.total)
    return value, log


def _lifted(factor: jax.Array, value: jax.Array) -> jax.Array:
    return factor.astype(value.dtype).reshape(-1, *[1] * (value.ndim - 1))


def _joined(
    value: jax.Array, network: Network, stacked: Sequence[str], counts: dict[str, int]
) -> jax.Array:
    """Bring stacked slices back to their places in the output."""
    value = value.reshape(*(counts[x] for x in stacked), *value.shape[1:])
    k = len(stacked)
    axes: list[int] = []
    for i, x in enumerate(network.output):
        axes += [stacked.index(x)] if x in stacked else []
        axes.append(k + i)
    moved = value.transpose(axes)
    shape: list[int] = []
    position = 0
    for x in network.output:
        if x in stacked:
            shape.append(moved.shape[position] * moved.shape[position + 1])
            position += 2
        else:
            shape.append(moved.shape[position])
            position += 1
    return moved.reshape(shape)
