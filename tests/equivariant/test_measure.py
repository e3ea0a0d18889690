"""Against rotations of vectors, e3nn-jax's generators, and counts made by other means."""

import itertools
from fractions import Fraction
from types import SimpleNamespace

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from e3nn_jax._src.so3 import generators

from equivariant import equivariance_error, expressivity, interactability, representation, span
from equivariant.bilinear import BilinearMap

KEY = jax.random.key(0)


def natural(degree):
    return "+".join(str(e3nn.Irrep(n, (-1) ** n)) for n in range(degree + 1))


def both_parities(degree):
    return "0e+" + "+".join(f"{n}e+{n}o" for n in range(1, degree + 1))


def rotation(vector):
    x, y, z = vector
    return scipy.linalg.expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))


# Matrices of O(3) -------------------------------------------------------------------------


@pytest.mark.parametrize("degree", range(9))
def test_representation_is_the_exponential_of_e3nns_generators(degree, x64):  # noqa: ARG001
    vector = np.array([0.3, -1.1, 0.8])
    own = np.asarray(generators(degree), np.float64)
    expected = scipy.linalg.expm(np.einsum("a,aij->ij", vector, own))
    got = representation(f"{degree}e", rotation(vector))
    np.testing.assert_allclose(got, expected, atol=1e-13 * (degree + 1))


def test_representation_of_products_parities_and_multiplicities():
    first, second = rotation([0.2, 1.0, -0.4]), -rotation([2.0, 0.1, 0.3])
    irreps = e3nn.Irreps("2x1o+0o+8e+1e")
    a, b, both = (representation(irreps, g) for g in (first, second, first @ second))
    np.testing.assert_allclose(a @ b, both, atol=1e-13)
    np.testing.assert_allclose(b @ b.T, np.eye(irreps.dim), atol=1e-13)
    np.testing.assert_allclose(b[:3, :3], second, atol=1e-14)  # 1o: e3nn's order x, y, z
    np.testing.assert_allclose(b[3:6, 3:6], second, atol=1e-14)
    np.testing.assert_allclose(b[6, 6], -1)
    np.testing.assert_allclose(b[-3:, -3:], -second, atol=1e-14)
    assert not b[:3, 3:].any()


# The error of equivariance ----------------------------------------------------------------


def test_cross_and_dot_product_are_equivariant(dtype):
    def f(x, y):
        dot = jnp.sum(x * y, -1, keepdims=True)
        return jnp.concatenate([jnp.cross(x, y), dot], -1)

    error = equivariance_error(f, ("1o", "1o"), "1e+0e", key=KEY, dtype=dtype)
    assert 0 < error < 8 * jnp.finfo(dtype).eps


def test_an_inversion_finds_a_wrong_parity():
    # f(-x, -y) = f(x, y), where -f(x, y) is expected: twice its size.
    error = equivariance_error(jnp.cross, ("1o", "1o"), "1o", key=KEY)
    assert error == pytest.approx(2, rel=1e-5)
    once = equivariance_error(jnp.cross, ("1o", "1o"), "1o", key=KEY, samples=1)
    assert once < 1e-6  # the first element is a rotation


def test_error_grows_with_what_is_wrong(x64):  # noqa: ARG001
    def error(size):
        def f(x, y):
            return jnp.cross(x, y) + size * x * y

        return equivariance_error(f, ("1o", "1o"), "1e", key=KEY)

    assert error(1e-3) / error(1e-6) == pytest.approx(1e3, rel=1e-2)
    assert error(1e-3) > 2e-4


def test_e3nn_jaxs_harmonics_are_equivariant(x64):  # noqa: ARG001
    irreps = e3nn.Irreps("2e+3o")

    def f(x):
        return e3nn.spherical_harmonics(irreps, e3nn.IrrepsArray("1o", x), normalize=False).array

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        error = equivariance_error(f, ("1o",), irreps, key=KEY)
    assert error < 1e-12


def test_equal_keys_give_equal_errors():
    first, second, other = (
        equivariance_error(jnp.cross, ("1o", "1o"), "1e", key=jax.random.key(n)) for n in (1, 1, 2)
    )
    assert first == second != other


def test_a_zero_function_is_equivariant_and_one_that_vanishes_by_chance_is_not():
    assert equivariance_error(jnp.zeros_like, ("1o",), "1o", key=KEY) == 0
    assert equivariance_error(lambda x: x * jnp.nan, ("1o",), "1o", key=KEY) != 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples: expected at least one, got 0"),
        ({"channels": 0}, "channels: expected at least one"),
        ({"irreps_in": ()}, "irreps_in: expected at least one"),
        ({"irreps_out": "2e"}, r"f: expected a result \[128, ..., 5\] .* got \(128, 1, 3\)"),
        ({"dtype": "float64"}, "dtype: expected 64-bit types to be turned on"),
    ],
)
def test_what_is_refused(change, message):
    arguments = {"irreps_in": ("1o", "1o"), "irreps_out": "1e", "key": KEY} | change
    with pytest.raises(ValueError, match=message):
        equivariance_error(jnp.cross, **arguments)


# Counts -----------------------------------------------------------------------------------


def count(degree, *, odd):
    """Count couplings of degrees up to `degree`, by the triangle rule alone."""
    numbers = range(degree + 1)
    return sum(
        abs(a - b) <= c <= a + b and (odd or (a + b + c) % 2 == 0)
        for a, b, c in itertools.product(numbers, repeat=3)
    )


def rank_modulo(rows, prime=2**31 - 1):
    """Eliminate in exact integer arithmetic modulo a prime."""
    rows, rank = [[value % prime for value in row] for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, prime)
        for r in range(rank + 1, len(rows)):
            if rows[r][column]:
                factor = rows[r][column] * inverse
                rows[r] = [
                    (a - factor * b) % prime for a, b in zip(rows[r], rows[rank], strict=True)
                ]
        rank += 1
    return rank


def separable_rank(made, terms):
    """Return the rank of d(sum_r a_ri b_rj c_ro) at random integers, by the product rule."""
    rng = np.random.default_rng(1)
    parts = [rng.integers(1, 10**6, (terms, n)).tolist() for n in made.sizes]
    rows = []
    for r, side in itertools.product(range(terms), range(3)):
        for which in range(made.sizes[side]):
            others = [s for s in range(3) if s != side]
            rows.append(
                [
                    parts[others[0]][r][path[others[0]]] * parts[others[1]][r][path[others[1]]]
                    if path[side] == which
                    else 0
                    for path in made.triples
                ]
            )
    return rank_modulo(rows)


@pytest.mark.parametrize(
    ("degree", "coupling"),
    [(1, "gaunt"), (2, "gaunt"), (3, "gaunt"), (4, "gaunt"), (2, "clebsch-gordan")],
)
def test_expressivity_of_even_paths(degree, coupling):
    def build(weights):
        n = natural(degree)
        return BilinearMap(n, n, n, "even", coupling, weights)

    paths = count(degree, odd=False)
    # Weights per degree: 3 (L + 1) of them, and two changes of scale between factors do nothing.
    assert expressivity(build("per-degree")) == 3 * (degree + 1) - 2 == [4, 7, 10, 13][degree - 1]
    assert expressivity(build("per-path")) == paths
    assert expressivity(build("shared")) == 1
    assert expressivity(build(None)) == 0
    for terms in (2, 3):
        made = build(f"low-rank:{terms}")
        assert expressivity(made) == separable_rank(made, terms)
        assert expressivity(made) <= min(paths, terms * (3 * (degree + 1) - 2))
    for weights, expected in (
        (None, 1), ("shared", 1), ("per-degree", paths), ("low-rank:2", paths), ("per-path", paths)
    ):  # fmt: skip
        assert span(build(weights)) == expected


@pytest.mark.parametrize("degree", [2, 4])
def test_expressivity_of_all_paths(degree):
    n = natural(degree)
    made = BilinearMap(n, n, both_parities(degree), "all", "gaunt", "per-degree")
    paths = count(degree, odd=True)
    # 2 L + 1 irreps in the result; its even and odd paths share both inputs' factors.
    assert expressivity(made) == 2 * (degree + 1) + 2 * degree + 1 - 2 == separable_rank(made, 1)
    assert span(made) == paths
    triples = interactability(made)
    assert len(triples) == len(set(triples)) == paths
    even = interactability(BilinearMap(n, n, n, "even"))
    assert len(even) == count(degree, odd=False)
    assert all((a.l + b.l + c.l) % 2 == 0 and a.p * b.p == c.p for a, b, c in even)
    assert set(triples) - set(even) == {t for t in triples if sum(ir.l for ir in t) % 2}


def test_paths_that_fall_apart_have_more_changes_of_scale():
    # 1o x 0e -> 1o and 1e x 0o -> 1o share the result alone: 5 factors, 2 maps.
    made = BilinearMap("1o+1e", "0e+0o", "1o", weights="per-degree")
    assert expressivity(made) == 2
    # Without a common irrep: one number each.
    assert expressivity(BilinearMap("0e+1o", "0e", "0e+1o", weights="per-degree")) == 2


def test_low_rank_reaches_every_path_weight_where_it_has_as_many_terms_as_needed():
    made = BilinearMap(natural(2), natural(2), natural(2), "even", weights="low-rank:8")
    assert expressivity(made) == len(made.triples) == 11


def test_an_irrep_that_stands_twice_interacts_once():
    made = BilinearMap("1o+1o", "1o", "0e+1e")
    assert len(made.triples) == 4
    assert interactability(made) == tuple(
        (e3nn.Irrep("1o"), e3nn.Irrep("1o"), e3nn.Irrep(out)) for out in ("0e", "1e")
    )


@pytest.mark.parametrize("measure", [expressivity, span, interactability])
def test_only_products_are_measured(measure):
    made = BilinearMap("0e+1o", "0e", "0e+1o", weights="shared")
    for name in ("bilinear", "map"):  # of a product, of a method
        assert measure(SimpleNamespace(**{name: made})) == measure(made)
    with pytest.raises(TypeError, match=r"product: expected a BilinearMap or .* got Fraction"):
        measure(Fraction(1))
