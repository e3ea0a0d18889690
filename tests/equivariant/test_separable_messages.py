"""Weights per degree: messages at places against the direct ones, these against e3nn-jax."""

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edges import error_of, tolerance

from equivariant import Interaction

KEY = jax.random.key(0)
NATURAL = "0e+1o+2e+3o"
BOTH = "0e+1o+2e+0o+1e+2o"
# Nodes, edges, result, coupling, and the methods that compute the map at places.
MAPS = [
    (NATURAL, NATURAL, NATURAL, "gaunt", ("gaunt-grid",)),
    (BOTH, "0e+1o+2e+3o", BOTH, "gaunt", ("gaunt-grid",)),
    ("1e+2o+0o", "1o+2e", "1o+2e+0o+1e+2o", "gaunt", ("gaunt-grid",)),
    (NATURAL, NATURAL, NATURAL, "clebsch-gordan", ("cp", "gaunt-grid")),
    ("0e+1o", NATURAL, NATURAL, "clebsch-gordan", ("cp", "gaunt-grid")),
    ("1o", "1o+2e", "0e+2e", "clebsch-gordan", ("cp",)),
]


def made_of(irreps, edge, out, coupling, method, **options):
    options = {"channels": 3, "channels_out": 2, "key": KEY} | options
    return Interaction(
        irreps, edge, out, coupling=coupling, weights="per-degree", method=method, **options
    )


def inputs(made, dtype, edges=12, nodes=5):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(nodes, made.channels, made.bilinear.irreps_in1.dim))
    vectors = rng.normal(size=(edges, 3))
    last = (made.n_weights, made.channels) if made.radial is None else (made.radial.shape[0],)
    radial = rng.normal(size=(edges, *last))
    senders, receivers = rng.integers(0, nodes, (2, edges))
    arrays = (jnp.asarray(z, dtype) for z in (x, vectors, radial))
    return *arrays, jnp.asarray(senders), jnp.asarray(receivers)


def test_the_direct_way_is_e3nn_jax_weighted_by_degree(dtype):
    made = made_of("0e+1o", "0e+1o+2e", "0e+1o+2e", "clebsch-gordan", "direct")
    x, vectors, weights, senders, receivers = inputs(made, dtype)
    edge = made.bilinear.irreps_in2
    harmonics = e3nn.spherical_harmonics(edge, vectors, True, normalization="component").array
    spread = np.repeat(np.arange(3), [1, 3, 5])
    weighted = weights.swapaxes(1, 2)[:, :, spread] * harmonics[:, None]
    sent = e3nn.IrrepsArray(made.bilinear.irreps_in1, x[senders])
    wanted = [ir for _, ir in made.irreps_out]
    messages = e3nn.tensor_product(sent, e3nn.IrrepsArray(edge, weighted), filter_ir_out=wanted)
    expected = []
    for (_, irrep), mixing in zip(made.irreps_out, made.mixing, strict=True):
        part = messages.filter(keep=irrep).array
        summed = part.reshape(*part.shape[:2], -1, irrep.dim).sum(2)
        total = jnp.zeros((5, 3, irrep.dim), dtype).at[receivers].add(summed)
        matrix = mixing[0].astype(dtype)
        expected.append(jnp.einsum("nck,cd->ndk", total, matrix, precision="highest"))
    expected = jnp.concatenate(expected, -1)
    got = eqx.filter_jit(made)(x, None, weights, senders, receivers, vectors=vectors)
    atol = tolerance(dtype) * float(abs(expected).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("irreps", "edge", "out", "coupling", "methods"), MAPS)
def test_methods_agree_in_values_and_gradients(irreps, edge, out, coupling, methods, dtype):
    made = [made_of(irreps, edge, out, coupling, name) for name in ("direct", "so2", *methods)]
    x, vectors, weights, *ends = inputs(made[0], dtype)

    def value(made, x, vectors, weights):
        z = made(x, None, weights, *ends, vectors=vectors)
        return (z**2).sum(), z

    run = eqx.filter_jit(
        lambda *z: [jax.value_and_grad(value, (1, 2, 3), has_aux=True)(m, *z) for m in made]
    )
    ((_, expected), slopes), *others = run(x, vectors, weights)
    for (_, got), found in others:
        largest = float(abs(expected).max())
        np.testing.assert_allclose(got, expected, atol=tolerance(dtype) * largest)
        for a, b in zip(slopes, found, strict=True):
            np.testing.assert_allclose(b, a, atol=20 * tolerance(dtype) * float(abs(a).max()))


@pytest.mark.parametrize(
    ("irreps", "coupling", "method"),
    [(BOTH, "gaunt", "gaunt-grid"), (NATURAL, "clebsch-gordan", "cp")],
)
def test_equivariance(irreps, coupling, method, dtype):
    made = made_of(irreps, NATURAL, irreps, coupling, method)
    weights = inputs(made, dtype, edges=1)[2]
    assert error_of(made, weights, dtype) < tolerance(dtype)


@pytest.mark.parametrize(
    ("coupling", "method"), [("gaunt", "gaunt-grid"), ("clebsch-gordan", "cp")]
)
def test_blocks_change_no_gradient_of_forces(coupling, method, x64):  # noqa: ARG001
    whole, blocks = (
        made_of("0e+1o", NATURAL, NATURAL, coupling, method, features=4, memory_limit=limit)
        for limit in (None, 100_000)
    )
    x, vectors, radial, *ends = inputs(whole, jnp.float64, edges=24)

    def forces(made, vectors):
        return jax.grad(lambda v: (made(x, None, radial, *ends, vectors=v) ** 2).sum())(vectors)

    assert "scan" in str(jax.make_jaxpr(lambda v: forces(blocks, v))(vectors))
    run = eqx.filter_jit(eqx.filter_grad(lambda made, v: (forces(made, v) ** 2).sum()))
    found, expected = (jax.tree.leaves(run(made, vectors)) for made in (blocks, whole))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-11 * float(abs(want).max()))


@pytest.mark.parametrize(
    ("coupling", "method"), [("gaunt", "gaunt-grid"), ("clebsch-gordan", "cp")]
)
def test_a_memory_limit_is_kept(coupling, method):
    edges, nodes = 2048, 64
    options = {"channels": 16, "channels_out": 16, "features": 4}

    def bytes_of(limit):
        made = made_of(NATURAL, NATURAL, NATURAL, coupling, method, memory_limit=limit, **options)
        x, vectors, radial, *ends = inputs(made, jnp.float32, edges, nodes)

        def loss(made, x, vectors, radial):
            return (made(x, None, radial, *ends, vectors=vectors) ** 2).sum()

        compiled = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(made, x, vectors, radial).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    quarter = bytes_of(10**12) // 4
    assert bytes_of(quarter) <= quarter


def test_auto_compares_what_can_compute_the_map():
    options = {"channels": 32, "features": 8, "key": KEY}
    gaunt, exact, apart = (
        Interaction(NATURAL, NATURAL, NATURAL, coupling=coupling, weights=weights, **options)
        for coupling, weights in (
            ("gaunt", "per-degree"), ("clebsch-gordan", "per-degree"), ("gaunt", "per-path"),
        )
    )  # fmt: skip
    assert {"direct", "so2", "gaunt-grid"} <= set(gaunt.explain(1000).split())
    assert {"direct", "so2", "cp"} <= set(exact.explain(1000).split())
    assert not {"gaunt-grid", "cp"} & set(apart.explain(1000).split())
    assert gaunt.radial.shape == (8, 4, 32)
    assert apart.radial.shape == (8, apart.n_paths, 32)


def test_refusals():
    with pytest.raises(ValueError, match=r"weights: expected one of .*'per-degree'"):
        Interaction("0e", "0e", "0e", channels=1, weights="shared", key=KEY)
    with pytest.raises(ValueError, match=r"method: expected one that computes .*'per-path'"):
        Interaction("0e", "0e", "0e", channels=1, method="cp", key=KEY)
    high = "+".join(f"{n}{'eo'[n % 2]}" for n in range(5))
    with pytest.raises(ValueError, match=r"method: expected one that computes .*0e x 0e -> 0e"):
        made_of(high, high, high, "clebsch-gordan", "cp")
    made = made_of("0e+1o", "0e+1o", "0e+1o", "gaunt", "auto")
    x, vectors, _, *ends = inputs(made, jnp.float32)
    with pytest.raises(ValueError, match=r"radial: expected shape \(12, 2, 3\), got \(12, 6, 3\)"):
        made(x, None, jnp.ones((12, 6, 3)), *ends, vectors=vectors)
