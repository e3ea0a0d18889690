"""Every program, for all weights and ways to share channels, against numpy's einsum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equivariant.bilinear import BilinearMap
from equivariant.coupling.clebsch_gordan_product import ClebschGordan
from equivariant.method import Use

IRREPS = ("0e+1o+1e", "0e+1o", "0e+1o+1e")


def normal(shape, seed, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def expected(bilinear, x, y, weights):
    """The sum over the paths, each by its own block of the tensor."""
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    each = np.asarray(bilinear.path_weights(weights), np.float64)
    total = 0.0
    for p, path in enumerate(bilinear.triples):
        i, j, o = bilinear.block(path)
        z = np.einsum("bci,bcj,ijk->bck", *_alike(x[..., i], y[..., j]), bilinear.path_tensor(path))
        whole = np.zeros((*z.shape[:2], bilinear.irreps_out.dim))
        whole[..., o] = z
        total = total + each[..., p, None] * whole
    return total


def _alike(x, y):
    channels = max(x.shape[1], y.shape[1])
    return [np.broadcast_to(z, (len(z), channels, z.shape[2])) for z in (x, y)]


def results(programs, x, y, w):
    """Results of all programs, compiled as one."""
    run = jax.jit(lambda *a: {name: program.run(*a) for name, program in programs.items()})
    return run(x, y, w)


@pytest.mark.parametrize("weights", [None, "shared", "per-degree", "low-rank:2", "per-path"])
@pytest.mark.usefixtures("x64")
def test_every_program(weights):
    bilinear = BilinearMap(*IRREPS, weights=weights)
    method = ClebschGordan(bilinear)
    for channels, varying in (((2, 2), False), ((2, 1), True), ((1, 2), False), ((1, 1), True)):
        x = normal((3, channels[0], bilinear.irreps_in1.dim), 0)
        y = normal((3, channels[1], bilinear.irreps_in2.dim), 1)
        n = max(*channels, 1 if weights is None else 2)
        tail = bilinear.weight_shape
        w = None if tail is None else normal((3 if varying else 1, 2, *tail), 2)
        shared = (channels[0] < n, channels[1] < n)
        use = Use(n, dtype="float64", shared=shared, varying=varying and w is not None)
        want = expected(bilinear, x, y, w)
        for name, got in results(method.programs(use), x, y, w).items():
            got = np.broadcast_to(got, want.shape)
            np.testing.assert_allclose(got, want, atol=1e-12, err_msg=f"{name} {channels}")
    np.testing.assert_allclose(jax.jit(method)(x, y, w), want, atol=1e-12)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.usefixtures("x64")
def test_tiles_and_what_is_left_over(varying):
    bilinear = BilinearMap("0e+1o", "0e+1o", "0e+1o+1e", weights="per-path")
    tiled = ClebschGordan(bilinear, batch=4096)
    use = Use(512, 4096, "float64", varying=varying)
    name, _, table = tiled.choose(use)
    assert name in table
    assert "in tiles" in table
    x, y = normal((5, 512, 4), 0), normal((5, 512, 4), 1)  # two tiles of two, and one more
    w = normal((5 if varying else 1, 512, *bilinear.weight_shape), 2)
    np.testing.assert_allclose(jax.jit(tiled)(x, y, w), expected(bilinear, x, y, w), atol=1e-12)


def test_float32_stays_float32_and_the_gradient_is_that_of_the_tensor():
    bilinear = BilinearMap(*IRREPS, weights="per-path")
    method = ClebschGordan(bilinear)
    x, y = (
        normal((3, 2, ir.dim), 3, "float32") for ir in (bilinear.irreps_in1, bilinear.irreps_in2)
    )
    w = normal((2, *bilinear.weight_shape), 4, "float32")
    z = method(x, y, w)
    assert z.dtype == jnp.float32
    np.testing.assert_allclose(z, expected(bilinear, x, y, w), rtol=0, atol=1e-5)
    grads = jax.jit(jax.grad(lambda *a: jnp.sum(method(*a)), (0, 1, 2)))(x, y, w)
    # Linear in each argument: contracted with it, each gradient gives the value back.
    for argument, grad in zip((x, y, w), grads, strict=True):
        np.testing.assert_allclose(jnp.vdot(argument, grad), z.sum(), rtol=1e-4)


def test_inputs_that_do_not_fit():
    method = ClebschGordan(BilinearMap(*IRREPS))
    x, y = jnp.ones((3, 2, 7)), jnp.ones((3, 2, 4))
    with pytest.raises(ValueError, match=r"x: expected .* channels, 7\].*got \(3, 2, 6\)"):
        method(x[..., :6], y)
    with pytest.raises(ValueError, match=r"broadcast, got x \(3, 2\), y \(3, 3\)"):
        method(x, jnp.ones((3, 3, 4)))
    with (
        pytest.raises(TypeError, match="y: expected float32 like x, got float64"),
        jax.enable_x64(True),
    ):
        method(x, jnp.ones((3, 2, 4), jnp.float64))
    with pytest.raises(ValueError, match="weights: expected None"):
        method(x, y, jnp.ones(2))
