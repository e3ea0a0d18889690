"""The weights that come with the package, on a mesh of a geometry and a seed never trained on."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers import Status, flexible_cg, pcg
from solvers.preconditioners import (
    PRETRAINED,
    PRETRAINED_DIRECTIONS,
    GraphDirection,
    Jacobi,
    pretrained,
    pretrained_direction,
    pretrained_models,
)
from solvers.problems import balls, poisson_around
from solvers.sparse import from_scipy
from tensornet.io import read_header

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture
def fem():
    pytest.importorskip("skfem", reason="scikit-fem is not installed")
    from solvers.problems import fem

    return fem


def test_shipped_models_halve_the_iterations_of_jacobi(fem, x64):  # noqa: ARG001
    assert fem.held_out("disk", 1000)
    problem = fem.family("smooth", "disk", 5, 1000)
    matrix, b = from_scipy(problem.matrix), problem.right_side(0)
    jacobi = pcg(matrix, b, Jacobi(matrix))
    for name in PRETRAINED:
        ready = pretrained(name).analyse(matrix).setup(matrix.data)
        found = pcg(matrix, b, ready)
        assert found.status == Status.converged
        assert not bool(found.fallback)
        assert int(jacobi.iterations) >= 2 * int(found.iterations)
        assert np.linalg.norm(problem.matrix @ found.value - b) <= 1e-8 * np.linalg.norm(b)


def test_shipped_direction_saves_most_iterations_around_obstacles_of_another_shape(x64):  # noqa: ARG001
    free = jnp.asarray(balls((16, 16, 16), 3, 1001))
    b = np.random.default_rng(1).normal(size=free.size) * np.asarray(free, np.float64).ravel()
    product = functools.partial(poisson_around, free)
    model = pretrained_direction(PRETRAINED_DIRECTIONS[0]).on(free)
    found, plain = flexible_cg(product, b, model), flexible_cg(product, b)
    assert found.status == Status.converged
    assert np.linalg.norm(product(found.value) - b) <= 1e-8 * np.linalg.norm(b)
    assert 2 * int(found.iterations) < int(plain.iterations)


def test_shipped_direction_on_graphs_needs_a_quarter_of_jacobis_iterations(fem, x64):  # noqa: ARG001
    assert fem.held_out("disk", 1001)
    problem = fem.family("smooth", "disk", 5, 1001)
    matrix, b = from_scipy(problem.matrix), problem.right_side(0)
    trained = pretrained_direction(PRETRAINED_DIRECTIONS[1]).analyse(matrix)
    untrained = GraphDirection(degree=len(trained.network.scalars)).analyse(matrix)
    found = flexible_cg(matrix, b, trained.setup(matrix.data))
    assert found.status == Status.converged
    assert not bool(found.fallback)
    assert np.linalg.norm(problem.matrix @ found.value - b) <= 1e-8 * np.linalg.norm(b)
    assert 4 * int(found.iterations) <= int(pcg(matrix, b, Jacobi(matrix)).iterations)
    before = flexible_cg(matrix, b, untrained.setup(matrix.data))
    assert 1.5 * int(found.iterations) <= int(before.iterations)


def test_files_are_small_and_say_what_they_are():
    files = sorted((Path(pretrained_models.__file__).parent / "weights").iterdir())
    assert [file.stem for file in files] == sorted(PRETRAINED + PRETRAINED_DIRECTIONS)
    assert sum(file.stat().st_size for file in files) < 300_000
    for file in files:
        header = read_header(file)
        assert header.version == pretrained_models.VERSION
        make = pretrained if file.stem in PRETRAINED else pretrained_direction
        assert header.kind == type(make(file.stem)).__name__
        assert header.hyperparameters["steps"] > 100
    with pytest.raises(ValueError, match=r"name: expected one of inverse-diffusion-2d, .* 'heat'"):
        pretrained("heat")
    known = "direction-poisson-3d, direction-diffusion-2d"
    with pytest.raises(ValueError, match=f"name: expected one of {known}, got 'heat'"):
        pretrained_direction("heat")


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples lie only in the checkout")
def test_the_command_that_made_them_makes_files_that_load(fem, tmp_path, monkeypatch):
    sys.path.append(str(EXAMPLES))
    import train_preconditioners

    problems = [fem.family("smooth", "square", 1, seed) for seed in range(2)]
    monkeypatch.setattr(pretrained_models, "_FOLDER", tmp_path)
    name = PRETRAINED[0]
    path = tmp_path / f"{name}.gauntax"
    trained = train_preconditioners.train(name, path, steps=2, problems=problems)
    for ours, theirs in zip(
        jax.tree.leaves(trained.network), jax.tree.leaves(pretrained(name).network), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples lie only in the checkout")
def test_the_command_that_made_the_direction_makes_a_file_that_loads(tmp_path, monkeypatch):
    sys.path.append(str(EXAMPLES))
    import train_direction

    monkeypatch.setattr(pretrained_models, "_FOLDER", tmp_path)
    path = tmp_path / f"{train_direction.NAME}.gauntax"
    trained = train_direction.train(path, grid=(4, 4, 4), steps=2, vectors=8)
    loaded = pretrained_direction(train_direction.NAME)
    for ours, theirs in zip(jax.tree.leaves(trained), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples lie only in the checkout")
def test_the_command_that_made_the_direction_on_graphs_makes_a_file_that_loads(
    fem, tmp_path, monkeypatch
):
    sys.path.append(str(EXAMPLES))
    import train_direction

    monkeypatch.setattr(pretrained_models, "_FOLDER", tmp_path)
    path = tmp_path / f"{train_direction.GRAPH_NAME}.gauntax"
    problems = [fem.family("smooth", "square", 1, seed) for seed in range(2)]
    trained = train_direction.train_graph(path, problems=problems, steps=2)
    loaded = pretrained_direction(train_direction.GRAPH_NAME)
    for ours, theirs in zip(
        jax.tree.leaves(trained.network), jax.tree.leaves(loaded.network), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
