"""Grids with obstacles: masks that are 1 where there is an unknown and 0 inside an obstacle."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def boxes(grid: Sequence[int], count: int, seed: int) -> Float[np.ndarray, "*grid"]:
    """Return a grid with boxes, an eighth to two fifths of the grid wide along each axis.

    Raises:
        ValueError: no points along an axis, or fewer than no boxes.
    """
    rng = np.random.default_rng(seed)
    free = _empty(grid, count)
    for _ in range(count):
        wide = rng.uniform(1 / 8, 2 / 5, len(grid))
        low = rng.uniform(0, 1 - wide)
        free[tuple(_slice(a, a + w, n) for a, w, n in zip(low, wide, grid, strict=True))] = 0
    return free


def balls(grid: Sequence[int], count: int, seed: int) -> Float[np.ndarray, "*grid"]:
    """Return a grid with balls of radius a tenth to a fifth of the grid.

    Raises:
        ValueError: no points along an axis, or fewer than no balls.
    """
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in grid), indexing="ij"))
    free = _empty(grid, count)
    for _ in range(count):
        centre, radius = rng.uniform(0, 1, len(grid)), rng.uniform(0.1, 0.2)
        away = places - centre.reshape(-1, *(1,) * len(grid))
        free[np.sum(away**2, axis=0) < radius**2] = 0
    return free


def _empty(grid: Sequence[int], count: int) -> np.ndarray:
    if not grid or min(grid) < 1:
        raise ValueError(f"grid: expected points along every axis, got {tuple(grid)}")
    if count < 0:
        raise ValueError(f"count: expected at least 0, got {count}")
    return np.ones(tuple(grid), np.float32)


def _slice(low: float, high: float, n: int) -> slice:
    return slice(round(low * n), round(high * n))
