"""Coefficients of diffusion: smooth ones and ones of high contrast, a seed each."""

import numpy as np
from jaxtyping import Float


def smooth(points: Float[np.ndarray, "n d"], seed: int, *, amplitude: float = 1.0) -> np.ndarray:
    """Return exp of a random sum of long waves, of standard deviation `amplitude`.

    Args:
        points: where, in a domain of size about one.
        seed: of the field.
        amplitude: of the logarithm.
    """
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(16, points.shape[1])) * 3
    phases = rng.uniform(0, 2 * np.pi, 16)
    field = np.cos(points @ waves.T + phases).sum(axis=1) * (2 / 16) ** 0.5
    return np.exp(amplitude * field)


def inclusions(
    points: Float[np.ndarray, "n d"], seed: int, *, contrast: float = 1e4, count: int = 12
) -> np.ndarray:
    """Return 1 outside of random balls and `contrast` inside.

    Args:
        points: where, in a domain of size about one.
        seed: of the balls.
        contrast: the value inside.
        count: how many balls.
    """
    rng = np.random.default_rng(seed)
    low, high = points.min(axis=0), points.max(axis=0)
    centres = rng.uniform(low, high, size=(count, points.shape[1]))
    radii = rng.uniform(0.05, 0.15, count) * float((high - low).max())
    gaps = np.linalg.norm(points[:, None, :] - centres[None], axis=2)
    return np.where((gaps < radii).any(axis=1), float(contrast), 1.0)
