"""Layers against e3nn-jax and explicit loops, and under rotations and inversions."""

import e3nn_jax as e3nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from equivariant import equivariance_error, gaunt_tensor_product
from equivariant.nn import Gate, Linear, ManyBody, Readout

KEY = jax.random.key(0)
MIXED = "0e+1o+0e+1o+1e+2e"


def features(channels, irreps, dtype, batch=(4,), seed=0):
    shape = (*batch, channels, e3nn.Irreps(irreps).dim)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def test_linear_is_a_sum_over_irreps_of_a_kind_and_channels(dtype):
    layer = Linear(MIXED, "1o+0e", channels=3, channels_out=2, key=KEY)
    x = features(3, MIXED, dtype, (2, 2))
    z = np.zeros((2, 2, 2, 4))
    slices = e3nn.Irreps(MIXED).slices()
    for own, weights, like in zip(
        (slice(0, 3), slice(3, 4)), layer.weights, ((1, 3), (0, 2)), strict=True
    ):
        for n, i in enumerate(like):
            z[..., own] += np.einsum("bnck,cd->bndk", x[..., slices[i]], weights[n], dtype=float)
    atol = 64 * jnp.finfo(dtype).eps
    np.testing.assert_allclose(layer(x), z, rtol=0, atol=atol * abs(z).max())


def test_linear_is_e3nns_with_the_same_weights(x64):  # noqa: ARG001
    layer = Linear("0e+1o+2e", channels=3, channels_out=2, key=KEY)
    x = features(3, "0e+1o+2e", jnp.float64)
    theirs = e3nn.FunctionalLinear("3x0e+3x1o+3x2e", "2x0e+2x1o+2x2e", path_normalization="element")
    wide = e3nn.from_chunks(
        "3x0e+3x1o+3x2e", [x[..., s] for s in e3nn.Irreps("0e+1o+2e").slices()], (4,)
    )
    weights = [w[0].astype(x.dtype) * np.sqrt(3) for w in layer.weights]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = jax.vmap(lambda row: theirs(weights, row))(wide)
    expected = np.concatenate([np.asarray(c) for c in expected.chunks], -1)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=4)
@given(
    irreps=st.lists(st.sampled_from(["0e", "0o", "1o", "1e", "2e", "3o"]), min_size=1, max_size=4)
)
def test_equivariance_of_linear_and_gate(irreps):
    irreps = "+".join(["0e", *irreps])
    layer, gate = (kind(irreps, channels=2, key=KEY) for kind in (Linear, Gate))
    with jax.enable_x64(True):
        error = equivariance_error(
            lambda x: gate(layer(x)), (irreps,), irreps, key=KEY, channels=2, samples=4
        )
    assert error < 1e-11


def test_gate_is_e3nns(dtype):
    """With the sigmoids of e3nn's gate fed by our linear map."""
    gate = Gate("1o+0e+2e", channels=2, key=KEY)
    x = features(2, "1o+0e+2e", dtype)
    assert gate.gates is not None
    gates = gate.gates(x[..., 3:4])
    chunks = [x[..., 3:4], gates, x[..., :3], x[..., 4:]]
    irreps = ["0e", "2x0e", "1o", "2e"]
    chunks = [
        c.reshape(*c.shape[:2], *s)
        for c, s in zip(chunks, [(1, 1), (2, 1), (1, 3), (1, 5)], strict=True)
    ]
    joined = e3nn.from_chunks([e3nn.MulIrrep(*e3nn.Irreps(i)[0]) for i in irreps], chunks, (4, 2))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = e3nn.gate(
            joined, even_act=jax.nn.silu, even_gate_act=jax.nn.sigmoid, normalize_act=False
        )
    assert expected.irreps == "0e+1o+2e"
    expected = expected.array[..., np.array([1, 2, 3, 0, 4, 5, 6, 7, 8])]
    np.testing.assert_allclose(gate(x), expected, rtol=0, atol=16 * jnp.finfo(dtype).eps)


def test_powers_are_repeated_gaunt_products(dtype):
    irreps = "0e+1o+2e"
    layer = ManyBody(irreps, "0e+1o", order=3, channels=2, species=2, key=KEY)
    x = features(2, irreps, dtype)
    species = np.array([1, 0, 0, 1])
    f = e3nn.IrrepsArray(irreps, x)
    # Degrees above that of the input must be kept in between.
    square = gaunt_tensor_product(f, f)
    cube = gaunt_tensor_product(square, f, irreps_out="0e+1o").array
    powers = np.stack([x[..., :4], square.filter(keep="0e+1o").array, cube], 1)
    weights = np.asarray(layer.weights)[species][..., np.array([0, 1, 1, 1])]
    expected = (powers * weights).sum(1)
    atol = 64 * jnp.finfo(dtype).eps * abs(expected).max()
    np.testing.assert_allclose(layer(x, species), expected, rtol=0, atol=atol)


def test_equivariance_of_powers_to_fourth_order(x64):  # noqa: ARG001
    layer = ManyBody("0e+1o+2e", order=4, channels=2, key=KEY)
    error = equivariance_error(layer, ("0e+1o+2e",), "0e+1o+2e", key=KEY, channels=2, samples=4)
    assert error < 1e-11


@pytest.mark.parametrize("width", [None, 5])
def test_readout_reads_the_even_scalars_of_all_channels(width, dtype):
    layer = Readout("1o+0e+0o", channels=3, width=width, key=KEY)
    x = features(3, "1o+0e+0o", dtype, (2, 2))
    z = np.asarray(x[..., 3], np.float64) @ np.asarray(layer.first, np.float64)
    if layer.second is not None:
        z = z / (1 + np.exp(-z)) @ np.asarray(layer.second, np.float64)
    got = layer(x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, z[..., 0], rtol=0, atol=32 * jnp.finfo(dtype).eps)


def test_refusals():
    with pytest.raises(ValueError, match=r"irreps_out\[1\]: expected an irrep of irreps_in"):
        Linear("0e+1o", "0e+2e", channels=2, key=KEY)
    with pytest.raises(ValueError, match=r"x: expected shape \[..., 2, 4\]"):
        Linear("0e+1o", channels=2, key=KEY)(jnp.ones((3, 2, 5)))
    with pytest.raises(ValueError, match="irreps: expected a 0e, by which to gate"):
        Gate("1o", channels=2, key=KEY)
    with pytest.raises(ValueError, match=r"irreps_in\[1\]: expected a function on the sphere"):
        ManyBody("0e+1e", order=2, channels=2, key=KEY)
    with pytest.raises(ValueError, match="order: expected 1 to 4, got 5"):
        ManyBody("0e", order=5, channels=2, key=KEY)
    with pytest.raises(ValueError, match="species: expected one of 3 per node, got None"):
        ManyBody("0e", order=1, channels=2, species=3, key=KEY)(jnp.ones((3, 2, 1)))
    with pytest.raises(ValueError, match="irreps: expected a 0e to read"):
        Readout("1o", channels=2, key=KEY)
