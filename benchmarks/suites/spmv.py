"""Products of sparse matrices with a vector, against scipy's CSR."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from solvers.problems import coefficients, fem, poisson, poisson_stencil
from solvers.sparse import from_scipy

from ..case import Case, Peer, Speed
from ..measure import Program

SUITE = "spmv"


def cases(quick: bool) -> list[Case]:
    """Return the cases; the quick ones are smaller and promise nothing."""
    shrink = 4 if quick else 1
    plane, cube = (1024 // shrink,) * 2, (64 // shrink,) * 3
    made = {
        "FEM disk": (functools.partial(fem_disk, 6 if quick else 8), ("ell",), {"ell": 1 / 0.7}),
        f"5-point {plane[0]}^2": (
            functools.partial(poisson, plane),
            ("ell", "dia", "stencil"),
            {"ell": 1 / 0.6, "dia": 1 / 0.6, "stencil": 1 / 0.2},
        ),
        f"7-point {cube[0]}^3": (
            functools.partial(poisson, cube),
            ("ell", "dia", "stencil"),
            dict.fromkeys(("ell", "dia", "stencil"), 1 / 0.4),
        ),
    }
    found = []
    for name, (problem, layouts, targets) in made.items():
        for dtype in ("float64", "float32"):
            for layout in layouts:
                target = targets.get(layout) if dtype == "float64" else 1.0
                measure = Speed(
                    functools.partial(ours, problem, layout, dtype),
                    [
                        Peer(
                            functools.partial(theirs, problem, dtype),
                            target=None if quick else target,
                        )
                    ],
                    within=1.0,
                )
                found.append(Case(SUITE, f"{name}, {layout}", dtype, measure))
    return found


@functools.cache
def fem_disk(refinements: int) -> Any:
    """Linear elements for a smooth coefficient on a jittered disk."""
    mesh = fem.mesh("disk", refinements, seed=0)
    return fem.diffusion(mesh, functools.partial(coefficients.smooth, seed=0))


def _vector(size: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(0).normal(size=size).astype(dtype)


def _judge(matrix: Any, x: np.ndarray) -> Any:
    exact = matrix @ x.astype(np.float64)

    def judge(result: Any) -> dict[str, float]:
        error = np.linalg.norm(np.asarray(result, np.float64) - exact) / np.linalg.norm(exact)
        return {"error": max(float(error), 1e-15 if x.dtype == np.float64 else 1e-6)}

    return judge


def ours(problem: Any, layout: str, dtype: str) -> Program:
    """Return our product in a layout."""
    matrix = problem().matrix
    if layout == "stencil":
        grid = tuple(int(n) for n in problem().points.max(axis=0))
        made: Any = poisson_stencil(grid).astype(jnp.dtype(dtype))
    else:
        made = from_scipy(matrix, layout=layout, dtype=dtype)
    x = _vector(matrix.shape[0], dtype)
    on_device = jnp.asarray(x)
    run = jax.jit(lambda a, x: a.mv(x))
    return Program(layout, lambda: run(made, on_device), _judge(matrix, x))


def theirs(problem: Any, dtype: str) -> Program:
    """Return scipy's product."""
    matrix = problem().matrix
    typed = matrix.astype(dtype)
    x = _vector(matrix.shape[0], dtype)
    return Program("scipy CSR", lambda: typed @ x, _judge(matrix, x))
