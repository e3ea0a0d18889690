"""Chapter 2: the plan of the sweep that compressed the cube, against one contraction a mode."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensornet.decompose.cp_sweep import sweep_plan
from tensornet.planner import StagedPlan

from .chapter import Chapter, Check, Findings, Picture, Stage, Table

RANK = 20
OURS, NAIVE = "#2457d6", "#b9bdc7"


@dataclasses.dataclass(frozen=True)
class Step:
    """What the product for one mode takes."""

    flops: float
    bytes: float
    seconds: float


def run(stage: Stage) -> Findings:
    """Tell the chapter on the whole cube."""
    import tensorly.datasets

    cube = np.asarray(tensorly.datasets.load_indian_pines().tensor, np.float32)
    return compare(cube, RANK, stage)


def compare(cube: np.ndarray, rank: int, stage: Stage) -> Findings:
    """Plan a sweep over a tensor, run it, and run one `jnp.einsum` a mode beside it."""
    rng = np.random.default_rng(stage.seed)
    tensor = jnp.asarray(cube)
    plan = sweep_plan(tensor.shape, rank, str(tensor.dtype), jax.default_backend())
    names = [part.replaces[0] for part in plan.stages]  # one factor after the other
    shapes = zip(names, tensor.shape, strict=True)
    factors = {m: jnp.asarray(rng.normal(size=(rank, n)), tensor.dtype) for m, n in shapes}
    operands = {"tensor": tensor, **factors}
    planned, values = _planned(plan, operands)
    naive, expected = _naive(plan, operands)
    error = max(
        float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
        for a, b in zip(values, expected, strict=True)
    )
    path = stage.out / "planning.png"
    draw(path, planned, naive)
    total = {
        side: {f.name: sum(getattr(s, f.name) for s in steps) for f in dataclasses.fields(Step)}
        for side, steps in (("planned", planned), ("naive", naive))
    }
    return Findings(
        story=(
            (
                "A sweep of alternating least squares needs, for each mode, the product of the "
                "cube with the factors of all other modes. Planned together, they read the cube "
                "twice instead of three times and never copy it. Below is the plan that chapter 1 "
                "ran."
            ),
        ),
        tables=(
            _table(planned, naive),
            Table(("the plan",), [(x,) for x in str(plan).split("\n")]),
        ),
        pictures=(
            Picture(
                path,
                "Operations, bytes moved and seconds of the product for each mode, planned as a "
                "sweep and as one jnp.einsum a mode. What a later mode shares with an earlier one "
                "costs it nothing.",
            ),
        ),
        checks=(Check("planned against jnp.einsum: relative difference", error, 1e-4),),
        results={"error": error, **total},
    )


def _planned(plan: StagedPlan, operands: Mapping[str, jax.Array]) -> tuple[list[Step], list[Any]]:
    steps, values = [], []
    kept: Any = {}
    for k, stage in enumerate(plan.stages):
        run = jax.jit(lambda operands, kept, k=k: plan.run(k, operands, kept))
        seconds = _shortest(lambda run=run, kept=kept: run(operands, kept))
        value, kept = run(operands, kept)
        flops, nbytes = (sum(getattr(s, name) for s in stage.steps) for name in ("flops", "bytes"))
        steps.append(Step(flops, nbytes, seconds))
        values.append(value)
    return steps, values


def _naive(plan: StagedPlan, operands: Mapping[str, jax.Array]) -> tuple[list[Step], list[Any]]:
    steps, values = [], []
    for stage in plan.stages:
        arrays = [operands[name] for name in stage.operands]
        expression = stage.network.expression
        run = jax.jit(lambda *a, e=expression: jnp.einsum(e, *a, precision="highest"))
        cost = run.lower(*arrays).compile().cost_analysis()
        cost = cost[0] if isinstance(cost, list) else cost or {}
        seconds = _shortest(lambda run=run, arrays=arrays: run(*arrays))
        nan = float("nan")
        steps.append(Step(cost.get("flops", nan), cost.get("bytes accessed", nan), seconds))
        values.append(run(*arrays))
    return steps, values


def _shortest(run: Callable[[], Any], times: int = 5) -> float:
    jax.block_until_ready(run())
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(run())
        spent.append(time.perf_counter() - start)
    return min(spent)


def _table(planned: Sequence[Step], naive: Sequence[Step]) -> Table:
    rows = [
        (
            f"mode {k}" if k < len(planned) else "sweep",
            *(
                f"{scale * getattr(step, name):.3g}"
                for name, scale in (("flops", 1e-6), ("bytes", 1e-6), ("seconds", 1e3))
                for step in pair
            ),
        )
        for k, pair in enumerate([*zip(planned, naive, strict=True), (_sum(planned), _sum(naive))])
    ]
    head = ("", "Mflop", "einsum's", "MB moved", "einsum's", "ms", "einsum's")
    return Table(head, rows)


def _sum(steps: Sequence[Step]) -> Step:
    return Step(*(sum(getattr(s, f.name) for s in steps) for f in dataclasses.fields(Step)))


def draw(path: Path, planned: Sequence[Step], naive: Sequence[Step]) -> None:
    """Draw operations, bytes and seconds of each mode's product, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    shown = (("flops", 1e-6, "Mflop"), ("bytes", 1e-6, "MB moved"), ("seconds", 1e3, "ms"))
    where = np.arange(len(planned))
    for axis, (name, scale, label) in zip(figure.subplots(1, 3), shown, strict=True):
        for shift, steps, colour, title in (
            (-0.2, planned, OURS, "planned as a sweep"),
            (0.2, naive, NAIVE, "one jnp.einsum a mode"),
        ):
            heights = [scale * getattr(step, name) for step in steps]
            axis.bar(where + shift, heights, 0.4, color=colour, label=title)
        axis.set_xticks(where, [f"mode {k}" for k in where])
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


CHAPTER = Chapter("planning", "The plan of a sweep", 5.0, run)
