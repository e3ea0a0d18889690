"""What direction networks train on: Ritz vectors, and what a step leaves (Kaneda et al. 2022)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LOW, _WEIGHT = 0.5, 9.0  # the share of Ritz vectors that are low, and what they weigh more


def lanczos(
    product: Callable[[Any], Any], start: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a basis of the Krylov space (steps, n), in which the matrix is tridiagonal.

    Fully reorthogonalized; fewer steps where the space is exhausted.

    Returns:
        The basis, the diagonal, and the entries beside it.
    """
    steps = min(steps, start.size)
    basis = np.zeros((steps, start.size), start.dtype)
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    eps = np.finfo(start.dtype).eps
    v = start / np.linalg.norm(start)
    for k in range(steps):
        basis[k] = v
        v = np.asarray(product(v))
        diagonal[k] = float(v @ basis[k])
        for _ in range(2):
            v = v - (basis[: k + 1] @ v) @ basis[: k + 1]
        beside[k] = float(np.linalg.norm(v))
        if beside[k] <= 100 * eps * np.abs(diagonal).max():
            return basis[: k + 1], diagonal[: k + 1], beside[:k]
        v = v / beside[k]
    return basis, diagonal, beside[:-1]


def ritz_samples(
    product: Callable[[Any], Any], start: np.ndarray, vectors: int, samples: int, rng: Any
) -> np.ndarray:
    """Return random combinations (samples, n) of Ritz vectors, of norm 1, low ones weighing more.

    Args:
        product: of the matrix with a vector.
        start: begins the Krylov space; the product with noise, for low vectors to have a share.
        vectors: how many.
        samples: how many combinations.
        rng: numpy's generator.
    """
    basis, diagonal, beside = lanczos(product, start, vectors)
    _, turn = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    weights = rng.normal(size=(samples, len(diagonal)))
    weights[:, : int(_LOW * len(diagonal))] *= _WEIGHT
    found = (weights @ turn.T).astype(basis.dtype) @ basis
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def left(
    b: Float[Array, "*many n"], d: Float[Array, "*many n"], image: Float[Array, "*many n"]
) -> Float[Array, "*many"]:
    """Return `|b - alpha A d|^2 / |b|^2` with the step alpha along d that is best in A's norm.

    Args:
        b: the residual.
        d: the direction.
        image: A d.
    """
    alpha = jnp.sum(d * b, axis=-1) / jnp.maximum(jnp.sum(d * image, axis=-1), 1e-30)
    rest = b - alpha[..., None] * image
    return jnp.sum(rest**2, axis=-1) / jnp.sum(b**2, axis=-1)
