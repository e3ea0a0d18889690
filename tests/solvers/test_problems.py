"""Problems against closed forms, pyamg's gallery, scikit-fem's own forms, and files."""

import functools
import pathlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from solvers.problems import anisotropic, diffusion, poisson, poisson_stencil, read_matrix_market
from solvers.problems import coefficients as fields


def eigenvalues(n):
    return 4 * np.sin(np.pi * np.arange(1, n + 1) / (2 * (n + 1))) ** 2


@pytest.mark.parametrize("grid", [(7,), (4, 5), (3, 4, 2)])
def test_poisson_has_the_known_spectrum(grid, x64):  # noqa: ARG001
    wanted = functools.reduce(np.add.outer, [eigenvalues(n) for n in grid]).ravel()
    found = poisson(grid)
    np.testing.assert_allclose(np.linalg.eigvalsh(found.matrix.toarray()), np.sort(wanted))
    assert found.points.shape == (found.size, len(grid))
    stencil = poisson_stencil(grid)
    np.testing.assert_array_equal(stencil.to_scipy().toarray(), found.matrix.toarray())


def test_diffusion_is_exact_where_the_flux_is_linear():
    """With k = k(x), u is linear in y and k u' linear in x: -div(k grad u) is met exactly."""
    k = np.broadcast_to(np.linspace(1, 3, 7)[:, None], (7, 6))
    found = diffusion(k)
    u = found.points[:, 1]  # du/dx = 0, d2u/dy2 = 0
    rest = (found.matrix @ u).reshape(6, 5)
    np.testing.assert_allclose(rest[1:-1, 1:-1], 0, atol=1e-12)
    np.testing.assert_allclose(rest[1:-1, 0], 0, atol=1e-12)  # u = 0 on that side
    assert abs(found.matrix - found.matrix.T).max() == 0
    one = diffusion(np.full((5, 6), 2.0))
    np.testing.assert_allclose(one.matrix.toarray(), 2 * poisson((4, 5)).matrix.toarray())


def test_anisotropic_elements_are_exact_for_quadratics():
    found = anisotropic((6, 7), ratio=0.01, degrees=30)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    tensor = np.array([[c * c + 0.01 * s * s, 0.99 * c * s], [0.99 * c * s, s * s + 0.01 * c * c]])
    x, y = found.points.T
    inner = np.arange(42).reshape(6, 7)[1:-1, 1:-1].ravel()
    for u, second in ((x**2, -2 * tensor[0, 0]), (y**2, -2 * tensor[1, 1]),
                      (x * y, -2 * tensor[0, 1]), (x, 0)):  # fmt: skip
        np.testing.assert_allclose((found.matrix @ u)[inner], second, atol=1e-12)
    assert np.linalg.eigvalsh(found.matrix.toarray()).min() > 0
    gallery = pytest.importorskip("pyamg.gallery", reason="pyamg is not installed")
    stencil = gallery.diffusion_stencil_2d(epsilon=0.01, theta=np.pi / 6, type="FE")
    row = found.matrix[[23]].toarray().reshape(6, 7)[2:5, 1:4]
    assert sorted(np.round(row.ravel(), 12)) == sorted(np.round(stencil.ravel(), 12))


def test_fields_belong_to_their_seeds():
    points = np.random.default_rng(0).uniform(size=(4000, 2))
    for field in (fields.smooth, fields.inclusions):
        assert (field(points, 1) == field(points, 1)).all()
        assert (field(points, 1) != field(points, 2)).any()
    logs = np.log([fields.smooth(points, seed, amplitude=0.5) for seed in range(40)])
    np.testing.assert_allclose(logs.std(), 0.5, rtol=0.15)
    assert set(fields.inclusions(points, 0, contrast=50.0)) == {1.0, 50.0}


def test_matrix_market_files(tmp_path):
    wanted = poisson((3, 3)).matrix
    path = tmp_path / "a.mtx"
    scipy.io.mmwrite(path, sp.coo_array(wanted), symmetry="symmetric")
    found = read_matrix_market(path)
    assert found.name == "a"
    np.testing.assert_array_equal(found.matrix.toarray(), wanted.toarray())
    with pytest.raises(FileNotFoundError, match=r"b.mtx: expected a file, got none"):
        read_matrix_market(tmp_path / "b.mtx")
    path.write_text("no matrix")
    with pytest.raises(ValueError, match=r"a.mtx: expected a MatrixMarket file, got"):
        read_matrix_market(path)
    scipy.io.mmwrite(path, sp.coo_array(wanted[:, :4]))
    with pytest.raises(ValueError, match=r"a: expected a square .* shape \(9, 4\)"):
        read_matrix_market(path)


def test_coefficients_must_be_positive():
    with pytest.raises(ValueError, match=r"coefficient: expected positive .* got 0.0 as the least"):
        diffusion(np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"coefficient: expected 2 or more cells .* got \(1, 4\)"):
        diffusion(np.ones((1, 4)))


@pytest.fixture
def fem():
    pytest.importorskip("skfem", reason="scikit-fem is not installed")
    from solvers.problems import fem

    return fem


@pytest.mark.parametrize("geometry", ["disk", "square", "l-shape", "ring", "cube"])
def test_meshes_and_their_problems(fem, geometry):
    mesh = fem.mesh(geometry, 2, seed=3)
    found = fem.diffusion(mesh)
    a = found.matrix.toarray()
    assert abs(a - a.T).max() < 1e-14 * abs(a).max()
    assert np.linalg.eigvalsh(a).min() > 0
    volumes = {"disk": np.pi, "square": 1, "l-shape": 3, "ring": np.pi * (1 - 0.16), "cube": 1}
    heat = fem.heat_step(mesh, 0.0)  # the mass alone: 1 M 1 is the volume, less the boundary's part
    assert 0 < heat.matrix.sum() < volumes[geometry] * 1.0001
    assert found.points.shape == (found.size, mesh.p.shape[0])
    assert found.elements.max() == found.size - 1
    moved = fem.mesh(geometry, 2, seed=4)
    still = fem.mesh(geometry, 2)
    assert (moved.t == mesh.t).all()
    assert abs(moved.p - mesh.p).max() > 0
    np.testing.assert_array_equal(
        mesh.p[:, mesh.boundary_nodes()], still.p[:, still.boundary_nodes()]
    )


def test_finite_elements_converge(fem):
    """-Laplace u = f with u = sin(pi x) sin(pi y): the error falls by 4 with each refinement."""
    errors = []
    for refinements in (3, 4):
        mesh = fem.mesh("square", refinements)
        u = np.sin(np.pi * mesh.p[0]) * np.sin(np.pi * mesh.p[1])
        free = mesh.interior_nodes()
        mass = fem.heat_step(mesh, 0.0).matrix
        load = mass @ (2 * np.pi**2 * u[free])  # u = 0 on the boundary
        found = sp.linalg.spsolve(fem.diffusion(mesh).matrix.tocsc(), load)
        difference = found - u[free]
        errors.append((difference @ mass @ difference) ** 0.5)
    np.testing.assert_allclose(errors[0] / errors[1], 4, rtol=0.15)


def test_elasticity_stretches_as_known(fem):
    found = fem.elasticity(fem.mesh("square", 2), poisson_ratio=0.0)
    assert found.block == 2
    a = found.matrix.toarray()
    np.testing.assert_allclose(a, a.T, atol=1e-14)
    assert np.linalg.eigvalsh(a).min() > 0
    # Without lateral contraction u = (x, 0) is in equilibrium inside and along free sides.
    force = (a @ np.stack([found.points[:, 0], 0 * found.points[:, 0]], axis=1).ravel())[::2]
    pulled = found.points[:, 0] > 1 - 1e-12
    np.testing.assert_allclose(force[~pulled], 0, atol=1e-14)
    np.testing.assert_allclose(force.sum(), 1)  # Young's modulus times the strain times the side


def test_families_and_sequences(fem):
    for kind in ("poisson", "smooth", "contrast", "heat", "elasticity"):
        one, again = (fem.family(kind, "square", 1, seed=5) for _ in range(2))
        assert (one.matrix != again.matrix).nnz == 0
    first, values = fem.sequence(fem.mesh("square", 1), 3)
    np.testing.assert_array_equal(values[0], first.matrix.data)
    assert (abs(values[1] - values[0]) > 0).any()
    assert fem.held_out("disk", 1000)
    assert not fem.held_out("square", 1000)
    with pytest.raises(ValueError, match=r"kind: expected poisson, .* got 'wave'"):
        fem.family("wave", "square", 1, 0)
    with pytest.raises(ValueError, match=r"geometry: expected one of disk, .* got 'ball'"):
        fem.mesh("ball", 1)


def test_meshes_from_files(fem, tmp_path):
    pytest.importorskip("meshio", reason="meshio is not installed")
    from skfem.io.json import to_file

    mesh = fem.mesh("square", 1, seed=1)
    path = tmp_path / "mesh.json"
    to_file(mesh, str(path))
    np.testing.assert_allclose(fem.load_mesh(path).p, mesh.p)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"mesh.json: expected a mesh, got"):
        fem.load_mesh(path)
    with pytest.raises(FileNotFoundError, match=r"none.json: expected a file"):
        fem.load_mesh(pathlib.Path(tmp_path / "none.json"))


def test_examples_of_pyamg():
    pytest.importorskip("pyamg", reason="pyamg is not installed")
    from solvers.problems import examples

    for name in examples.EXAMPLES:
        found = examples.example(name)
        assert abs(found.matrix - found.matrix.T).max() == 0
        assert np.linalg.eigvalsh(found.matrix.toarray()).min() > 0
    with pytest.raises(ValueError, match=r"name: expected one of airfoil, .* got 'recirc_flow'"):
        examples.example("recirc_flow")
