"""Plans for sweeps: contractions in a fixed sequence, with operands replaced in between.

A sweep of alternating least squares contracts the same tensor with all factors but one, for each
factor in turn, and replaces that factor before the next. An intermediate lives until one of its
operands is replaced, so it is worth making where later stages can use it too: the dimension tree
of Phan, Tichavsky and Cichocki (2013) falls out for CP, and its like for Tucker and tensor rings.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import execute, saving
from .assemble import Assembly
from .cost import Rates, shipped_rates
from .expression import network
from .network import Labels, Network
from .plan import Step
from .planning import precision_name, shape_and_dtype
from .sharing import shared_products

_KIND = "tensornet.planner.StagedPlan"
_BEAM = 12  # sequences of stages kept while searching
_TREES = 12  # orders tried for each stage
_EVERY_TREE = 3  # operands of a stage up to which every tree is tried
_SLACK = 3.0  # a stage may cost this many times its own best for what it leaves behind


@dataclasses.dataclass(frozen=True)
class Stage:
    """One contraction of a sweep.

    Attributes:
        network: what is contracted, on its own.
        operands: names of the operands.
        steps: what is left to do at this stage; positions count the sweep's operands first,
            then the results of all steps of all stages.
        result: position of the stage's value.
        replaces: names of the operands that are new after it.
        drops: positions no later stage uses.
    """

    network: Network
    operands: tuple[str, ...]
    steps: tuple[Step, ...]
    result: int
    replaces: tuple[str, ...]
    drops: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        """Predicted."""
        return sum((step.seconds for step in self.steps), 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class StagedPlan:
    """A sweep's plan: call `sweep`, or `run` stage by stage.

    Attributes:
        names: of all operands.
        stages: in the order they run.
        precision: of the matrix products.
        device: the kind of device the costs are for.
    """

    names: tuple[str, ...]
    stages: tuple[Stage, ...]
    precision: str
    device: str

    @property
    def flops(self) -> int:
        """Multiplications and additions of one sweep."""
        return sum(step.flops for stage in self.stages for step in stage.steps)

    @property
    def bytes(self) -> int:
        """Bytes read and written in one sweep."""
        return sum(step.bytes for stage in self.stages for step in stage.steps)

    @property
    def copied_bytes(self) -> int:
        """Bytes brought to another axis order in one sweep."""
        return sum(step.copied for stage in self.stages for step in stage.steps)

    @property
    def seconds(self) -> float:
        """Predicted for one sweep, contractions only."""
        return sum((stage.seconds for stage in self.stages), 0.0)

    @functools.cached_property
    def digest(self) -> str:
        """A digest of all the plan says, the same in every process."""
        return saving.digest(_content(self, seconds=False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StagedPlan) and self.digest == other.digest

    def __hash__(self) -> int:
        return int(self.digest[:15], 16)

    def __str__(self) -> str:
        from .table import staged_table

        return staged_table(self)

    def to_json(self) -> str:
        """Write the plan as text that `from_json` reads."""
        return saving.write(_KIND, _content(self, seconds=True))

    @classmethod
    def from_json(cls, text: str) -> "StagedPlan":
        """Read a plan that `to_json` wrote.

        Raises:
            ValueError: the text is cut, is not a staged plan, or is of a newer version.
        """
        return saving.read(_KIND, text, _of_content)

    def run(
        self, stage: int, operands: Mapping[str, jax.Array], kept: Mapping[int, jax.Array]
    ) -> tuple[jax.Array, dict[int, jax.Array]]:
        """Run one stage.

        Args:
            stage: its number; stages run in order.
            operands: every operand by name, as they are now.
            kept: what the stages before left; empty for the first.

        Returns:
            The stage's value, and what to hand to the next stage.
        """
        this = self.stages[stage]
        sizes = dict(this.network.sizes)
        merge = not execute.is_sharded([operands[name] for name in this.operands])
        pool = dict(kept)
        for p, name in enumerate(this.operands):
            array = operands[name]
            if array.shape != this.network.shapes[p]:
                raise ValueError(
                    f"operand {name!r}: planned for shape {this.network.shapes[p]}, "
                    f"got {array.shape}"
                )
            if str(array.dtype) != this.network.dtypes[p]:
                raise TypeError(
                    f"operand {name!r}: planned for {this.network.dtypes[p]}, got {array.dtype}"
                )
            axes = [sizes[x] for x in this.network.axes(p)]
            pool[self.names.index(name)] = array.astype(this.network.dtype).reshape(axes)
        position = self.first(stage)
        for step in this.steps:
            arrays = [pool[i] for i in step.inputs]
            pool[position] = execute.run_step(step, arrays, sizes, self.precision, merge)
            position += 1
        value = pool[this.result].reshape(this.network.output_shape)
        n = len(self.names)
        left = {i: x for i, x in pool.items() if i >= n and i not in this.drops}
        return value, left

    def first(self, stage: int) -> int:
        """Position of the first step's result of a stage."""
        return len(self.names) + sum(len(s.steps) for s in self.stages[:stage])

    def sweep(
        self,
        operands: Mapping[str, Any],
        update: Callable[[int, jax.Array, dict[str, jax.Array]], Any],
    ) -> dict[str, jax.Array]:
        """Run all stages, replacing operands in between.

        Args:
            operands: every operand by name.
            update: called as `update(stage, value, operands)` with each stage's value; returns
                the new operand that the stage replaces (a mapping by name where several).

        Returns:
            The operands after the sweep.
        """
        now = {name: jnp.asarray(operands[name]) for name in self.names}
        kept: dict[int, jax.Array] = {}
        for k, stage in enumerate(self.stages):
            value, kept = self.run(k, now, kept)
            new = update(k, value, dict(now))
            if not stage.replaces:
                continue
            now.update(new if isinstance(new, Mapping) else {stage.replaces[0]: new})
        return now


def plan_stages(
    expressions: Sequence[str],
    operands: Mapping[str, Any],
    *,
    replaces: Sequence[str | Sequence[str] | None] | None = None,
    objective: str = "seconds",
    precision: Any = None,
    gradients: bool = False,
    dtype: Any = None,
    device: str | None = None,
    rates: Rates | None = None,
) -> StagedPlan:
    """Plan contractions that run in order while operands are replaced between them.

    Args:
        expressions: einsum subscripts of every stage. Operands are told apart by their
            subscripts (`"ijk,jr,kr->ir"`), or by a name before a colon where two have the same
            (`"x:ijk,b:jr,c:kr->ir"`). A label means the same index in every stage.
        operands: shape (or array, or `jax.ShapeDtypeStruct`) of every operand by name.
        replaces: names of the operands that are new after each stage; by default the one that
            the stage itself does not use.
        objective: what each stage minimises, see `plan`.
        precision: of the matrix products; highest by default.
        gradients: price gradients too.
        dtype: of operands given as bare shapes.
        device: kind of device; by default the one jax runs on.
        rates: a measured table in place of the shipped one.

    Raises:
        ValueError: an expression does not fit its operands, or it is not clear which operand
            a stage replaces.
    """
    if not expressions:
        raise ValueError("expressions: expected at least one stage, got none")
    table = rates or shipped_rates(device)
    split = [_named(text) for text in expressions]
    known = {name: shape_and_dtype(x, name, dtype) for name, x in operands.items()}
    used = list(dict.fromkeys(name for names, _ in split for name in names))
    for k, (names, _) in enumerate(split):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"stage {k}: operand {name!r} is not among the operands {sorted(known)}"
                )
    networks = []
    for k, (names, plain) in enumerate(split):
        try:
            shapes, kinds = zip(*(known[name] for name in names), strict=True)
            networks.append(network(plain, shapes, kinds))
        except ValueError as error:
            raise ValueError(f"stage {k}: {error}") from error
    _check_labels(networks)
    after = _replaced(split, used, replaces)
    # Few operands: every tree is tried. More: those along the cheapest tree of stages.
    chains: list[list[frozenset[str]]] = [[] for _ in networks]
    if max(len(described.terms) for described in networks) > _EVERY_TREE:
        chains = shared_products(networks, [names for names, _ in split], after, table)
    best = [_Path(0.0, (), {}, len(used))]
    for k, described in enumerate(networks):
        names = split[k][0]
        grown = [
            longer
            for path in best
            for longer in _extensions(
                path, described, names, used, after[k], chains[k], table, objective, gradients
            )
        ]
        kept: dict[Any, _Path] = {}
        for path in sorted(grown, key=lambda p: p.seconds):
            kept.setdefault(
                frozenset((key, order) for key, (_, order) in path.living.items()), path
            )
        best = list(kept.values())[:_BEAM]
    stages = _with_drops(best[0].stages, len(used))
    return StagedPlan(tuple(used), stages, precision_name(precision), table.device)


def _content(plan: StagedPlan, *, seconds: bool) -> dict[str, Any]:
    return {
        "names": plan.names,
        "stages": [
            {
                **{field.name: getattr(stage, field.name) for field in dataclasses.fields(Stage)},
                "network": saving.network_content(stage.network),
                "steps": [step.content(seconds=seconds) for step in stage.steps],
            }
            for stage in plan.stages
        ],
        "precision": plan.precision,
        "device": plan.device,
    }


def _of_content(content: dict[str, Any]) -> StagedPlan:
    stages = []
    for raw in content["stages"]:
        fields = {name: saving.tuples(value) for name, value in raw.items()}
        fields["network"] = saving.read_network(raw["network"])
        fields["steps"] = tuple(map(Step.of_content, raw["steps"]))
        stages.append(Stage(**fields))
    names = saving.tuples(content["names"])
    return StagedPlan(names, tuple(stages), content["precision"], content["device"])


class _Path(NamedTuple):
    """Stages planned so far, and the intermediates alive: what they multiply -> where, order."""

    seconds: float
    stages: tuple[Stage, ...]
    living: dict[frozenset[str], tuple[int, Labels]]
    next: int


def _extensions(
    path: _Path,
    described: Network,
    names: tuple[str, ...],
    used: Sequence[str],
    replaced: tuple[str, ...],
    chain: Sequence[frozenset[str]],
    rates: Rates,
    objective: str,
    gradients: bool,
) -> list[_Path]:
    positions = [used.index(name) for name in names]
    start = Assembly(described, rates, positions, path.next)
    start.prepare()
    if len(start.live) == 1 or start.steps:  # diagonals and sums are not shared between stages
        living: dict[frozenset[str], tuple[int, Labels]] = {}
    else:
        living = path.living
    alive = [
        (frozenset(used.index(name) for name in key), position, order)
        for key, (position, order) in living.items()
        if key <= set(names)
    ]
    if len(start.live) == 1:
        options: list[Any] = [None]
    else:
        options = start.search(
            objective,
            "exact",
            0,
            gradients,
            known=alive,
            slack=_SLACK,
            chain=[frozenset(map(used.index, part)) for part in chain],
        )
    found = []
    for entry in options[:_TREES]:
        made = start.branch()
        if entry is None:
            result = made.arrange(next(iter(made.live)), described.kept_output)
        else:
            result = made.follow(entry)
        multiplied = {i: frozenset([used[i]]) for i in positions}
        multiplied.update({position: key for key, (position, _) in path.living.items()})
        left = dict(path.living)
        for s, step in enumerate(made.steps):
            key = frozenset().union(*(multiplied[i] for i in step.inputs))
            multiplied[made.first + s] = key
            if len(step.inputs) == 2 and not start.steps:
                left[key] = (made.first + s, step.output)
        left = {key: where for key, where in left.items() if not key & set(replaced)}
        stage = Stage(described, names, tuple(made.steps), result, replaced)
        seconds = path.seconds + stage.seconds
        found.append(_Path(seconds, (*path.stages, stage), left, path.next + len(made.steps)))
    return found


def _named(text: str) -> tuple[tuple[str, ...], str]:
    """Split `"x:ijk,b:jr->..."` into names and plain subscripts."""
    left, arrow, right = "".join(text.split()).partition("->")
    names, terms = [], []
    for part in left.split(","):
        name, colon, term = part.partition(":")
        names.append(name)
        terms.append(term if colon else name)
    if len(set(names)) < len(names):
        raise ValueError(
            f"expressions: operands of {text!r} have the same subscripts; name them "
            f'("a:ij,b:ij->ij")'
        )
    return tuple(names), ",".join(terms) + arrow + right


def _check_labels(networks: Sequence[Network]) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for k, described in enumerate(networks):
        for label, size in described.sizes.items():
            stage, other = seen.setdefault(label, (k, size))
            if other != size:
                raise ValueError(
                    f"stage {k}: index {label!r} has size {size}, but size {other} in stage {stage}"
                )


def _replaced(
    split: Sequence[tuple[tuple[str, ...], str]],
    used: Sequence[str],
    replaces: Sequence[str | Sequence[str] | None] | None,
) -> list[tuple[str, ...]]:
    if replaces is not None:
        if len(replaces) != len(split):
            raise ValueError(f"replaces: expected {len(split)} entries, got {len(replaces)}")
        given = [(r,) if isinstance(r, str) else tuple(r or ()) for r in replaces]
        for k, names in enumerate(given):
            for name in names:
                if name not in used:
                    raise ValueError(f"replaces[{k}]: expected one of {list(used)}, got {name!r}")
        return given
    found = []
    for k, (names, _) in enumerate(split):
        absent = tuple(name for name in used if name not in names)
        if len(absent) > 1:
            raise ValueError(
                f"replaces: stage {k} uses none of {list(absent)}; say which are new after it"
            )
        found.append(absent)
    return found


def _with_drops(stages: Sequence[Stage], n: int) -> tuple[Stage, ...]:
    """Let every stage drop what no later stage uses."""
    needed: set[int] = set()
    made: set[int] = set()
    done: list[Stage] = []
    firsts, position = [], n
    for stage in stages:
        firsts.append(position)
        position += len(stage.steps)
    for stage, first in zip(reversed(stages), reversed(firsts), strict=True):
        made = set(range(n, first + len(stage.steps)))
        done.append(dataclasses.replace(stage, drops=tuple(sorted(made - needed))))
        needed |= {i for step in stage.steps for i in step.inputs if i >= n} | {stage.result}
    return tuple(reversed(done))
