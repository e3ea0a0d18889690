"""Radial functions against e3nn-jax, closed forms, and their smoothness at the cutoff."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from equivariant.nn import Bessel, smooth_cutoff


def test_cutoff_is_the_envelope_of_e3nn(dtype):
    r = jnp.linspace(0.1, 1.2, 23, dtype=dtype)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = e3nn.poly_envelope(5, 2)(r)
    got = smooth_cutoff(3 * r, 3.0)
    # Near the cutoff terms of the size of 48 cancel.
    np.testing.assert_allclose(got, expected, rtol=0, atol=200 * jnp.finfo(dtype).eps)


def test_functions_are_spherical_bessel_functions(x64):  # noqa: ARG001
    """sqrt(2/c) sin(n pi r/c)/r is sqrt(2/c) (n pi/c) j_0(n pi r/c)."""
    r = np.linspace(0.05, 4.0, 7)
    n = np.arange(1, 6)
    expected = np.sqrt(2 / 4.5) * n * np.pi / 4.5
    expected = expected * scipy.special.spherical_jn(0, np.pi * n * r[:, None] / 4.5)
    envelope = smooth_cutoff(r, 4.5)[:, None]
    np.testing.assert_allclose(Bessel(4.5, 5)(r), expected * envelope, rtol=1e-11, atol=1e-14)


def test_exactly_zero_from_the_cutoff_on_and_smooth_there(dtype):
    basis = Bessel(2.0, 3)
    assert not np.any(basis(jnp.array([2.0, 2.5, 1e4], dtype)))

    def first(r):
        return basis(r)[0]

    slope, curve = jax.grad(first), jax.grad(jax.grad(first))
    for f in (first, slope, curve):
        assert f(jnp.asarray(4.0, dtype)) == 0
        assert abs(f(jnp.asarray(2 - 1e-3, dtype))) < 1e-1  # 1e-3 is of curvature's order there
        assert np.isfinite(f(jnp.asarray(0.0, dtype)))


def test_orthonormal_without_the_cutoff_function(x64):  # noqa: ARG001
    """The functions, each times r, are orthonormal on (0, c)."""
    r, w = np.polynomial.legendre.leggauss(60)
    r, w = (r + 1) * 1.5, w * 1.5
    plain = Bessel(3.0, 4)(r) / smooth_cutoff(r, 3.0)[:, None] * r[:, None]
    inside = np.asarray(plain) * np.sqrt(w)[:, None]
    # The last points, where the cutoff function leaves few digits, weigh little.
    np.testing.assert_allclose(inside.T @ inside, np.eye(4), atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="cutoff: expected a positive distance, got 0"):
        Bessel(0)
    with pytest.raises(ValueError, match="number: expected at least 1"):
        Bessel(1.0, 0)
    with pytest.raises(ValueError, match="power: expected at least 2"):
        smooth_cutoff(0.5, 1.0, 1)
