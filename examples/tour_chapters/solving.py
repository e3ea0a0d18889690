"""Chapter: diffusion on a mesh that no preconditioner was trained on."""

import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse.linalg

from solvers import pcg
from solvers.preconditioners import (
    Chebyshev,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
    pretrained,
)
from solvers.problems import coefficients, fem
from solvers.sparse import from_scipy

from .chapter import Chapter, Check, Findings, Picture, Stage, Table

RTOL = 1e-8
SEED = 1000  # from here on nothing was trained on
STORY = (
    (
        "Heat flows through a disk of uneven ground: -div(k grad u) = f, u = 0 around it, linear "
        "elements on triangles. Conjugate gradients need as many iterations as the matrix is badly "
        "conditioned, and a preconditioner is what is done about it. Two of those below are "
        "networks on the matrix's graph, trained once on squares and L-shapes of a few hundred "
        "unknowns and shipped with the package: one writes the entries of a factor of the inverse, "
        "applied by two sparse products, the other those of a Cholesky factor."
    ),
    (
        "Both are positive definite whatever the network says. Before one is relied on it takes 8 "
        "steps against Jacobi, and whoever is ahead goes on. The inverse more than halves its "
        "iterations, as do incomplete Cholesky and Chebyshev polynomials, which learn nothing; the "
        "Cholesky factor leaves a fifth, fewer than the incomplete one in the same order of the "
        "unknowns (rcm), but multigrid needs a tenth, and a factor's solves go front by front: "
        "the table says how far learning goes here, and how far it does not."
    ),
)


def run(stage: Stage) -> Findings:
    """Solve with 8000 unknowns."""
    return solve(stage, refinements=6)


def solve(stage: Stage, *, refinements: int, share: float = 0.5) -> Findings:
    """Solve one problem with every preconditioner.

    Args:
        stage: where to write.
        refinements: of the disk.
        share: of Jacobi's iterations, promised of the learned ones.
    """
    problem = fem.family("smooth", "disk", refinements, SEED + stage.seed)
    with jax.enable_x64(True):
        matrix = from_scipy(problem.matrix)
        b = _source(problem.points, stage.seed)
        built = {
            "Jacobi": Jacobi,
            "Chebyshev": Chebyshev,
            "incomplete Cholesky": IncompleteCholesky,
            "incomplete Cholesky, rcm": functools.partial(IncompleteCholesky, order="rcm"),
            "learned inverse": _learned("inverse-diffusion-2d"),
            "learned Cholesky": _learned("cholesky-diffusion-2d"),
            "multigrid": Multigrid,
        }
        found, rows = {}, []
        for name, build in built.items():
            jax.block_until_ready(build(matrix))  # compiles
            start = time.perf_counter()
            preconditioner = jax.block_until_ready(build(matrix))
            setup = time.perf_counter() - start
            jax.block_until_ready(pcg(matrix, b, preconditioner, rtol=RTOL))
            start = time.perf_counter()
            found[name] = jax.block_until_ready(pcg(matrix, b, preconditioner, rtol=RTOL))
            spent = time.perf_counter() - start
            rest = problem.matrix @ np.asarray(found[name].value) - b
            error = float(np.linalg.norm(rest) / np.linalg.norm(b))
            by = " (by Jacobi)" if bool(found[name].fallback) else ""
            steps = int(found[name].iterations)
            rows.append((name + by, f"{steps}", f"{setup:.3f}", f"{spent:.3f}", f"{error:.1e}"))
    exact: Any = scipy.sparse.linalg.spsolve(problem.matrix.tocsc(), b)
    values = {name: np.asarray(one.value) for name, one in found.items()}
    size = np.linalg.norm(exact)
    away = max(float(np.linalg.norm(x - exact) / size) for x in values.values())
    counts = {name: int(one.iterations) for name, one in found.items()}
    field = coefficients.smooth(problem.points, SEED + stage.seed)
    pictures = stage.out / "solvers_mesh.png", stage.out / "solvers_residuals.png"
    _draw(pictures[0], problem, field, values["multigrid"])
    _curves(pictures[1], found, float(np.linalg.norm(b)))
    return Findings(
        story=STORY,
        tables=[
            Table(
                (f"{problem.size} unknowns", "iterations", "setup s", "solve s", "residual"), rows
            )
        ],
        pictures=[
            Picture(pictures[0], "The mesh and its conductivity k; the temperature u."),
            Picture(pictures[1], "Relative residuals, as the iteration goes on."),
        ],
        checks=[
            Check("largest relative error against a direct solve", away, 1e-5),
            *(
                Check(f"iterations of the {name} over Jacobi's", counts[name] / counts["Jacobi"], m)
                for name, m in (("learned inverse", share), ("learned Cholesky", share))
            ),
        ],
        results={"iterations": counts, "unknowns": problem.size, "error": away},
    )


def _learned(name: str) -> Any:
    model = pretrained(name)
    return lambda matrix: model.analyse(matrix).setup(matrix.data)


def _source(points: Any, seed: int) -> np.ndarray:
    """Return a few warm and cold places, as a right-hand side."""
    rng = np.random.default_rng(seed)
    places, signs = rng.uniform(-0.7, 0.7, (6, 2)), np.array([1, -1, 1, -1, 1, 1])
    far = np.linalg.norm(points[:, None] - places[None], axis=2)
    return np.exp(-((far / 0.12) ** 2)) @ signs / len(points)


def _draw(path: Path, problem: Any, field: np.ndarray, u: np.ndarray) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.tri import Triangulation

    inner = problem.elements[(problem.elements >= 0).all(axis=1)]
    mesh = Triangulation(*problem.points.T, inner)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for ax, values, name in zip(axes, (field, u), ("k", "u"), strict=True):
        shown = ax.tripcolor(mesh, values, shading="gouraud", cmap="viridis")
        figure.colorbar(shown, ax=ax, label=name, shrink=0.8)
        ax.set_aspect("equal")
        ax.set_axis_off()
    axes[0].triplot(mesh, color="white", linewidth=0.15)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _curves(path: Path, found: dict[str, Any], size: float) -> None:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for name, one in found.items():
        history = np.asarray(one.residual_history)[: int(one.iterations) + 1]
        ax.semilogy(history / size, label=f"{name}, {int(one.iterations)}")
    ax.axhline(RTOL, color="grey", linewidth=0.8)
    ax.set_xlabel("iterations")
    ax.set_ylabel("relative residual")
    ax.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


CHAPTER = Chapter("solvers", "Diffusion on a mesh never trained on", 18.0, run)
