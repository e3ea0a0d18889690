"""Neighbour lists against a loop over images, and, where installed, ASE's and matscipy's."""

import importlib.util
import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from equivariant.potential import neighbours

INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("ase", "matscipy")}
needs = {
    name: pytest.mark.skipif(
        not there, reason=f"{name} is not installed: pip install gauntax[mlip]"
    )
    for name, there in INSTALLED.items()
}


def structure(seed, atoms=4):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1.5, 4, 3)) + rng.uniform(-0.8, 0.8, (3, 3))
    return rng.uniform(-3, 5, (atoms, 3)), cell


def as_set(found):
    rows = np.column_stack([found.receivers, found.senders, found.shifts])
    assert len(set(map(tuple, rows))) == len(rows)
    return set(map(tuple, rows))


def by_images(positions, cutoff, cell, periodic):
    """Every pair with every image that could be near, one by one."""
    fractional = positions @ np.linalg.inv(cell)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil(cutoff / heights + np.ptp(fractional, axis=0)).astype(int) * periodic
    found = set()
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        for i, j in itertools.product(range(len(positions)), repeat=2):
            vector = positions[j] - positions[i] + shift @ cell
            if np.linalg.norm(vector) < cutoff and not (i == j and not any(shift)):
                found.add((i, j, *shift))
    return found


SETTINGS = {
    "seed": st.integers(0, 2**31),
    "periodic": st.tuples(*[st.booleans()] * 3),
    "cutoff": st.floats(0.5, 4.0),
}


@given(**SETTINGS)
def test_pairs_are_those_of_a_loop_over_images(seed, periodic, cutoff):
    positions, cell = structure(seed)
    found = neighbours(positions, cutoff, cell=cell, periodic=periodic, backend="scipy")
    assert as_set(found) == by_images(positions, cutoff, cell, np.array(periodic))


@needs["matscipy"]
@given(**SETTINGS)
def test_matscipy_finds_the_same_in_the_same_order(seed, periodic, cutoff):
    positions, cell = structure(seed)
    one, two = (
        neighbours(positions, cutoff, cell=cell, periodic=periodic, backend=name)
        for name in ("scipy", "matscipy")
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@needs["ase"]
@settings(max_examples=10)
@given(**SETTINGS)
def test_ase_finds_the_same(seed, periodic, cutoff):
    from ase.neighborlist import primitive_neighbor_list

    positions, cell = structure(seed)
    i, j, shifts = primitive_neighbor_list("ijS", periodic, cell, positions, cutoff)
    found = neighbours(positions, cutoff, cell=cell, periodic=periodic)
    assert as_set(found) == set(map(tuple, np.column_stack([i, j, shifts])))


def test_an_atom_alone_in_its_cell_has_its_images_for_neighbours():
    """Simple cubic: 6 images at 1, 12 at sqrt(2), 8 at sqrt(3)."""
    for cutoff, number in ((0.9, 0), (1.1, 6), (1.5, 18), (1.8, 26)):
        found = neighbours([[0.3, 0, 0]], cutoff, cell=np.eye(3), periodic=True)
        assert len(found.senders) == number


def test_the_order_is_by_receiver_then_sender_then_shift():
    positions, cell = structure(3)
    found = neighbours(positions, 4.0, cell=cell, periodic=True)
    rows = list(zip(found.receivers, found.senders, map(tuple, found.shifts), strict=True))
    assert rows == sorted(rows)


def test_refusals():
    with pytest.raises(ValueError, match=r"positions: expected shape \[atoms, 3\]"):
        neighbours(np.ones((2, 2)), 1.0)
    with pytest.raises(ValueError, match=r"NaN or infinity for 1 atoms, the first at index 1"):
        neighbours([[0, 0, 0], [np.nan, 0, 0]], 1.0)
    with pytest.raises(ValueError, match="got atoms 0 and 1 on one spot"):
        neighbours([[0.5, 0, 0], [0.5, 0, 0]], 1.0)
    with pytest.raises(ValueError, match="got atoms 0 and 1 on one spot"):
        neighbours([[0.5, 0, 0], [2.5, 0, 0]], 1.0, cell=2 * np.eye(3), periodic=True)
    with pytest.raises(ValueError, match="cell: expected independent vectors"):
        neighbours([[0, 0, 0]], 1.0, periodic=True)
    with pytest.raises(ValueError, match="cell: expected independent vectors"):
        neighbours([[0, 0, 0]], 1.0, cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], periodic=True)
    with pytest.raises(ValueError, match="cutoff: expected a positive distance"):
        neighbours([[0, 0, 0]], 0.0)
    with pytest.raises(ValueError, match="backend: expected one of"):
        neighbours([[0, 0, 0]], 1.0, backend="ase")
