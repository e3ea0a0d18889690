"""A trained potential where others ask for energies: ASE's calculators and jax-md's functions."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .energy import energies
from .evaluation import predict
from .graph import Graph, graph_of, padded
from .trained import TrainedPotential

try:
    from ase.calculators.calculator import (  # pyright: ignore[reportMissingImports]
        Calculator,
        PropertyNotImplementedError,
        all_changes,
    )
except ImportError:  # told where a calculator is made
    Calculator, PropertyNotImplementedError, all_changes = object, NotImplementedError, ()


class PotentialCalculator(Calculator):  # pyright: ignore[reportGeneralTypeIssues]
    """ASE's calculator of a potential in eV and angstrom: energy, free energy, forces, stress.

    Neighbours are found anew at each step; graphs are padded to few sizes, so that hardly a step
    compiles anything.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, trained: TrainedPotential, *, dtype: Any = None, **options: Any):
        """Take a potential.

        Args:
            trained: the potential.
            dtype: of the computation, jax's default float if left out.
            options: of ASE's `Calculator`.

        Raises:
            ImportError: ASE is not installed.
        """
        if Calculator is object:
            raise ImportError("PotentialCalculator needs ase: pip install 'gauntax[mlip]'")
        super().__init__(**options)
        self.trained, self.dtype = trained, dtype

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute all properties of some atoms.

        Raises:
            ValueError: what `graph_of` refuses.
        """
        super().calculate(atoms, properties, system_changes)
        config, atoms = self.trained.config, self.atoms
        graph = graph_of(
            atoms.positions, atoms.numbers, cutoff=config.cutoff, species=config.species,
            cell=np.asarray(atoms.cell), periodic=[bool(p) for p in atoms.pbc], dtype=self.dtype,
        )  # fmt: skip
        made = predict(self.trained.potential, padded([graph], cutoff=config.cutoff))
        energy = float(made.energy[0]) + self.trained.isolated(atoms.numbers)
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": np.asarray(made.forces[: len(atoms)], np.float64),
        }
        if atoms.cell.rank == 3:
            stress = np.asarray(made.stress[0], np.float64)
            # In Voigt's order, as ASE wants it.
            self.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        elif "stress" in properties:
            raise PropertyNotImplementedError("stress: expected a cell of three vectors, got less")


def energy_fn(
    trained: TrainedPotential, numbers: Sequence[int] | np.ndarray, *, box: Any = None
) -> Callable[..., Array]:
    """Return jax-md's energy function of some atoms; its gradient gives the forces.

    The energy counts from isolated atoms (`trained.isolated`): a constant that would cost digits.

    Args:
        trained: the potential.
        numbers: atomic numbers of the atoms.
        box: the sides of a periodic box, or its matrix, whose rows are its vectors; None for free
            space. Positions are in real coordinates, not fractional ones.

    Returns:
        A function of positions `[atoms, 3]` and `neighbor`, a list of jax-md in any format.
        Pairs beyond the cutoff, as in a list with a margin, add exactly nothing.

    Raises:
        ValueError: an unknown species, a box that is none, or a cutoff beyond half its height,
            where an atom would meet two images of another.
    """
    config, count = trained.config, len(numbers)
    known = {z: n for n, z in enumerate(config.species)}
    unknown = sorted({int(z) for z in numbers} - set(known))
    if unknown:
        raise ValueError(f"numbers: expected species among {sorted(known)}, got {unknown}")
    species = np.array([*(known[int(z)] for z in numbers), 0])
    cell = _cell(box, config.cutoff)
    inverse = None if cell is None else np.linalg.inv(cell)
    cells = np.stack([np.zeros((3, 3)) if cell is None else cell, 2 * config.cutoff * np.eye(3)])

    def energy(positions: Array, neighbor: Any, **_: Any) -> Array:
        first, second = _pairs(neighbor, count)
        place = jnp.concatenate([positions, jnp.zeros((1, 3), positions.dtype)])
        # Index `count` pads: that node is connected to its own image, beyond the cutoff.
        padding = (first == count) | (second == count) | (first == second)
        first, second = (jnp.where(padding, count, z) for z in (first, second))
        shifts = jnp.zeros((len(first), 3), place.dtype)
        if inverse is not None:
            away = jax.lax.stop_gradient(place[second] - place[first])
            table = jnp.asarray(inverse, place.dtype)
            shifts = -jnp.round((away[:, :, None] * table[None]).sum(1))
        aside = jnp.asarray([[1, 0, 0]], place.dtype)
        graph = Graph(
            positions=place,
            species=jnp.asarray(species, jnp.int32),
            structure=jnp.asarray(np.arange(count + 1) == count, jnp.int32),
            senders=second,
            receivers=first,
            shifts=jnp.where(padding[:, None], aside, shifts),
            cell=jnp.asarray(cells, place.dtype),
            real=jnp.asarray([True, False]),
        )
        return energies(trained.potential, graph)[0]

    return energy


def _cell(box: Any, cutoff: float | int) -> np.ndarray | None:
    if box is None:
        return None
    given = np.asarray(box, np.float64)
    cell = given if given.ndim == 2 else np.diag(np.broadcast_to(given, 3))
    if cell.shape != (3, 3) or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-9:
        raise ValueError(f"box: expected sides or a matrix of a volume, got {given.tolist()}")
    height = (1 / np.linalg.norm(np.linalg.inv(cell), axis=0)).min()
    if cutoff > height / 2:
        raise ValueError(
            f"box: expected heights of at least twice the cutoff {cutoff}, got {height:.6g}"
        )
    return cell


def _pairs(neighbor: Any, count: int) -> tuple[Array, Array]:
    """Return receivers and senders of a neighbour list of jax-md, told apart by its format."""
    index = jnp.asarray(neighbor.idx).astype(jnp.int32)
    kind = getattr(getattr(neighbor, "format", None), "name", None)
    if kind is None:
        kind = "Dense" if index.shape[0] == count else "Sparse"
    if index.ndim != 2 or index.shape[0] != (count if kind == "Dense" else 2):
        raise ValueError(
            f"neighbor: expected indices of shape [{count}, most] or [2, pairs], got {index.shape}"
        )
    if kind == "Dense":
        rows = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[:, None], index.shape)
        return rows.reshape(-1), index.reshape(-1)
    if kind == "OrderedSparse":  # one way of each pair
        index = jnp.concatenate([index, index[::-1]], axis=1)
    return index[0], index[1]
