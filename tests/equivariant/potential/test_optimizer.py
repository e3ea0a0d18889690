"""Muon against singular value decompositions of numpy, and against optax's NAdam."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers
from potential_runs import SMALL

from equivariant.potential import Potential, muon
from equivariant.potential.optimizer import matrix_axes
from equivariant.potential.training import trained_leaves

KEY = jax.random.key(0)


def polar(matrix):
    left, _, right = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    return left @ right


# With one channel some matrices are vectors, which are for NAdam.
@pytest.mark.parametrize(
    "changed",
    [
        {}, {"channels": 1}, {"product": "gate"}, {"product": "cp"}, {"product": "gaunt"},
        {"product": "gaunt", "paths": "all"}, {"product": "clebsch-gordan", "paths": "all"},
        {"weights": "per-degree", "message_channels": 5},
    ],
    ids=lambda changed: " ".join(map(str, changed.values())) or "powers",
)  # fmt: skip
def test_first_step_is_orthogonal_for_matrices_and_nadams_for_all_else(changed):
    model = Potential(dataclasses.replace(SMALL, **changed), key=KEY)
    weights = eqx.filter(model, trained_leaves(model))
    leaves, treedef = jax.tree.flatten(weights)
    keys = jax.random.split(KEY, len(leaves))
    slopes = treedef.unflatten(
        [jax.random.normal(k, z.shape) for k, z in zip(keys, leaves, strict=True)]
    )
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its counts with floats
        steps = [
            optimizer.update(slopes, optimizer.init(weights), weights)[0]
            for optimizer in (muon(0.5), optax.nadam(0.5))
        ]
    axes = treedef.flatten_up_to(matrix_axes(weights))
    assert set(map(type, axes)) == {type(None), MuonDimensionNumbers}
    for own, slope, step, nadams in zip(axes, *map(jax.tree.leaves, (slopes, *steps)), strict=True):
        if own is None:
            np.testing.assert_allclose(step, nadams, rtol=1e-6)
            continue
        if own == (0, 2):
            slope, step = (np.swapaxes(z, 0, 1) for z in (slope, step))
        shape = slope.shape[-2:]
        for one, made in zip(slope.reshape(-1, *shape), step.reshape(-1, *shape), strict=True):
            # In units of Adam's step, 0.2 in the mean square of a square matrix.
            along = -np.sum(polar(one) * made) / min(shape) / (0.5 * 0.2 * max(shape) ** 0.5)
            assert 0.7 < along < 1.2
    found = matrix_axes(weights)
    assert found.layers[0].interaction.radial == ((0, 2) if model.config.channels > 1 else None)
    assert found.embedding is None
    if model.config.message_channels is not None:
        assert set(found.layers[0].sent.weights) == {(1, 2)}
    if model.config.paths == "all":
        assert None not in found.layers[0].product.mixing.weights


def test_second_step_is_that_of_optax_leaf_by_leaf():
    model = Potential(SMALL, key=KEY)
    weights = eqx.filter(model, trained_leaves(model))

    def leaf_by_leaf(weights):
        def axes(z, own):
            return z if isinstance(z, optax.MaskedNode) else own

        leaves, structure = jax.tree.flatten(
            weights, is_leaf=lambda z: isinstance(z, optax.MaskedNode)
        )
        known = structure.flatten_up_to(matrix_axes(model_like))
        return structure.unflatten([axes(*pair) for pair in zip(leaves, known, strict=True)])

    model_like = weights
    plain = optax.contrib.muon(0.1, muon_weight_dimension_numbers=leaf_by_leaf, consistent_rms=0.2)
    found = []
    with jax.numpy_dtype_promotion("standard"):
        for optimizer in (muon(0.1), plain):
            state = optimizer.init(weights)
            for scale in (1.0, -0.3):
                slopes = jax.tree.map(lambda z, scale=scale: scale * z**2 + z, weights)
                steps, state = optimizer.update(slopes, state, weights)
            found.append(jax.tree.leaves(steps))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_weights_of_something_else_are_refused():
    with pytest.raises(TypeError, match="weights: expected those of a Potential, got dict"):
        muon(0.1).init({"weights": np.ones((2, 2))})
