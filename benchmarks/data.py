"""Tensors to measure on, made anew from fixed seeds, so that a child process gets the same."""

from collections.abc import Sequence

import numpy as np


def cp_dense(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of the outer products of the factors' columns."""
    shape = tuple(factor.shape[0] for factor in factors)
    left = factors[0]
    for factor in factors[1:-1]:
        left = (left[:, None, :] * factor[None, :, :]).reshape(-1, factor.shape[1])
    return (left @ factors[-1].T).reshape(shape)


def cp_problem(
    shape: Sequence[int], rank: int, *, noise: float = 0.1, near: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a tensor of low CP rank with noise, and a start for its decomposition.

    The start is random, plus `near` times the factors the tensor was made from.
    """
    rng = np.random.default_rng(seed)
    exact = [rng.standard_normal((n, rank)) for n in shape]
    start = [
        rng.standard_normal((n, rank)) + near * factor
        for n, factor in zip(shape, exact, strict=True)
    ]
    return _with_noise(cp_dense(exact), noise, rng), start


def tucker_problem(
    shape: Sequence[int], rank: Sequence[int], *, noise: float = 0.1, seed: int = 0
) -> np.ndarray:
    """Return a tensor of low multilinear rank with noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(tuple(rank))
    for mode, (n, r) in enumerate(zip(shape, rank, strict=True)):
        basis = np.linalg.qr(rng.standard_normal((n, r)))[0]
        x = np.moveaxis(np.tensordot(basis, x, axes=(1, mode)), 0, mode)
    return _with_noise(x, noise, rng)


def ring_problem(
    shape: Sequence[int], rank: int, *, noise: float = 0.01, seed: int = 0
) -> np.ndarray:
    """Return a tensor of low tensor-ring rank with noise."""
    rng = np.random.default_rng(seed)
    cores = [rng.standard_normal((rank, n, rank)) for n in shape]
    chain = cores[0]
    for core in cores[1:-1]:
        chain = np.tensordot(chain, core, axes=1).reshape(rank, -1, rank)
    x = np.tensordot(chain, cores[-1], axes=((0, 2), (2, 0))).reshape(tuple(shape))
    return _with_noise(x, noise, rng)


def smooth_function(points: int, modes: int) -> np.ndarray:
    """Return `1 / (1 + s) + 0.3 sin(3 s + x_0 x_4)`, s the sum of the x_k, on a grid of [0, 1].

    Its tensor-train ranks grow slowly as the tolerance falls, as those of smooth functions do.
    """
    axis = np.linspace(0.0, 1.0, points)
    grid = np.meshgrid(*([axis] * modes), indexing="ij", sparse=True)
    s = sum(grid[1:], grid[0])
    return 1.0 / (1.0 + s) + 0.3 * np.sin(3.0 * s + grid[0] * grid[min(4, modes - 1)])


def batch_problem(
    count: int, shape: Sequence[int], rank: int, *, noise: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return `count` tensors as from `cp_problem` stacked, and their starts stacked by mode."""
    problems = [cp_problem(shape, rank, noise=noise, seed=seed + k) for k in range(count)]
    starts = [np.stack([start[mode] for _, start in problems]) for mode in range(len(shape))]
    return np.stack([x for x, _ in problems]), starts


def relative_error(x: np.ndarray, approximation: np.ndarray) -> float:
    """Return the Frobenius norm of the difference over that of `x`, in float64.

    Entries of `x` that are NaN count on neither side.
    """
    exact = np.asarray(x, np.float64)
    observed = ~np.isnan(exact)
    residual = np.where(observed, exact - np.asarray(approximation, np.float64), 0.0)
    return float(np.linalg.norm(residual) / np.linalg.norm(np.where(observed, exact, 0.0)))


def _with_noise(x: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    # Unit norm without the noise, so that the noise is relative.
    x = x / np.linalg.norm(x)
    disturbance = rng.standard_normal(x.shape)
    return x + noise * disturbance / np.linalg.norm(disturbance)
