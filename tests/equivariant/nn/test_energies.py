"""Isolated atoms, scale and shift, and the repulsion of nuclei, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.constants as c

from equivariant.nn import ZBL, ScaleShift, isolated_atom_energies


def test_energies_that_are_sums_of_atoms_are_explained_exactly():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (20, 3))
    np.testing.assert_allclose(
        isolated_atom_energies(counts, counts @ [-13.6, 2.0, -1e4]), [-13.6, 2.0, -1e4], rtol=1e-9
    )


def test_one_composition_is_explained_by_the_smallest_energies():
    """Of all x with 2 x_0 + x_1 = 10 the one nearest to zero is (4, 2)."""
    np.testing.assert_allclose(isolated_atom_energies([[2, 1]] * 3, [10.0] * 3), [4, 2])


def test_scale_and_shift(dtype):
    layer = ScaleShift([2.0, 3.0], [0.5, -1.0])
    got = layer(jnp.array([1, 2, 3], dtype), jnp.array([1, 0, 1]))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, [2, 4.5, 8])


def test_repulsion_is_the_formula_in_si_units(x64):  # noqa: ARG001
    """Screened Coulomb energy of a carbon and an oxygen, without the cutoff far below it."""
    r = np.array([0.01, 0.1, 0.5])
    bohr = c.physical_constants["Bohr radius"][0] * 1e10
    x = r * (6**0.23 + 8**0.23) / (0.8854 * bohr)
    phi = 0.18175 * np.exp(-3.1998 * x) + 0.50986 * np.exp(-0.94229 * x)
    phi += 0.28022 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.20162 * x)
    coulomb = c.e / (4 * np.pi * c.epsilon_0) * 1e10
    got = ZBL((8, 6), cutoff=1e3)(jnp.asarray(r), jnp.ones(3, int), jnp.zeros(3, int))
    np.testing.assert_allclose(got, coulomb * 48 / r * phi, rtol=1e-8)


def test_repulsion_ends_at_the_cutoff(dtype):
    layer = ZBL((1,), cutoff=1.5)
    species = jnp.zeros(2, int)
    r = jnp.array([1.5, 3.0], dtype)
    assert not np.any(layer(r, species, species))
    assert not np.any(jax.grad(lambda r: layer(r, species, species).sum())(r))
    near = layer(r / 3, species, species)
    assert near[0] > near[1] > 0
    assert near.dtype == dtype


def test_refusals():
    with pytest.raises(ValueError, match=r"counts: expected shape \[frames, species\]"):
        isolated_atom_energies(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"energies: expected shape \(3,\), got \(2,\)"):
        isolated_atom_energies(np.ones((3, 1)), np.ones(2))
    with pytest.raises(ValueError, match="energies: expected finite values"):
        isolated_atom_energies(np.ones((1, 1)), [np.nan])
    with pytest.raises(ValueError, match="scale, shift: expected two shapes"):
        ScaleShift([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"numbers: expected atomic numbers, got \(0,\)"):
        ZBL((0,))
