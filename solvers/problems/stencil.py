"""Discretizations on regular grids, with zero values around them."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float

from ..sparse import Stencil
from ..sparse.matrix import spread
from .problem import Problem


def poisson_stencil(grid: Sequence[int]) -> Stencil:
    """Return -Laplace by second differences of step 1, 2 d + 1 points, as a matrix for XLA."""
    d = len(grid)
    steps = np.concatenate([np.zeros((1, d), int), np.eye(d, dtype=int), -np.eye(d, dtype=int)])
    values = np.where(np.any(steps, axis=1), -1.0, 2.0 * d)
    offsets = tuple(tuple(int(s) for s in step) for step in steps)
    return Stencil(jnp.asarray(values), offsets, tuple(grid))


def poisson(grid: Sequence[int]) -> Problem:
    """Return -Laplace by second differences of step 1 on a grid of any dimension."""
    return diffusion(np.ones([n + 1 for n in grid]), name=f"Poisson {_times(grid)}")


def poisson_around(free: Float[Array, "*grid"], x: Float[Array, "n *many"]) -> Array:
    """Return A x for -Laplace among the free points of a grid, zero on obstacles and around it.

    Args:
        free: 1 where there is an unknown, 0 in obstacles, whose rows are the identity's.
        x: a vector of the grid's points, or one a column.

    Raises:
        ValueError: a vector of another length.
    """
    if x.shape[0] != free.size:
        raise ValueError(f"x: expected {free.size} rows for the grid, got shape {x.shape}")
    mask = spread(free.ravel().astype(x.dtype), x)
    inside = poisson_stencil(free.shape).astype(x.dtype).mv(mask * x)
    return mask * inside + (1 - mask) * x


def diffusion(coefficient: Float[np.ndarray, "..."], *, name: str = "diffusion") -> Problem:
    """Return -div(k grad u) by finite volumes around the inner points of a grid of step 1.

    Args:
        coefficient: k in each cell between the points, so one more along each axis than there
            are unknowns; positive. A face's coefficient is the mean over the cells it crosses.
        name: of the problem.

    Raises:
        ValueError: fewer than two cells along an axis, or a coefficient that is not positive.
    """
    if min(coefficient.shape, default=0) < 2:
        raise ValueError(f"coefficient: expected 2 or more cells an axis, got {coefficient.shape}")
    if not (np.isfinite(coefficient).all() and (coefficient > 0).all()):
        raise ValueError(
            f"coefficient: expected positive finite values, got {coefficient.min()} as the least"
        )
    grid = tuple(n - 1 for n in coefficient.shape)
    size = int(np.prod(grid))
    number = np.arange(size).reshape(grid)
    diagonal = np.zeros(grid)
    rows, columns, values = [], [], []
    for axis in range(len(grid)):
        face = coefficient
        for other in range(len(grid)):
            if other != axis:
                face = (np.delete(face, 0, other) + np.delete(face, -1, other)) / 2
        low, high = np.delete(face, -1, axis), np.delete(face, 0, axis)
        diagonal += low + high
        inner = np.delete(low, 0, axis).ravel()
        left, right = np.delete(number, -1, axis).ravel(), np.delete(number, 0, axis).ravel()
        rows += [left, right]
        columns += [right, left]
        values += [-inner, -inner]
    rows.append(number.ravel())
    columns.append(number.ravel())
    values.append(diagonal.ravel())
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    matrix = scipy.sparse.coo_array(entries, shape=(size, size)).tocsr()
    matrix.sort_indices()
    points = np.indices(grid).reshape(len(grid), -1).T + 1.0
    return Problem(name, matrix, points)


def anisotropic(grid: Sequence[int], *, ratio: float = 1e-3, degrees: float | int = 30) -> Problem:
    """Return bilinear finite elements for diffusion that is strong along one direction.

    Args:
        grid: unknowns along both axes.
        ratio: the weak coefficient over the strong one, which is 1.
        degrees: angle between the strong direction and the first axis.
    """
    angle = np.deg2rad(degrees)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    tensor = np.outer(along, along) + ratio * np.outer(across, across)
    mass, slope = np.array([1, 4, 1]) / 6, np.array([-1, 2, -1])
    mixed = np.outer([-1, 0, 1], [-1, 0, 1]) / 2
    stencil = tensor[0, 0] * np.outer(slope, mass) + tensor[1, 1] * np.outer(mass, slope)
    stencil = stencil - tensor[0, 1] * mixed
    shifts = [[_shift(n, s) for s in (-1, 0, 1)] for n in grid]
    terms = [
        stencil[a, b] * scipy.sparse.kron(shifts[0][a], shifts[1][b])
        for a in range(3)
        for b in range(3)
    ]
    matrix = scipy.sparse.csr_array(functools.reduce(lambda x, y: x + y, terms))
    matrix.sort_indices()
    points = np.indices(tuple(grid)).reshape(2, -1).T + 1.0
    return Problem(f"anisotropic {_times(grid)}", matrix, points)


def _shift(n: int, by: int) -> scipy.sparse.csr_array:
    rows = np.arange(max(0, -by), n - max(0, by))
    return scipy.sparse.csr_array((np.ones(len(rows)), (rows, rows + by)), shape=(n, n))


def _times(grid: Sequence[int]) -> str:
    return " x ".join(str(n) for n in grid)
