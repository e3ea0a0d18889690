"""Train the direction networks that come with the package, on grids and on graphs.

    python examples/train_direction.py [--out DIR] [--steps N] [NAME ...]

That on grids, for -Laplace in three dimensions, on 32^3, empty and with boxes in it; benchmarks
look at 64^3, and at balls. That on graphs on the meshes of `train_preconditioners.py`. A run that
is killed goes on where it was; the files are versioned and say how they were made.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import tensornet
from solvers.preconditioners import PRETRAINED_DIRECTIONS, ConjugateDirection, GraphDirection
from solvers.preconditioners.pretrained_models import VERSION
from solvers.problems import boxes, poisson_around
from tensornet.progress import TextProgress

NAME = "direction-poisson-3d"
OPTIONS: dict[str, Any] = {"dimensions": 3, "channels": 8, "blocks": 1}
STEPS, RATE, VECTORS = 1500, 1e-2, 150
GRAPH_NAME = "direction-diffusion-2d"
GRAPH_OPTIONS: dict[str, Any] = {"degree": 4, "width": 8, "rounds": 2}
GRAPH_STEPS, GRAPH_RATE, GRAPH_LOSS = 800, 1e-2, "error"
assert (NAME, GRAPH_NAME) == PRETRAINED_DIRECTIONS


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


def train_graph(
    path: Path,
    *,
    problems: Sequence[Any] | None = None,
    steps: int = GRAPH_STEPS,
    checkpoint: Path | None = None,
) -> GraphDirection:
    """Train the one on graphs, write it to a file, and return it."""
    # Meshes need scikit-fem, which grids do without.
    from train_preconditioners import training_set

    key = jax.random.key(0)
    fit = GraphDirection(**GRAPH_OPTIONS, key=key).fit(
        training_set() if problems is None else problems,
        key=key,
        steps=steps,
        learning_rate=GRAPH_RATE,
        loss=GRAPH_LOSS,
        checkpoint=checkpoint,
        checkpoint_every=100,
        progress=TextProgress(seconds=5.0),
    )
    facts = {
        "options": GRAPH_OPTIONS,
        "loss": GRAPH_LOSS,
        "rate": GRAPH_RATE,
        "steps": fit.step,
    }
    tensornet.save(path, fit.model, hyperparameters=facts, version=VERSION)
    return fit.model


RECIPES = {NAME: (train, STEPS), GRAPH_NAME: (train_graph, GRAPH_STEPS)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Train the direction networks of the package.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(RECIPES)
    if unknown:
        parser.error(f"NAME: expected some of {', '.join(RECIPES)}, got {', '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or RECIPES:
        recipe, steps = RECIPES[name]
        path = options.out / f"{name}.gauntax"
        checkpoint = options.out / f"{name}.checkpoints"
        recipe(path, steps=options.steps or steps, checkpoint=checkpoint)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
