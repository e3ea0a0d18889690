"""Against sympy's exact symbols, e3nn-jax, quadrature, rotations, and the identities of 3j."""

import itertools
import logging
import math

import e3nn_jax as e3nn
import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from sympy.physics.wigner import clebsch_gordan as sympy_clebsch_gordan
from sympy.physics.wigner import wigner_3j

from equivariant.coupling import clebsch_gordan, gaunt_coefficient, tables
from tensornet.cache import cache_directory

EPS = np.finfo(np.float64).eps
LARGE = (40, 41, 43)  # kept on disk


def triples(most, most3=None):
    for l1, l2 in itertools.product(range(most + 1), repeat=2):
        for l3 in range(abs(l1 - l2), min(most3 or most, l1 + l2) + 1):
            yield l1, l2, l3


@st.composite
def coupled(draw, most):
    l1, l2 = draw(st.integers(0, most)), draw(st.integers(0, most))
    return l1, l2, draw(st.integers(abs(l1 - l2), l1 + l2))


def fresh(*degrees):
    """Build a table although an earlier one is still in memory."""
    tables._real_table.cache_clear()
    return clebsch_gordan(*degrees)


def entries():
    return [path for path in cache_directory().rglob("*") if path.is_file()]


def real_basis(degree, mu):
    """Amplitudes over |m> of e3nn-jax's real basis vector mu, exactly."""
    m, phase = abs(mu), (-sympy.I) ** degree
    if mu == 0:
        return {0: phase}
    phase *= (1 if mu > 0 else -sympy.I) / sympy.sqrt(2)
    return {-m: phase, m: phase * (-1) ** m * (1 if mu > 0 else -1)}


def exact_entry(degrees, mu):
    """One entry from sympy's complex coefficients: every product of the basis change."""
    l1, l2, l3 = degrees
    bases = [real_basis(*pair).items() for pair in zip(degrees, mu, strict=True)]
    total = sum(
        a * b * sympy.conjugate(c) * sympy_clebsch_gordan(l1, l2, l3, m1, m2, m3)
        for (m1, a), (m2, b), (m3, c) in itertools.product(*bases)
        if m1 + m2 == m3
    )
    value = sympy.N(sympy.expand(total) / sympy.sqrt(2 * l3 + 1), 40)
    assert sympy.im(value) == 0
    return float(str(sympy.re(value)))


def test_equals_e3nn_jax():
    for degrees in triples(6):
        expected = e3nn.clebsch_gordan(*degrees)
        np.testing.assert_allclose(clebsch_gordan(*degrees), expected, rtol=0, atol=4e-15)


@pytest.mark.parametrize("degrees", [(4, 4, 8), (3, 7, 10), (11, 2, 10), (5, 11, 8), (11, 11, 1)])
def test_equals_e3nn_jax_at_higher_degrees(degrees):
    expected = e3nn.clebsch_gordan(*degrees)
    np.testing.assert_allclose(clebsch_gordan(*degrees), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "degrees",
    [(2, 3, 4), (12, 12, 24), (24, 24, 24), (23, 24, 24), (24, 24, 48), (24, 17, 9), (5, 24, 22)],
)
def test_equals_exact_symbols(degrees):
    """Relative to each entry, however small: 16 eps, and exact zeros where sympy has them."""
    table = clebsch_gordan(*degrees)
    rng = np.random.default_rng(sum(degrees))
    for _ in range(12):
        mu1, mu2 = (int(rng.integers(-n, n + 1)) for n in degrees[:2])
        sums = {abs(mu1) + abs(mu2), abs(abs(mu1) - abs(mu2))}
        for mu3 in {s * sign for s in sums for sign in (1, -1) if s <= degrees[2]}:
            mu = (mu1, mu2, mu3)
            got = table[tuple(np.add(degrees, mu))]
            expected = exact_entry(degrees, mu)
            assert abs(got - expected) <= 16 * EPS * abs(expected), (mu, got, expected)


@pytest.mark.parametrize("degrees", [(2, 3, 4), (7, 7, 7), (24, 24, 24), (23, 24, 24)])
def test_nothing_stands_elsewhere(degrees):
    """Projections whose sizes do not add up, or whose mirror images cancel, do not couple."""
    mu1, mu2, mu3 = np.ix_(*(np.arange(-n, n + 1) for n in degrees))
    a, b, c = abs(mu1), abs(mu2), abs(mu3)
    adds_up = (c == a + b) | (c == abs(a - b))
    odd = ((mu1 < 0).astype(int) + (mu2 < 0) + (mu3 < 0) + sum(degrees)) % 2 == 1
    table = clebsch_gordan(*degrees)
    assert not table[np.broadcast_to(~adds_up | odd, table.shape)].any()
    assert np.count_nonzero(table) > 0.8 * np.count_nonzero(adds_up & ~odd)  # few vanish by chance


@pytest.mark.parametrize(
    "degrees", [(0, 0, 0), (12, 12, 24), (24, 24, 24), (24, 24, 12), (24, 23, 24), (24, 24, 48)]
)
def test_orthogonal(degrees):
    flat = clebsch_gordan(*degrees).reshape(-1, 2 * degrees[2] + 1)
    gram = (2 * degrees[2] + 1) * flat.T @ flat
    np.testing.assert_allclose(gram, np.eye(len(gram)), rtol=0, atol=1e-14)


@given(coupled(30))
def test_exchanging_degrees(degrees):
    table, sign = clebsch_gordan(*degrees), (-1) ** sum(degrees)
    for axes in itertools.permutations(range(3)):
        swaps = sum(axes[i] > axes[j] for i, j in itertools.combinations(range(3), 2))
        other = clebsch_gordan(*(degrees[n] for n in axes))
        expected = sign**swaps * table.transpose(axes)
        np.testing.assert_allclose(other, expected, rtol=16 * EPS, atol=0)


@pytest.mark.parametrize("degrees", [(1, 1, 1), (3, 5, 4), (8, 8, 8), (8, 7, 11), (5, 6, 11)])
def test_equivariant(degrees):
    d = []
    for n in degrees:
        spin = 1j * np.tensordot([0.7, -1.9, 1.3], e3nn.generators(n), 1)
        angles, axes = np.linalg.eigh(spin)
        d.append(((axes * np.exp(-1j * angles)) @ axes.conj().T).real)
    table = clebsch_gordan(*degrees)
    turned = np.einsum("ia,jb,kc,abc->ijk", *d, table, optimize=True)
    np.testing.assert_allclose(turned, table, rtol=0, atol=1e-14)
    assert np.linalg.norm(np.einsum("ia,abc->ibc", d[0], table) - table) > 0.1


@given(coupled(12))
def test_gaunt_coefficient_is_rounded_once(degrees):
    l1, l2, l3 = degrees
    m = sum(degrees) % 2
    exact = sympy.sqrt((2 * l1 + 1) * (2 * l2 + 1)) * abs(wigner_3j(l1, l2, l3, m, -m, 0))
    assert gaunt_coefficient(*degrees) == float(str(sympy.N(exact, 40)))


def test_gaunt_coefficient_of_odd_sums_at_high_degrees():
    for degrees in [(24, 24, 1), (24, 24, 47), (23, 24, 24), (24, 9, 16), (60, 70, 41)]:
        scale = math.sqrt((2 * degrees[0] + 1) * (2 * degrees[1] + 1))
        exact = scale * float(abs(wigner_3j(*degrees, 1, -1, 0)))
        assert gaunt_coefficient(*degrees) == pytest.approx(exact, rel=4 * EPS)


def test_gaunt_coefficient_squared_is_an_integral():
    """The integral of three Legendre polynomials is twice the squared 3j symbol."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    legendre = np.polynomial.legendre.legvander(nodes, 24).T
    for l1, l2, l3 in triples(24):
        if (l1 + l2 + l3) % 2 == 0 and l1 <= l2:
            integral = weights @ (legendre[l1] * legendre[l2] * legendre[l3]) / 2
            squared = (2 * l1 + 1) * (2 * l2 + 1) * integral
            assert gaunt_coefficient(l1, l2, l3) ** 2 == pytest.approx(squared, rel=1e-11)


def test_no_path_vanishes():
    for degrees in triples(24, 48):
        assert gaunt_coefficient(*degrees) > 0.1


def test_shared_and_read_only():
    table = clebsch_gordan(2, 1, 3)
    assert clebsch_gordan(np.int64(2), 1, np.int32(3)) is table
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0, 0] = 1


def test_large_tables_are_read_from_disk(monkeypatch):
    table = fresh(*LARGE)
    assert len(entries()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_build_wigner_3j", None)
        again = fresh(*LARGE)
    assert again is not table
    assert again.tobytes() == table.tobytes()


def test_small_tables_leave_no_file():
    fresh(24, 24, 24)
    assert not entries()


def test_cut_entry_is_built_again(caplog):
    table = fresh(*LARGE)
    (path,) = entries()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, logger="tensornet.cache"):
        again = fresh(*LARGE)
    assert "discarding a cache entry" in caplog.text
    assert again.tobytes() == table.tobytes()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("function", [clebsch_gordan, gaunt_coefficient])
@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ((1, 2, 4), r"l3: expected between \|l1 - l2\| = 1 and l1 \+ l2 = 3, got 4"),
        ((5, 2, 2), r"l3: expected between \|l1 - l2\| = 3 and l1 \+ l2 = 7, got 2"),
        ((-1, 2, 2), r"l1: expected an integer of at least 0, got -1 \(int\)"),
        ((1, 2.0, 2), r"l2: expected an integer of at least 0, got 2\.0 \(float\)"),
        ((1, 1, True), r"l3: expected an integer of at least 0, got True \(bool\)"),
        (("1", 1, 1), r"l1: expected an integer of at least 0, got '1' \(str\)"),
        ((200, 200, 101), r"l1, l2, l3: expected a sum of at most 500, got 501"),
    ],
)
def test_bad_degrees(function, degrees, message):
    with pytest.raises(ValueError, match=message):
        function(*degrees)
