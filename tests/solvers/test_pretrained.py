"""The weights that come with the package, on a mesh of a geometry and a seed never trained on."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from solvers import Status, pcg
from solvers.preconditioners import PRETRAINED, Jacobi, pretrained, pretrained_models
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


def test_files_are_small_and_say_what_they_are():
    files = sorted((Path(pretrained_models.__file__).parent / "weights").iterdir())
    assert [file.stem for file in files] == sorted(PRETRAINED)
    assert sum(file.stat().st_size for file in files) < 300_000
    for file in files:
        header = read_header(file)
        assert header.version == pretrained_models.VERSION
        assert header.kind == type(pretrained(file.stem)).__name__
        assert header.hyperparameters["steps"] > 100
    with pytest.raises(ValueError, match=r"name: expected one of inverse-diffusion-2d, .* 'heat'"):
        pretrained("heat")


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
