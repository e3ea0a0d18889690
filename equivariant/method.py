"""What every way of computing a bilinear map shares: shapes, weights, and the choice by cost.

A method is static: it is built from a `BilinearMap`, hashable, and holds no arrays that are traced.
It offers programs; the planner's `cheapest` chooses one for the shapes at hand.
"""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float

from tensornet.planner import Plan, Repeated, Work, cheapest, plan
from tensornet.validation import as_real

from .bilinear import BilinearMap

# Operations per second of an elementwise loop, over those of a large matrix product.
_ELEMENTWISE = 0.05
# Products to compute in one tile.
_TILE = 1024
# Bytes of temporaries that stay with the process between calls on a CPU. Beyond, pages come anew
# and zeroed, which costs as much as so many readings of them.
_KEPT, _FRESH = 32e6, 12
# Sizes of the batch that are told apart: below all is overhead, above all is proportional.
_SMALLEST, _LARGEST = 16, 16384


@dataclass(frozen=True)
class Use:
    """The call that a program is made for.

    Attributes:
        channels: of the result.
        batch: typical size of the batch, for which costs are compared.
        dtype: of the inputs.
        gradients: whether those with respect to both inputs count.
        shared: for either input, whether it has one channel for all.
        varying: whether weights differ along the batch.
        device: kind of device.
    """

    channels: int = 1
    batch: int = 1024
    dtype: str = "float32"
    gradients: bool = True
    shared: tuple[bool, bool] = (False, False)
    varying: bool = False
    device: str | None = None

    @property
    def rows(self) -> int:
        """Products to compute."""
        return self.batch * self.channels

    def channels_of(self, position: int) -> int:
        """Channels of one input."""
        return 1 if self.shared[position] else self.channels

    def loop(self, operations: float | int, entries: float | int) -> Work:
        """Price an elementwise loop that reads and writes so many entries."""
        factor = 3 if self.gradients else 1
        nbytes = np.dtype(self.dtype).itemsize * entries
        return Work(factor * operations, factor * nbytes, efficiency=_ELEMENTWISE)

    def product(self, expression: str, *shapes: tuple[int, ...]) -> Plan:
        """Plan a contraction of operands that all vary; index b is the batch."""
        return planned(expression, *shapes, use=self, gradients=self.gradients)


def planned(
    expression: str,
    *shapes: tuple[int, ...],
    use: Use,
    gradients: bool = False,
    batch: str | None = "b",
) -> Plan:
    """Plan a contraction for a call; programs have most of theirs in common, so they are kept."""
    return _planned(expression, shapes, batch, use.dtype, gradients, use.device)


@lru_cache(maxsize=8192)
def _planned(
    expression: str,
    shapes: tuple[tuple[int, ...], ...],
    batch: str | None,
    dtype: str,
    gradients: bool,
    device: str | None,
) -> Plan:
    return plan(expression, *shapes, batch=batch, dtype=dtype, gradients=gradients, device=device)


class Program(NamedTuple):
    """One way to compute a map.

    Attributes:
        cost: what `cheapest` compares, `Plan`s and `Work`.
        run: takes x [batch, channels or 1, d1], y alike, and weights [batch or 1, channels,
            *weight_shape] or None; returns [batch, channels, d_out].
    """

    cost: tuple[Any, ...]
    run: Callable[..., Array]


class Table(NamedTuple):
    """The product with a constant matrix: what it costs, and how to run it."""

    cost: tuple[Any, ...]
    run: Callable[[Array], Array]


def times_table(table: np.ndarray, channels: int, use: Use) -> Table:
    """Plan x [batch, channels, i] times `table` [i, q]; its gradient needs no more than x's."""
    shape = (use.batch, channels, len(table))
    made = planned("bci,iq->bcq", shape, table.shape, use=use)
    cost: tuple[Any, ...] = (made,)
    if use.gradients:
        shape = (use.batch, channels, table.shape[1])
        cost += (planned("bcq,iq->bci", shape, table.shape, use=use),)
    return Table(cost, lambda x: made(x, jnp.asarray(table, x.dtype)))


@dataclass(frozen=True)
class Method(abc.ABC):
    """A way to compute a bilinear map, `method(x, y, weights)`.

    Attributes:
        map: what is computed.
        batch: typical size of the batch, for which programs are compared; by default the one of
            each call (see `typical_batch`).
        gradients: whether gradients with respect to both inputs count in the comparison.
    """

    map: BilinearMap
    batch: int | None = None
    gradients: bool = True

    name: ClassVar[str]

    @property
    def error_bound(self) -> float:
        """Bound of the error over |x| |y|, for weights of one; 0 where there is only rounding."""
        return 0.0

    @abc.abstractmethod
    def programs(self, use: Use) -> dict[str, Program]:
        """Return programs for the map, by name."""

    def alternatives(self, use: Use) -> dict[str, Program]:
        """Return what is compared: programs, and the same tile by tile."""
        whole = {
            name: program._replace(cost=(*program.cost, *_fresh_memory(program.cost, use)))
            for name, program in self.programs(use).items()
        }
        return {**whole, **_in_tiles(self, use)}

    def method_for(self, use: Use) -> str:  # noqa: ARG002  the same for all
        """Return the name of the method that runs."""
        return self.name

    def choose(self, use: Use) -> tuple[str, Program, str]:
        """Return the program that the planner expects to be the fastest, and a table of all."""
        return _chosen(self, replace(use, device=use.device or jax.default_backend()))

    def __call__(
        self,
        x: Float[ArrayLike, "*batch1 channels1 d1"],
        y: Float[ArrayLike, "*batch2 channels2 d2"],
        weights: ArrayLike | None = None,
    ) -> Float[Array, "*batch channels d_out"]:
        """Compute the map, channel by channel.

        Args:
            x: the first input. Batch axes of both are broadcast, and one may have a single channel
                that all share.
            y: the second, of the same dtype.
            weights: `[*batch, channels, *weight_shape]`, or what broadcasts to it; None where the
                map has none.

        Raises:
            ValueError: shapes that do not fit the irreps or each other.
            TypeError: dtypes that differ or are not float32 or float64.
        """
        first = _operand(x, "x", self.map.irreps_in1, "irreps_in1")
        second = _operand(y, "y", self.map.irreps_in2, "irreps_in2", first.dtype)
        factors = self.map.check_weights(weights)
        shapes = {"x": first.shape[:-1], "y": second.shape[:-1]}
        tail = self.map.weight_shape or ()
        if factors is not None:
            _same_dtype(factors, "weights", first.dtype)
            shapes["weights"] = factors.shape[: factors.ndim - len(tail)]
        *batch, channels = _broadcast(shapes)
        first, second = (
            jnp.broadcast_to(z, (*batch, *z.shape[-2:])).reshape(-1, *z.shape[-2:])
            for z in (first, second)
        )
        varying = math.prod(shapes.get("weights", ())[:-1]) > 1
        if factors is not None:
            head = (*batch, channels) if varying else (1, channels)
            own = shapes["weights"][-len(head) :]
            own = (1,) * (len(head) - len(own)) + own
            factors = jnp.broadcast_to(factors.reshape(*own, *tail), (*head, *tail))
            factors = factors.reshape(-1, channels, *tail)
        shared = (first.shape[1] < channels, second.shape[1] < channels)
        size = self.batch or typical_batch(batch)
        use = Use(channels, size, str(first.dtype), self.gradients, shared, varying)
        z = self._run(use)(first, second, factors)
        return z.reshape(*batch, channels, z.shape[-1])

    def _run(self, use: Use) -> Callable[..., Array]:
        """Return what runs: where no derivative is taken, the program that is best without."""
        if not use.gradients:
            return self._runner(use)
        return _unless_differentiated(
            self._runner(replace(use, gradients=False)), self._runner(use)
        )

    def _runner(self, use: Use) -> Callable[..., Array]:
        """Return the program for a call, chosen once it runs."""
        return lambda *operands: self.choose(use)[1].run(*operands)


def _unless_differentiated(
    alone: Callable[..., Array], differentiated: Callable[..., Array]
) -> Callable[..., Array]:
    """Return one of two functions that compute the same; where derivatives are taken, the other."""
    run = jax.custom_jvp(alone)

    def rule(primals: Any, tangents: Any) -> tuple[Array, Array]:
        live = [
            k
            for k, tangent in enumerate(tangents)
            if tangent is not None and not isinstance(tangent, SymbolicZero)
        ]

        def of_live(*given: Array) -> Array:
            arguments = list(primals)
            for k, value in zip(live, given, strict=True):
                arguments[k] = value
            return differentiated(*arguments)

        return jax.jvp(of_live, [primals[k] for k in live], [tangents[k] for k in live])

    run.defjvp(rule, symbolic_zeros=True)
    return run


def typical_batch(axes: Sequence[int]) -> int:
    """Return the size for which a call with these batch axes is planned.

    That is the nearest power of two within bounds, so that few sizes are told apart; the default
    of `Use` where there are no axes, as under `jax.vmap`.
    """
    if not axes:
        return Use.batch
    size = min(max(math.prod(axes), _SMALLEST), _LARGEST)
    return 2 ** round(math.log2(size))


@lru_cache(maxsize=1024)
def _chosen(method: Method, use: Use) -> tuple[str, Program, str]:
    programs = method.alternatives(use)
    name, _, table = cheapest({k: p.cost for k, p in programs.items()}, device=use.device)
    return name, programs[name], table


def _fresh_memory(cost: tuple[Any, ...], use: Use) -> tuple[Work, ...]:
    """Price temporaries that are too large for the system to keep from call to call."""
    held = _held(cost)
    if use.device != "cpu" or held < _KEPT:
        return ()
    return (Work(0, _FRESH * held),)


def _held(cost: Any) -> float | int:
    if isinstance(cost, Repeated):
        return _held(cost.what)
    if isinstance(cost, Plan):
        return cost.peak_bytes
    return sum(map(_held, cost)) if isinstance(cost, tuple) else 0


def _in_tiles(method: Method, use: Use) -> dict[str, Program]:
    """Return programs that go through the batch tile by tile, each recomputed for its gradient.

    What lies between inputs and result then stays in the caches.
    """
    size = max(1, _TILE // use.channels)
    tiles = use.batch // size
    if tiles < 2:
        return {}
    inner = replace(use, batch=size)
    again = method.programs(replace(inner, gradients=False)) if use.gradients else {}
    programs = {}
    for name, program in method.programs(inner).items():
        cost = program.cost + (again[name].cost if use.gradients else ())
        run = partial(_run_in_tiles, program.run, size, use.varying)
        programs[f"{name}, in tiles"] = Program((Repeated(cost, tiles),), run)
    return programs


def _run_in_tiles(
    run: Callable[..., Array], size: int, varying: bool, x: Array, y: Array, weights: Array | None
) -> Array:
    def of_tile(arrays: Sequence[Array]) -> Array:
        return run(*arrays) if varying else run(*arrays, weights)

    arrays = [x, y]
    if varying and weights is not None:
        arrays.append(weights)
    whole = len(x) // size * size
    parts = []
    if whole:
        tiles = [z[:whole].reshape(-1, size, *z.shape[1:]) for z in arrays]
        made = jax.lax.map(jax.checkpoint(of_tile), tiles)
        parts.append(made.reshape(whole, *made.shape[2:]))
    if whole < len(x) or not whole:
        parts.append(of_tile([z[whole:] for z in arrays]))
    return jnp.concatenate(parts) if len(parts) > 1 else parts[0]


def _operand(x: Any, argument: str, irreps: Any, name: str, dtype: Any = None) -> Array:
    array = as_real(x, argument)
    if array.ndim < 2 or array.shape[-1] != irreps.dim:
        raise ValueError(
            f"{argument}: expected shape [..., channels, {irreps.dim}] for {name} = {irreps}, got "
            f"{array.shape}"
        )
    if dtype is not None:
        _same_dtype(array, argument, dtype)
    return array


def _same_dtype(array: Array, argument: str, dtype: Any) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{argument}: expected {dtype} like x, got {array.dtype}")


def _broadcast(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        named = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"{', '.join(shapes)}: expected batch axes and channels that broadcast, got {named}"
        ) from error
