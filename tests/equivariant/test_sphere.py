"""Against exact rational Legendre polynomials, e3nn-jax, Lebedev's rules and closed forms."""

import itertools
import math
from fractions import Fraction

import e3nn_jax as e3nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import lebedev_rule
from scipy.special import sph_harm_y

from equivariant.coupling import clebsch_gordan, gaunt_coefficient
from equivariant.coupling.legendre import legendre
from equivariant.coupling.orders import orders_of
from equivariant.coupling.quadrature import grid
from equivariant.coupling.separable import separable
from equivariant.coupling.sphere import (
    analysis,
    degrees_of,
    harmonics,
    synthesis,
    tangent,
    tangent_synthesis,
)

L = 8
ALL = "+".join(f"{n}e" for n in range(L + 1))


def directions(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x / np.linalg.norm(x, axis=1)[:, None]


def e3nn_harmonics(n, points):
    found = e3nn.spherical_harmonics(f"{n}e", points, normalize=False, normalization="component")
    return found.array


def exact_legendre(n, m, cosine_square, cosine, sine):
    """The polynomial in the squared cosine from its coefficients, in fractions."""
    odd = (n - m) % 2
    total = Fraction(0)
    for k in range((n - m) // 2 + 1):
        power = n - m - 2 * k
        coefficient = math.comb(n, k) * math.comb(2 * n - 2 * k, n) * math.perm(n - 2 * k, m)
        total += Fraction((-1) ** k * coefficient, 2**n) * cosine_square ** ((power - odd) // 2)
    norm = Fraction((1 + (m > 0)) * (2 * n + 1) * math.factorial(n - m), math.factorial(n + m))
    return math.sqrt(norm) * float(total) * cosine**odd * sine**m


def test_legendre_functions_against_fractions():
    for angle in (1e-3, 0.05, 0.3, 0.7, 0.9, 1.5, 2.0, 2.8, 3.5, 6.0):
        cosine, sine = math.cos(angle), math.sin(angle)
        near_pole = abs(sine) < abs(cosine)  # the smaller is the one that fixes the angle
        square = 1 - Fraction(sine) ** 2 if near_pole else Fraction(cosine) ** 2
        found = legendre(24, np.array([cosine]), np.array([sine]))
        for n in (0, 1, 2, 3, 7, 12, 17, 24):
            p = [exact_legendre(n, m, square, cosine, sine) for m in range(n + 1)]
            size = max(np.abs(p))
            np.testing.assert_allclose(found.values[n, : n + 1, 0], p, atol=3e-15 * size)
            assert not found.values[n, n + 1 :].any()
            p.append(0.0)
            for m in range(n + 1):
                over_sine = m * p[m] / sine
                up = math.sqrt((n + m + 1) * (n - m)) * p[m + 1]
                down = math.sqrt((n + m) * (n - m + 1)) * p[m - 1] * (math.sqrt(2) if m == 1 else 1)
                slope = (down - up) / 2 if m else -up / math.sqrt(2)
                tol = 4e-15 * max(n, 1) * size
                np.testing.assert_allclose(found.slopes[n, m, 0], slope, atol=tol)
                np.testing.assert_allclose(found.over_sine[n, m, 0], over_sine, atol=tol)


def test_harmonics_are_those_of_e3nn(x64):  # noqa: ARG001
    points = np.concatenate([directions(30), np.eye(3), -np.eye(3)])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for n in range(5):
            theirs = np.asarray(e3nn_harmonics(n, jnp.asarray(points)))
            np.testing.assert_allclose(harmonics(n, points), theirs, atol=2e-14)


def test_harmonics_of_high_degree_are_those_of_scipy():
    points = directions(50)
    x, y, z = points.T
    for n in (8, 16, 24):
        m = np.arange(n + 1)[:, None]
        theirs = sph_harm_y(n, m, np.arctan2(np.hypot(x, z), y), np.arctan2(x, z)).T
        theirs = theirs * np.where(m[:, 0] > 0, (-1) ** m[:, 0] * math.sqrt(2), 1)
        theirs = theirs * math.sqrt(4 * math.pi)
        both = np.concatenate([theirs.imag[:, :0:-1], theirs.real], axis=1)
        np.testing.assert_allclose(harmonics(n, points), both, atol=6e-14)


def test_tangent_components_are_gradients_of_e3nn(x64):  # noqa: ARG001
    points = directions(20, seed=1)
    x, y, z = points.T
    sine = np.hypot(x, z)
    v = np.stack([z, 0 * y, -x], axis=1) / sine[:, None]
    u = np.stack([y * x / sine, -sine, y * z / sine], axis=1)
    np.testing.assert_allclose(np.cross(u, v), points, atol=1e-15)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for n in (1, 3):
            gradient = jax.vmap(jax.jacfwd(lambda r, n=n: e3nn_harmonics(n, r)))(points)
            for found, axis in zip(tangent(n, points), (u, v), strict=True):
                slope = np.einsum("pmi,pi->pm", gradient, axis) / math.sqrt(n * (n + 1))
                np.testing.assert_allclose(found, slope, atol=1e-13)
    assert not tangent(0, points).any()


def test_brackets_of_coordinates_are_coordinates_at_the_poles_too():
    points = np.concatenate([directions(5), np.eye(3), -np.eye(3)])
    u, v = tangent(1, points)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        bracket = u[:, i] * v[:, j] - v[:, i] * u[:, j]
        np.testing.assert_allclose(bracket, 1.5 * points[:, k], atol=1e-15)


@pytest.mark.parametrize("degree", [*range(26), 30, 37])
def test_grids_integrate_every_harmonic(degree):
    found = grid(degree)
    n = len(found.weights)
    assert found.degree >= degree
    assert found.weights.min() > 0
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=1), 1, rtol=1e-15)
    np.testing.assert_array_equal(found.points[n // 2 :], -found.points[: n // 2])
    np.testing.assert_array_equal(found.weights[n // 2 :], found.weights[: n // 2])
    assert len(np.unique(np.round(found.points, 9), axis=0)) == n
    x, y, z = found.points.T
    for l in range(1, found.degree + 1):  # noqa: E741
        m = np.arange(l + 1)[:, None]
        values = sph_harm_y(l, m, np.arctan2(np.hypot(x, z), y), np.arctan2(x, z))
        # sph_harm_y is good to some 1e-14 itself.
        np.testing.assert_allclose(values @ found.weights, 0, atol=3e-14)
    # Smaller than the product of Gauss-Legendre and Fourier, no larger than a positive Lebedev.
    assert n <= max((degree + 2) // 2 * (degree + 1), 2)
    order = degree // 2 * 2 + 1
    if order not in (1, 13, 25, 33, 37):  # with negative weights, or not there
        assert n <= lebedev_rule(order)[0].shape[1]


def test_no_grid_integrates_more_than_its_degree():
    for degree in (2, 6, 8, 12, 18, 20, 24):
        found = grid(degree)
        square = harmonics(found.degree // 2 + 1, found.points) ** 2
        assert np.abs(square.T @ found.weights - 1).max() > 1e-3


def path_tensors(values, u, v, back):
    """All products and all brackets of pairs of components, each expanded."""
    even = back(values[:, None] * values)
    odd = back(u[:, None] * v - v[:, None] * u)
    return even, odd


def assert_paths(even, odd, degrees):
    """Each path is the closed form times Clebsch-Gordan; what is no path of its kind is zero."""
    ends = np.cumsum([2 * n + 1 for n in degrees])
    blocks = [slice(e - 2 * n - 1, e) for n, e in zip(degrees, ends, strict=True)]
    for triple in itertools.product(range(len(degrees)), repeat=3):
        l1, l2, l3 = (degrees[i] for i in triple)
        block = tuple(blocks[i] for i in triple)
        parity = (l1 + l2 + l3) % 2
        own, other = (odd, even)[:: 1 if parity else -1]
        expected = 0.0
        if abs(l1 - l2) <= l3 <= l1 + l2:
            c = gaunt_coefficient(l1, l2, l3)
            expected = c * math.sqrt(2 * l3 + 1) * clebsch_gordan(l1, l2, l3)
            assert c > 0.4
            assert np.abs(own[block]).max() > 1e-2
        np.testing.assert_allclose(own[block], expected, atol=1e-13)
        np.testing.assert_allclose(other[block], 0, atol=1e-13)


def test_every_path_on_the_grid():
    points = grid(3 * L)
    u, v = tangent_synthesis(ALL, points)
    into = analysis(ALL, points)
    values = synthesis(ALL, points)
    even, odd = path_tensors(values.T, u.T, v.T, lambda f: f @ into.T)
    assert_paths(even, odd, degrees_of(ALL))


def by_order(x, orders):
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], 1))], axis=-1)
    return padded[..., orders.gather]


def test_every_path_by_the_separable_transform():
    steps = separable(ALL, 3 * L)
    x = by_order(np.eye((L + 1) ** 2), steps.orders)

    def field(polar, azimuthal):
        return np.einsum("ismb,sma->iba", np.einsum("ismn,mnb->ismb", x, polar), azimuthal)

    def back(f):
        half = np.einsum("ijba,sma->ijsmb", f, steps.fourier, optimize=True)
        z = np.einsum("ijsmb,mnb->ijsmn", half, steps.weighted, optimize=True)
        return z.reshape(*z.shape[:2], -1)[..., steps.orders.position]

    fields = [
        field(steps.legendre, steps.fourier),
        field(steps.slopes, steps.fourier),
        field(steps.over_sine, steps.turned),
    ]
    assert fields[0].shape[1:] == (13, 25)
    points = steps.points.reshape(-1, 3)
    for n in range(L + 1):
        block = slice(n**2, (n + 1) ** 2)
        expected = [harmonics(n, points), *tangent(n, points)]
        for f, y in zip(fields, expected, strict=True):
            np.testing.assert_allclose(f.reshape(len(f), -1)[block], y.T, atol=3e-14)
    even, odd = path_tensors(*fields, back)
    assert_paths(even, odd, degrees_of(ALL))


irreps_lists = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from("eo")), min_size=1, max_size=5
).map(lambda pairs: "+".join(f"{n}{p}" for n, p in pairs))


@hypothesis.given(irreps_lists, irreps_lists)
def test_any_list_of_irreps(first, second):
    degrees, others = degrees_of(first), degrees_of(e3nn.Irreps(second))
    points = grid(max(degrees) + max(others))
    matrix, back = synthesis(first, points), analysis(second, points)
    blocks = [harmonics(n, points.points) for n in degrees]
    np.testing.assert_array_equal(matrix, np.concatenate(blocks, axis=1))
    gradients = [tangent(n, points.points) for n in degrees]
    np.testing.assert_array_equal(
        tangent_synthesis(first, points), np.concatenate(gradients, axis=2)
    )
    # Orthonormal: repeated irreps see each other, all else nothing.
    which = [(n, m) for n in degrees for m in range(-n, n + 1)]
    others_which = [(n, m) for n in others for m in range(-n, n + 1)]
    same = [[a == b for b in which] for a in others_which]
    np.testing.assert_allclose(back @ matrix, np.array(same, float), atol=1e-14)
    # And so are the scaled gradients, by Green's identity.
    u, v = tangent_synthesis(first, grid(2 * max(degrees)))
    weights = grid(2 * max(degrees)).weights
    overlap = (u.T * weights) @ u + (v.T * weights) @ v
    same = [[a == b and a[0] > 0 for b in which] for a in which]
    np.testing.assert_allclose(overlap, np.array(same, float), atol=1e-14)
    # Sorting by order loses nothing, and puts each where its degree and order say.
    orders = orders_of(degrees)
    x = np.arange(1.0, len(which) + 1)
    placed = by_order(x, orders)
    assert np.count_nonzero(placed) == len(which)
    np.testing.assert_array_equal(placed.reshape(-1)[orders.position], x)
    signs, m, irrep = np.nonzero(placed)
    for s, k, i in zip(signs, m, irrep, strict=True):
        assert which[int(placed[s, k, i]) - 1] == (degrees[i], -k if s else k)


def test_half_of_the_points_do_for_each_parity_of_the_degree():
    degrees = degrees_of(ALL)
    points = grid(3 * L)
    half = len(points.weights) // 2
    odd = np.concatenate([np.full(2 * n + 1, n % 2 == 1) for n in degrees])
    sign = np.where(odd, -1, 1)
    values = synthesis(ALL, points)
    np.testing.assert_allclose(values[half:], values[:half] * sign, atol=1e-14)
    x, y = np.random.default_rng(0).normal(size=(2, len(odd)))
    z = analysis(ALL, points) @ ((values @ x) * (values @ y))
    fe, fo = (values[:half, p] @ x[p] for p in (~odd, odd))
    ge, go = (values[:half, p] @ y[p] for p in (~odd, odd))
    back = 2 * analysis(ALL, points)[:, :half]
    np.testing.assert_allclose(back[~odd] @ (fe * ge + fo * go), z[~odd], atol=1e-12)
    np.testing.assert_allclose(back[odd] @ (fe * go + fo * ge), z[odd], atol=1e-12)


def test_tables_are_shared_and_read_only():
    points = grid(9)
    assert grid(9) is points
    assert synthesis("1o+2e", points) is synthesis(e3nn.Irreps("1e+2o"), points)
    steps = separable("1o+2e", 9)
    assert separable("1e+2e", 9) is steps
    tables = [
        points.points, points.weights, synthesis("1o", points), analysis("1o", points),
        tangent_synthesis("1o", points), steps.points, steps.legendre, steps.slopes,
        steps.over_sine, steps.weighted, steps.fourier, steps.turned, *steps.orders,
    ]  # fmt: skip
    assert not any(table.flags.writeable for table in tables)


BAD = [
    (lambda: grid(-1), r"degree: expected an integer of at least 0, got -1"),
    (lambda: grid(True), r"degree: .* got True"),
    (lambda: harmonics(-1, directions(2)), r"degree: .* got -1"),
    (lambda: tangent(-2, directions(2)), r"degree: .* got -2"),
    (lambda: harmonics(1, 1.01 * directions(2)), r"points: expected points on the unit sphere"),
    (lambda: harmonics(1, np.full((1, 3), np.nan)), r"points: expected points on the unit sphere"),
    (lambda: synthesis("1o+2x1e", grid(2)), r"irreps\[1\]: expected multiplicity 1, got 2x1e"),
    (lambda: analysis("", grid(2)), r"irreps: expected at least one irrep, got none"),
    (lambda: separable("3x0e", 2), r"irreps\[0\]: expected multiplicity 1, got 3x0e"),
    (lambda: separable("0e", -2), r"degree: .* got -2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
