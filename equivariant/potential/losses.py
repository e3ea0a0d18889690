"""What training minimises: squared errors of energies by atom, of forces and of stresses."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
def loss_of(weights: Weights, spread: bool = False) -> Callable[..., Any]:
    """Return the loss of a model on a `Batch`, with root mean squares beside it.

    One object for one choice: compiled loops are found again by the identity of what they call.

    Args:
        weights: of its terms.
        spread: the batch has a first axis besides, which lies spread over devices.
    """

    def loss(model: Any, batch: Batch, _key: Any) -> tuple[Array, dict[str, Array]]:
        one = partial(_sums, weights, model)
        # Each part of a batch is summed where it lies; the sums of all are few numbers.
        sums = jax.tree.map(_total, jax.vmap(one)(batch)) if spread else one(batch)
        means = {name: total / number for name, (total, number) in sums.items()}
        terms = jnp.stack([getattr(weights, name) * mean for name, mean in means.items()])
        return jnp.sum(terms), {f"{k} rmse": jnp.sqrt(m) for k, m in means.items()}

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


def _total(parts: Array) -> Array:
    return parts.sum(0)
