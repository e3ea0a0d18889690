"""Muon for potentials: the momentum of a matrix is made orthogonal before it is a step.

So all directions of a matrix move alike, also those whose gradients are small beside others', as
they are where forces depend on distances, angles and species through the same few matrices. What
is no matrix moves by NAdam.
See Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; for the size of a
step, Liu et al., Muon is scalable for LLM training, 2025.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from optax.contrib import MuonDimensionNumbers

from .model import Potential, Squared

# Root mean square of a step in units of the learning rate, about that of Adam.
_SIZE = 0.2


def muon(learning_rate: Any) -> optax.GradientTransformation:
    """Return the optimizer for the weights of a `Potential`; the rate is a number or a schedule.

    Its `init` raises TypeError for weights of something else.
    """
    inner = optax.contrib.muon(
        learning_rate, muon_weight_dimension_numbers=_axes_of_stacks, consistent_rms=_SIZE
    )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        known = None if params is None else _stacked(params)
        made, state = inner.update(_stacked(updates), state, known)
        return _apart(made, updates), state

    return optax.GradientTransformation(lambda params: inner.init(_stacked(params)), update)


def matrix_axes(weights: Any) -> Any:
    """Return for each leaf of a `Potential` which axes are its matrices', None where it is none.

    Matrices lie in the last two axes, `[..., in, out]`; those of a path's radial weights in
    `[in, paths, out]`.

    Raises:
        TypeError: weights of something else.
    """
    if not isinstance(weights, Potential):
        raise TypeError(f"weights: expected those of a Potential, got {type(weights).__name__}")

    # Where a layer has no such part, tree_at puts a leaf: the config tells.
    both_parities = weights.config.paths == "all"
    widened = weights.layers[0].sent is not None

    def matrices(potential: Any) -> list[Any]:
        found = [readout.first for readout in potential.readouts]
        for layer in potential.layers:
            found += [*layer.radial, *layer.interaction.mixing]
            found += [*layer.mixing.weights, *layer.skip.weights]
            mixing = layer.product.mixing if isinstance(layer.product, Squared) else None
            if both_parities and mixing is not None:
                found += mixing.weights
            if widened:
                found += layer.sent.weights
        return found

    def by_path(potential: Any) -> list[Any]:
        return [layer.interaction.radial for layer in potential.layers]

    def axes_of(z: Any, first: int, second: int) -> Any:
        numbers = MuonDimensionNumbers(first % z.ndim, second % z.ndim)
        return numbers if min(z.shape[first], z.shape[second]) > 1 else None

    axes = jax.tree.map(lambda _: None, weights)
    for where, pair in ((matrices, (-2, -1)), (by_path, (0, 2))):
        own = [axes_of(z, *pair) for z in where(weights)]
        axes = eqx.tree_at(where, axes, own, is_leaf=lambda z: z is None)
    return axes


# Stacks of matrices ------------------------------------------------------------------------
# All matrices of one shape are one array, and so is what is no matrix: what optax writes out leaf
# by leaf, five products with each matrix, is otherwise half of what a step compiles.


class _Place(NamedTuple):
    """Where a leaf lies: in which stack, in which order of axes, of what shape then and there."""

    stack: str
    order: tuple[int, ...]
    ordered: tuple[int, ...]
    part: tuple[int, ...]


def _places(weights: Any) -> list[_Place]:
    leaves, structure = jax.tree.flatten(weights)
    found = []
    for z, axes in zip(leaves, structure.flatten_up_to(matrix_axes(weights)), strict=True):
        last = () if axes is None else (axes.reduction_axis, axes.output_axis)
        order = (*(n for n in range(z.ndim) if n not in last), *last)
        ordered = tuple(z.shape[n] for n in order)
        part = (z.size,) if axes is None else (math.prod(ordered[:-2]), *ordered[-2:])
        found.append(_Place(f"{z.dtype} {part[1:]}", order, ordered, part))
    return found


def _stacked(weights: Any) -> dict[str, Array]:
    """Return matrices `[number, in, out]` by their shape, and all else as vectors."""
    stacks: dict[str, list[Array]] = {}
    for z, place in zip(jax.tree.leaves(weights), _places(weights), strict=True):
        stacks.setdefault(place.stack, []).append(z.transpose(place.order).reshape(place.part))
    return {name: jnp.concatenate(parts) for name, parts in stacks.items()}


def _apart(stacks: Any, like: Any) -> Any:
    """Return the leaves of a tree from its stacks."""
    leaves, starts = [], dict.fromkeys(stacks, 0)
    for place in _places(like):
        start, stop = starts[place.stack], starts[place.stack] + place.part[0]
        starts[place.stack] = stop
        own = stacks[place.stack][start:stop].reshape(place.ordered)
        leaves.append(own.transpose(np.argsort(place.order)))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _axes_of_stacks(stacks: Any) -> Any:
    def axes(z: Any) -> Any:
        if isinstance(z, optax.MaskedNode):  # optax asks once more, of the matrices alone
            return z
        return MuonDimensionNumbers(1, 2) if z.ndim == 3 else None

    return {name: axes(z) for name, z in stacks.items()}
