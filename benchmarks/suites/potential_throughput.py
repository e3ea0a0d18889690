"""Forces and training steps of a potential against mlip's MACE and nequip-eqx of equal size.

Equal are layers, channels, degrees, graph and edges, and parameters within a tenth: the width of
our radial network and readout is what makes them so. All take the same optimizer and loss.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from equivariant.nn import isolated_atom_energies
from equivariant.potential import Config, Frame, Potential, config_for, muon
from equivariant.potential.batches import Batch, examples_of, joined
from equivariant.potential.frames import composition

from ..case import Case, Context, Peer, Speed
from ..measure import Program
from ..potential_peers import EDGE_DEGREE, HIDDEN, ORDER, PEERS, Model, installed, ours, peer
from ..rows import Row, ratio
from .potential import DATA, frames

SUITE = "potential_throughput"
# Least ratios of a peer's seconds and temporary bytes to ours, and how far parameters may differ.
SECONDS, BYTES, SIZE = 1.5, 1.0, 0.1
FORCES, STEP, OWN_STEP = "energy and forces", "training step", "training step, ours by Muon"
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


@functools.cache
def molecules(number: int) -> list[Frame]:
    """Return frames of acetylacetone; where the data set is absent, as many atoms at random."""
    if DATA.is_dir():
        return frames()[0][:number]
    rng = np.random.default_rng(0)
    numbers = np.array([6] * 5 + [8] * 2 + [1] * 8)
    lattice = 1.4 * np.indices((3, 3, 2)).reshape(3, -1).T[: len(numbers)]
    return [
        Frame(
            rng.permutation(numbers),
            lattice + rng.normal(scale=0.1, size=lattice.shape),
            energy=rng.normal(),
            forces=rng.normal(size=lattice.shape),
        )
        for _ in range(number)
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
        config, known = self.config(), molecules(self.molecules)
        counts = composition(known, config.species)
        energies = isolated_atom_energies(counts, [frame.energy for frame in known])
        examples = examples_of(
            known, species=config.species, cutoff=config.cutoff, energies=energies
        )
        structures, nodes, edges = np.sum([e.graph.sizes for e in examples], 0).tolist()
        sizes = (structures + 1, 8 * (nodes // 8 + 1), edges)
        return joined(examples, cutoff=config.cutoff, sizes=sizes)

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


class Compiled:
    """A function of a model, compiled when it first runs."""

    def __init__(self, name: str, function: Callable[..., Any], *operands: Any):
        self.name, self.function, self.operands = name, function, operands

    @functools.cached_property
    def executable(self) -> Any:
        # Ours asks for this everywhere, and nequip-eqx for the whole process.
        with jax.default_matmul_precision("highest"):
            return jax.jit(self.function).lower(*self.operands).compile()

    def program(self) -> Program:
        """Return what is timed."""
        return Program(self.name, lambda: self.executable(*self.operands))

    def temp_bytes(self) -> float:
        """Return XLA's temporary bytes."""
        return float(self.executable.memory_analysis().temp_size_in_bytes)


def compiled(task: str, model: Model, batch: Batch) -> Compiled:
    """Return what a task is with a model."""
    if task == FORCES:
        return Compiled(model.name, model.predict, model.weights, model.graph)
    optimizer = muon(1e-3) if task == OWN_STEP else optax.amsgrad(1e-3)

    def loss(weights: Any, graph: Any, batch: Batch) -> jax.Array:
        energy, forces = model.predict(weights, graph)
        atoms = jnp.zeros_like(batch.energy).at[batch.graph.structure].add(1.0)
        wrong = jnp.where(batch.graph.real, (energy - batch.energy) / atoms, 0)
        off = jnp.where(batch.graph.atoms[:, None], forces - batch.forces, 0)
        return 10 * jnp.mean(wrong**2) + jnp.mean(off**2)

    def step(weights: Any, state: Any, graph: Any, batch: Batch) -> tuple[Any, Any, jax.Array]:
        value, slopes = jax.value_and_grad(loss)(weights, graph, batch)
        updates, state = optimizer.update(slopes, state, weights)
        return optax.apply_updates(weights, updates), state, value

    state = jax.jit(optimizer.init)(model.weights)
    return Compiled(model.name, step, model.weights, state, model.graph, batch)


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
