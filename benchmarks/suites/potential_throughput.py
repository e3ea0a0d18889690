"""Forces and training steps of a potential against mlip's MACE and nequip-eqx of equal size.

Equal are layers, channels, degrees, graph and edges, and parameters within a tenth: the width of
our radial network and readout is what makes them so. All take the same optimizer and loss.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax

from equivariant.potential import Config, Potential, config_for
from equivariant.potential.batches import Batch

from ..case import Case, Context, Peer, Speed
from ..potential_peers import EDGE_DEGREE, HIDDEN, ORDER, PEERS, Model, installed, ours, peer
from ..potential_steps import FORCES, OWN_STEP, STEP, Compiled, batch_of, compiled, molecules
from ..rows import Row, ratio

SUITE = "potential_throughput"
# Least ratios of a peer's seconds and temporary bytes to ours, and how far parameters may differ.
SECONDS, BYTES, SIZE = 1.5, 1.0, 0.1
_MACE: dict[str, Any] = {
    "layers": 2, "edge_degree": EDGE_DEGREE, "product": "power", "order": ORDER,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "mlip MACE, e3j": _MACE,
    "mlip MACE, Gaunt": _MACE,
    "nequip-eqx": {"layers": 3, "product": "gate"},
}


def cases(quick: bool) -> list[Case]:
    """Return the cases, a peer, a degree and a task each."""
    sizes = {"channels": 4, "molecules": 1} if quick else {}
    problems = [
        Problem(name, degree, **sizes) for name in PEERS for degree in ((1,) if quick else (1, 2))
    ]
    return [
        Case(SUITE, f"{problem.name}, {task}", "float32", Beside(problem, task, quick))
        for problem in problems
        for task in ((FORCES, STEP) if quick else (FORCES, STEP, OWN_STEP))
    ]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A graph and two potentials of one size.

    Attributes:
        other: one of `PEERS`.
        degree: the largest of the features.
        channels: of the features.
        molecules: in the graph, which has no padded edges.
    """

    other: str
    degree: int
    channels: int = 32
    molecules: int = 5

    @property
    def name(self) -> str:
        layers = OPTIONS[self.other]["layers"]
        return (
            f"{self.other}: {layers} layers of {self.channels} channels, L={self.degree}, "
            f"{self.molecules} molecules"
        )

    def config(self) -> Config:
        options = {"channels": self.channels, "degree": self.degree, "width": HIDDEN[0]}
        return config_for(molecules(self.molecules), **options, **OPTIONS[self.other])

    def batch(self) -> Batch:
        return batch_of(self.config(), molecules(self.molecules))

    def theirs(self) -> Model:
        return _theirs(self)

    def ours(self) -> Model:
        """Return ours, as wide as makes it the peer's size; as wide as the peer without one."""
        config = self.config()
        if installed(self.other):
            wanted = self.theirs().parameters
            config = min(
                (dataclasses.replace(config, width=width) for width in range(8, 513, 4)),
                key=lambda one: abs(_parameters(one) - wanted),
            )
        return ours(config, self.batch().graph)


@functools.lru_cache(maxsize=1)
def _theirs(problem: Problem) -> Model:
    """Return the peer's model: the cases of one come one after the other."""
    return peer(problem.other, problem.config(), problem.batch().graph)


@functools.cache
def _parameters(config: Config) -> int:
    shapes = eqx.filter_eval_shape(lambda key: Potential(config, key=key), jax.random.key(0))
    fixed = jax.tree.leaves(shapes.scale_shift)
    return sum(z.size for z in jax.tree.leaves(shapes)) - sum(z.size for z in fixed)


@functools.lru_cache(maxsize=2)
def _compiled_theirs(problem: Problem, task: str) -> Compiled:
    """Return a peer's task; whichever optimizer is ours, its step is compiled once."""
    return compiled(task, problem.theirs(), problem.batch())


@dataclasses.dataclass(frozen=True, init=False)
class Beside(Speed):
    """Seconds and temporary bytes of a task beside the peer's."""

    problem: Problem
    task: str
    quick: bool

    def __init__(self, problem: Problem, task: str, quick: bool):
        super().__init__(lambda: compiled(task, problem.ours(), problem.batch()).program())
        for name, value in (("problem", problem), ("task", task), ("quick", quick)):
            object.__setattr__(self, name, value)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure, seconds first.

        Raises:
            ValueError: the two differ too much in size.
        """
        promised = not self.quick and self.task != OWN_STEP
        model, batch = self.problem.ours(), self.problem.batch()
        mine, theirs, peers = compiled(self.task, model, batch), None, ()
        note = f"{model.parameters:,} parameters; "
        if installed(self.problem.other):
            other = self.problem.theirs()
            if not self.quick and abs(model.parameters / other.parameters - 1) > SIZE:
                raise ValueError(
                    f"parameters: expected {other.parameters:,} within {SIZE:.0%}, got "
                    f"{model.parameters:,}"
                )
            theirs = _compiled_theirs(self.problem, FORCES if self.task == FORCES else STEP)
            peers = (Peer(theirs.program, target=SECONDS if promised else None),)
            note += f"the peer: {other.parameters:,}; "
        else:
            note += f"{PEERS[self.problem.other][0]} is not installed: no peer; "
        structures, nodes, edges = batch.graph.sizes
        note += f"{structures - 1} molecules, {nodes} nodes, {edges} edges"
        yield from Speed(mine.program, peers, note=note).rows(case, context)
        held = theirs.temp_bytes() if theirs else None
        reached = ratio(held, mine.temp_bytes())
        yield case.row(
            context,
            quantity="temp_bytes",
            unit="bytes",
            ours=mine.temp_bytes(),
            peer_name=theirs.name if theirs else "",
            peer=held,
            ratio=reached,
            target=BYTES if promised and theirs else None,
            target_is="ratio at least" if promised and theirs else "",
            met=reached >= BYTES if promised and reached is not None else None,
            note="XLA's temporary buffers, of both",
        )
