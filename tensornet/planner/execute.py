"""Lowering to XLA: what each kind of step becomes, and slices as a loop."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..validation import is_traced
from .network import Labels, volume
from .pieces import divided, merged
from .sparse import unroll

if TYPE_CHECKING:
    from .plan import Plan, Step

Sizes = Mapping[str, int]
_EXACT = lax.Precision.HIGHEST
# Sums over leading axes of more entries than this take XLA 10 to 80 times as long on a CPU.
_LONG_ROW = 16384


def run(plan: "Plan", arguments: Sequence[jax.Array], *, strip_exponent: bool, merge: bool) -> Any:
    """Contract `arguments` (the operands that are not constants) as the plan says.

    Args:
        plan: the plan.
        arguments: arrays.
        strip_exponent: return (mantissa, log scale).
        merge: whether free axes may be merged, which is faster where no axis is sharded.
    """
    network = plan.network
    arrays = _with_constants(network, divided(network, arguments))
    if plan.slices:
        from .slicing import run_slices

        value, log = run_slices(plan, arrays, strip_exponent=strip_exponent, merge=merge)
    else:
        value, log = run_steps(plan, arrays, strip_exponent=strip_exponent, merge=merge)
    value = merged(network, value)
    return (value, log) if strip_exponent else value


def run_steps(
    plan: "Plan", arrays: Sequence[jax.Array], *, strip_exponent: bool, merge: bool
) -> tuple[jax.Array, Any]:
    """Run the steps once, on whole operands or on those of one slice."""
    network = plan.network
    sizes: dict[str, int] = {}
    for term, array in zip(network.terms, arrays, strict=True):
        for label, n in zip(term, array.shape, strict=True):
            sizes[label] = max(n, sizes.get(label, n)) if n else 0
    pool = [
        _squeezed(array.astype(network.dtype), term, network.batch)
        for array, term in zip(arrays, network.terms, strict=True)
    ]
    log: Any = jnp.zeros((), _real(network.dtype)) if strip_exponent else None
    if strip_exponent:
        for p in range(len(pool)):
            pool[p], log = _rescaled(pool[p], log)
    for step in plan.steps:
        if step.how == "unroll":
            constant = dict(network.constants)[step.inputs[-1]].value
            dense = [pool[i] for i in step.inputs[:-1]]
            value = unroll(step, dense, constant, sizes)
        else:
            value = run_step(step, [pool[i] for i in step.inputs], sizes, plan.precision, merge)
        if strip_exponent:
            value, log = _rescaled(value, log)
        pool.append(value)
    return pool[-1].reshape([sizes[x] for x in network.output]), log


def run_step(
    step: "Step", arrays: Sequence[jax.Array], sizes: Sizes, precision: str, merge: bool
) -> jax.Array:
    """Run one step on its operands."""
    if step.how == "arrange":
        return _arrange(arrays[0], step.terms[0], step.output)
    x, y = (
        _arrange(array, term, order)
        for array, term, order in zip(arrays, step.terms, step.orders, strict=True)
    )
    if step.how == "matmul":
        return _matmul(x, y, step, sizes, lax.Precision[precision], merge)
    return _loop(x, y, step, sizes, merge)


def is_sharded(arrays: Sequence[jax.Array]) -> bool:
    """Tell whether a concrete operand is spread over devices, unevenly copied."""
    for x in arrays:
        if is_traced(x):
            continue
        sharding = x.sharding
        if len(sharding.device_set) > 1 and not sharding.is_fully_replicated:
            return True
    return False


def _with_constants(network: Any, arguments: Sequence[jax.Array]) -> list[jax.Array]:
    given = iter(arguments)
    known = dict(network.constants)
    return [
        jnp.asarray(known[p].value) if p in known else next(given)
        for p in range(len(network.terms))
    ]


def _squeezed(array: jax.Array, term: Labels, batch: str | None) -> jax.Array:
    kept = [n for n, label in zip(array.shape, term, strict=True) if n != 1 or label == batch]
    return array.reshape(kept)


def _real(dtype: str) -> Any:
    real = jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.dtype(float)
    return jnp.zeros((), real).dtype


def _rescaled(value: jax.Array, log: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The scale is a constant to differentiation: the pair stands for mantissa * exp(log), and
    # what the scale adds to the gradient of one it takes from the other.
    if not value.size:
        return value, log
    scale = lax.stop_gradient(jnp.max(jnp.abs(value)))
    safe = jnp.where((scale > 0) & jnp.isfinite(scale), scale, jnp.ones_like(scale))
    return value / safe.astype(value.dtype), log + jnp.log(safe).astype(log.dtype)


def _arrange(array: jax.Array, term: Labels, output: Labels) -> jax.Array:
    """Take diagonals, sum what the output lacks, and bring the axes to the output's order."""
    labels = list(term)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first, second = [i for i, x in enumerate(labels) if x == label][:2]
            n = array.shape[first]
            rest = [i for i in range(array.ndim) if i not in (first, second)]
            moved = array.transpose(*rest, first, second)
            # The diagonal of an n x n block is every (n + 1)-th entry of it, flat.
            flat = moved.reshape(*moved.shape[:-2], n * n)
            array = flat[..., :: n + 1]
            labels = [labels[i] for i in rest] + [label]
    summed = [i for i, x in enumerate(labels) if x not in output]
    if summed:
        array = _sum(array, summed)
        labels = [x for x in labels if x in output]
    axes = [labels.index(x) for x in output]
    return array if axes == list(range(len(axes))) else array.transpose(axes)


def _sum(array: jax.Array, axes: list[int]) -> jax.Array:
    lead = 0
    while lead in axes and lead < array.ndim:
        lead += 1
    # A sum over leading axes jumps through memory; as a product with ones it does not.
    if 0 < lead < array.ndim:
        n = math.prod(array.shape[:lead])
        ones = jnp.ones((n,), array.dtype)
        flat = array.reshape(n, -1)
        array = lax.dot(ones, flat, precision=_EXACT).reshape(array.shape[lead:])
        axes = [i - lead for i in axes if i >= lead]
    return jnp.sum(array, axis=tuple(axes), dtype=array.dtype) if axes else array


def _matmul(
    x: jax.Array, y: jax.Array, step: "Step", sizes: Sizes, precision: Any, merge: bool
) -> jax.Array:
    batch, contracted = step.batch, step.contracted
    (x, x_free), (y, y_free) = (
        _spread(array, order, batch, contracted, sizes)
        for array, order in zip((x, y), step.orders, strict=True)
    )
    # The first operand's free axes come first in the result.
    if step.output[len(batch) :] != (*x_free[0], *y_free[0]):
        x, x_free, y, y_free = y, y_free, x, x_free
    nb, nc = len(batch), len(contracted)
    x, cx = _merged(x, x_free, nb, nc, merge=merge)
    y, cy = _merged(y, y_free, nb, nc, merge=merge)
    leading = tuple(range(nb))
    value = lax.dot_general(x, y, ((cx, cy), (leading, leading)), precision=precision)
    return value.reshape([sizes[label] for label in step.output])


def _spread(
    array: jax.Array, order: Labels, batch: Labels, contracted: Labels, sizes: Sizes
) -> tuple[jax.Array, tuple[Labels, bool]]:
    """Give an operand all batch axes; return also its free labels and whether they come first."""
    own = [x for x in order if x in batch]
    rest = order[len(own) :]
    if len(own) < len(batch):
        shape = [sizes[x] for x in (*batch, *rest)]
        axes = [batch.index(x) for x in own] + list(range(len(batch), len(shape)))
        array = lax.broadcast_in_dim(array, shape, axes)
    free = tuple(x for x in rest if x not in contracted)
    return array, (free, rest[len(free) :] == contracted)


def _merged(
    array: jax.Array, free: tuple[Labels, bool], nb: int, nc: int, *, merge: bool
) -> tuple[jax.Array, tuple[int, ...]]:
    """Merge the contracted axes into one and the free axes into one.

    XLA copies what has several of either, in the product or in its gradient: it folds the
    transposition of a matrix into the product, and not that of a tensor.
    """
    labels, first = free
    nf = len(labels)
    start = nb + nf if first else nb
    if not merge:
        return array, tuple(range(start, start + nc))
    shape = array.shape
    inner = math.prod(shape[start : start + nc])
    outer = shape[nb : nb + nf] if first else shape[nb + nc :]
    outer = (math.prod(outer),) if outer else ()
    if not nc:
        return array.reshape(*shape[:nb], *outer), ()
    middle = (*outer, inner) if first else (inner, *outer)
    return array.reshape(*shape[:nb], *middle), (nb + len(outer) if first else nb,)


def _loop(x: jax.Array, y: jax.Array, step: "Step", sizes: Sizes, merge: bool) -> jax.Array:
    """Multiply with broadcasting and sum: XLA fuses this into one loop."""
    larger = max(step.orders, key=lambda order: volume(order, sizes))
    joint = list(step.output)
    for label in step.contracted:  # summed axes stay where the larger operand has them
        at = larger.index(label)
        before = [joint.index(q) for q in larger[:at] if q in joint]
        joint.insert(max(before) + 1 if before else 0, label)
    shape = [sizes[label] for label in joint]

    def spread(array: jax.Array, order: Labels) -> jax.Array:
        wanted = tuple(label for label in joint if label in order)
        axes = [joint.index(label) for label in wanted]
        repeat = _broadcast if merge else lax.broadcast_in_dim
        return repeat(_arrange(array, order, wanted), shape, axes)

    value = spread(x, step.orders[0]) * spread(y, step.orders[1])
    if step.contracted:
        axes = [joint.index(label) for label in step.contracted]
        lead = next(i for i in range(len(joint) + 1) if i not in axes)
        if merge and math.prod(shape[lead:]) > _LONG_ROW:
            return _sum(value, axes)
        value = jnp.sum(value, axis=tuple(axes), dtype=value.dtype)
    return value


def _broadcast(array: jax.Array, shape: list[int], axes: list[int]) -> jax.Array:
    """Repeat an array along the axes of `shape` that it lacks.

    Leading ones before long rows as a product with ones: XLA folds that into the loop it is, and
    its gradient is a product as well, where it would be one of the sums that take so long.
    """
    lead = axes[0] if axes else 0
    row = math.prod(shape[lead:])
    if not lead or row <= _LONG_ROW:
        return lax.broadcast_in_dim(array, shape, axes)
    rest = lax.broadcast_in_dim(array, shape[lead:], [i - lead for i in axes])
    ones = jnp.ones((math.prod(shape[:lead]),), array.dtype)
    value = lax.dot_general(ones, rest.reshape(-1), (((), ()), ((), ())), precision=_EXACT)
    return value.reshape(shape)
