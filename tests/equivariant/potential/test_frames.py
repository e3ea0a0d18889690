"""Extended XYZ: what is read, ASE's reader where it is installed, and what is refused."""

import importlib.util

import numpy as np
import pytest

from equivariant.potential import Frame, read_frames
from equivariant.potential.frames import SYMBOLS, check_labels, composition, species_of

WATER = """3
Lattice="5.0 0.0 0.0 0.0 6.0 0.0 0.5 0.0 7.0" Properties=species:S:1:pos:R:3:forces:R:3:id:I:1 \
config_type=bulk energy=-76.5 stress="1 2 3 2 4 5 3 5 6" pbc="T F T"
O  0.0 0.0 0.12 0.1 -0.2 0.3 1
H  0.0 0.76 -0.48 -1e-2 0.0 0.5 2
H  0.0 -0.76 -0.48 0.0 0.2 -0.8 3
1
Properties=species:S:1:pos:R:3 energy=-13.5 pbc="F F F"
He 1.0 2.0 3.0
"""


@pytest.fixture
def water(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text(WATER)
    return path


def test_what_is_read(water):
    first, second = read_frames(water)
    assert first.numbers.tolist() == [8, 1, 1]
    np.testing.assert_array_equal(first.positions[1], [0, 0.76, -0.48])
    np.testing.assert_array_equal(first.forces[1], [-0.01, 0, 0.5])
    np.testing.assert_array_equal(first.cell, [[5, 0, 0], [0, 6, 0], [0.5, 0, 7]])
    np.testing.assert_array_equal(first.stress, [[1, 2, 3], [2, 4, 5], [3, 5, 6]])
    assert (first.energy, first.periodic) == (-76.5, (True, False, True))
    assert (second.forces, second.stress, second.cell) == (None, None, None)
    assert second.numbers.tolist() == [2]
    assert species_of([first, second]) == (1, 2, 8)
    assert composition([first, second], (1, 2, 8)).tolist() == [[2, 0, 1], [0, 1, 0]]


def test_other_names(water):
    water.write_text(WATER.replace("energy", "DFT_energy").replace("forces", "REF_forces"))
    first, _ = read_frames(water, energy="DFT_energy", forces="REF_forces")
    assert first.energy == -76.5
    assert first.forces is not None
    assert read_frames(water)[0].energy is None


@pytest.mark.skipif(
    importlib.util.find_spec("ase") is None,
    reason="ase is not installed: pip install gauntax[mlip]",
)
def test_ase_reads_the_same(water):
    import ase.data
    import ase.io

    assert ase.data.chemical_symbols == SYMBOLS
    for frame, atoms in zip(read_frames(water), ase.io.read(water, ":"), strict=True):
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_array_equal(frame.periodic, atoms.pbc)
        assert frame.energy == atoms.get_potential_energy()
        if frame.cell is not None:
            np.testing.assert_array_equal(frame.cell, atoms.cell)
            np.testing.assert_array_equal(frame.forces, atoms.get_forces())
            np.testing.assert_array_equal(frame.stress, atoms.get_stress(voigt=False))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3\nLattice", "three\nLattice", r"water.xyz:1: expected the number of atoms"),
        ("He 1.0 2.0 3.0\n", "", r"water.xyz:6: expected 1 atoms, got 0 before the end"),
        ("He 1.0", "Qq 1.0", r"water.xyz:6: expected chemical symbols, got \['Qq'\]"),
        ("He 1.0 2.0 3.0", "He 1.0", r"water.xyz:6: expected 4 columns for atom 0, got 2"),
        ("0.76 -0.48 -1e-2", "0.76 -0.48 x", r"water.xyz:1: expected 3 x 3 numbers as forces"),
        ('"5.0 0.0', '"5.0', r"water.xyz:1: expected 3 x 3 numbers as Lattice"),
        ("species:S:1:pos", "species:S:1:place", r"water.xyz:1: expected a column pos"),
    ],
)
def test_a_bad_file_is_refused(water, old, new, message):
    water.write_text(WATER.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_frames(water)


def test_an_empty_file_and_bad_labels_are_refused(water):
    frames = read_frames(water)
    assert not np.any(check_labels(frames, forces=True, stress=False)[1].forces)
    with pytest.raises(
        ValueError, match=r"frames\[1\] \(.*water.xyz:6\): expected stress, got none"
    ):
        check_labels(frames, forces=True, stress=True)
    bare = Frame(np.array([1, 1]), np.eye(3)[:2], energy=0.0)
    with pytest.raises(ValueError, match=r"frames\[0\]: expected forces, got none"):
        check_labels([bare], forces=True, stress=False)
    with pytest.raises(ValueError, match=r"frames\[0\].*: expected finite energy, got NaN"):
        check_labels([frames[0]._replace(energy=float("nan"))], forces=True, stress=False)
    with pytest.raises(ValueError, match=r"expected species among \[1, 8\], got \[2\]"):
        composition(frames, (1, 8))
    with pytest.raises(ValueError, match="frames: expected at least one, got none"):
        check_labels([], forces=True, stress=False)
    water.write_text("\n")
    with pytest.raises(ValueError, match=r"water.xyz: expected at least one frame, got none"):
        read_frames(water)
