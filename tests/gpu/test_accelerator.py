"""Every program on an accelerator: as accurate as on the CPU, pinned, without host callbacks.

Each check of accuracy runs twice: on the CPU always, and on the accelerator where jax sees one.
What an accelerator would be asked to run is lowered for CUDA and read on any machine.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tensornet as tn

SHAPE = (12, 10, 8)


def field(shape=SHAPE):
    """Return a smooth tensor, numerically of low rank, in float64 from numpy."""
    grid = np.meshgrid(*(np.linspace(0.0, 1.0, n) for n in shape), indexing="ij")
    return 1.0 / (1.0 + sum((k + 1) * axis for k, axis in enumerate(grid)))


def exact(rank=3, shape=SHAPE):
    """Return a tensor of exact rank, its components orthogonal: well conditioned for ALS."""
    generator = np.random.default_rng(0)
    factors = [np.linalg.qr(generator.standard_normal((n, rank)))[0] for n in shape]
    return np.einsum("r,ir,jr,kr->ijk", np.arange(1.0, rank + 1), *factors)


def train(x):
    return tn.tt_svd(x, max_rank=4).tensor


PROGRAMS = {
    "contract": (lambda x: tn.contract("ijk,ljk,lmk->im", x, x, x), field),
    "hosvd": (lambda x: tn.hosvd(x, rank=(4, 4, 4)).tensor.to_dense(), field),
    "hooi": (lambda x: tn.hooi(x, (4, 4, 4), max_sweeps=5).tensor.to_dense(), field),
    "tt_svd": (lambda x: train(x).to_dense(), field),
    # Of full rank: signs of singular vectors change what a truncated ring keeps.
    "tr_svd": (lambda x: tn.tr_svd(x, max_rank=120).tensor.to_dense(), field),
    "cp_als": (lambda x: tn.cp_als(x, 3, max_sweeps=5).tensor.to_dense(), exact),
    "algebra": (lambda x: (train(x) * train(x) - 2.0 * train(x)).to_dense(), field),
    "rounding": (lambda x: (train(x) + train(x)).round(max_rank=4).to_dense(), field),
    "norms": (lambda x: train(x).norm() + train(x).inner(train(x)), field),
    "gradient": (jax.grad(lambda x: jnp.sum(train(x).to_dense() ** 3)), field),
}

# Read for what they would run, beside the ones above: their values are tested elsewhere.
MORE = {
    "tr_als": (lambda x: tn.tr_als(x, (2, 2, 2), max_sweeps=5).tensor, field),
    "masked cp_als": (lambda x: tn.cp_als(x, 2, mask=x < 0.5, max_sweeps=5).tensor, field),
    "nonnegative cp_als": (lambda x: tn.cp_als(x, 2, nonnegative=True).tensor, field),
    "cp_als gradient": (jax.grad(lambda x: tn.cp_als(x, 2).relative_error), field),
    "hooi gradient": (jax.grad(lambda x: tn.hooi(x, (4, 4, 4)).relative_error), field),
    "randomized hosvd": (
        lambda x: tn.hosvd(x, rank=2, method="randomized", key=jax.random.key(0)).tensor,
        field,
    ),
}

# In float64 on the CPU a program would be compared with itself.
PLACES = [
    ("cpu", "float32"),
    pytest.param("accelerator", "float32", marks=pytest.mark.gpu),
    pytest.param("accelerator", "float64", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("place", "dtype"), PLACES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_with_float64_on_the_cpu(name, place, dtype):
    program, data = PROGRAMS[name]
    cpu = jax.devices("cpu")[0]
    with jax.enable_x64(True), jax.default_device(cpu):
        expected = np.asarray(jax.jit(program)(data()))
    device = cpu if place == "cpu" else jax.devices()[0]
    with jax.enable_x64(dtype == "float64"), jax.default_device(device):
        got = jax.jit(program)(jax.device_put(data().astype(dtype), device))
    assert (got.dtype, got.devices()) == (jnp.dtype(dtype), {device})
    # Backward stable: a modest multiple of eps. One product in TF32 or bfloat16 leaves 1e-4.
    error = np.linalg.norm(np.asarray(got, "float64") - expected) / np.linalg.norm(expected)
    assert error <= 64 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("name", PROGRAMS | MORE)
def test_lowers_for_cuda_with_pinned_products_and_no_callback(name):
    program, data = (PROGRAMS | MORE)[name]
    traced = jax.jit(program).trace(data().astype("float32"))
    # A callback, or an operation that only the CPU has, does not lower for CUDA from here.
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = re.findall(r"stablehlo\.dot_general.*", text)
    assert products
    loose = [line for line in products if "precision = [HIGHEST, HIGHEST]" not in line]
    assert loose == []
    assert "callback" not in text


@pytest.mark.gpu
@pytest.mark.parametrize("name", PROGRAMS | MORE)
def test_compiled_for_the_accelerator_stays_on_it(name):
    program, data = (PROGRAMS | MORE)[name]
    text = jax.jit(program).lower(data().astype("float32")).compile().as_text()
    # Callbacks, transfers to the host, and arrays placed in its memory.
    assert not re.search(r"callback|\b(infeed|outfeed|send|recv)\(|S\(5\)", text)
