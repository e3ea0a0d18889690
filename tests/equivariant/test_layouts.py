"""Layouts against e3nn-jax's own, and products in each of them."""

import subprocess
import sys

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equivariant import TensorProduct
from equivariant.layouts import from_channels, to_channels

KEY = jax.random.key(0)
IRREPS = e3nn.Irreps("0e+1o+2e")


@pytest.fixture
def product():
    return TensorProduct("0e+1o", "0e+1o+2e", "0e+1o+1e", channels=3, key=KEY)


def arrays(tp):
    rng = np.random.default_rng(0)
    sizes = tp.irreps_in1.dim, tp.irreps_in2.dim
    return [jnp.asarray(rng.normal(size=(5, tp.channels, d)), jnp.float32) for d in sizes]


def test_mul_ir_is_that_of_e3nn_jax():
    x = jnp.arange(5 * 3 * 9, dtype=jnp.float32).reshape(5, 3, 9)
    theirs = e3nn.IrrepsArray(IRREPS, x).axis_to_mul()  # puts the channels into multiplicities
    np.testing.assert_array_equal(from_channels(x, IRREPS, "mul_ir"), theirs.array)
    np.testing.assert_array_equal(to_channels(theirs.array, IRREPS, "mul_ir", "x"), x)


def test_a_product_is_the_same_in_every_layout(product):
    x, y = arrays(product)
    z = product(x, y)
    last = product(x.swapaxes(-1, -2), y.swapaxes(-1, -2), layout="channels-last")
    np.testing.assert_array_equal(last, z.swapaxes(-1, -2))
    first, second = (
        e3nn.IrrepsArray(irreps, a).axis_to_mul()
        for irreps, a in ((product.irreps_in1, x), (product.irreps_in2, y))
    )
    got = product(first.array, second.array, layout="mul_ir")
    np.testing.assert_array_equal(got, from_channels(z, product.irreps_out, "mul_ir"))
    wide = product(first, second)
    assert wide.irreps == e3nn.Irreps("3x0e+3x1o+3x1e")
    np.testing.assert_array_equal(wide.array, got)
    # One channel of the second for all of the first.
    shared = product(first, e3nn.IrrepsArray(product.irreps_in2, y[:, :1]))
    np.testing.assert_allclose(
        shared.array, from_channels(product(x, y[:, :1]), product.irreps_out, "mul_ir")
    )


def test_what_does_not_fit(product):
    x, y = arrays(product)
    with pytest.raises(ValueError, match=r"layout: expected one of .*got 'ir_mul'"):
        product(x, y, layout="ir_mul")
    with pytest.raises(ValueError, match=r"x: expected shape \[..., 4, channels\].*\(5, 3, 4\)"):
        product(x, y, layout="channels-last")
    with pytest.raises(ValueError, match=r"x: expected shape \[..., channels \* 4\].*\(5, 10\)"):
        product(x.reshape(5, 12)[:, :10], y.reshape(5, -1), layout="mul_ir")
    with pytest.raises(ValueError, match=r"x: expected irreps .* got 2x0e"):
        product(e3nn.IrrepsArray("2x0e+2x1o", x.reshape(5, 12)[:, :8]), y)


def test_importing_equivariant_leaves_flax_out_and_works_without():
    code = (
        "import sys; sys.modules['flax'] = None; import equivariant\n"
        "try: import equivariant.interop.nnx\n"
        "except ImportError: sys.exit(0)\n"
        "sys.exit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_module_of_flax_learns_the_weights(product):
    nnx = pytest.importorskip("flax.nnx")
    from equivariant.interop.nnx import NNXTensorProduct

    three = (product.irreps_in1, product.irreps_in2, product.irreps_out)
    module = NNXTensorProduct(*three, channels=3, rngs=nnx.Rngs(params=1))
    x, y = arrays(product)
    weights = module.weights[...]
    np.testing.assert_array_equal(module(x, y), product(x, y, weights))
    gradient = nnx.grad(lambda m: jnp.sum(m(x, y)))(module)
    # The product is linear in each group of weights: three groups.
    total = jnp.vdot(gradient.weights[...], weights)
    np.testing.assert_allclose(total, 3 * jnp.sum(module(x, y)), rtol=1e-4)
    np.testing.assert_allclose(nnx.jit(lambda m: m(x, y))(module), module(x, y), rtol=1e-5)
    fixed = NNXTensorProduct(*three, weights=None, rngs=nnx.Rngs(0))
    assert fixed.weights is None
    assert not jax.tree.leaves(nnx.state(fixed))
    assert fixed(x, y).shape == (5, 3, product.irreps_out.dim)
