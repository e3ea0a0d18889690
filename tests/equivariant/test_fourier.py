"""Against harmonics at the sampled points, closed forms of integrals, and Clebsch-Gordan."""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from equivariant.coupling import clebsch_gordan, gaunt_coefficient
from equivariant.coupling.fourier import (
    coefficients,
    convolve,
    from_torus,
    sample_shape,
    samples,
    to_torus,
)
from equivariant.coupling.quadrature import grid
from equivariant.coupling.sphere import (
    analysis,
    degrees_of,
    harmonics,
    synthesis,
    tangent,
    tangent_synthesis,
)


def irreps_to(largest):
    return "+".join(f"{n}e" for n in range(largest + 1))


def planes_of(x, irreps):
    """Planes of the function with coefficients x, and of its tangent components."""
    dense = to_torus(irreps).dense
    size = max(degrees_of(irreps)) + 1
    return [jnp.asarray((x @ t).reshape(*x.shape[:-1], 2, size, size), x.dtype) for t in dense]


def back(planes, irreps):
    planes = np.asarray(planes)
    table = from_torus(irreps, planes.shape[-1] - 1).dense
    return planes.reshape(*planes.shape[:-3], -1) @ table


def test_samples_are_values_on_the_sphere_and_beyond_it(x64):  # noqa: ARG001
    largest, shape = 6, (15, 16)
    irreps = irreps_to(largest)
    alpha = 2 * np.pi * np.arange(shape[0]) / shape[0] + np.pi / 2
    beta = 2 * np.pi * np.arange(shape[1]) / shape[1]
    alpha, beta = (a.reshape(-1) for a in np.meshgrid(alpha, beta, indexing="ij"))
    points = np.stack([np.sin(beta) * np.sin(alpha), np.cos(beta), np.sin(beta) * np.cos(alpha)])
    inside = np.abs(np.sin(beta)) > 1e-9  # at the poles the frame of the gradient turns
    degrees = degrees_of(irreps)
    value = np.concatenate([harmonics(n, points.T) for n in degrees], axis=1).T
    gradient = np.concatenate([tangent(n, points.T) for n in degrees], axis=2).transpose(0, 2, 1)
    beyond = np.where(beta > np.pi, -1, 1)  # there both unit vectors are the opposite ones
    expected = [value, *(gradient * beyond)]
    for k, planes in enumerate(planes_of(np.eye((largest + 1) ** 2), irreps)):
        found = np.asarray(samples(planes, shape, tangent=k > 0)).reshape(len(value), -1)
        use = inside if k else slice(None)
        np.testing.assert_allclose(found[:, use], expected[k][:, use], atol=2e-14)
        again = coefficients(jnp.asarray(found.reshape(-1, *shape)), largest, largest)
        np.testing.assert_allclose(again, planes, atol=1e-14)


def test_tables_sorted_by_order_are_the_dense_ones():
    irreps = "2o+0e+1o+2e+3o"
    to, back = to_torus(irreps), from_torus("1e+3o+1e", 5)
    d = len(to.orders.position)
    x = np.concatenate([np.eye(d), np.zeros((d, 1))], axis=1)[:, to.orders.gather]
    tables = ((x, to.values), (x[:, ::-1], to.slopes), (x, to.over_sine))
    for (y, table), dense in zip(tables, to.dense, strict=True):
        planes = np.einsum("ismn,smnu->ismu", y, table)
        np.testing.assert_array_equal(planes.reshape(d, -1), dense)
    planes = np.random.default_rng(0).normal(size=(2, 4, 6))
    z = np.einsum("smu,smnu->smn", planes, back.values).reshape(-1)[back.orders.position]
    np.testing.assert_allclose(z, planes.reshape(-1) @ back.dense, rtol=1e-12)
    # A coefficient meets the real or the imaginary plane of its order alone.
    assert np.count_nonzero(to.dense) <= 3 * d * 4
    for table in (*to.orders, to.values, to.slopes, to.over_sine, to.dense, back.values):
        assert not table.flags.writeable
    assert to_torus("2e+0e+1e+2e+3e") is to


def test_coefficients_of_single_waves_are_their_integrals():
    """Means over the sphere of cos(u beta) P_l and sin(u beta) sin(beta) P_l'."""
    irreps, degree = irreps_to(4), 9
    for u in range(degree + 1):
        planes = np.zeros((2, 5, degree + 1))
        planes[0, 0, u] = 1 if u == 0 else 0.5
        found = back(planes, irreps)
        np.testing.assert_allclose(found[0], 0 if u % 2 else 1 / (1 - u**2), atol=1e-15)
        for n in (1, 4):
            p = np.polynomial.legendre.Legendre.basis(n)
            mean = scipy.integrate.quad(
                lambda b, p=p, u=u: math.cos(u * b) * p(math.cos(b)) * math.sin(b) / 2, 0, math.pi
            )[0]
            np.testing.assert_allclose(found[n * n + n], math.sqrt(2 * n + 1) * mean, atol=1e-13)
        # All four exponentials of sin(u beta) cos(alpha) have coefficients of size 1/4.
        planes = np.zeros((2, 5, degree + 1))
        planes[0, 1, u] = 0.25
        mean = scipy.integrate.quad(
            lambda b, u=u: math.sin(u * b) * math.sin(b) ** 2 / 4, 0, math.pi
        )[0]
        np.testing.assert_allclose(back(planes, irreps)[3], math.sqrt(3) * mean, atol=1e-13)


def assert_paths(even, odd, largest):
    blocks = [slice(n * n, (n + 1) ** 2) for n in range(largest + 1)]
    for l1, l2, l3 in itertools.product(range(largest + 1), repeat=3):
        block = blocks[l1], blocks[l2], blocks[l3]
        parity = (l1 + l2 + l3) % 2
        own, other = (odd, even)[:: 1 if parity else -1]
        expected = 0.0
        if abs(l1 - l2) <= l3 <= l1 + l2:
            c = gaunt_coefficient(l1, l2, l3)
            expected = c * math.sqrt(2 * l3 + 1) * clebsch_gordan(l1, l2, l3)
            assert np.abs(own[block]).max() > 1e-2
        np.testing.assert_allclose(own[block], expected, atol=1e-13)
        np.testing.assert_allclose(other[block], 0, atol=1e-13)


def test_every_path_by_fft(x64):  # noqa: ARG001
    largest = 8
    irreps, d = irreps_to(largest), (largest + 1) ** 2
    shape = sample_shape(largest, largest, largest)
    assert shape[0] >= 3 * largest + 1
    planes = planes_of(np.eye(d), irreps)
    f, u, v = (np.asarray(samples(p, shape, tangent=k > 0)) for k, p in enumerate(planes))
    transform = jax.jit(lambda values: coefficients(values, largest, 2 * largest))
    even = [back(transform(f[i] * f), irreps) for i in range(d)]
    odd = [back(transform(u[i] * v - v[i] * u), irreps) for i in range(d)]
    assert_paths(np.stack(even), np.stack(odd), largest)


def by_fft(f, g, l1, l2, l3):
    """Product and bracket of two functions, each given as planes of value, u and v."""
    shape = sample_shape(l1, l2, l3)
    f, fu, fv = (samples(p, shape, tangent=k > 0) for k, p in enumerate(f))
    g, gu, gv = (samples(p, shape, tangent=k > 0) for k, p in enumerate(g))
    return [coefficients(values, l3, l1 + l2) for values in (f * g, fu * gv - fv * gu)]


def by_convolution(f, g, orders):
    """Do the same."""
    bracket = convolve(f[1], g[2], orders, tangent=True)
    return convolve(f[0], g[0], orders), bracket - convolve(f[2], g[1], orders, tangent=True)


def test_every_path_by_convolution(x64):  # noqa: ARG001
    largest = 5
    irreps, d = irreps_to(largest), (largest + 1) ** 2
    planes = planes_of(np.eye(d), irreps)

    @jax.jit
    def products(i):
        one = [jnp.broadcast_to(p[i], p.shape) for p in planes]
        return by_convolution(one, planes, largest)

    pairs = [[back(p, irreps) for p in products(i)] for i in range(d)]
    assert_paths(np.stack([e for e, _ in pairs]), np.stack([o for _, o in pairs]), largest)


def test_convolution_is_the_product_by_fft_at_high_degree(x64):  # noqa: ARG001
    largest = 8
    irreps = irreps_to(largest)
    rng = np.random.default_rng(0)
    f, g = (planes_of(rng.normal(size=(2, 81)) / 9, irreps) for _ in range(2))
    found = jax.jit(lambda f, g: by_convolution(f, g, largest))(f, g)
    expected = by_fft(f, g, largest, largest, largest)
    for planes, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(planes, others, atol=1e-14)


degrees_lists = st.lists(st.integers(0, 3), min_size=1, max_size=3)


@hypothesis.given(degrees_lists, degrees_lists, st.lists(st.integers(0, 8), min_size=1, max_size=2))
@hypothesis.settings(max_examples=3)
def test_products_of_any_irreps_are_those_on_the_grid(first, second, third):
    irreps = ["+".join(f"{n}o" for n in degrees) for degrees in (first, second, third)]
    l1, l2, l3 = (max(degrees) for degrees in (first, second, third))
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, y = (rng.normal(size=(2, sum(2 * n + 1 for n in ds))) for ds in (first, second))
        f, g = planes_of(x, irreps[0]), planes_of(y, irreps[1])
        found = jax.jit(lambda f, g: (by_fft(f, g, l1, l2, l3), by_convolution(f, g, l3)))(f, g)
        points = grid(l1 + l2 + l3)
        fields = [
            [c @ synthesis(i, points).T, *(c @ t.T for t in tangent_synthesis(i, points))]
            for c, i in ((x, irreps[0]), (y, irreps[1]))
        ]
        (f, fu, fv), (g, gu, gv) = fields
        for product, bracket in found:
            for planes, values in ((product, f * g), (bracket, fu * gv - fv * gu)):
                z = values @ analysis(irreps[2], points).T
                np.testing.assert_allclose(back(planes, irreps[2]), z, atol=1e-13)


def test_transformations_and_precision(dtype):
    irreps = irreps_to(3)
    rng = np.random.default_rng(0)
    f, g = (planes_of(rng.normal(size=(4, 16)).astype(dtype), irreps)[0] for _ in range(2))
    w = jnp.asarray(rng.normal(size=(4, 2, 4, 7)), dtype)
    shape = sample_shape(3, 3, 3)

    def transformed(f, g):
        return coefficients(samples(f, shape) * samples(g, shape), 3, 6)

    def direct(f, g):
        return convolve(f, g, 3)

    tol = 50 * float(jnp.finfo(dtype).eps)
    together = [jax.jit(product)(f, g) for product in (transformed, direct)]
    assert together[0].dtype == together[1].dtype == dtype
    np.testing.assert_allclose(*together, atol=tol)
    np.testing.assert_allclose(jax.vmap(direct)(f, g), together[1], atol=tol)
    gradients = [
        jax.jit(jax.grad(lambda f, p=product: jnp.sum(w * p(f, g))))(f)
        for product in (transformed, direct)
    ]
    for found, gradient in zip(together, gradients, strict=True):
        # Bilinear: the gradient at f along f is the value itself.
        np.testing.assert_allclose(jnp.vdot(gradient, f), jnp.vdot(w, found), atol=20 * tol)
    # Along functions on the sphere both agree; across, planes have parts that mean nothing.
    dense = jnp.asarray(to_torus(irreps).dense[0], dtype)
    onto = [gradient.reshape(4, -1) @ dense.T for gradient in gradients]
    np.testing.assert_allclose(*onto, atol=20 * tol)


def test_bad_input(x64):  # noqa: ARG001
    planes = planes_of(np.ones(16), irreps_to(3))[0]
    with pytest.raises(ValueError, match=r"shape: expected at least \(7, 7\), got \(6, 8\)"):
        samples(planes, (6, 8))
    with pytest.raises(ValueError, match=r"irreps\[0\]: expected multiplicity 1, got 2x1o"):
        to_torus("2x1o")
    with pytest.raises(ValueError, match=r"degree: expected an integer of at least 0, got -1"):
        from_torus("1o", -1)
