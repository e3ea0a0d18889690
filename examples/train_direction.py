"""Train the direction network that comes with the package, for -Laplace in three dimensions.

    python examples/train_direction.py [--out DIR] [--steps N]

On a grid of 32^3, empty and with boxes in it; benchmarks look at 64^3, and at balls. A run that is
killed goes on where it was; the file is versioned and says how it was made.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import tensornet
from solvers.preconditioners import PRETRAINED_DIRECTIONS, ConjugateDirection
from solvers.preconditioners.pretrained_models import VERSION
from solvers.problems import boxes, poisson_around
from tensornet.progress import TextProgress

NAME = "direction-poisson-3d"
OPTIONS: dict[str, Any] = {"dimensions": 3, "channels": 8, "blocks": 1}
STEPS, RATE, VECTORS = 1500, 1e-2, 150
assert NAME in PRETRAINED_DIRECTIONS


def masks(grid: Sequence[int], count: int = 6) -> list[np.ndarray]:
    """Return the grids that are trained on: empty, and with one to three boxes."""
    empty = np.ones(tuple(grid), np.float32)
    return [empty, *(boxes(grid, 1 + seed % 3, seed) for seed in range(count - 1))]


def train(
    path: Path,
    *,
    grid: Sequence[int] = (32, 32, 32),
    steps: int = STEPS,
    vectors: int = VECTORS,
    checkpoint: Path | None = None,
) -> ConjugateDirection:
    """Train it, write it to a file, and return it."""
    key = jax.random.key(0)
    fit = ConjugateDirection(**OPTIONS, key=key).fit(
        poisson_around,
        masks(grid),
        key=key,
        steps=steps,
        vectors=vectors,
        learning_rate=RATE,
        checkpoint=checkpoint,
        checkpoint_every=100,
        progress=TextProgress(seconds=20.0),
    )
    facts = {"options": OPTIONS, "rate": RATE, "steps": fit.step, "grid": list(grid)}
    tensornet.save(path, fit.model, hyperparameters=facts, version=VERSION)
    return fit.model


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Train the direction network of the package.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{NAME}.gauntax"
    train(path, steps=options.steps, checkpoint=options.out / f"{NAME}.checkpoints")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
