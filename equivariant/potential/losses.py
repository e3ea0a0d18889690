"""What training minimises: squared errors of energies by atom, of forces and of stresses."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from .batches import Batch
from .energy import energy_forces_stress


class Weights(NamedTuple):
    """Of the mean squares; a label of weight zero need not be known.

    Attributes:
        energy: of the error by atom.
        forces: of the error of a component.
        stress: of the error of a component.
    """

    energy: float | int = 10.0
    forces: float | int = 1.0
    stress: float | int = 0.0


@lru_cache(maxsize=64)
def loss_of(weights: Weights, mesh: Mesh | None = None) -> Callable[..., Any]:
    """Return the loss of a model on a `Batch`, with root mean squares beside it.

    One object for one choice: compiled loops are found again by the identity of what they call.

    Args:
        weights: of its terms.
        mesh: of one axis, over whose devices the first axis of the batch is spread.
    """

    def loss(model: Any, batch: Batch, _key: Any) -> tuple[Array, dict[str, Array]]:
        sums = (
            _sums(weights, model, batch) if mesh is None else _spread(weights, mesh, model, batch)
        )
        means = {name: total / number for name, (total, number) in sums.items()}
        terms = [getattr(weights, name) * mean for name, mean in means.items()]
        return sum(terms[1:], terms[0]), {f"{k} rmse": jnp.sqrt(m) for k, m in means.items()}

    return loss


def _sums(weights: Weights, model: Any, batch: Batch) -> dict[str, tuple[Array, Array]]:
    """Return sums of squares, and of how many, for every label of a weight."""
    graph = batch.graph
    made = energy_forces_stress(model, graph)
    real = graph.real.astype(made.energy.dtype)
    atoms = jnp.zeros_like(made.energy).at[graph.structure].add(real[graph.structure])
    found = {}
    if weights.energy:
        error = (made.energy - batch.energy) / jnp.maximum(atoms, 1)
        found["energy"] = jnp.sum(error**2 * real), jnp.sum(real)
    if weights.forces:
        error = made.forces - batch.forces
        found["forces"] = jnp.sum(error**2), 3 * jnp.sum(atoms * real)
    if weights.stress:
        error = made.stress - batch.stress
        found["stress"] = jnp.sum(error**2), 9 * jnp.sum(real)
    return found


def _spread(weights: Weights, mesh: Mesh, model: Any, batch: Batch) -> Any:
    """Sum on every device over its own part of the batch, then over the devices."""
    axis = mesh.axis_names[0]
    arrays, static = eqx.partition(model, eqx.is_array)

    def local(arrays: Any, batch: Batch) -> Any:
        own = jax.tree.map(lambda z: z[0], batch)
        return jax.lax.psum(_sums(weights, eqx.combine(arrays, static), own), axis)

    whole, split = PartitionSpec(), PartitionSpec(axis)
    return jax.shard_map(local, mesh=mesh, in_specs=(whole, split), out_specs=whole)(arrays, batch)
