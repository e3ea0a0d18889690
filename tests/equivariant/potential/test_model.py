"""The potential: derivatives by finite differences, symmetries, sizes, and what is refused."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equivariant import TensorProduct
from equivariant.potential import (
    Config,
    Potential,
    energies,
    energy_forces_stress,
    graph_of,
    padded,
)

pytestmark = pytest.mark.slow

SMALL = Config(
    (1, 8), cutoff=2.0, channels=3, degree=1, layers=2, order=2, functions=4, width=5, neighbours=6,
    energies=(-1.0, 2.0), repulsion=1.0,
)  # fmt: skip
SIZES = (3, 16, 128)
predict = eqx.filter_jit(energy_forces_stress)


@functools.cache
def model(x64):  # noqa: ARG001  weights are drawn in jax's default dtype
    return Potential(SMALL, key=jax.random.key(0))


def structure():
    """Five atoms in a cell so small that some are neighbours of their own images."""
    rng = np.random.default_rng(0)
    cell = np.diag([1.9, 2.4, 2.9]) + rng.uniform(-0.2, 0.2, (3, 3))
    places = [[0, 0, 0], [0.5, 0, 0.1], [0, 0.5, 0.4], [0.5, 0.5, 0.7], [0.2, 0.2, 0.6]]
    return (
        (np.array(places) + rng.uniform(-0.05, 0.05, (5, 3))) @ cell,
        np.array([1, 8, 1, 1, 8]),
        cell,
    )


def graph(positions, numbers, cell=None, dtype=jnp.float64):
    return graph_of(
        positions, numbers, cutoff=SMALL.cutoff, species=SMALL.species, cell=cell,
        periodic=cell is not None, dtype=dtype,
    )  # fmt: skip


def result(positions, numbers, cell=None, dtype=jnp.float64):
    made = predict(
        model(jax.config.jax_enable_x64),
        padded([graph(positions, numbers, cell, dtype)], cutoff=2, sizes=SIZES),
    )
    return made.energy[0], made.forces[: len(numbers)], made.stress[0]


@pytest.mark.parametrize("degree", [1, 2])
def test_both_methods_of_the_interaction_give_the_same_energies_and_forces(x64, degree):  # noqa: ARG001
    made = graph(*structure())
    found = []
    for method in ("direct", "so2"):
        config = dataclasses.replace(SMALL, degree=degree, method=method)
        found.append(predict(Potential(config, key=jax.random.key(0)), made))
    for ours, other in zip(*found, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-11, atol=1e-11)


def test_forces_and_stress_by_finite_differences(x64):  # noqa: ARG001
    positions, numbers, cell = structure()
    _, forces, stress = result(positions, numbers, cell)
    rng, h = np.random.default_rng(1), 1e-5
    for _ in range(3):
        step = rng.normal(size=positions.shape)
        up, down = (result(positions + s * h * step, numbers, cell)[0] for s in (1, -1))
        np.testing.assert_allclose(-(forces * step).sum(), (up - down) / (2 * h), rtol=1e-6)
    strain = rng.normal(size=(3, 3))
    strain = strain + strain.T
    moved = [
        result(positions @ f, numbers, cell @ f)[0]
        for f in (np.eye(3) + s * h * strain for s in (1, -1))
    ]
    work = (stress * strain).sum() * abs(np.linalg.det(cell))
    np.testing.assert_allclose(work, (moved[0] - moved[1]) / (2 * h), rtol=1e-6)
    assert abs(forces).max() > 1e-2
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-11)


def test_rotation_reflection_translation_permutation(dtype):
    positions, numbers, cell = structure()
    energy, forces, stress = result(positions, numbers, cell, dtype)
    turn = -Rotation.random(rng=np.random.default_rng(2)).as_matrix()
    order = np.array([3, 0, 4, 1, 2])
    moved = (positions @ turn.T + [0.25, -1.0, 2.0])[order]
    other = result(moved, numbers[order], cell @ turn.T, dtype)
    # The limits are on what is relative to the size of the numbers.
    limit = 1e-6 if dtype == jnp.float32 else 1e-11
    largest = max(abs(energy), abs(forces).max(), abs(stress).max())
    np.testing.assert_allclose(other[0], energy, rtol=0, atol=limit * largest)
    tolerance = {"rtol": 0, "atol": 10 * limit * largest}
    np.testing.assert_allclose(other[1], (np.asarray(forces) @ turn.T)[order], **tolerance)
    np.testing.assert_allclose(other[2], turn @ np.asarray(stress) @ turn.T, **tolerance)


def test_extensive_and_isolated(x64):  # noqa: ARG001
    """Two molecules far apart have twice the energy; an atom alone the same wherever it is."""
    positions, numbers, _ = structure()
    far = np.concatenate([positions, positions + 50])
    one = result(positions, numbers)
    two = result(far, np.tile(numbers, 2))
    np.testing.assert_allclose(two[0], 2 * one[0], rtol=1e-11)
    np.testing.assert_allclose(two[1], np.tile(one[1], (2, 1)), rtol=0, atol=1e-11)
    alone = [result(np.full((1, 3), x), [8]) for x in (0.0, 9.0)]
    assert alone[0][0] == alone[1][0]
    assert not np.any(alone[0][1])


def test_energy_and_forces_are_smooth_where_a_neighbour_leaves(x64):  # noqa: ARG001
    positions = np.array([[0, 0, 0], [0.9, 0, 0], [0, 2.0, 0]])
    results = [
        result(positions + np.diag([0, 0, s * 1e-5])[:, [0, 2, 1]], [1, 8, 1]) for s in (1, -1)
    ]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-11)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=0, atol=1e-7)


PRODUCTS = [
    ("gate", "even"), ("gate", "all"), ("gaunt", "even"), ("gaunt", "all"),
    ("clebsch-gordan", "even"), ("clebsch-gordan", "all"), ("cp", "even"),
]  # fmt: skip


@pytest.mark.parametrize(("product", "paths"), PRODUCTS)
def test_other_products_are_invariant(product, paths):
    check_invariance(product=product, paths=paths, edge_degree=2)


@pytest.mark.parametrize(
    "options",
    [
        {"product": "power"}, {"product": "gaunt", "paths": "all", "edge_degree": 2},
        {"product": "cp", "message_channels": 3}, {"product": "clebsch-gordan", "edge_degree": 2},
    ],
    ids=lambda options: options["product"],
)  # fmt: skip
def test_messages_weighted_by_degree_are_invariant(options):
    made = check_invariance(weights="per-degree", **options)
    couplings = {layer.interaction.bilinear.coupling for layer in made.layers}
    exact = options["product"] in ("cp", "clebsch-gordan")
    assert couplings == {"clebsch-gordan" if exact else "gaunt"}
    assert made.layers[1].interaction.channels == options.get("message_channels", 2)


def check_invariance(**options):
    """Return a model whose energies were seen to be the same of a turned and mirrored structure."""
    config = Config((1, 8), cutoff=2.0, channels=2, layers=2, width=4, **options)
    made = Potential(config, key=jax.random.key(1))
    positions, numbers, _ = structure()
    turn = -Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    run = eqx.filter_jit(energies)
    one, two = (
        run(made, padded([graph(z, numbers, dtype=jnp.float32)], cutoff=2, sizes=SIZES))[0]
        for z in (positions, positions @ turn.T)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5)
    lone = run(
        made, padded([graph(positions[:1], numbers[:1], dtype=jnp.float32)], cutoff=2, sizes=SIZES)
    )
    assert abs(one - lone[0]) > 1e-3
    return made


def test_features_of_both_parities_are_used(x64):  # noqa: ARG001
    """Axial vectors and pseudoscalars are made by odd paths, and reach the energy."""
    config = dataclasses.replace(SMALL, product="gaunt", paths="all", edge_degree=2)
    made = Potential(config, key=jax.random.key(1))
    first = made.layers[0].mixing
    assert {str(ir) for _, ir in first.irreps_out} == {"0e", "1o", "1e"}
    assert "1x0o" in str(made.layers[1].interaction.irreps_out)
    slopes = eqx.filter_grad(lambda m: energies(m, graph(*structure())).sum())(made)
    for weights in (*slopes.layers[0].mixing.weights, *slopes.layers[1].interaction.mixing):
        assert abs(weights).max() > 1e-8
    even = Potential(dataclasses.replace(config, paths="even"), key=jax.random.key(1))
    assert {str(ir) for _, ir in even.layers[0].mixing.irreps_out} == {"0e", "1o"}


def test_cp_is_clebsch_gordan_with_weights_per_degree(x64):  # noqa: ARG001
    config = dataclasses.replace(SMALL, product="cp", edge_degree=3)
    made = Potential(config, key=jax.random.key(1))

    def exact(product):
        other = TensorProduct(
            product.irreps_in1, product.irreps_in2, product.irreps_out, paths="even",
            coupling="clebsch-gordan", channels=product.channels, key=jax.random.key(0),
        )  # fmt: skip
        return eqx.tree_at(lambda p: p.weights, other, product.weights)

    products = [layer.product.product for layer in made.layers]
    assert {product.method for product in products} == {"cp"}
    other = eqx.tree_at(
        lambda m: [layer.product.product for layer in m.layers], made, [*map(exact, products)]
    )
    at = graph(*structure())
    np.testing.assert_allclose(energies(made, at), energies(other, at), rtol=1e-8)


def test_forces_can_be_trained(x64):  # noqa: ARG001
    """The gradient of an error of the forces by finite differences along a direction."""
    config = Config((1, 8), cutoff=2.0, channels=2, layers=1, order=2, functions=2, width=3)
    weights, static = eqx.partition(Potential(config, key=jax.random.key(2)), eqx.is_inexact_array)
    weights = jax.tree.map(lambda w: w.astype(jnp.float64), weights)
    data = graph(*structure())
    direction = jax.tree.map(
        lambda w: jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape), weights
    )

    @jax.jit
    def both(t):
        def loss(t):
            moved = jax.tree.map(lambda w, d: w + t * d, weights, direction)
            return (energy_forces_stress(eqx.combine(moved, static), data).forces ** 2).sum()

        return jax.value_and_grad(loss)(t)

    h = 1e-5
    slope = (both(h)[0] - both(-h)[0]) / (2 * h)
    np.testing.assert_allclose(both(0.0)[1], slope, rtol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="species: expected distinct atomic numbers"):
        Config((1, 1))
    with pytest.raises(ValueError, match="weights: expected one of"):
        Config((1,), weights="shared")
    with pytest.raises(ValueError, match="message_channels: expected at least 1, got 0"):
        Config((1,), message_channels=0)
    with pytest.raises(ValueError, match="message_channels: expected an integer, got True"):
        Config((1,), message_channels=True)
    with pytest.raises(ValueError, match="product: expected one of"):
        Config((1,), product="cubic")
    with pytest.raises(ValueError, match=r"paths: expected one of .*, got 'odd'"):
        Config((1,), paths="odd")
    for product in ("power", "cp"):
        wanted = (
            f"paths: expected 'even' with product='{product}', which knows natural parity alone"
        )
        with pytest.raises(ValueError, match=wanted):
            Config((1,), product=product, paths="all")
    with pytest.raises(
        ValueError, match="degree, edge_degree: expected at most 3 with product='cp"
    ):
        Config((1,), product="cp", degree=4)
    with pytest.raises(ValueError, match="energies: expected one for each of 2 species, got 1"):
        Config((1, 8), energies=(0.0,))
    with pytest.raises(ValueError, match="layers: expected at least 1, got 0"):
        Config((1,), layers=0)
