"""Messages in the edge's frame against the direct ones, and the rotations against harmonics."""

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from edges import error_of, tolerance

from equivariant import Interaction
from equivariant.rotations import half_turn, onto_axis

KEY = jax.random.key(0)
NATURAL = "0e+1o+2e+3o"
# Edges along both directions of the axis, close to it, where the frame's choice changes, and none.
SPECIAL = [[0, 1, 0], [0, -2, 0], [1e-6, 3, 0], [0.6, 0.8, 0], [0, 0.8 + 1e-7, 0.6], [0, 0, 0]]


def special_vectors(dtype, edges=12):
    vectors = np.random.default_rng(1).normal(size=(edges, 3))
    vectors[: len(SPECIAL)] = SPECIAL
    return jnp.asarray(vectors, dtype)


def made_of(irreps, edge, method, **options):
    options = {"channels": 3, "channels_out": 2, "key": KEY} | options
    return Interaction(irreps, edge, irreps, method=method, **options)


def inputs(made, dtype, edges=12, nodes=5):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(nodes, made.channels, made.bilinear.irreps_in1.dim))
    weights = rng.normal(size=(edges, made.n_paths, made.channels))
    senders, receivers = rng.integers(0, nodes, (2, edges))
    arrays = (jnp.asarray(x, dtype), jnp.asarray(weights, dtype))
    return *arrays, jnp.asarray(senders), jnp.asarray(receivers)


def test_directions_are_turned_onto_the_axis(dtype):
    vectors, degree = special_vectors(dtype)[:-1], 6
    vectors = vectors[jnp.any(vectors != 0, axis=1)]
    irreps = e3nn.Irreps.spherical_harmonics(degree)
    harmonics = e3nn.spherical_harmonics(irreps, vectors, True, normalization="component").array
    eps = float(jnp.finfo(dtype).eps)
    turns = onto_axis(vectors, degree)
    for n, part in enumerate(irreps.slices()):
        turned = jnp.einsum("eab,eb->ea", turns[n], harmonics[:, part], precision="highest")
        axis = np.sqrt(2 * n + 1) * (np.arange(2 * n + 1) == n)
        np.testing.assert_allclose(turned, np.tile(axis, (len(vectors), 1)), atol=200 * eps)
        square = jnp.einsum("eab,ecb->eac", turns[n], turns[n], precision="highest")
        eye = np.tile(np.eye(2 * n + 1), (len(vectors), 1, 1))
        np.testing.assert_allclose(square, eye, atol=100 * eps)
        assert turns[n].dtype == dtype


def test_half_turns_are_e3nn_wigner_matrices(x64):  # noqa: ARG001
    np.testing.assert_array_equal(half_turn(1), [[0, 1, 0], [1, 0, 0], [0, 0, -1]])
    for degree in range(7):
        generators = np.asarray(e3nn.Irrep(degree, 1).generators(), np.float64)
        expected = scipy.linalg.expm(np.pi * (generators[0] + generators[1]) / np.sqrt(2))
        np.testing.assert_allclose(half_turn(degree), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("irreps", "edge", "coupling"),
    [(NATURAL, NATURAL, "clebsch-gordan"), ("0e+0o+1e+1o+2e+2o", "1o+2e", "gaunt")],
)
def test_the_frame_changes_no_numbers(irreps, edge, coupling, dtype):
    direct, framed = (made_of(irreps, edge, name, coupling=coupling) for name in ("direct", "so2"))
    x, weights, *ends = inputs(direct, dtype)
    vectors = special_vectors(dtype)

    def value(made, x, vectors, weights):
        z = made(x, None, weights, *ends, vectors=vectors)
        return (z**2).sum(), z

    run = eqx.filter_jit(
        lambda *z: [jax.value_and_grad(value, (1, 2, 3), has_aux=True)(m, *z) for m in made]
    )
    made = (direct, framed)
    # The last special edge has no direction, and no derivative by it.
    (((_, expected), slopes), ((_, got), others)) = run(x, vectors, weights)
    np.testing.assert_allclose(got, expected, atol=tolerance(dtype) * float(abs(expected).max()))
    there = np.any(np.asarray(vectors) != 0, axis=1)
    for name, a, b in zip("xvw", slopes, others, strict=True):
        keep = there if name == "v" else slice(None)
        a, b = np.asarray(a)[keep], np.asarray(b)[keep]
        assert np.isfinite(b).all()
        np.testing.assert_allclose(b, a, atol=20 * tolerance(dtype) * abs(a).max())


def test_second_derivatives_along_the_axis(x64):  # noqa: ARG001
    """Those by the vectors equal those of the direct method, poles and seams included."""
    vectors = special_vectors(jnp.float64)[:5]
    hessians = []
    for method in ("direct", "so2"):
        made = made_of("0e+1o", "0e+1o+2e", method, channels=1)
        x, weights, *ends = inputs(made, jnp.float64, edges=5)

        def energy(vectors, made=made, x=x, weights=weights, ends=ends):
            return (made(x, None, weights, *ends, vectors=vectors) ** 2).sum()

        hessians.append(jax.jit(jax.hessian(energy))(vectors))
    scale = float(abs(hessians[0]).max())
    np.testing.assert_allclose(hessians[1], hessians[0], atol=1e-11 * scale)


def test_equivariance(dtype):
    made = made_of(NATURAL, NATURAL, "so2")
    _, weights, *_ = inputs(made, dtype, edges=1)
    assert error_of(made, weights, dtype) < tolerance(dtype)


def test_all_methods_are_compared():
    made = Interaction(NATURAL, NATURAL, NATURAL, channels=8, key=KEY)
    assert {"direct", "so2"} <= set(made.explain(1000).split())
    even = Interaction("0e+1e", "1e", "1e", channels=8, key=KEY)
    assert "so2" not in even.explain(1000)
