"""Forces, stress and Hessian-vector products of a pair potential, against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equivariant.potential import (
    energies,
    energy_forces_stress,
    graph_of,
    hessian_vector,
    padded,
)

pytestmark = pytest.mark.slow

CUTOFF = 4.0


def gaussian(graph):
    """exp(-r^2), half of it to each atom of a pair; at the cutoff it is 1e-7."""
    energy = jnp.exp(-(graph.vectors**2).sum(1)) / 2
    return jnp.zeros(len(graph.positions), energy.dtype).at[graph.receivers].add(energy)


def crystal(dtype, periodic=True):
    rng = np.random.default_rng(0)
    cell = np.diag([3.0, 3.3, 3.6]) + rng.uniform(-0.2, 0.2, (3, 3))
    positions = rng.uniform(0, 1, (4, 3)) @ cell
    made = graph_of(
        positions, [1] * 4, cutoff=CUTOFF, species=(1,), cell=cell, periodic=periodic, dtype=dtype
    )
    return made, positions, cell


def test_closed_forms(dtype):
    graph, positions, cell = crystal(dtype)
    shifts = np.asarray(graph.shifts, np.float64)
    receivers, senders = np.asarray(graph.receivers), np.asarray(graph.senders)
    vectors = positions[senders] - positions[receivers] + shifts @ cell
    energy = np.exp(-(vectors**2).sum(1))
    # Each pair stands twice: the force on a receiver is that of its own edges, whole.
    forces = np.zeros((4, 3))
    np.add.at(forces, receivers, -2 * vectors * energy[:, None])
    virial = -np.einsum("e,ei,ej->ij", energy, vectors, vectors)
    got = energy_forces_stress(gaussian, padded([graph], cutoff=CUTOFF))
    tolerance = {"rtol": 0, "atol": 512 * jnp.finfo(dtype).eps}
    np.testing.assert_allclose(got.energy[0], energy.sum() / 2, **tolerance)
    np.testing.assert_allclose(got.forces[:4], forces, **tolerance)
    np.testing.assert_allclose(got.stress[0], virial / np.linalg.det(cell), **tolerance)
    assert got.energy.dtype == got.forces.dtype == got.stress.dtype == dtype


def test_hessian_is_symmetric_and_the_slope_of_the_forces(x64):  # noqa: ARG001
    graph, positions, cell = crystal(jnp.float64)
    hessian = jax.vmap(lambda v: hessian_vector(gaussian, graph, v.reshape(4, 3)).ravel())(
        jnp.eye(12)
    )
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
    step = 1e-4 * np.random.default_rng(1).normal(size=(4, 3))
    force = [
        energy_forces_stress(
            gaussian,
            graph_of(
                positions + s * step, [1] * 4, cutoff=CUTOFF, species=(1,), cell=cell, periodic=True
            ),
        ).forces
        for s in (1, -1)
    ]
    slope = (force[1] - force[0]) / 2
    np.testing.assert_allclose(hessian @ step.ravel(), np.ravel(slope), atol=1e-9)


def test_without_a_volume_there_is_no_stress(dtype):
    made = graph_of(np.eye(3), [1] * 3, cutoff=CUTOFF, species=(1,), dtype=dtype)
    got = energy_forces_stress(gaussian, made)
    assert np.isnan(got.stress).all()
    np.testing.assert_allclose(got.energy[0], 3 * np.exp(-2.0), rtol=1e-6)


def test_a_model_of_the_wrong_shape_is_refused():
    graph, _, _ = crystal(jnp.float32)
    with pytest.raises(ValueError, match=r"model: expected energies of shape \(4,\), got \(4, 1\)"):
        energies(lambda g: gaussian(g)[:, None], graph)
