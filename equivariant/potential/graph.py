"""Atoms and the pairs of them within a cutoff, several structures in one graph of fixed size."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .neighbours import neighbours

# Nodes and edges come in multiples of these, as do vector registers.
_NODES, _EDGES = 8, 64


class Graph(eqx.Module):
    """One structure or several, with their edges.

    What pads is a structure of its own, the last: its atoms have no neighbours but through edges
    of twice the cutoff, which add exactly nothing.

    Attributes:
        positions: of the nodes.
        species: of the nodes, positions in the list of atomic numbers of a model.
        structure: to which structure a node belongs.
        senders, receivers: of the edges.
        shifts: by how many of its cell's vectors a sender is shifted.
        cell: of the structures; zero where there is none.
        real: which structures are not padding.
    """

    positions: Float[Array, "nodes 3"]
    species: Int[Array, " nodes"]
    structure: Int[Array, " nodes"]
    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]
    shifts: Float[Array, "edges 3"]
    cell: Float[Array, "structures 3 3"]
    real: Bool[Array, " structures"]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of structures, nodes and edges, with padding."""
        return self.cell.shape[0], self.positions.shape[0], self.senders.shape[0]

    @property
    def atoms(self) -> Bool[Array, " nodes"]:
        """Which nodes are not padding."""
        return self.real[self.structure]

    @property
    def vectors(self) -> Float[Array, "edges 3"]:
        """From receiver to sender."""
        cells = self.cell[self.structure[self.receivers]]
        shifts = (self.shifts[:, :, None] * cells).sum(1)
        return self.positions[self.senders] - self.positions[self.receivers] + shifts

    def strained(self, displacement: Array, strain: Array) -> "Graph":
        """Return the graph with nodes displaced, then every structure and its cell strained.

        Args:
            displacement: `[nodes, 3]`.
            strain: `[structures, 3, 3]`; r becomes r + r @ strain.
        """
        moved = self.positions + displacement
        by_node = strain[self.structure]
        positions = moved + (moved[:, :, None] * by_node).sum(1)
        cell = self.cell + (self.cell[:, :, :, None] * strain[:, None]).sum(2)
        return eqx.tree_at(lambda g: (g.positions, g.cell), self, (positions, cell))


def graph_of(
    positions: Any,
    numbers: Any,
    *,
    cutoff: float | int,
    species: Sequence[int],
    cell: Any = None,
    periodic: bool | Sequence[bool] = False,
    dtype: Any = None,
    backend: str = "auto",
) -> Graph:
    """Build the graph of one structure.

    Args:
        positions: `[atoms, 3]`.
        numbers: `[atoms]`, atomic numbers.
        cutoff: pairs closer than this are edges, in the same unit.
        species: atomic numbers that the model knows, in its order.
        cell: rows are the cell's vectors.
        periodic: for each of these, or for all.
        dtype: of positions, default: jax's default float.
        backend: as for `neighbours`.

    Raises:
        ValueError: an atomic number that is not among `species`, numbers of another length than
            positions, or what `neighbours` refuses.
    """
    found = neighbours(positions, cutoff, cell=cell, periodic=periodic, backend=backend)
    numbers, known = np.asarray(numbers), {int(z): n for n, z in enumerate(species)}
    if numbers.shape != np.shape(positions)[:1]:
        raise ValueError(
            f"numbers: expected shape {np.shape(positions)[:1]} like positions, got {numbers.shape}"
        )
    unknown = sorted({int(z) for z in numbers} - set(known))
    if unknown:
        raise ValueError(f"numbers: expected species among {sorted(known)}, got {unknown}")
    dtype = jnp.result_type(float) if dtype is None else dtype
    return Graph(
        positions=jnp.asarray(np.asarray(positions), dtype),
        species=jnp.asarray([known[int(z)] for z in numbers], jnp.int32),
        structure=jnp.zeros(len(numbers), jnp.int32),
        senders=jnp.asarray(found.senders, jnp.int32),
        receivers=jnp.asarray(found.receivers, jnp.int32),
        shifts=jnp.asarray(found.shifts, dtype),
        cell=jnp.asarray(np.zeros((1, 3, 3)) if cell is None else np.asarray(cell)[None], dtype),
        real=jnp.ones(1, bool),
    )


def bucket(number: int, *, multiple: int = 1, growth: float = 1.25) -> int:
    """Return the next size at least `number` of a ladder: multiples, each about `growth` larger.

    So few sizes occur, each compiled once, and from some `multiple` on less than a share of
    1 - 1/growth of a graph is padding.

    Raises:
        ValueError: a negative number, a multiple below 1 or a growth of at most 1.
    """
    if number < 0 or multiple < 1 or growth <= 1:
        raise ValueError(
            f"number, multiple, growth: expected at least 0, at least 1 and above 1, got {number}, "
            f"{multiple} and {growth}"
        )
    size = multiple
    while size < number:
        size = max(size + multiple, math.floor(size * growth / multiple) * multiple)
    return size


def padded(
    graphs: Sequence[Graph], *, cutoff: float | int, sizes: tuple[int, int, int] | None = None
) -> Graph:
    """Join structures into one graph, and pad it to a size that few graphs differ in.

    Args:
        graphs: of one dtype, none padded already.
        cutoff: that of the graphs, or more.
        sizes: numbers of structures, nodes and edges to pad to; at least one structure and one
            node more than there are. By default each number is the next `bucket`.

    Raises:
        ValueError: no graphs, or sizes that do not hold them.
    """
    if not graphs:
        raise ValueError("graphs: expected at least one, got none")
    counts = np.array([graph.sizes for graph in graphs])
    structures, nodes, edges = (int(n) for n in counts.sum(0))
    if sizes is None:
        sizes = (
            bucket(structures + 1),
            bucket(nodes + 1, multiple=_NODES),
            bucket(edges, multiple=_EDGES),
        )
    least = (structures + 1, nodes + 1, edges)
    if any(size < need for size, need in zip(sizes, least, strict=True)):
        raise ValueError(f"sizes: expected at least {least} structures, nodes, edges, got {sizes}")
    first_structure, first_node, _ = np.cumsum(counts, 0).T - counts.T
    dtype = graphs[0].positions.dtype
    # The last node is connected to its own image in a cubic cell of twice the cutoff.
    empty = np.tile(np.eye(3) * 2 * cutoff, (sizes[0] - structures, 1, 1))
    extra = sizes[2] - edges
    ends = np.full(extra, sizes[1] - 1)

    def joined(parts: list[Any], filling: np.ndarray, kind: Any) -> np.ndarray:
        return np.concatenate([*map(np.asarray, parts), filling]).astype(kind)

    arrays = {
        "positions": joined([g.positions for g in graphs], np.zeros((sizes[1] - nodes, 3)), dtype),
        "species": joined([g.species for g in graphs], np.zeros(sizes[1] - nodes), np.int32),
        "structure": joined(
            [np.asarray(g.structure) + n for g, n in zip(graphs, first_structure, strict=True)],
            np.full(sizes[1] - nodes, sizes[0] - 1),
            np.int32,
        ),
        "senders": joined(
            [np.asarray(g.senders) + n for g, n in zip(graphs, first_node, strict=True)],
            ends,
            np.int32,
        ),
        "receivers": joined(
            [np.asarray(g.receivers) + n for g, n in zip(graphs, first_node, strict=True)],
            ends,
            np.int32,
        ),
        "shifts": joined([g.shifts for g in graphs], np.tile([1.0, 0, 0], (extra, 1)), dtype),
        "cell": joined([g.cell for g in graphs], empty, dtype),
        "real": joined([g.real for g in graphs], np.zeros(sizes[0] - structures, bool), bool),
    }
    # One transfer for all: each costs more than the copy.
    return Graph(**jax.device_put(arrays))
