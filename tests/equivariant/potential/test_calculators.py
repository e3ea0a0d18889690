"""Calculators against the graph's own energies; trajectories by ASE and by a scan agree."""

import importlib.util
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potential_runs import ISOLATED, SMALL

from equivariant.potential import (
    Potential,
    PotentialCalculator,
    TrainedPotential,
    energy_fn,
    energy_forces_stress,
    graph_of,
    padded,
)

pytestmark = pytest.mark.slow

needs_ase = pytest.mark.skipif(
    importlib.util.find_spec("ase") is None,
    reason="ase is not installed: pip install gauntax[mlip]",
)
NUMBERS = np.array([8, 1, 1, 1, 8])
PLACES = np.array(
    [[0, 0, 0], [0, 1.3, 0.5], [0, -1.3, 0.5], [1.4, 0.3, -0.3], [-1.2, 0.4, -0.9]]
)  # fmt: skip
CELL = np.array([[6.2, 0, 0], [0.5, 6.5, 0], [-0.4, 0.3, 7.0]])


class Pairs(NamedTuple):
    """A neighbour list in one of jax-md's formats."""

    idx: np.ndarray


def dense(number):
    """Everybody is everybody's neighbour; the last column pads."""
    rows = np.arange(number)[:, None]
    others = (rows + np.arange(1, number)) % number
    return Pairs(np.concatenate([others, np.full((number, 1), number)], axis=1))


def trained():
    energies = tuple(ISOLATED[z] for z in SMALL.species)
    return TrainedPotential(Potential(SMALL, key=jax.random.key(0)), energies)


def reference(model, cell=None):
    graph = graph_of(
        PLACES, NUMBERS, cutoff=SMALL.cutoff, species=SMALL.species, cell=cell,
        periodic=cell is not None,
    )  # fmt: skip
    return eqx.filter_jit(energy_forces_stress)(model, padded([graph], cutoff=SMALL.cutoff))


@pytest.mark.parametrize("cell", [None, CELL])
def test_the_function_of_jax_md(x64, cell):  # noqa: ARG001
    model = trained()
    expected = reference(model, cell)
    run = jax.jit(jax.value_and_grad(energy_fn(model, NUMBERS, box=cell)))
    pairs = dense(5)
    moved = PLACES if cell is None else PLACES + np.array([[1, 0, -2], *[[0, 0, 0]] * 4]) @ cell
    energy, slope = run(jnp.asarray(moved), neighbor=pairs)
    np.testing.assert_allclose(energy, expected.energy[0], rtol=1e-11)
    np.testing.assert_allclose(-slope, expected.forces[:5], rtol=0, atol=1e-11)


def test_all_formats_of_neighbour_lists(x64):  # noqa: ARG001
    partition = pytest.importorskip("jax_md.partition", reason="jax-md is not installed")
    from jax_md import space

    model = trained()
    expected = reference(model, np.diag([6.2, 6.5, 7.0]))
    sides = jnp.array([6.2, 6.5, 7.0])
    energy = energy_fn(model, NUMBERS, box=[6.2, 6.5, 7.0])
    for kind in partition.NeighborListFormat:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            displacement, _ = space.periodic(sides)
            make = partition.neighbor_list(
                displacement, sides, SMALL.cutoff, 0.3, format=kind, disable_cell_list=True
            )
            found = make.allocate(jnp.asarray(PLACES))
        got = energy(jnp.asarray(PLACES), neighbor=found)
        np.testing.assert_allclose(got, expected.energy[0], rtol=1e-11)


@needs_ase
def test_the_calculator_of_ase():
    from ase import Atoms
    from ase.calculators.calculator import PropertyNotImplementedError

    model = trained()
    expected = reference(model, CELL)
    atoms = Atoms(NUMBERS, PLACES, cell=CELL, pbc=True)
    atoms.calc = PotentialCalculator(model)
    lone = 3 * ISOLATED[1] + 2 * ISOLATED[8]
    np.testing.assert_allclose(atoms.get_potential_energy() - lone, expected.energy[0], rtol=1e-4)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), expected.forces[:5], rtol=0, atol=1e-6)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), expected.stress[0], rtol=0, atol=1e-6)
    atoms.set_cell(None)
    atoms.pbc = False
    np.testing.assert_allclose(atoms.get_forces(), reference(model).forces[:5], rtol=0, atol=1e-6)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    atoms.numbers[0] = 6
    with pytest.raises(ValueError, match=r"expected species among \[1, 8\], got \[6\]"):
        atoms.get_forces()


@needs_ase
def test_ase_and_a_scan_go_the_same_way(x64):  # noqa: ARG001
    """Velocity Verlet for 100 steps of 0.5 fs, by ASE's integrator and by a scan over ours."""
    from ase import Atoms, units
    from ase.md.verlet import VelocityVerlet

    model = trained()
    atoms = Atoms(NUMBERS, PLACES, calculator=PotentialCalculator(model))
    momenta = np.random.default_rng(0).normal(size=PLACES.shape)
    atoms.set_momenta(momenta)
    step, masses = 0.5 * units.fs, jnp.asarray(atoms.get_masses())[:, None]
    slope = jax.grad(energy_fn(model, NUMBERS))
    pairs = dense(5)

    def verlet(state, _):
        place, momentum, force = state
        half = momentum + step / 2 * force
        place = place + step * half / masses
        force = -slope(place, neighbor=pairs)
        return (place, half + step / 2 * force, force), None

    start = jnp.asarray(PLACES)
    state = (start, jnp.asarray(momenta), -slope(start, neighbor=pairs))
    place, momentum, _ = jax.jit(lambda s: jax.lax.scan(verlet, s, length=100)[0])(state)
    VelocityVerlet(atoms, step).run(100)
    assert abs(place - PLACES).max() > 0.1
    np.testing.assert_allclose(place, atoms.positions, rtol=0, atol=1e-6)
    np.testing.assert_allclose(momentum, atoms.get_momenta(), rtol=0, atol=1e-6)


def test_refusals():
    model = trained()
    with pytest.raises(ValueError, match=r"numbers: expected species among \[1, 8\], got \[6\]"):
        energy_fn(model, [1, 6])
    with pytest.raises(ValueError, match="box: expected heights of at least twice"):
        energy_fn(model, NUMBERS, box=[10.0, 5.9, 10.0])
    with pytest.raises(ValueError, match="box: expected sides or a matrix of a volume"):
        energy_fn(model, NUMBERS, box=np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"neighbor: expected indices of shape \[5, most\]"):
        energy_fn(model, NUMBERS)(jnp.asarray(PLACES), neighbor=Pairs(np.zeros((3, 4), int)))
    if importlib.util.find_spec("ase") is None:
        with pytest.raises(ImportError, match=r"needs ase: pip install 'gauntax\[mlip\]'"):
            PotentialCalculator(model)
