"""Chapter: a tensorized Fourier neural operator learns Darcy's flow."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from solvers.operators import FNO, TFNO, evaluate, fit
from solvers.problems.darcy import darcy
from tensornet import plot

from .chapter import Chapter, Check, Findings, Picture, Stage, Table

CELLS = 32  # of every computation, so that all resolutions show the same functions
ERRORS = {"16": 0.25, "32": 0.30}

STORY = (
    (
        "Water seeps through ground of two kinds, laid out at random: -div(a grad u) = 1, with "
        "no pressure around a square. A Fourier neural operator learns the map from a to u from "
        "a few hundred solved problems. Each of its layers multiplies the lowest frequencies of "
        "a field by a complex matrix of channels; all these matrices of a layer are one tensor, "
        "and here that tensor is in Tucker form with a tenth of the parameters."
    ),
    (
        "How a layer is computed is chosen by the planner: Fourier transforms or truncated "
        "Fourier sums as matrix products, the weight multiplied out or factor by factor, in "
        "which order. What it computes does not depend on the grid: trained on 16 x 16 points, "
        "the operator is shown ground at 32 x 32 points, on problems it has not seen."
    ),
)


def run(stage: Stage) -> Findings:
    """Train for about half a minute."""
    return learn(stage, pairs=240, epochs=12, width=20, modes=(10, 10), layers=3)


def learn(
    stage: Stage,
    *,
    pairs: int,
    epochs: int,
    width: int,
    modes: tuple[int, int],
    layers: int = 4,
    checks: Mapping[str, float] = ERRORS,
) -> Findings:
    """Draw problems, train, and look at errors at two resolutions.

    Args:
        stage: where to write, whom to tell.
        pairs: problems to learn from; each is used with its axes in either order.
        epochs: how often.
        width: of the operator.
        modes: of its layers.
        layers: how many.
        checks: the largest errors that are promised, by resolution.
    """
    start = time.perf_counter()
    first = 1_000 * stage.seed
    x, y = darcy(16, pairs, seed=first, refine=CELLS // 16)
    # The law of the ground does not change where the axes change places.
    x, y = (np.concatenate([z, z.swapaxes(2, 3)]) for z in (x, y))
    held = first + pairs
    unseen = {str(n): darcy(n, 40, seed=held, refine=CELLS // n) for n in (16, 32)}
    solved = time.perf_counter() - start
    options: dict[str, Any] = {
        "modes": modes,
        "in_channels": 1,
        "out_channels": 1,
        "width": width,
        "layers": layers,
        "key": jax.random.key(stage.seed),
    }
    model = TFNO(factorization="tucker", rank=0.1, **options)
    dense = jax.eval_shape(lambda: FNO(**options))
    held_dense = sum(leaf.size for leaf in jax.tree.leaves(dense))
    start = time.perf_counter()
    result = fit(
        model,
        (x, y),
        key=jax.random.key(stage.seed + 1),
        epochs=epochs,
        batch_size=20,
        loss="l2",
        learning_rate=8e-3,
        validation=unseen["16"],
        progress=stage.progress,
    )
    trained = time.perf_counter() - start
    errors = evaluate(result.model, unseen, boundary="one-sided")
    name, _ = model.blocks[0].spectral.choice((20, width, 16, 16))
    size = model.n_parameters
    rows = [
        (f"{n} x {n}", f"{figures['l2']:.3f}", f"{figures['h1']:.3f}")
        for n, figures in errors.items()
    ]
    facts = [
        ("problems solved", f"{pairs} to learn from, 40 to judge by, {solved:.1f} s"),
        ("training", f"{result.step} steps, {trained:.1f} s with compiling"),
        ("parameters", f"{size:,}; dense {held_dense:,}, {held_dense / size:.1f} times as many"),
        ("each layer", f"computed as {name}"),
    ]
    curve, picture = stage.out / "operators_training.png", stage.out / "operators_darcy.png"
    _draw(curve, picture, result, unseen["32"])
    return Findings(
        story=STORY,
        tables=[
            Table(("unseen ground", "relative L2", "relative H1"), rows),
            Table(("", ""), facts),
        ],
        pictures=[
            Picture(picture, "Ground, pressure, the operator's pressure and its error at 32 x 32."),
            Picture(curve, "Relative L2 error of the batches, and of unseen ground at 16 x 16."),
        ],
        checks=[
            Check(f"relative L2 error at {n} x {n}", errors[n]["l2"], most)
            for n, most in checks.items()
        ],
        results={
            "errors": errors,
            "parameters": size,
            "dense_parameters": held_dense,
            "method": name,
            "training_seconds": trained,
        },
    )


def _draw(curve: Path, picture: Path, result: Any, data: tuple[Any, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    x, y = data
    predicted = np.asarray(eqx.filter_jit(result.model)(x[:1]))
    axes = plot.prediction(y[0, 0], predicted[0, 0], given=x[0, 0])
    axes[0].figure.savefig(picture, dpi=110)
    plot.history(result).figure.savefig(curve, dpi=110)


CHAPTER = Chapter("operators", "An operator that learns Darcy's flow", 34.0, run)
