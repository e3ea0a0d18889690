"""Muon for potentials: the momentum of a matrix is made orthogonal before it is a step.

So all directions of a matrix move alike, also those whose gradients are small beside others', as
they are where forces depend on distances, angles and species through the same few matrices. What
is no matrix moves by Adam.
See Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; for the size of a
step, Liu et al., Muon is scalable for LLM training, 2025.
"""

from collections.abc import Hashable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .model import Potential

_MOMENTUM = 0.95
# Root mean square of a step in units of the learning rate, about that of Adam.
_SIZE = 0.2
# Five turns of x -> a x + (b (x x') + c (x x')^2) x bring singular values from above 0.001 near 1.
_TURNS = 5, (3.4445, -4.7750, 2.0315)


def muon(learning_rate: Any) -> optax.GradientTransformation:
    """Return the optimizer for the weights of a `Potential`; the rate is a number or a schedule."""
    kinds: dict[Hashable, optax.GradientTransformation] = {
        "matrices": optax.chain(_orthogonal(), optax.scale_by_learning_rate(learning_rate)),
        "by path": optax.chain(
            _orthogonal(by_path=True), optax.scale_by_learning_rate(learning_rate)
        ),
        "other": optax.adam(learning_rate),
    }
    return optax.multi_transform(kinds, kinds_of)


def kinds_of(weights: Potential) -> Potential:
    """Return for each leaf whether it holds matrices.

    These are `"matrices"` `[..., in, out]`, `"by path"` `[in, paths, out]`, or it is `"other"`.
    """

    def matrices(potential: Any) -> list[Any]:
        found = [readout.first for readout in potential.readouts]
        for layer in potential.layers:
            found += [*layer.radial, *layer.interaction.mixing]
            found += [*layer.mixing.weights, *layer.skip.weights]
        return found

    def by_path(potential: Any) -> list[Any]:
        return [layer.interaction.radial for layer in potential.layers]

    labels = jax.tree.map(lambda _: "other", weights)
    own = ["matrices" if min(z.shape[-2:]) > 1 else "other" for z in matrices(weights)]
    labels = eqx.tree_at(matrices, labels, own)
    return eqx.tree_at(by_path, labels, ["by path"] * len(weights.layers))


def orthogonal(matrices: Float[Array, "number m n"]) -> Float[Array, "number m n"]:
    """Return matrices with the singular vectors of others, and singular values near 1.

    Singular values of the result lie between about 0.7 and 1.2, but where they were less than a
    thousandth of the matrix' norm.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.swapaxes(1, 2)
    norm = jnp.sqrt(jnp.sum(x**2, axis=(1, 2), keepdims=True))
    x = x / jnp.maximum(norm, jnp.finfo(x.dtype).tiny ** 0.5)
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    turns, (first, third, fifth) = _TURNS
    for _ in range(turns):
        square = product(x, x.swapaxes(1, 2))
        x = first * x + product(third * square + fifth * product(square, square), x)
    return x if wide else x.swapaxes(1, 2)


def _orthogonal(*, by_path: bool = False) -> optax.GradientTransformation:
    """Return momentum made orthogonal, `[..., in, out]` or `[in, paths, out]`."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        momentum = jax.tree.map(lambda m, g: _MOMENTUM * m + g, state, updates)
        ahead = jax.tree.map(lambda m, g: _MOMENTUM * m + g, momentum, updates)
        leaves, treedef = jax.tree.flatten(ahead)
        if by_path:
            leaves = [z.swapaxes(0, 1) for z in leaves]
        leaves = _by_shape([z.reshape(-1, *z.shape[-2:]) for z in leaves], leaves)
        if by_path:
            leaves = [z.swapaxes(0, 1) for z in leaves]
        return treedef.unflatten(leaves), momentum

    return optax.GradientTransformation(init, update)


def _by_shape(stacks: list[Array], like: list[Array]) -> list[Array]:
    """Return steps, all matrices of a shape made at once, in the shapes of others."""
    made: dict[int, Array] = {}
    for shape in dict.fromkeys(z.shape[1:] for z in stacks):
        own = [n for n, z in enumerate(stacks) if z.shape[1:] == shape]
        joined = orthogonal(jnp.concatenate([stacks[n] for n in own]))
        ends = np.cumsum([len(stacks[n]) for n in own])[:-1].tolist()
        for n, part in zip(own, jnp.split(joined, ends), strict=True):
            made[n] = (_SIZE * max(shape) ** 0.5 * part).reshape(like[n].shape)
    return [made[n] for n in range(len(stacks))]
