"""Against e3nn-jax's tensor product, integrals over the sphere, and counts of paths."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import lebedev_rule

from equivariant.bilinear import BilinearMap


def natural(degree):
    return "+".join(str(e3nn.Irrep(n, (-1) ** n)) for n in range(degree + 1))


def both_parities(degree):
    """What natural irreps reach: all but 0o, of both parities."""
    return "0e+" + "+".join(f"{n}e+{n}o" for n in range(1, degree + 1))


@pytest.mark.parametrize(
    ("first", "second"), [("0e+1o+2e", "1o+2o"), ("0o+1e", "0e+1e+3o"), ("2e+1o+2e", "1o")]
)
def test_unit_weights_are_e3nn_jaxs_product_summed(first, second, x64):  # noqa: ARG001
    product = e3nn.tensor_product(first, second)
    out = e3nn.Irreps([(1, ir) for _, ir in product])
    made = BilinearMap(first, second, out, coupling="clebsch-gordan")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=made.irreps_in1.dim), rng.normal(size=made.irreps_in2.dim)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        z = jax.jit(e3nn.tensor_product)(e3nn.IrrepsArray(first, x), e3nn.IrrepsArray(second, y))
    assert z.irreps == product
    expected = np.concatenate([np.asarray(chunk).sum(-2) for chunk in z.chunks], -1)
    got = np.einsum("i,j,ijk->k", x, y, made.tensor())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_even_gaunt_paths_multiply_functions():
    made = BilinearMap(natural(2), natural(3), natural(4), paths="even")
    points, weights = lebedev_rule(9)
    with jax.enable_x64(True):
        y = [
            np.asarray(e3nn.spherical_harmonics(ir, points.T, True, "component").array)
            for ir in (made.irreps_in1, made.irreps_in2, made.irreps_out)
        ]
    expected = np.einsum("g,gi,gj,gk->ijk", weights / weights.sum(), *y, optimize=True)
    np.testing.assert_allclose(made.tensor(), expected, atol=1e-12)


def test_odd_gaunt_paths_multiply_gradients():
    """r . (grad f x grad g) over sqrt(l(l+1)) of each, for degrees 2 and 3 to all they reach."""
    made = BilinearMap("2e", "3o", "1o+2o+3o+4o+5o")
    points, weights = lebedev_rule(11)

    def values(degree):
        def f(r):
            return e3nn.spherical_harmonics(
                f"{degree}{'eo'[degree % 2]}", r, True, "component"
            ).array

        return f

    with jax.enable_x64(True):
        points = jnp.asarray(points.T)
        slopes = [
            np.asarray(jax.vmap(jax.jacobian(values(n)))(points)) / np.sqrt(n * (n + 1))
            for n in (2, 3)
        ]
        out = [np.asarray(values(n)(points)) for n in range(1, 6)]
    cross = np.cross(slopes[0][:, :, None], slopes[1][:, None])
    triple = np.einsum("gc,gijc->gij", points, cross)
    for n in (2, 4):
        expected = np.einsum("g,gij,gk->ijk", weights / weights.sum(), triple, out[n - 1])
        at = made.irreps_out.slices()[n - 1]
        np.testing.assert_allclose(made.tensor()[:, :, at], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("degree", "even", "odd"), [(2, 11, 4), (3, 23, 11), (4, 42, 23), (6, 106, 69)]
)
def test_numbers_of_paths(degree, even, odd):
    first, out = natural(degree), both_parities(degree)
    assert len(BilinearMap(first, first, first).triples) == even
    assert len(BilinearMap(first, first, first, "even").triples) == even
    assert len(BilinearMap(first, first, out).triples) == even + odd
    assert BilinearMap(first, first, out).triples == tuple(
        sorted(BilinearMap(first, first, out).triples)
    )


def test_parity_selects_paths_whatever_the_degrees():
    made = BilinearMap("1o+1e", "1e+2o", "1e+1o+0o")
    names = {made.name(path) for path in made.triples}
    assert names == {
        "1o x 1e -> 0o",
        "1o x 1e -> 1o",
        "1o x 2o -> 1e",
        "1e x 1e -> 1e",
        "1e x 2o -> 1o",
    }


def test_weights_of_every_kind_as_path_weights(dtype):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    def build(weights):
        return BilinearMap("0e+1o+1o", "1o+2e", "0e+1o+1o", weights=weights)

    made = build(None)
    n = len(made.triples)
    assert made.weight_shape is None
    np.testing.assert_array_equal(made.path_weights(), np.ones(n))
    assert build("shared").weight_shape == ()
    np.testing.assert_array_equal(
        build("shared").path_weights(jnp.asarray([2.0, 3.0], dtype)),
        np.repeat([[2.0], [3.0]], n, 1),
    )
    assert build("per-path").weight_shape == (n,)
    w = normal(5, n)
    np.testing.assert_array_equal(build("per-path").path_weights(w), w)
    assert build("per-degree").weight_shape == (3 + 2 + 3,)
    assert build("low-rank:4").weight_shape == (4, 8)
    terms = normal(6, 4, 8)
    expected = np.stack(
        [
            sum(terms[:, r, i] * terms[:, r, 3 + j] * terms[:, r, 5 + o] for r in range(4))
            for i, j, o in made.triples
        ],
        -1,
    )
    got = build("low-rank:4").path_weights(terms)
    assert got.dtype == dtype
    np.testing.assert_allclose(
        got, expected, rtol=20 * jnp.finfo(dtype).eps, atol=20 * jnp.finfo(dtype).eps
    )
    np.testing.assert_array_equal(
        build("per-degree").path_weights(terms[:, 1]),
        build("low-rank:1").path_weights(terms[:, 1:2]),
    )


def test_tensor_takes_each_path_by_its_weight():
    made = BilinearMap("0e+1o+1o", "1o+2e", "0e+1o+1o")
    w = np.random.default_rng(0).normal(size=len(made.triples))
    weighted, plain = made.tensor(w), made.tensor()
    for path, factor in zip(made.triples, w, strict=True):
        at = made.block(path)
        np.testing.assert_allclose(weighted[at], factor * plain[at], rtol=1e-14)
        weighted[at] = 0
    assert not weighted.any()


def test_equal_maps_are_equal():
    one, other = BilinearMap("0e+1o", "1o", "1o"), BilinearMap(e3nn.Irreps("0e+1o"), "1o", "1o")
    assert one == other
    assert hash(one) == hash(other)
    assert one != BilinearMap("0e+1o", "1o", "1o", coupling="clebsch-gordan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0e+2x1o", "1o", "1o"), r"irreps_in1\[1\]: expected multiplicity 1, got 2x1o"),
        (("0e", "", "1o"), "irreps_in2: expected at least one irrep, got none"),
        (("0e", "1o", "0x1o"), r"irreps_out\[0\]: expected multiplicity 1, got 0x1o"),
        (("0e+1o", "1o", "1o+3o"), r"irreps_out\[1\]: .* some path from 1x0e\+1x1o and 1x1o .*3o"),
        (("1o", "1o", "1e", "even"), r"irreps_out\[0\]: expected an irrep that some even path"),
        (("1o", "1o", "1e", "odd"), r"paths: expected one of \('even', 'all'\), got 'odd'"),
        (("1o", "1o", "1e", "all", "cg"), "coupling: expected one of .* got 'cg'"),
        (("1o", "1o", "1e", "all", "gaunt", "full"), "weights: expected one of .* got 'full'"),
        (
            ("1o", "1o", "1e", "all", "gaunt", "low-rank:0"),
            "weights: expected a rank of at least 1",
        ),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BilinearMap(*arguments)


def test_weights_of_another_shape_are_refused():
    made = BilinearMap("0e+1o", "0e+1o", "1o", weights="per-path")
    with pytest.raises(ValueError, match=r"ends in \(2,\) \(per-path\), got \(4, 3\)"):
        made.path_weights(jnp.ones((4, 3)))
    with pytest.raises(ValueError, match=r"weights: expected an array \[..., \(2,\)\], got None"):
        made.path_weights()
    with pytest.raises(ValueError, match="weights: expected None"):
        BilinearMap("0e+1o", "1o", "1o").path_weights(jnp.ones(2))
