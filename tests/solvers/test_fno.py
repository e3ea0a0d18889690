"""Fourier neural operators against a reference written out in numpy, on grids, split, and saved."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from solvers.operators import FNO, TFNO, Normalizer, split_domain
from tensornet.io import load, save

KEY = jax.random.key(0)
SMALL = {"modes": (4, 5), "in_channels": 2, "out_channels": 1, "width": 6, "layers": 2}
run = eqx.filter_jit(lambda model, x: model(x))


def small(**options):
    kind = TFNO if "rank" in options else FNO
    return kind(**{**SMALL, "key": KEY, **options})


def field(shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def scattered(model):
    """The model with random numbers where it starts from zeros and ones."""
    leaves, treedef = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    draw = jax.jit(lambda k, x: x + 0.3 * jax.random.normal(k, x.shape, x.dtype))
    return treedef.unflatten(map(draw, keys, leaves))


# The architecture.


def np_gelu(x):
    return x * 0.5 * (1 + scipy.special.erf(x / np.sqrt(2)))


def np_linear(layer, x):
    y = np.einsum("oi,bixy->boxy", np.asarray(layer.weight), x)
    return y if layer.bias is None else y + np.asarray(layer.bias)[None, :, None, None]


def np_mlp(layer, x):
    return np_linear(layer.second, np_gelu(np_linear(layer.first, x)))


def np_norm(layer, x):
    axes = (2, 3) if layer.scale is None else (1, 2, 3)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    if layer.scale is None:
        return y
    each = [np.asarray(z)[None, :, None, None] for z in (layer.scale, layer.offset)]
    return y * each[0] + each[1]


def np_spectral(layer, x):
    m, m2 = layer.modes
    z = np.fft.fftshift(np.fft.rfft2(x, norm="forward"), axes=2)
    weight = np.asarray(layer.weight).reshape(m, m2 // 2 + 1, 2, *layer.channels)
    start = z.shape[2] // 2 - m // 2
    y = np.zeros_like(z)
    here = np.s_[:, :, start : start + m, : m2 // 2 + 1]
    y[here] = np.einsum("bixy,xyio->boxy", z[here], weight[:, :, 0] + 1j * weight[:, :, 1])
    # Not the shift itself, which on odd grids is another.
    y = np.fft.ifft(np.fft.ifftshift(y, axes=2), axis=2, norm="forward")
    y = np.fft.irfft(y, n=x.shape[3], axis=3, norm="forward")
    return y + np.asarray(layer.bias)[None, :, None, None]


def np_block(block, x):
    gate = np.asarray(block.gate)[None, :, None, None]
    first, second = (lambda z: z,) * 2
    if block.norms is not None:
        first, second = (lambda z, n=n: np_norm(n, z) for n in block.norms)
    active = (lambda z: z) if block.last else np_gelu
    if block.preactivation:
        x = first(np_gelu(x))
        y = active(np_spectral(block.spectral, x) + np_linear(block.skip, x))
        return np_mlp(block.mlp, second(y)) + gate * x
    y = active(first(np_spectral(block.spectral, x)) + np_linear(block.skip, x))
    return active(second(np_mlp(block.mlp, y) + gate * x))


def np_model(model, x, margins=(0, 0)):
    n, n2 = x.shape[2:]
    at = np.meshgrid(np.linspace(0, 1, n + 1)[:-1], np.linspace(0, 1, n2 + 1)[:-1], indexing="ij")
    x = np.concatenate([x, np.broadcast_to(np.stack(at), (len(x), 2, n, n2))], axis=1)
    x = np_mlp(model.lifting, x)
    x = np.pad(x, [(0, 0), (0, 0), *((m, m) for m in margins)])
    for block in model.blocks:
        x = np_block(block, x)
    x = x[:, :, margins[0] : margins[0] + n, margins[1] : margins[1] + n2]
    return np_mlp(model.projection, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("options", "margins"),
    [
        ({}, (0, 0)),
        ({"norm": "group", "padding": 0.2}, (2, 2)),
        ({"norm": "instance", "preactivation": True}, (0, 0)),
    ],
)
def test_the_model_is_the_published_architecture(options, margins):
    model = scattered(small(**options))
    x = field((3, 2, 9, 10))
    expected = np_model(model, np.asarray(x), margins)
    np.testing.assert_allclose(run(model, x), expected, atol=1e-12)


def test_the_number_of_parameters_is_the_published_one():
    """Of the example of neuraloperator 2.0 on Darcy's problem, counted by its authors."""
    model = eqx.filter_eval_shape(
        lambda: FNO(modes=(8, 8), in_channels=1, out_channels=1, width=24, key=KEY)
    )
    assert sum(x.size for x in jax.tree.leaves(model)) == 191_881


def test_a_tensorized_model_holds_fewer():
    dense, tensorized = (
        eqx.filter_eval_shape(lambda o=o: small(modes=(8, 8), **o)) for o in ({}, {"rank": 0.1})
    )
    for model, share in ((dense, 1.0), (tensorized, 0.1)):
        spectral = jax.tree.leaves([block.spectral.weight for block in model.blocks])
        size = 2 * 6 * 6 * 8 * (2 * 5)
        assert 0.04 * size < sum(x.size for x in spectral) <= share * size
    assert tensorized.blocks[0].spectral.weight.rank[0] < 8


# On grids.


@pytest.mark.usefixtures("x64")
def test_shifts_commute_without_coordinates():
    model = scattered(small(coordinates=False, layers=1))
    x = field((2, 2, 9, 10))
    shifted = run(model, jnp.roll(x, (2, 3), (2, 3)))
    np.testing.assert_allclose(shifted, np.roll(run(model, x), (2, 3), (2, 3)), atol=1e-12)


def test_fewer_modes_in_every_layer():
    model = small(modes=(6, 6), rank=0.5).with_modes((3, 4))
    assert model.modes == (3, 4)
    assert [block.spectral.modes for block in model.blocks] == [(3, 4), (3, 4)]
    assert [block.spectral.most_modes for block in model.blocks] == [(6, 6), (6, 6)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("norm", [None, "instance"])
def test_a_field_split_over_devices(norm):
    """The same function; each layer sends its truncated spectrum once, and no field."""
    model = scattered(small(norm=norm, factorization="tucker", rank=0.5))
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    x = field((2, 2, 16, 10))
    spread = jax.device_put(x, jax.NamedSharding(mesh, jax.P(None, None, "x")))
    split = jax.jit(split_domain(model, mesh, "x"))
    y = split(spread)
    np.testing.assert_allclose(y, run(model, x), atol=1e-12)
    assert y.sharding.spec == jax.P(None, None, "x")
    if norm is None:
        text = split.lower(spread).compile().as_text()
        sent = [line for line in text.splitlines() if " all-reduce(" in line]
        assert len(sent) == len(model.blocks)
        # Batch, channels, frequencies, pair.
        size = 2 * 6 * 4 * 3 * 2
        shapes = [line.split("f64[")[1].split("]")[0] for line in sent]
        assert [np.prod([int(n) for n in s.split(",")]) for s in shapes] == [size] * len(sent)
        assert not any(
            f" {other}" in text for other in ("all-gather", "all-to-all", "collective-p")
        )


def test_bad_splits():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match=r"axis: expected one of \('x',\), got 'y'"):
        split_domain(small(), mesh, "y")
    with pytest.raises(ValueError, match=r"padding: expected none for a split field, got 0\.1"):
        split_domain(small(padding=0.1), mesh, "x")


# Saved, and refused.


def test_saved_and_loaded(tmp_path):
    model = small(rank=0.5)
    path = tmp_path / "model"
    save(path, model, kind="operator")
    loaded = load(path, kind="operator")
    assert eqx.tree_equal(loaded, model)
    other = small(rank=0.2)
    with pytest.raises(ValueError, match=r"expected float32\[\d.*got float32"):
        load(path, kind="operator", like=other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width: expected an integer of at least 1, got 0"),
        ({"norm": "batch"}, "norm: expected one of"),
        ({"padding": 1.0}, "padding: expected a share of at least 0 and below 1"),
        ({"mlp_ratio": 0.01}, r"mlp_ratio: expected at least one channel of 6, got 0\.01"),
        ({"rank": 2.0}, "rank: expected a share above 0 and up to 1"),
        ({"precision": "low"}, "precision: expected one of"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_bad_fields():
    model = small()
    with pytest.raises(ValueError, match=r"x: expected \[\*batch, 2 channels, 2 axes\], got"):
        model(jnp.zeros((1, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"modes\[1\]: expected at most 4"):
        eqx.filter_eval_shape(model, jnp.zeros((1, 2, 8, 4)))


def test_normalizers():
    x = field((5, 2, 6, 6), np.float32) * 3 + 7
    normalizer = Normalizer.of(x)
    np.testing.assert_allclose(normalizer.encode(x).mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(normalizer.encode(x).std((0, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(normalizer.decode(normalizer.encode(x)), x, atol=1e-5)
    constant = x.at[:, 1].set(0.1)
    with pytest.raises(ValueError, match=r"inputs: expected channel 1 to vary, got 0\.1"):
        Normalizer.of(constant, "inputs")
    with pytest.raises(ValueError, match="inputs: expected finite entries, got 1 NaN"):
        Normalizer.of(x.at[0, 0, 0, 0].set(jnp.nan), "inputs")
