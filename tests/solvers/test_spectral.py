"""The spectral layer against numpy's Fourier transforms and sums that are written out."""

import itertools

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from solvers.operators import SpectralConv, ranks_of
from solvers.operators.modes import forward_tables, frequencies, inverse_tables
from solvers.operators.program import Layer, programs

KEY = jax.random.key(3)
run = eqx.filter_jit(lambda layer, x: layer(x))  # one program, not one for each operation
GRIDS = {1: (12,), 2: (9, 8), 3: (5, 6, 7)}
MODES = {1: (7,), 2: (5, 6), 3: (3, 4, 4)}


def dense(layer):
    weight = layer.weight
    array = np.asarray(weight if isinstance(weight, jax.Array) else weight.to_dense(), float)
    d = len(layer.modes)
    # The last axis of modes holds pairs.
    pairs = array.reshape(*array.shape[: d - 1], -1, 2, *array.shape[d:])
    re, im = np.moveaxis(pairs, d, 0)
    return re + 1j * im


def reference(layer, x):
    """Numpy's transform, centred; multiplied frequency by frequency; and back."""
    d, grid = len(layer.modes), x.shape[-len(layer.modes) :]
    axes = tuple(range(-d, 0))
    z = np.fft.rfftn(x, axes=axes, norm="forward")
    y = np.zeros((x.shape[0], layer.channels[1], *z.shape[2:]), complex)
    weight = dense(layer)
    ranges = [range(-(m // 2), m - m // 2) for m in layer.modes[:-1]]
    for at in itertools.product(*ranges, range(layer.modes[-1] // 2 + 1)):
        where = tuple(k % n for k, n in zip(at[:-1], grid, strict=False)) + at[-1:]
        w = weight[tuple(k + m // 2 for k, m in zip(at[:-1], layer.modes, strict=False)) + at[-1:]]
        here = z[(slice(None), slice(None), *where)]
        y[(slice(None), slice(None), *where)] = here * w if layer.separable else here @ w
    # One axis after the other, so that nothing is assumed of the frequencies along them.
    for axis in axes[:-1]:
        y = np.fft.ifft(y, axis=axis, norm="forward")
    y = np.fft.irfft(y, n=grid[-1], axis=-1, norm="forward")
    return y + np.asarray(layer.bias).reshape(-1, *(1,) * d)


def field(shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def layer_of(modes, **options):
    layer = SpectralConv(3, options.pop("out", 2), modes, key=KEY, **options)
    return eqx.tree_at(lambda z: z.bias, layer, jnp.arange(1.0, 1.0 + len(layer.bias)))


# What is computed.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("d", "factorization"),
    [
        *((2, name) for name in (None, "tucker", "cp", "tt", "tr")),
        *((1, name) for name in (None, "cp", "tr")),
        (3, "tucker"),
    ],
)
def test_every_program_is_numpys_transform_and_a_product_for_each_frequency(d, factorization):
    rank = None if factorization is None else 0.3
    layer = layer_of(MODES[d], factorization=factorization, rank=rank)
    x = field((2, 3, *GRIDS[d]))
    expected = reference(layer, np.asarray(x))
    description = Layer.of(
        layer.weight,
        batch=2,
        modes=layer.modes,
        grid=GRIDS[d],
        channels=(3, 2),
        separable=False,
        dtype="float64",
        low="float64",
        gradients=True,
        device="cpu",
    )
    found = programs(description)
    assert len(found) == {None: 2, "cp": 6}.get(factorization, 4)
    # All of them in one program: compiling is what takes time.
    every = jax.jit(lambda x, w: {name: p.run(x, w, None) for name, p in found.items()})
    bias = np.asarray(layer.bias).reshape(-1, *(1,) * d)
    for name, value in every(x, layer.weight).items():
        np.testing.assert_allclose(np.asarray(value) + bias, expected, atol=1e-13, err_msg=name)


def test_both_precisions(dtype):
    layer = layer_of((5, 6), factorization="tucker", rank=0.4, dtype=dtype)
    x = field((2, 2, 3, 9, 8), dtype)  # any axes of batches
    y = run(layer, x)
    assert y.dtype == dtype
    scale = 50 * float(jnp.finfo(dtype).eps)
    for got, fields in zip(y, np.asarray(x, float), strict=True):
        np.testing.assert_allclose(got, reference(layer, fields), atol=scale)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("factorization", [None, "cp", "tt"])
def test_separable(factorization):
    rank = None if factorization is None else 0.5
    layer = layer_of((5, 6), out=3, separable=True, factorization=factorization, rank=rank)
    x = field((2, 3, 9, 8))
    np.testing.assert_allclose(run(layer, x), reference(layer, np.asarray(x)), atol=1e-13)
    assert layer.weight.shape == (5, 8, 3)


@hypothesis.given(st.integers(1, 12), st.data())
def test_tables_are_the_discrete_fourier_transform(n, data):
    """The matrices alone, for every pair of modes and points: analysis is numpy's, odd or even."""
    m = data.draw(st.integers(1, n))
    x = np.random.default_rng(n).normal(size=n)
    (table,) = forward_tables((m,), (n,))
    z = np.fft.rfft(x, norm="forward")[: m // 2 + 1]
    np.testing.assert_allclose(x @ table[..., 0] + 1j * (x @ table[..., 1]), z, atol=1e-14)
    (back,) = inverse_tables((m,), (n,))
    spectrum = np.zeros(n // 2 + 1, complex)
    spectrum[: len(z)] = z
    expected = np.fft.irfft(spectrum, n=n, norm="forward")
    pairs = np.stack([z.real, z.imag], axis=-1)
    np.testing.assert_allclose(np.tensordot(pairs, back, 2), expected, atol=1e-13)
    # Of a leading axis: the frequencies around zero.
    table, _ = forward_tables((m, 1), (n, 1))
    z = np.fft.fft(x, norm="forward")[frequencies((m, 1))[0] % n]
    got = x @ table[:, 0, :, 0] + 1j * (x @ table[:, 0, :, 1])
    np.testing.assert_allclose(got, z, atol=1e-14)


# On every grid.


def identity(modes, dtype, **options):
    layer = SpectralConv(1, 1, modes, key=KEY, dtype=dtype, **options)
    ones = jnp.zeros_like(layer.weight).at[..., ::2, :, :].set(1.0)
    return eqx.tree_at(lambda z: z.weight, layer, ones)


def smooth(n, n2, modes):
    """A random field of few frequencies, sampled on an n x n2 grid."""
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n2) / n2, indexing="ij")
    field = np.zeros((n, n2))
    for k, j in itertools.product(range(-modes, modes + 1), range(modes + 1)):
        field += rng.normal() * np.cos(2 * np.pi * (k * x + j * y) + rng.uniform(0, 7))
    return jnp.asarray(field, jnp.float32)


@pytest.mark.parametrize("method", ["dft+dense", "fft+dense"])
@pytest.mark.parametrize("n", [16, 17, 33, 85])
def test_ones_as_weights_keep_a_field_of_few_frequencies(n, method):
    """Right on odd grids, too: an inverse shift is no shift there."""
    layer = identity((8, 8), jnp.float32, method=method)
    x = smooth(n, n, 3)
    error = np.max(np.abs(run(layer, x[None, None])[0, 0] - x)) / np.max(np.abs(x))
    assert error < 1e-6


def test_a_finer_grid_gives_the_same_function():
    layer = SpectralConv(1, 4, (8, 8), factorization="cp", rank=0.5, key=KEY)
    coarse, fine = (run(layer, smooth(*grid, 4)[None, None]) for grid in ((16, 17), (32, 34)))
    error = np.max(np.abs(coarse - fine[..., ::2, ::2])) / np.max(np.abs(fine))
    assert error < 1e-6


@pytest.mark.usefixtures("x64")
def test_the_layer_commutes_with_shifts():
    layer = layer_of((5, 6), factorization="tr", rank=0.4)
    x = field((1, 3, 9, 8))
    shifted = run(layer, jnp.roll(x, (2, 3), (-2, -1)))
    expected = np.roll(run(layer, x), (2, 3), (-2, -1))
    np.testing.assert_allclose(shifted, expected, atol=1e-14)


# Gradients.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("factorization", "method"),
    [("cp", "dft+terms"), ("tt", "fft+rebuilt")],
)
def test_gradients_are_those_of_finite_differences(factorization, method):
    layer = layer_of((3, 4), factorization=factorization, rank=0.5, method=method)
    weights, rest = eqx.partition(layer, eqx.is_array)
    x = field((3, 3, 5, 6))

    def value(arguments):
        weights, x = arguments
        return jnp.sum(jnp.sin(run(eqx.combine(weights, rest), x)))

    check_grads(value, ((weights, x),), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_under_vmap_and_forward_mode():
    layer = layer_of((3, 4), factorization="cp", rank=0.5, method="dft+terms")
    x, tangent = field((3, 2, 3, 5, 6))[:2]
    mapped = eqx.filter_jit(lambda layer, x: jax.vmap(layer)(x))
    np.testing.assert_allclose(mapped(layer, x), run(layer, x), atol=1e-14)
    derivative = jax.jvp(lambda x: run(layer, x), (x,), (tangent,))[1]
    np.testing.assert_allclose(derivative, run(layer, tangent) - run(layer, 0 * x), atol=1e-13)


# Ranks and random weights.

SHAPES = st.lists(st.integers(2, 12), min_size=3, max_size=5).map(tuple)


@hypothesis.given(SHAPES, st.sampled_from(["tucker", "cp", "tt", "tr"]), st.floats(0.05, 1.0))
def test_a_share_is_kept_and_used(shape, factorization, share):
    from solvers.operators.weight import random_weight

    size = np.prod(shape)
    try:
        ranks = ranks_of(factorization, shape, share)
    except ValueError as error:
        assert "rank: expected a share of at least" in str(error)  # noqa: PT017
        return
    made = jax.eval_shape(
        lambda: random_weight(
            factorization, shape, ranks, deviation=1.0, key=KEY, dtype=jnp.float32
        )
    )
    held = sum(leaf.size for leaf in jax.tree.leaves(made))
    assert made.shape == shape
    assert held <= share * size
    # One more of every rank would be too much, where there is one more.
    more = tuple(r + 1 for r in np.atleast_1d(ranks).tolist())
    more = more[0] if factorization == "cp" else more
    try:
        ranks_of(factorization, shape, more)
    except ValueError:
        return
    larger = jax.eval_shape(
        lambda: random_weight(factorization, shape, more, deviation=1.0, key=KEY, dtype=jnp.float32)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(larger)) > share * size


@pytest.mark.parametrize(
    ("factorization", "rank"),
    [(None, None), ("tucker", (4, 6, 5, 7)), ("cp", 60), ("tt", (5, 20, 7)), ("tr", (6, 5, 7, 4))],
)
def test_the_weight_multiplied_out_has_the_deviation_asked_for(factorization, rank):
    from solvers.operators.weight import random_weight

    entries = [
        np.asarray(w if isinstance(w, jax.Array) else w.to_dense())
        for w in (
            random_weight(
                factorization,
                (6, 10, 12, 14),
                rank,
                deviation=0.3,
                key=jax.random.key(seed),
                dtype=jnp.float32,
            )
            for seed in range(4)
        )
    ]
    # Entries that share factors are not independent: the mean over few draws is within a fifth.
    assert np.sqrt(np.mean(np.square(entries))) == pytest.approx(0.3, rel=0.2)
    layer = SpectralConv(30, 20, (12, 12), key=KEY)
    # |w|^2 of the complex weight is 2 / (in + out).
    assert 2 * np.mean(np.square(layer.weight)) == pytest.approx(2 / 50, rel=0.02)


# Fewer modes for a while.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("factorization", [None, "tt"])
def test_fewer_modes_are_the_middle_of_the_weight(factorization):
    rank = None if factorization is None else 0.4
    layer = layer_of((6, 7), factorization=factorization, rank=rank)
    some = layer.with_modes((3, 4))
    x = field((2, 3, 9, 8))
    cut = layer.weight if factorization is None else layer.weight.to_dense()
    # Frequencies -1, 0, 1 of -3 ... 2, and 0, 1, 2 of 0 ... 3.
    expected = reference(
        eqx.tree_at(lambda z: z.weight, some, jnp.asarray(cut)[2:5, :6]), np.asarray(x)
    )
    np.testing.assert_allclose(run(some, x), expected, atol=1e-13)
    assert some.with_modes((6, 7)).active_weight() is layer.weight
    with pytest.raises(ValueError, match=r"modes\[1\]: expected at most 7 \(the weight's\), got 8"):
        layer.with_modes((6, 8))


# Low precision.


def test_products_in_bfloat16():
    layer = layer_of((5, 6), factorization="cp", rank=0.5, precision="mixed")
    # Far beyond the largest float16.
    x = 1e8 * field((2, 3, 9, 8), np.float32)
    exact = reference(layer, np.asarray(x, float))
    y = run(layer, x)
    assert y.dtype == jnp.float32
    error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 2e-2  # eps of bfloat16 is 8e-3


# Bad input.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"modes": (4, 4, 4, 4)}, ValueError, "modes: expected one to three axes, got 4"),
        ({"modes": (4, 0)}, ValueError, r"modes\[1\]: expected at least 1, got 0"),
        ({"modes": (4, 2.5)}, TypeError, r"modes\[1\]: expected an integer, got 2.5"),
        ({"modes": "44"}, TypeError, "modes: expected an integer for each axis, got '44'"),
        ({"factorization": "svd", "rank": 1}, ValueError, "factorization: expected None or one"),
        ({"factorization": "cp"}, ValueError, "rank: expected a share or ranks for 'cp', got None"),
        ({"rank": 0.5}, ValueError, "rank: expected None without a factorization, got 0.5"),
        ({"factorization": "cp", "rank": 1.5}, ValueError, "rank: expected a share above 0 and"),
        ({"factorization": "cp", "rank": 0}, ValueError, "rank: expected between 1 and 72"),
        ({"factorization": "cp", "rank": 73}, ValueError, "rank: expected between 1 and 72"),
        ({"factorization": "tt", "rank": 0.01}, ValueError, "rank: expected a share of at least"),
        ({"factorization": "tt", "rank": (1, 2)}, ValueError, "rank: expected 3 ranks, got 2"),
        (
            {"factorization": "tucker", "rank": (1, 9, 1, 1)},
            ValueError,
            r"rank\[1\]: expected between 1 and 6 .*, got 9",
        ),
        ({"separable": True}, ValueError, "out_channels: expected 3 .* where separable, got 4"),
        ({"out_channels": 0}, ValueError, "out_channels: expected an integer of at least 1, got 0"),
        ({"precision": "double"}, ValueError, "precision: expected one of"),
        ({"method": "magic"}, ValueError, "method: expected one of"),
    ],
)
def test_bad_arguments(options, error, message):
    arguments = {"in_channels": 3, "out_channels": 4, "modes": (6, 4), "key": KEY} | options
    with pytest.raises(error, match=message):
        SpectralConv(**arguments)


def test_bad_fields():
    layer = SpectralConv(3, 4, (6, 4), key=KEY)
    for shape, message in [
        ((2, 2, 8, 8), r"x: expected 3 channels, got 2 \(\(2, 2, 8, 8\)\)"),
        ((8, 8), r"x: expected \[\*batch, 3 channels, 2 axes\], got \(8, 8\)"),
        ((1, 3, 5, 8), r"modes\[0\]: expected at most 5 \(the points of the grid\), got 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer(jnp.zeros(shape))
    named = SpectralConv(3, 4, (6, 4), method="dft+rebuilt", key=KEY)
    with pytest.raises(ValueError, match=r"method: expected one of .* for a dense weight"):
        named(jnp.zeros((1, 3, 8, 8)))
    with pytest.raises(TypeError, match="x"):
        layer(jnp.zeros((1, 3, 8, 8), complex))


def test_the_choice_is_told():
    layer = SpectralConv(3, 4, (6, 4), factorization="tucker", rank=0.5, key=KEY)
    # Few frequencies of a large field: products with matrices leave out all others.
    name, table = layer.choice((8, 3, 64, 64))
    assert name in ("dft+factorized", "dft+rebuilt")
    assert f"* {name}" in table
    assert "fft+rebuilt" in table
