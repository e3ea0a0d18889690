"""Energies of structures and their derivatives: forces, stress, Hessian-vector products.

A model is a callable of a `Graph` that returns one energy a node, by way of the graph's `vectors`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .graph import Graph

Model = Callable[[Graph], Array]


class Prediction(NamedTuple):
    """What a model says of the structures of a graph; padding is zero.

    Attributes:
        energy: of every structure.
        forces: on every node, minus the gradient of the energy.
        stress: of every structure, the derivative by strain over the volume, symmetric (positive
            where the structure wants to shrink, as in ASE); NaN where the cell has no volume.
    """

    energy: Float[Array, " structures"]
    forces: Float[Array, "nodes 3"]
    stress: Float[Array, "structures 3 3"]


def energies(model: Model, graph: Graph) -> Float[Array, " structures"]:
    """Return the energy of every structure, the sum over its atoms; zero for padding.

    Raises:
        ValueError: the model returns another shape than `[nodes]`.
    """
    each = model(graph)
    structures, nodes, _ = graph.sizes
    if each.shape != (nodes,):
        raise ValueError(f"model: expected energies of shape ({nodes},), got {each.shape}")
    each = jnp.where(graph.atoms, each, 0)
    return jnp.zeros(structures, each.dtype).at[graph.structure].add(each)


def energy_forces_stress(model: Model, graph: Graph) -> Prediction:
    """Return energies, forces and stresses, with one gradient for all.

    Raises:
        ValueError: as for `energies`.
    """
    structures, nodes, _ = graph.sizes
    dtype = graph.positions.dtype

    def total(displacement: Array, strain: Array) -> tuple[Array, Array]:
        symmetric = (strain + strain.swapaxes(1, 2)) / 2
        each = energies(model, graph.strained(displacement, symmetric))
        return each.sum(), each

    at_rest = jnp.zeros((nodes, 3), dtype), jnp.zeros((structures, 3, 3), dtype)
    (_, energy), slopes = jax.value_and_grad(total, (0, 1), has_aux=True)(*at_rest)
    volume = jnp.abs(_determinant(graph.cell))[:, None, None]
    stress = jnp.where(volume > 0, slopes[1] / jnp.where(volume > 0, volume, 1), jnp.nan)
    stress = jnp.where(graph.real[:, None, None], stress, 0)
    # Without the sign of zero that negation would leave on padding.
    return Prediction(energy, 0 - slopes[0], stress)


def hessian_vector(
    model: Model, graph: Graph, direction: Float[Array, "nodes 3"]
) -> Float[Array, "nodes 3"]:
    """Return the Hessian of the total energy times a displacement of the nodes."""
    strain = jnp.zeros_like(graph.cell)

    def slope(displacement: Array) -> Array:
        return jax.grad(lambda d: energies(model, graph.strained(d, strain)).sum())(displacement)

    return jax.jvp(slope, (jnp.zeros_like(direction),), (direction,))[1]


def _determinant(cell: Array) -> Array:
    return (cell[:, 0] * jnp.cross(cell[:, 1], cell[:, 2])).sum(-1)
