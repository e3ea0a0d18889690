"""Steps of potentials, compiled: what suites time of a model on molecules of acetylacetone."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from equivariant.nn import isolated_atom_energies
from equivariant.potential import Config, Frame, muon, read_frames
from equivariant.potential.batches import Batch, examples_of, joined
from equivariant.potential.frames import composition

from .measure import Program
from .potential_peers import Model

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "acac"
LARGER_DATA = DATA.parent / "3bpa"
HELD_OUT = 50
FORCES, STEP, OWN_STEP = "energy and forces", "training step", "training step, ours by Muon"


@functools.cache
def frames() -> tuple[list[Frame], list[Frame], list[Frame]]:
    """Return frames to learn from, to choose by, and to judge by."""
    return *_split(DATA / "train_300K.xyz"), read_frames(DATA / "test_MD_300K.xyz")


@functools.cache
def larger_frames() -> tuple[list[Frame], list[Frame], list[Frame]]:
    """Return the same of 3BPA at 300 K, a molecule of 27 atoms."""
    with np.load(LARGER_DATA / "test_300K.npz") as z:
        test = [
            Frame(z["atomic_numbers"], place, energy=float(energy), forces=forces)
            for place, energy, forces in zip(
                z["pos"], z["energy"].ravel(), z["forces"], strict=True
            )
        ]
    return *_split(LARGER_DATA / "train_300K.xyz"), test


def _split(path: Path) -> tuple[list[Frame], list[Frame]]:
    every = read_frames(path)
    order = np.random.default_rng(0).permutation(len(every))
    held, known = order[:HELD_OUT], order[HELD_OUT:]
    return [every[n] for n in known], [every[n] for n in held]


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


def batch_of(config: Config, known: list[Frame]) -> Batch:
    """Return frames as one batch without padded edges."""
    counts = composition(known, config.species)
    energies = isolated_atom_energies(counts, [frame.energy for frame in known])
    examples = examples_of(known, species=config.species, cutoff=config.cutoff, energies=energies)
    structures, nodes, edges = np.sum([e.graph.sizes for e in examples], 0).tolist()
    sizes = (structures + 1, 8 * (nodes // 8 + 1), edges)
    return joined(examples, cutoff=config.cutoff, sizes=sizes)


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
