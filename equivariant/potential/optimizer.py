"""Muon for potentials: the momentum of a matrix is made orthogonal before it is a step.

So all directions of a matrix move alike, also those whose gradients are small beside others', as
they are where forces depend on distances, angles and species through the same few matrices. What
is no matrix moves by NAdam.
See Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; for the size of a
step, Liu et al., Muon is scalable for LLM training, 2025.
"""

from typing import Any

import equinox as eqx
import jax
import optax
from optax.contrib import MuonDimensionNumbers

from .model import Potential

# Root mean square of a step in units of the learning rate, about that of Adam.
_SIZE = 0.2


def muon(learning_rate: Any) -> optax.GradientTransformation:
    """Return the optimizer for the weights of a `Potential`; the rate is a number or a schedule.

    Its `init` raises TypeError for weights of something else.
    """
    return optax.contrib.muon(
        learning_rate, muon_weight_dimension_numbers=matrix_axes, consistent_rms=_SIZE
    )


def matrix_axes(weights: Any) -> Any:
    """Return for each leaf of a `Potential` which axes are its matrices', None where it is none.

    Matrices lie in the last two axes, `[..., in, out]`; those of a path's radial weights in
    `[in, paths, out]`.

    Raises:
        TypeError: weights of something else.
    """
    if not isinstance(weights, Potential):
        raise TypeError(f"weights: expected those of a Potential, got {type(weights).__name__}")

    def matrices(potential: Any) -> list[Any]:
        found = [readout.first for readout in potential.readouts]
        for layer in potential.layers:
            found += [*layer.radial, *layer.interaction.mixing]
            found += [*layer.mixing.weights, *layer.skip.weights]
        return found

    def by_path(potential: Any) -> list[Any]:
        return [layer.interaction.radial for layer in potential.layers]

    def axes_of(z: Any, first: int, second: int) -> Any:
        if isinstance(z, optax.MaskedNode):  # optax asks once more, of the matrices alone
            return z
        numbers = MuonDimensionNumbers(first % z.ndim, second % z.ndim)
        return numbers if min(z.shape[first], z.shape[second]) > 1 else None

    axes = jax.tree.map(lambda _: None, weights)
    for where, pair in ((matrices, (-2, -1)), (by_path, (0, 2))):
        own = [axes_of(z, *pair) for z in where(weights)]
        axes = eqx.tree_at(where, axes, own, is_leaf=lambda z: z is None)
    return axes
