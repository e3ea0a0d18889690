"""Batches of labelled structures, padded to few sizes so that few programs are compiled."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from .frames import Frame, composition
from .graph import Graph, bucket, graph_of, padded

_NODES, _EDGES = 8, 32  # sizes are multiples of these
_SAMPLES = 256  # random batches by which the usual size is found
_USUAL = 0.98  # share of them that it holds
_FEW = (
    1.05  # sizes that differ by less are one: a second program compiles as long as many steps take
)


class Example(NamedTuple):
    """A structure's graph and its labels, on the host.

    Attributes:
        graph: not padded.
        energy: less that of its isolated atoms.
        forces: NaN where not known.
        stress: NaN where not known.
    """

    graph: Graph
    energy: float
    forces: np.ndarray
    stress: np.ndarray


class Batch(eqx.Module):
    """Labelled structures in one padded graph; labels of padding are zero.

    Attributes:
        graph: of all.
        energy: of the structures.
        forces: on the nodes.
        stress: of the structures.
    """

    graph: Graph
    energy: Float[Array, "*parts structures"]
    forces: Float[Array, "*parts nodes 3"]
    stress: Float[Array, "*parts structures 3 3"]


def examples_of(
    frames: Sequence[Frame],
    *,
    species: Sequence[int],
    cutoff: float | int,
    energies: Any,
    dtype: Any = None,
) -> list[Example]:
    """Find the neighbours in every frame, and take the isolated atoms' energies off.

    Args:
        frames: at least one.
        species: atomic numbers that the model knows.
        cutoff: of the model.
        energies: of isolated atoms, one of each species.
        dtype: of positions.

    Raises:
        ValueError: an unknown species, or coordinates that are not finite or coincide; the message
            names the frame.
    """
    counts = composition(frames, species)
    base = counts @ np.asarray(energies, np.float64)
    made = []
    for n, (frame, shift) in enumerate(zip(frames, base, strict=True)):
        try:
            graph = graph_of(
                frame.positions, frame.numbers, cutoff=cutoff, species=species, cell=frame.cell,
                periodic=frame.periodic, dtype=dtype,
            )  # fmt: skip
        except ValueError as error:
            origin = f" ({frame.where})" if frame.where else ""
            raise ValueError(f"frames[{n}]{origin}: {error}") from error
        energy = np.nan if frame.energy is None else frame.energy - shift
        forces = np.full((len(frame.numbers), 3), np.nan) if frame.forces is None else frame.forces
        stress = np.full((3, 3), np.nan) if frame.stress is None else frame.stress
        made.append(Example(jax.tree.map(np.asarray, graph), float(energy), forces, stress))
    return made


def joined(
    examples: Sequence[Example], *, cutoff: float | int, sizes: tuple[int, int, int]
) -> Batch:
    """Join examples into one batch of given numbers of structures, nodes and edges."""
    graph = padded([e.graph for e in examples], cutoff=cutoff, sizes=sizes)
    dtype = graph.positions.dtype
    energy, forces = np.zeros(sizes[0]), np.zeros((sizes[1], 3))
    stress = np.zeros((sizes[0], 3, 3))
    energy[: len(examples)] = [e.energy for e in examples]
    stress[: len(examples)] = [e.stress for e in examples]
    together = np.concatenate([e.forces for e in examples])
    forces[: len(together)] = together
    return Batch(graph, *jax.device_put([z.astype(dtype) for z in (energy, forces, stress)]))


def ladder(examples: Sequence[Example], size: int) -> list[tuple[int, int, int]]:
    """Return the few sizes that batches of `size` examples are padded to, the last holds any."""
    counts = np.array([e.graph.sizes[1:] for e in examples])
    rng = np.random.default_rng(0)
    drawn = np.stack([counts[rng.permutation(len(counts))[:size]].sum(0) for _ in range(_SAMPLES)])
    usual = np.quantile(drawn, _USUAL, axis=0)
    worst = np.sort(counts, axis=0)[-size:].sum(0)
    found = []
    for nodes, edges in (worst,) if (worst <= _FEW * usual).all() else (usual, worst):
        rounded = (-(-(int(nodes) + 1) // _NODES) * _NODES, -(-int(edges) // _EDGES) * _EDGES)
        found.append((size + 1, rounded[0], max(rounded[1], _EDGES)))
    return sorted(set(found))


class Shuffled:
    """Batches of an order drawn anew for every epoch, a function of the seed and the step alone.

    Examples left over when the batch size does not divide their number sit out that epoch.

    Attributes:
        per_epoch: whole batches in the examples.
        sizes: what they are padded to.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        size: int,
        *,
        cutoff: float | int,
        seed: Any,
        mesh: Mesh | None = None,
    ):
        """Fix sizes.

        Args:
            examples: at least `size`.
            size: structures in a batch.
            cutoff: of the model.
            seed: of the order, what `numpy.random.default_rng` takes.
            mesh: of one axis, over whose devices each batch is spread.

        Raises:
            ValueError: a size out of range, or that the devices do not divide.
        """
        if not 1 <= size <= len(examples):
            raise ValueError(
                f"batch_size: expected between 1 and {len(examples)} (the frames), got {size}"
            )
        if mesh is not None and len(mesh.axis_names) != 1:
            raise ValueError(f"mesh: expected one axis, got {mesh.axis_names}")
        parts = 1 if mesh is None else mesh.size
        if size % parts:
            raise ValueError(f"batch_size: expected a multiple of {parts} devices, got {size}")
        # The compiler is to say how what follows lies, not the types of arrays.
        self._mesh = None if mesh is None else Mesh(mesh.devices, mesh.axis_names)
        self._examples, self._size, self._cutoff = examples, size, cutoff
        self._seed, self._parts = seed, parts
        self.per_epoch = len(examples) // size
        self.sizes = ladder(examples, size // parts)
        self._order: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int, key: Any = None) -> Batch:  # noqa: ARG002  as the loop calls it
        """Return the batch of a step, its first axis the devices where it is spread over some."""
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([*self._seed, epoch])
            self._order = epoch, rng.permutation(len(self._examples))
        rows = self._order[1][place * self._size : (place + 1) * self._size]
        shares = [[self._examples[n] for n in part] for part in np.split(rows, self._parts)]
        need = np.max([np.sum([e.graph.sizes[1:] for e in s], axis=0) for s in shares], axis=0)
        sizes = next(s for s in self.sizes if need[0] < s[1] and need[1] <= s[2])
        made = [joined(share, cutoff=self._cutoff, sizes=sizes) for share in shares]
        if self._mesh is None:
            return made[0]
        spread = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names[0]))
        stacked = jax.tree.map(lambda *z: np.stack([np.asarray(part) for part in z]), *made)
        return jax.device_put(stacked, spread)


def in_order(examples: Sequence[Example], size: int, *, cutoff: float | int) -> list[Batch]:
    """Return all examples in batches of one padded size, in their order."""
    size = min(size, len(examples))
    chunks = [examples[n : n + size] for n in range(0, len(examples), size)]
    need = np.max([np.sum([e.graph.sizes[1:] for e in c], axis=0) for c in chunks], axis=0)
    # Rungs of a ladder, so that several sets of like structures share a program.
    nodes = bucket(int(need[0]) + 1, multiple=_NODES)
    edges = bucket(int(need[1]), multiple=_EDGES)
    return [joined(chunk, cutoff=cutoff, sizes=(size + 1, nodes, edges)) for chunk in chunks]
