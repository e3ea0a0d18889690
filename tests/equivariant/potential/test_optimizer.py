"""Muon against singular value decompositions of numpy, and against optax's Adam."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from potential_runs import SMALL

from equivariant.potential import Potential, muon
from equivariant.potential.optimizer import kinds_of, orthogonal
from equivariant.potential.training import trained_leaves

KEY = jax.random.key(0)


def polar(matrix):
    left, values, right = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    return left @ right, values


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 4, 9), (2, 9, 4), (2, 5, 1)])
def test_singular_vectors_stay_and_values_come_near_one(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape)
    got = orthogonal(jnp.asarray(x, dtype))
    assert got.dtype == dtype
    for one, made in zip(x, np.asarray(got, np.float64), strict=True):
        left, _, right = np.linalg.svd(one, full_matrices=False)
        core = left.T @ made @ right.T
        values = np.diagonal(core)
        np.testing.assert_allclose(core, np.diag(values), atol=float(1e3 * jnp.finfo(dtype).eps))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_no_gradient_makes_no_step():
    assert not np.any(orthogonal(jnp.zeros((2, 3, 4))))


def test_first_step_is_orthogonal_for_matrices_and_adams_for_all_else():
    model = Potential(SMALL, key=KEY)
    weights = eqx.filter(model, trained_leaves(model))
    leaves, treedef = jax.tree.flatten(weights)
    keys = jax.random.split(KEY, len(leaves))
    slopes = treedef.unflatten(
        [jax.random.normal(k, z.shape) for k, z in zip(keys, leaves, strict=True)]
    )
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its counts with floats
        steps = [
            optimizer.update(slopes, optimizer.init(weights), weights)[0]
            for optimizer in (muon(0.5), optax.adam(0.5))
        ]
    labels = jax.tree.leaves(kinds_of(weights))
    assert set(labels) == {"matrices", "by path", "other"}
    for kind, slope, step, adams in zip(
        labels, *map(jax.tree.leaves, (slopes, *steps)), strict=True
    ):
        if kind == "other":
            np.testing.assert_array_equal(step, adams)
            continue
        if kind == "by path":
            slope, step = (np.swapaxes(z, 0, 1) for z in (slope, step))
        shape = slope.shape[-2:]
        for one, made in zip(slope.reshape(-1, *shape), step.reshape(-1, *shape), strict=True):
            # In units of Adam's step, 0.2 in the mean square of a square matrix.
            along = -np.sum(polar(one)[0] * made) / min(shape) / (0.5 * 0.2 * max(shape) ** 0.5)
            assert 0.7 < along < 1.2
    assert kinds_of(weights).layers[0].interaction.radial == "by path"
    assert kinds_of(weights).embedding == "other"
