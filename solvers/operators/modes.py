"""Which frequencies a spectral layer keeps, and their Fourier matrices.

Of an axis with m modes the frequencies -(m // 2), ..., m - 1 - m // 2 are kept, of the last axis,
whose field is real, 0, ..., m // 2. The spectrum is the mean of the field times exp(-2 pi i k n/N),
so that it does not depend on the grid. Complex numbers are pairs (real, imaginary).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

Tables = tuple[np.ndarray, ...]


def check_modes(modes: Any, argument: str = "modes") -> tuple[int, ...]:
    """Return one to three numbers of modes as a tuple.

    Raises:
        TypeError: not integers.
        ValueError: another count of axes, or fewer than one mode.
    """
    given = (modes,) if isinstance(modes, (int, np.integer)) else modes
    if isinstance(given, (bool, str)) or not isinstance(given, Sequence):
        raise TypeError(f"{argument}: expected an integer for each axis, got {modes!r}")
    if not 1 <= len(given) <= 3:
        raise ValueError(f"{argument}: expected one to three axes, got {len(given)}: {modes!r}")
    for k, m in enumerate(given):
        if isinstance(m, bool) or not isinstance(m, (int, np.integer)):
            raise TypeError(f"{argument}[{k}]: expected an integer, got {m!r}")
        if m < 1:
            raise ValueError(f"{argument}[{k}]: expected at least 1, got {m}")
    return tuple(map(int, given))


def check_grid(modes: Sequence[int], grid: Sequence[int]) -> None:
    """Require a grid that resolves the modes.

    Raises:
        ValueError: another number of axes, or an axis with more modes than points.
    """
    if len(grid) != len(modes):
        raise ValueError(f"x: expected {len(modes)} axes of a grid, got {len(grid)}: {grid}")
    for k, (m, n) in enumerate(zip(modes, grid, strict=True)):
        if m > n:
            raise ValueError(f"modes[{k}]: expected at most {n} (the points of the grid), got {m}")


def kept(modes: Sequence[int]) -> tuple[int, ...]:
    """How many frequencies of each axis are kept."""
    return (*modes[:-1], modes[-1] // 2 + 1)


def frequencies(modes: Sequence[int]) -> Tables:
    """The frequencies kept of each axis."""
    full = [np.arange(m) - m // 2 for m in modes[:-1]]
    return (*full, np.arange(modes[-1] // 2 + 1))


@lru_cache(maxsize=256)
def forward_tables(modes: tuple[int, ...], grid: tuple[int, ...]) -> Tables:
    """Matrices from the grid to the frequencies.

    Returns:
        For every axis but the last [points, pair, modes, pair], which turns pairs into pairs; for
        the last [points, modes, pair].
    """
    tables = []
    for k, n in zip(frequencies(modes), grid, strict=True):
        angle = _angles(k, n).T
        tables.append(np.stack([np.cos(angle), -np.sin(angle)], axis=-1) / n)
    return (*map(_turning, tables[:-1]), tables[-1])


@lru_cache(maxsize=256)
def inverse_tables(modes: tuple[int, ...], grid: tuple[int, ...]) -> Tables:
    """Matrices from the frequencies to the grid, the real part of the series.

    Returns:
        For every axis but the last [modes, pair, points, pair], for the last [modes, pair, points].
    """
    *others, last = frequencies(modes)
    tables = []
    for k, n in zip(others, grid, strict=False):
        angle = _angles(k, n)
        tables.append(_turning(np.stack([np.cos(angle), np.sin(angle)], axis=-1)))
    n = grid[-1]
    # Frequencies between zero and the largest of the grid stand for their conjugates as well.
    once = (last == 0) | (2 * last == n)
    angle = _angles(last, n)
    pair = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    return (*tables, pair * np.where(once, 1.0, 2.0)[:, None, None])


def _angles(k: np.ndarray, n: int) -> np.ndarray:
    # Whole turns are taken out first: exact for any grid.
    return 2 * np.pi * (np.outer(k, np.arange(n)) % n) / n


def _turning(pairs: np.ndarray) -> np.ndarray:
    """Multiplication by complex numbers [a, b, pair] as real matrices [a, pair, b, pair]."""
    re, im = pairs[..., 0], pairs[..., 1]
    rows = [np.stack([re, im], axis=-1), np.stack([-im, re], axis=-1)]
    return np.stack(rows, axis=1)
