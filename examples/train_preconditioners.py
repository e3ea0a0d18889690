"""Train the preconditioners that come with the package, for diffusion in two dimensions.

    python examples/train_preconditioners.py [--out DIR] [--steps N] [NAME ...]

Meshes are jittered squares and L-shapes with a few hundred unknowns, coefficients smooth, a seed
each; neither the geometries nor the seeds that benchmarks and tour look at. A run that is killed
goes on where it was; the files are versioned and say how they were made.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import tensornet
from solvers.preconditioners import PRETRAINED, GraphApproximateInverse, GraphCholesky
from solvers.preconditioners.pretrained_models import VERSION
from solvers.problems import fem
from tensornet.progress import TextProgress

LOSS = "error"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained: its class, how it is built, steps, and the rate of the first one."""

    kind: type
    options: dict[str, Any]
    steps: int
    rate: float


SIZE = {"width": 16, "rounds": 3}
RECIPES = {
    "inverse-diffusion-2d": Recipe(
        GraphApproximateInverse, {**SIZE, "start": 0.0, "epsilon": 1e-3}, 600, 1e-2
    ),
    "cholesky-diffusion-2d": Recipe(
        GraphCholesky, {**SIZE, "start": "matrix", "order": "rcm"}, 1000, 5e-3
    ),
}
assert tuple(RECIPES) == PRETRAINED


def training_set(*, seeds: int = 8, refinements: tuple[int, int] = (4, 3)) -> list[Any]:
    """Return the problems to train on: two geometries for each seed."""
    pairs = list(zip(fem.TRAINING, refinements, strict=True))
    return [fem.family("smooth", g, r, seed) for seed in range(seeds) for g, r in pairs]


def train(
    name: str,
    path: Path,
    *,
    steps: int | None = None,
    problems: Sequence[Any] | None = None,
    checkpoint: Path | None = None,
) -> Any:
    """Train one of `RECIPES`, write it to a file, and return it."""
    recipe = RECIPES[name]
    key = jax.random.key(0)
    fit = recipe.kind(**recipe.options, key=key).fit(
        training_set() if problems is None else problems,
        key=key,
        steps=recipe.steps if steps is None else steps,
        loss=LOSS,
        learning_rate=recipe.rate,
        checkpoint=checkpoint,
        checkpoint_every=50,
        progress=TextProgress(seconds=5.0),
    )
    facts = {"options": recipe.options, "loss": LOSS, "rate": recipe.rate, "steps": fit.step}
    tensornet.save(path, fit.best_model, hyperparameters=facts, version=VERSION)
    return fit.best_model


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Train the preconditioners of the package.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(RECIPES)
    if unknown:
        parser.error(f"NAME: expected some of {', '.join(RECIPES)}, got {', '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or RECIPES:
        path = options.out / f"{name}.gauntax"
        train(name, path, steps=options.steps, checkpoint=options.out / f"{name}.checkpoints")
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
