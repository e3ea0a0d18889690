"""A plan: the steps of one contraction, which can be run, printed, compared, hashed and saved."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax

from . import execute, saving
from .network import Labels, Network, einsum
from .pieces import check_formats, flat

_KIND = "tensornet.planner.Plan"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step: which tensors it takes, in which axis orders, and what it makes.

    Attributes:
        how: `"matmul"`, `"loop"` (multiply and sum, left to fusion), `"arrange"` (diagonals,
            sums and axis order of one operand) or `"unroll"` (a sparse constant, term by term).
        inputs: positions; operands come first, then the results of the steps.
        terms: the axis orders the inputs have.
        orders: the axis orders they are brought to; where they differ that is a copy.
        output: axis order of the result.
        batch: the leading indices of a matrix product.
        contracted: the indices summed.
        size: rows, columns, inner length and batch of a matrix product.
        flops, bytes, copied: operations, bytes moved, and bytes of transposed copies.
        seconds: predicted.
    """

    how: str
    inputs: tuple[int, ...]
    terms: tuple[Labels, ...]
    orders: tuple[Labels, ...]
    output: Labels
    batch: Labels = ()
    contracted: Labels = ()
    size: tuple[int, int, int, int] = (1, 1, 1, 1)
    flops: int = 0
    bytes: int = 0
    copied: int = 0
    seconds: float = dataclasses.field(default=0.0, compare=False)

    @property
    def expression(self) -> str:
        """The step as einsum subscripts, with the axis orders it runs on."""
        return einsum(self.orders, self.output)

    def content(self, *, seconds: bool) -> dict[str, Any]:
        """What the step says, for JSON, with or without the predicted seconds."""
        content = dataclasses.asdict(self)
        if not seconds:
            del content["seconds"]
        return content

    @classmethod
    def of_content(cls, content: dict[str, Any]) -> "Step":
        """Build a step from `content`."""
        return cls(**{k: saving.tuples(v) for k, v in content.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """How to contract a network. Call it with the operands that are not constants.

    Plans are equal, and hash alike, when they say to do the same, in whatever process they were
    made; predicted seconds do not count.

    Attributes:
        network: what is contracted.
        steps: what is done, for each slice.
        slices: pairs (index, number of equal parts it is cut into).
        precision: of the matrix products, a name of `jax.lax.Precision`.
        device: the kind of device the costs are for.
        peak_bytes: temporaries and result at their worst moment, as estimated.
        order: the order of contraction, in opt_einsum's form.
    """

    network: Network
    steps: tuple[Step, ...]
    slices: tuple[tuple[str, int], ...]
    precision: str
    device: str
    peak_bytes: int
    order: tuple[tuple[int, ...], ...]

    @property
    def n_slices(self) -> int:
        """How many times the steps run."""
        return math.prod(count for _, count in self.slices)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return self.n_slices * sum(step.flops for step in self.steps)

    @property
    def bytes(self) -> int:
        """Bytes read and written, copies included."""
        return self.n_slices * sum(step.bytes for step in self.steps)

    @property
    def copied_bytes(self) -> int:
        """Bytes of operands and results that are brought to another axis order."""
        return self.n_slices * sum(step.copied for step in self.steps)

    @property
    def seconds(self) -> float:
        """Predicted by the table of rates the plan was made with."""
        return self.n_slices * sum((step.seconds for step in self.steps), 0.0)

    # Running ------------------------------------------------------------------------------

    def __call__(self, *operands: Any, strip_exponent: bool = False) -> Any:
        """Contract.

        Args:
            operands: arrays and formats of the planned shapes and dtypes, without the
                constants. The index declared as batch may have another size than planned.
            strip_exponent: return `(mantissa, log_scale)` with the result
                `mantissa * exp(log_scale)`, rescaled after every step, where the plain result
                would leave the range of the dtype.

        Raises:
            ValueError: the shapes or the number of operands are not those planned.
            TypeError: a dtype or a format is not the planned one.
        """
        arrays, formats = flat(operands)
        check_formats(self.network, formats, len(operands))
        check_operands(self.network, arrays)
        return compiled(self, strip_exponent, execute.is_sharded(arrays))(*arrays)

    # Identity -----------------------------------------------------------------------------

    @functools.cached_property
    def digest(self) -> str:
        """A digest of all the plan says, the same in every process."""
        return saving.digest(_content(self, seconds=False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.digest == other.digest

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return int(self.digest[:15], 16)

    # Reading ------------------------------------------------------------------------------

    def __str__(self) -> str:
        from .table import table

        return table(self)

    def __repr__(self) -> str:
        return (
            f"Plan({self.network.expression!r}, {len(self.steps)} steps, "
            f"{self.flops:.3g} flops, {self.peak_bytes:.3g} bytes at most)"
        )

    def explain(self, order: Sequence[Sequence[int]]) -> str:
        """Say how another order of contraction compares, step by step.

        Args:
            order: in opt_einsum's form, positions in a shrinking list: `[(0, 1), (0, 1)]`.
        """
        from .planning import plan_network
        from .table import comparison

        other = plan_network(
            self.network, search=order, precision=self.precision, device=self.device
        )
        return comparison(self, other)

    # Saving -------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Write the plan as text that `from_json` reads."""
        return saving.write(_KIND, _content(self, seconds=True))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan that `to_json` wrote.

        Raises:
            ValueError: the text is cut, is not a plan, or is of a newer version.
        """
        return saving.read(_KIND, text, _of_content)


@functools.lru_cache(maxsize=4096)
def compiled(plan: Plan, strip_exponent: bool, sharded: bool) -> Any:
    """The jitted function of a plan; inside another trace it is inlined."""

    def contraction(*arrays: jax.Array) -> Any:
        return execute.run(plan, arrays, strip_exponent=strip_exponent, merge=not sharded)

    return jax.jit(contraction, inline=True)


def check_operands(network: Network, arrays: Sequence[jax.Array]) -> None:
    """Require the planned shapes and dtypes."""
    if tuple((x.shape, x.dtype) for x in arrays) == network.signature:
        return
    batch: set[int] = set()
    terms = network.given.terms if network.given else network.terms
    for p, array, (planned, dtype) in zip(
        network.arguments, arrays, network.signature, strict=True
    ):
        name = f"operand {network.name(p)}"
        free = [label == network.batch for label in terms[p]]
        fits = array.ndim == len(planned) and all(
            f or m == n for f, m, n in zip(free, array.shape, planned, strict=True)
        )
        if not fits:
            raise ValueError(f"{name}: planned for shape {planned}, got {array.shape}")
        batch |= {m for f, m in zip(free, array.shape, strict=True) if f}
        if array.dtype != dtype:
            raise TypeError(f"{name}: planned for {dtype}, got {array.dtype}")
    if len(batch) > 1:
        raise ValueError(f"operands: index {network.batch!r} has sizes {sorted(batch)}")


def _content(plan: Plan, *, seconds: bool) -> dict[str, Any]:
    return {
        "network": saving.network_content(plan.network),
        "steps": [step.content(seconds=seconds) for step in plan.steps],
        "slices": plan.slices,
        "precision": plan.precision,
        "device": plan.device,
        "peak_bytes": plan.peak_bytes,
        "order": plan.order,
    }


def _of_content(data: dict[str, Any]) -> Plan:
    return Plan(
        network=saving.read_network(data["network"]),
        steps=tuple(map(Step.of_content, data["steps"])),
        slices=saving.tuples(data["slices"]),
        precision=data["precision"],
        device=data["device"],
        peak_bytes=data["peak_bytes"],
        order=saving.tuples(data["order"]),
    )
