"""Finite elements by scikit-fem (`gauntax[pde]`): meshes, diffusion, heat steps, elasticity."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from .coefficients import inclusions, smooth
from .problem import Problem

Coefficient = Callable[[np.ndarray], np.ndarray]
GEOMETRIES = ("disk", "square", "l-shape", "ring", "cube")
TRAINING = ("square", "l-shape")  # the geometries that learned preconditioners are shown


def mesh(geometry: str, refinements: int, *, seed: int | None = None) -> Any:
    """Return a mesh of triangles (of tetrahedra for the cube) of a domain of size about one.

    Args:
        geometry: one of `GEOMETRIES`.
        refinements: each splits triangles in 4 and tetrahedra in 8.
        seed: moves the inner nodes at random by up to a fifth of the shortest edges; not at all
            when left out.

    Raises:
        ImportError: scikit-fem is not installed.
        ValueError: an unknown geometry.
    """
    skfem = _skfem()
    if geometry == "disk":
        found = skfem.MeshTri.init_circle(refinements)
    elif geometry == "square":
        found = skfem.MeshTri.init_symmetric().refined(refinements)
    elif geometry == "l-shape":
        found = skfem.MeshTri.init_lshaped().refined(refinements)
    elif geometry == "ring":
        found = _ring(skfem, refinements)
    elif geometry == "cube":
        found = skfem.MeshTet().refined(refinements)
    else:
        raise ValueError(f"geometry: expected one of {', '.join(GEOMETRIES)}, got {geometry!r}")
    return found if seed is None else _jittered(found, seed)


def load_mesh(path: str | os.PathLike[str]) -> Any:
    """Read a mesh: scikit-fem's JSON as it is, other formats where meshio is installed.

    Raises:
        ImportError: scikit-fem is not installed, or meshio for other formats.
        FileNotFoundError: there is no such file.
        ValueError: not a mesh.
    """
    skfem = _skfem()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file, got none")
    try:
        if path.suffix == ".json":
            from skfem.io.json import from_file  # needs meshio, too

            return from_file(path)
        return skfem.Mesh.load(str(path))
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: expected a mesh, got {type(error).__name__}: {error}") from error


def diffusion(
    mesh: Any, coefficient: Coefficient | None = None, *, name: str = "diffusion"
) -> Problem:
    """Return linear elements for -div(k grad u) with u = 0 on the boundary.

    Args:
        mesh: of triangles or tetrahedra.
        coefficient: k at points (n, d), evaluated at the middle of each element; 1 when left out.
        name: of the problem.
    """
    stiffness, _ = _forms(mesh, coefficient)
    return _condensed(name, mesh, stiffness)


def heat_step(
    mesh: Any, step: float = 1e-3, coefficient: Coefficient | None = None, *, name: str = "heat"
) -> Problem:
    """Return one implicit Euler step of the heat equation, M + step K, u = 0 on the boundary."""
    stiffness, mass = _forms(mesh, coefficient)
    return _condensed(name, mesh, mass + step * stiffness)


def elasticity(mesh: Any, *, poisson_ratio: float = 0.3, name: str = "elasticity") -> Problem:
    """Return linear elasticity with linear elements, held at the face of least first coordinate.

    Young's modulus is 1; in two dimensions strain is plane.
    """
    skfem = _skfem()
    from skfem.models.elasticity import lame_parameters, linear_elasticity

    d = mesh.p.shape[0]
    element = skfem.ElementTriP1() if d == 2 else skfem.ElementTetP1()
    basis = skfem.Basis(mesh, skfem.ElementVector(element))
    matrix = linear_elasticity(*lame_parameters(1.0, poisson_ratio)).assemble(basis)
    held = mesh.p[0] < mesh.p[0].min() + 1e-12
    free = np.flatnonzero(~held)
    unknowns = basis.nodal_dofs[:, free].T.ravel()
    return _problem(name, mesh, matrix[unknowns][:, unknowns], free, block=d)


def sequence(mesh: Any, steps: int, *, seed: int = 0) -> tuple[Problem, np.ndarray]:
    """Return matrices of one pattern: diffusion whose log k goes from one field to another.

    Returns:
        The first problem, and the values of all matrices (steps, entries) in its order.
    """
    start, end = (functools.partial(smooth, seed=seed + k) for k in range(2))
    problems = [
        diffusion(mesh, lambda x, s=s: start(x) ** (1 - s) * end(x) ** s, name="sequence")
        for s in np.linspace(0, 1, steps)
    ]
    return problems[0], np.stack([problem.matrix.data for problem in problems])


def family(
    kind: str, geometry: str, refinements: int, seed: int, *, contrast: float = 1e4
) -> Problem:
    """Return a problem of a family: mesh nodes and coefficients are drawn from the seed.

    Train on the geometries `TRAINING` and small seeds, test on the others and on large seeds:
    `held_out` tells whether a pair was never to be trained on.

    Args:
        kind: "poisson", "smooth", "contrast", "heat", or "elasticity".
        geometry: as for `mesh`.
        refinements: as for `mesh`.
        seed: of the mesh and of the coefficient.
        contrast: of the inclusions.

    Raises:
        ValueError: an unknown kind or geometry.
    """
    shape = mesh(geometry, refinements, seed=seed)
    name = f"{kind} on {geometry}, seed {seed}"
    if kind == "poisson":
        return diffusion(shape, name=name)
    if kind == "smooth":
        return diffusion(shape, functools.partial(smooth, seed=seed), name=name)
    if kind == "contrast":
        return diffusion(
            shape, functools.partial(inclusions, seed=seed, contrast=contrast), name=name
        )
    if kind == "heat":
        return heat_step(shape, coefficient=functools.partial(smooth, seed=seed), name=name)
    if kind == "elasticity":
        return elasticity(shape, name=name)
    raise ValueError(f"kind: expected poisson, smooth, contrast, heat or elasticity, got {kind!r}")


def held_out(geometry: str, seed: int) -> bool:
    """Tell whether neither the geometry nor the seed is one to train on."""
    return geometry not in TRAINING and seed >= 1000


def _skfem() -> Any:
    try:
        import skfem
    except ImportError as error:
        raise ImportError("scikit-fem: expected it installed (gauntax[pde]), got none") from error
    return skfem


def _ring(skfem: Any, refinements: int) -> Any:
    square = skfem.MeshTri.init_tensor(
        np.linspace(0, 1, 2 ** (refinements + 3) + 1), np.linspace(0, 1, 2**refinements + 1)
    )
    angle, radius = 2 * np.pi * square.p[0], 0.4 + 0.6 * square.p[1]
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)])
    # The two ends of the strip are the same nodes.
    first = np.flatnonzero(square.p[0] == 0)
    last = np.flatnonzero(square.p[0] == 1)
    first = first[np.argsort(square.p[1][first])]
    last = last[np.argsort(square.p[1][last])]
    number = np.arange(points.shape[1])
    number[last] = first
    kept, t = np.unique(number[square.t], return_inverse=True)
    return skfem.MeshTri(points[:, kept], t.reshape(square.t.shape))


def _jittered(mesh: Any, seed: int) -> Any:
    ends = mesh.edges if mesh.p.shape[0] == 3 else mesh.facets
    edges = np.linalg.norm(mesh.p[:, ends[0]] - mesh.p[:, ends[1]], axis=0)
    shortest = np.full(mesh.p.shape[1], np.inf)
    np.minimum.at(shortest, ends.ravel(), np.tile(edges, 2))
    moves = np.random.default_rng(seed).uniform(-0.2, 0.2, size=mesh.p.shape) * shortest
    moves[:, mesh.boundary_nodes()] = 0
    return type(mesh)(mesh.p + moves, mesh.t)


def _forms(mesh: Any, coefficient: Coefficient | None) -> tuple[Any, Any]:
    """Return the stiffness with a coefficient and the mass, all nodes."""
    skfem = _skfem()
    from skfem.helpers import dot, grad

    element = skfem.ElementTriP1() if mesh.p.shape[0] == 2 else skfem.ElementTetP1()
    basis = skfem.Basis(mesh, element)
    middles = mesh.p[:, mesh.t].mean(axis=1).T
    values = np.ones(len(middles)) if coefficient is None else coefficient(middles)

    @skfem.BilinearForm
    def stiffness(u: Any, v: Any, w: Any) -> Any:
        slope: Any = grad(u)
        return w["k"] * dot(slope, grad(v))  # pyright: ignore[reportArgumentType]

    @skfem.BilinearForm
    def mass(u: Any, v: Any, _: Any) -> Any:
        return u * v

    spread = np.broadcast_to(values[:, None], (len(values), basis.X.shape[1]))
    return stiffness.assemble(basis, k=spread), mass.assemble(basis)


def _condensed(name: str, mesh: Any, matrix: Any) -> Problem:
    free = mesh.interior_nodes()
    return _problem(name, mesh, matrix[free][:, free], free)


def _problem(name: str, mesh: Any, matrix: Any, free: np.ndarray, *, block: int = 1) -> Problem:
    csr: Any = scipy.sparse.csr_array(matrix)
    csr.sort_indices()
    number = np.full(mesh.p.shape[1], -1)
    number[free] = np.arange(len(free))
    return Problem(name, csr, mesh.p[:, free].T.copy(), block, number[mesh.t.T])
