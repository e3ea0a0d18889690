"""An operator's output as the first guess of conjugate gradients.

    python examples/operator_guess.py

A tensorized Fourier neural operator is trained on solved Darcy problems, and for new ground its
pressure starts the iteration. Whatever the guess, the iteration ends at the same tolerance: a bad
one costs time and never accuracy. It need not save time either: an operator that is off by a fifth
leaves an error that is rough, and without a preconditioner as many iterations as a start from zero.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from solvers.krylov import pcg
from solvers.operators import TFNO, evaluate, fit
from solvers.problems import stencil
from solvers.problems.darcy import SOURCE, coefficient, darcy


def systems(cells: int, seeds: range) -> list[tuple[Any, np.ndarray]]:
    """Return matrices and right-hand sides for the inner points of a grid of cells."""
    middles = (np.arange(cells) + 0.5) / cells
    found = []
    for seed in seeds:
        matrix = stencil.diffusion(coefficient(middles, seed)).matrix
        found.append((matrix, np.full(matrix.shape[0], SOURCE / cells**2)))
    return found


def main(
    *,
    cells: int = 16,
    pairs: int = 120,
    epochs: int = 20,
    width: int = 16,
    layers: int = 4,
    rtol: float = 1e-6,
) -> list[tuple[int, int, float]]:
    """Train, then solve new problems from zero and from the operator's guess.

    Returns:
        Of each problem the iterations from zero and from the guess, and the relative difference of
        the two solutions.
    """
    x, y = darcy(cells, pairs, refine=1)
    model = TFNO(
        modes=(cells // 2, cells // 2),
        in_channels=1,
        out_channels=1,
        width=width,
        layers=layers,
        key=jax.random.key(0),
    )
    start = time.perf_counter()
    data = tuple(np.concatenate([z, z.swapaxes(2, 3)]) for z in (x, y))
    trained = fit(
        model,
        (data[0], data[1]),
        key=jax.random.key(1),
        epochs=epochs,
        batch_size=20,
        loss="h1",
        boundary="one-sided",
    ).model
    seeds = range(10_000, 10_010)
    unseen = darcy(cells, len(seeds), seed=seeds[0], refine=1)
    error = evaluate(trained, {"unseen": unseen})["unseen"]["l2"]
    print(f"trained for {time.perf_counter() - start:.0f} s; relative L2 error {error:.3f}")
    guesses = np.asarray(eqx.filter_jit(trained)(jnp.asarray(unseen[0])))[:, 0, 1:, 1:]
    found = []
    for guess, (matrix, b) in zip(guesses, systems(cells, seeds), strict=True):
        right = jnp.asarray(b, jnp.float32)
        plain = pcg(matrix, right, rtol=rtol)
        started = pcg(matrix, right, x0=jnp.asarray(guess.ravel()), rtol=rtol)
        difference = jnp.linalg.norm(plain.value - started.value) / jnp.linalg.norm(plain.value)
        found.append((int(plain.iterations), int(started.iterations), float(difference)))
    zero, from_guess, _ = np.mean(found, axis=0)
    print(f"iterations to a residual of {rtol:g}: {zero:.1f} from zero, {from_guess:.1f} from it")
    return found


if __name__ == "__main__":
    main()
