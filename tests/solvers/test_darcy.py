"""Darcy's flow: closed forms, two discretizations of one problem, the law of the fields, files."""

import numpy as np
import pytest

from solvers.problems import darcy as module
from solvers.problems.darcy import coefficient, darcy, gaussian_field, pressure, read_darcy

POINTS = np.arange(16) / 16


def test_the_pressure_of_even_ground_is_the_torsion_function():
    """u = sum over odd i, j of 16 sin sin / (pi^4 i j (i^2 + j^2)), for a = f = 1."""
    x = np.arange(33) / 32
    k = np.arange(1, 400, 2)
    waves = np.sin(np.pi * np.outer(x, k))
    number = 16 / (np.pi**4 * np.outer(k, k) * (k[:, None] ** 2 + k[None] ** 2))
    exact = waves @ number @ waves.T
    for scale in (1.0, 7.0):
        u = pressure(np.full((32, 32), 3.0), source=3.0 * scale)
        np.testing.assert_allclose(u, scale * exact, atol=1e-3 * scale * exact.max())


def test_two_discretizations_agree():
    pytest.importorskip("skfem", reason="the other one is scikit-fem's (the extra `pde`)")
    for kind, within in (("log-normal", 0.01), ("piecewise", 0.03)):
        pairs = [
            darcy(8, 2, seed=3, kind=kind, refine=8, method=method)
            for method in ("five-point", "elements")
        ]
        np.testing.assert_array_equal(pairs[0][0], pairs[1][0])
        u, v = pairs[0][1], pairs[1][1]
        assert np.linalg.norm(u - v) < within * np.linalg.norm(v)
        assert np.linalg.norm(u - v) > 1e-6 * np.linalg.norm(v)


def test_finer_computation_converges():
    """The error of smooth ground falls by four where cells are halved."""
    smooth = {"kind": "log-normal", "alpha": 5.0}
    u = [darcy(8, 1, **smooth, refine=r)[1].astype(float) for r in (2, 4, 8, 24)]
    errors = [np.linalg.norm(v - u[-1]) for v in u[:-1]]
    # Of second order, and the last one has an error, too: a 144th of the first one.
    assert errors[0] / errors[1] == pytest.approx(4.09, abs=0.4)
    assert errors[1] / errors[2] == pytest.approx(4.38, abs=0.4)


def test_one_seed_is_one_function_at_every_resolution():
    coarse, fine = darcy(8, 3, seed=5, refine=4), darcy(16, 2, seed=6, refine=2)
    np.testing.assert_array_equal(coarse[0][1:], fine[0][..., ::2, ::2])
    np.testing.assert_allclose(coarse[1][1:], fine[1][..., ::2, ::2], rtol=1e-6)
    assert coarse[0].shape == (3, 1, 8, 8)
    assert coarse[0].dtype == coarse[1].dtype == np.float32
    assert np.all(coarse[1][:, 0, 0] == 0)
    assert np.all(coarse[1][:, 0, 1:, 1:] > 0)


def test_the_law_of_the_field():
    """Mean, variance and correlation over many seeds are those of the cosine series."""
    alpha, tau, n = 2.0, 3.0, 400
    fields = np.stack([gaussian_field(POINTS, k, alpha=alpha, tau=tau) for k in range(n)])
    k = np.arange(128)
    variance = (np.pi**2 * (k[:, None] ** 2 + k[None] ** 2) + tau**2) ** -alpha
    variance[0, 0] = 0
    waves = np.cos(np.pi * np.outer(POINTS, k)) * np.where(k == 0, 1, 2**0.5)
    # Of the points on the diagonal of the square, and their correlation with the corner.
    expected = np.einsum("pi,pj,ij->p", waves * waves[0], waves * waves[0], variance)
    expected /= variance.sum()
    points = np.einsum("npp->np", fields)
    found = (points * points[:, :1]).mean(0)
    spread = (points * points[:, :1]).std(0) / n**0.5
    assert np.all(np.abs(found - expected) < 4 * spread)
    assert np.all(np.abs(points.mean(0)) < 4 * points.std(0) / n**0.5)


def test_kinds_of_ground():
    two = coefficient(POINTS, 1, values=(3.0, 12.0))
    assert set(np.unique(two)) == {3.0, 12.0}
    np.testing.assert_array_equal(two > 5, gaussian_field(POINTS, 1) >= 0)
    smooth = coefficient(POINTS, 1, kind="log-normal")
    np.testing.assert_allclose(np.log(smooth), gaussian_field(POINTS, 1), rtol=1e-10)


def test_made_once(monkeypatch):
    first = darcy(8, 2, refine=2)
    monkeypatch.setattr(module, "_pairs", None)
    again = darcy(8, 2, refine=2)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(TypeError):
        darcy(8, 2, refine=3)


def test_files(tmp_path):
    path = tmp_path / "small.npz"
    rng = np.random.default_rng(0)
    arrays = {f"darcy_{part}_16.x": rng.random((3, 16, 16)) > 0.5 for part in ("train", "test")}
    arrays |= {name[:-1] + "y": rng.normal(size=x.shape) for name, x in arrays.items()}
    np.savez(path, **arrays)
    x, y = read_darcy(path, values=(3.0, 12.0))["test"]
    np.testing.assert_array_equal(x[:, 0] == 12.0, arrays["darcy_test_16.x"])
    np.testing.assert_allclose(y[:, 0], arrays["darcy_test_16.y"], rtol=1e-6)
    assert x.dtype == y.dtype == np.float32
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected 'darcy_train_16.x' in it, got \['other'\]"):
        read_darcy(path)
    with pytest.raises(FileNotFoundError, match="expected a file, got none"):
        read_darcy(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution: expected at least 2, got 1"),
        ({"count": 0}, "count: expected at least 1, got 0"),
        ({"kind": "sand"}, "kind: expected one of"),
        ({"method": "spectral"}, "method: expected one of"),
        ({"values": (0.0, 1.0)}, "values: expected positive ones"),
        ({"refine": 3, "method": "elements"}, "expected a power of two cells, got 24"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        darcy(**{"resolution": 8, "count": 1, "refine": 2, **options})
