"""Grid and torus against the coupling tensor, of closed form; terms against 1/c_p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equivariant.bilinear import BilinearMap
from equivariant.coupling import gaunt_coefficient, separable_terms
from equivariant.coupling.fields import fields_of
from equivariant.coupling.gaunt import GauntGrid
from equivariant.coupling.gaunt_fourier import GauntFourier
from equivariant.method import Use

METHODS = [GauntGrid, GauntFourier]
# Natural; both parities out; parity ignored; anything, with repetitions and no split by degree; no
# path from the 2e.
CASES = [
    ("0e+1o+2e", "0e+1o+2e", "0e+1o+2e+3o"),
    ("0e+1o+2e", "1o+2e", "0e+1e+1o+2o+2e"),
    ("0e+1e+2e", "0e+1e", "0e+1e+2e"),
    ("0e+1e+1o+2o+1o", "1o+0o+1e", "1e+1o+0e+2o+1o"),
    ("1o", "1o+2e", "0e+2e"),
]


def natural(degree):
    return "+".join(f"{n}{'eo'[n % 2]}" for n in range(degree + 1))


def arguments(bilinear, batch, channels, dtype="float64"):
    rng = np.random.default_rng(0)
    shapes = [(batch, channels, ir.dim) for ir in (bilinear.irreps_in1, bilinear.irreps_in2)]
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    tail = bilinear.weight_shape
    w = None if tail is None else jnp.asarray(rng.normal(size=(1, channels, *tail)), dtype)
    return *arrays, w


def expected(bilinear, x, y, w):
    """By the dense tensor of each channel."""
    each = np.asarray(bilinear.path_weights(w), np.float64).reshape(-1, len(bilinear.triples))
    tensors = np.stack([bilinear.tensor(row) for row in each])
    tensors = np.broadcast_to(tensors, (x.shape[1], *tensors.shape[1:]))
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    return np.einsum("bci,bcj,cijk->bck", x, y, tensors, optimize=True)


@pytest.mark.parametrize("irreps", CASES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("x64")
def test_every_program(method, irreps):
    for coupling, weights in (("gaunt", "per-degree"), ("clebsch-gordan", None)):
        bilinear = BilinearMap(*irreps, coupling=coupling, weights=weights)
        x, y, w = arguments(bilinear, 2, 2)
        want = expected(bilinear, x, y, w)
        programs = method(bilinear).programs(Use(2, dtype="float64"))
        run = jax.jit(lambda *a, p=programs: {name: program.run(*a) for name, program in p.items()})
        for name, got in run(x, y, w).items():
            np.testing.assert_allclose(got, want, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("x64")
def test_low_rank_weights_and_a_channel_for_all(method):
    bilinear = BilinearMap(*CASES[1], weights="low-rank:2")
    x, y, w = arguments(bilinear, 2, 3)
    got = jax.jit(method(bilinear))(x, y[:, :1], w)
    want = expected(bilinear, x, jnp.repeat(y[:, :1], 3, 1), w)
    np.testing.assert_allclose(got, want, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_every_path_at_degree_8(method, dtype):
    """All 215 even and 154 odd paths: the tensor's entries are c_p times Clebsch-Gordan's."""
    out = natural(8) + "+" + "+".join(f"{n}{'oe'[n % 2]}" for n in range(1, 9))
    bilinear = BilinearMap(natural(8), natural(8), out)
    x, y, w = arguments(bilinear, 2, 1, dtype)
    want = expected(bilinear, x, y, w)
    tolerance = (1e-5 if dtype == jnp.float32 else 1e-12) * np.abs(want).max()
    np.testing.assert_allclose(jax.jit(method(bilinear))(x, y), want, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("degree", "even", "odd"),
    [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 3, 3), (5, 5, 4), (6, 6, 5), (7, 12, 12), (8, 12, 12)],
)
def test_terms_of_the_clebsch_gordan_coupling(degree, even, odd, monkeypatch):
    monkeypatch.setattr(separable_terms, "cached", None)  # they come with the package
    every = range(degree + 1)
    for kind, most in ((0, even), (1, odd)):
        paths = [
            (a, b, c)
            for a in every
            for b in every
            for c in every
            if abs(a - b) <= c <= a + b and (a + b + c) % 2 == kind
        ]
        factors = separable_terms.separable_terms(paths)
        assert factors is not None
        assert len(factors[0]) <= most
        for path in paths:
            a, b, c = (f[:, n] for f, n in zip(factors, path, strict=True))
            assert (a * b * c).sum() * gaunt_coefficient(*path) == pytest.approx(1, rel=2e-13)


def test_terms_are_searched_for_where_none_come_with_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("GAUNTAX_CACHE_DIR", str(tmp_path))
    paths = [(0, 0, 0), (1, 1, 0), (1, 1, 2), (2, 1, 1), (2, 2, 2)]
    factors = separable_terms.separable_terms(paths)
    assert factors is not None
    for path in paths:
        a, b, c = (f[:, n] for f, n in zip(factors, path, strict=True))
        assert (a * b * c).sum() * gaunt_coefficient(*path) == pytest.approx(1, rel=2e-13)


def test_antipodal_functions_are_split_no_further_than_needed():
    plain = fields_of(BilinearMap(*CASES[0]))
    assert (len(plain.first), len(plain.second), len(plain.out)) == (1, 1, 1)
    half = fields_of(BilinearMap(*CASES[0]), antipodal=True)
    assert (len(half.first), len(half.second), len(half.out)) == (2, 2, 2)
    assert "half the points" in GauntGrid(BilinearMap(*CASES[0])).programs(Use())
    assert "half the points" not in GauntGrid(BilinearMap(*CASES[1])).programs(Use())  # brackets


@pytest.mark.parametrize("method", METHODS)
def test_what_is_refused(method, monkeypatch):
    weighted = BilinearMap(natural(1), natural(1), natural(1), weights="per-path")
    with pytest.raises(ValueError, match=r"cannot weight 4 paths \(0e x 0e -> 0e, 0e x 1o -> 1o"):
        method(weighted)
    monkeypatch.setattr("equivariant.coupling.fields.separable_terms", lambda _: None)
    hard = BilinearMap("0e+1o", "1o", "0e+1o", coupling="clebsch-gordan")
    with pytest.raises(ValueError, match=r"coupling of 2 paths \(0e x 1o -> 1o, 1o x 1o -> 0e\)"):
        method(hard)
