"""A potential trained on a molecule for some minutes: error against time, beside two peers'.

Acetylacetone at 300 K (PBE). The peers' figures are those of one run each, on two cores, in the
same minutes, on the same split; energies count from their mean, which is all that the energies of
isolated atoms can tell of one composition.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from equivariant.potential import Config, Frame, config_for, evaluate, fit, read_frames

from ..case import Case, Context
from ..measure import Program
from ..rows import Row, ratio

SUITE = "potential"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "acac"
HELD_OUT = 50
# Root mean squares on the test set: forces in meV/angstrom, energies in meV.
PEERS = {
    "mace-torch 0.3.16": {5: (33.7, 9.4), 10: (25.1, 6.6), 20: (21.5, 5.0)},
    "nequip-eqx 0.1.0": {5: (31.5, 9.6), 10: (26.7, 7.9)},
}
# Most that ours may err after so many minutes.
FORCES = {5: 28.0, 10: 22.5, 20: 19.3, 60: 13.0}
ENERGIES = {20: 4.5}
MAIN = "powers on the grid"
MODELS: dict[str, dict[str, Any]] = {
    MAIN: {"product": "power", "order": 3},
    "Gaunt": {"product": "gaunt"},
    "Clebsch-Gordan": {"product": "clebsch-gordan"},
    "gate": {"product": "gate"},
}
RECIPE: dict[str, Any] = {"batch_size": 5, "learning_rate": 1e-2, "ema": 0.99}
SEEDS = 3


def cases(quick: bool) -> list[Case]:
    """Return the cases, a product each; none where the data set is absent."""
    if not DATA.is_dir():
        return []
    if quick:
        return [Case(SUITE, f"{MAIN}, a few seconds", "float32", Training("quick", {}, 0.1))]
    return [
        Case(SUITE, f"{name}, {minutes} minutes", "float32", Training(name, options, minutes))
        for name, options in MODELS.items()
        for minutes in (FORCES if name == MAIN else (5, 10))
    ]


@functools.cache
def frames() -> tuple[list[Frame], list[Frame], list[Frame]]:
    """Return frames to learn from, to choose by, and to judge by."""
    every = read_frames(DATA / "train_300K.xyz")
    order = np.random.default_rng(0).permutation(len(every))
    held, known = order[:HELD_OUT], order[HELD_OUT:]
    test = read_frames(DATA / "test_MD_300K.xyz")
    return [every[n] for n in known], [every[n] for n in held], test


@functools.cache
def config(quick: bool, **options: Any) -> Config:
    """Return what is trained."""
    size = {"channels": 4, "layers": 1} if quick else {"channels": 32, "edge_degree": 3}
    return config_for(frames()[0], **size | options)


def steps_in(made: Config, seconds: float) -> int:
    """Return how many steps fit into so many seconds of a process that has compiled nothing."""
    start, times = time.perf_counter(), []
    fit(
        made, frames()[0], key=jax.random.key(0), steps=60, validate_every=20,
        callback=lambda _: times.append(time.perf_counter() - start), **RECIPE,
    )  # fmt: skip
    pace = (times[-1] - times[0]) / 40
    return max(int((seconds - (times[0] - 20 * pace)) / pace), 20)


@dataclasses.dataclass(frozen=True)
class Training:
    """Errors on the test set after some minutes, of runs whose schedule ends then."""

    name: str
    options: dict[str, Any]
    minutes: float

    def program(self) -> Program:
        """Return a few steps of training."""
        made = self._config()
        return Program("ours", lambda: self._train(made, 20, 0).history.loss)

    def _config(self) -> Config:
        return config(self.name == "quick", **self.options)

    def _train(self, made: Config, steps: int, seed: int) -> Any:
        known, held, _ = frames()
        return fit(made, known, key=jax.random.key(seed), steps=steps, validation=held, **RECIPE)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Train with every seed."""
        made = self._config()
        steps = steps_in(made, 60 * self.minutes)
        found, took, size = [], [], 0
        for seed in range(SEEDS if self.name == MAIN else 1):
            start = time.perf_counter()
            result = self._train(made, steps, seed)
            took.append((time.perf_counter() - start) / 60)
            found.append(evaluate(result.best_model, frames()[2]).errors)
            size = sum(leaf.size for leaf in jax.tree.leaves(result.model))
        for k, (name, unit, targets) in enumerate(
            (("forces rmse", "meV/angstrom", FORCES), ("energy rmse", "meV", ENERGIES))
        ):
            values = [1000 * errors[name] for errors in found]
            ours = float(np.median(values))
            target = targets.get(int(self.minutes)) if self.name == MAIN else None
            theirs = {
                p: told[int(self.minutes)][k] for p, told in PEERS.items() if self.minutes in told
            }
            for peer, error in theirs.items() or (("", None),):
                yield case.row(
                    context,
                    quantity="error",
                    unit=f"{unit} after {self.minutes:g} minutes",
                    ours=ours,
                    peer_name=peer,
                    peer=error,
                    ratio=None if error is None else ratio(error, ours),
                    rounds=len(values),
                    target=target,
                    target_is="" if target is None else "ours at most",
                    met=None if target is None else ours <= target,
                    note=f"{steps} steps, {size:,} parameters, {max(took):.1f} minutes; "
                    f"seeds {', '.join(f'{v:.1f}' for v in values)}",
                )
