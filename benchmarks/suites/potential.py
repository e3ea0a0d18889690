"""A potential trained on a molecule for some minutes: error against time, beside two peers'.

Acetylacetone at 300 K (PBE). The peers' figures are those of one run each, on two cores, along one
schedule, on the same split; energies count from their mean, which is all that the energies of
isolated atoms can tell of one composition. Each run of ours is a case of its own, so that hours of
them can be measured one by one and kept with `--save`.
"""

import dataclasses
import functools
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from equivariant.potential import Config, Potential, config_for, evaluate, fit

from ..case import Case, Context, Peer, Speed
from ..measure import Program
from ..potential_peers import ours
from ..potential_steps import (
    DATA,
    LARGER_DATA,
    ROOT,
    STEP,
    batch_of,
    compiled,
    frames,
    larger_frames,
)
from ..rows import Row, ratio

SUITE = "potential"
# Root mean squares on the test set: forces in meV/angstrom, energies in meV.
PEERS = {
    "mace-torch 0.3.16": {5: (33.7, 9.4), 10: (25.1, 6.6), 20: (21.5, 5.0)},
    "nequip-eqx 0.1.0": {5: (31.5, 9.6), 10: (26.7, 7.9)},
}
# Most that ours may err after so many minutes.
FORCES = {5: 28.0, 10: 22.5, 20: 19.3, 60: 13.0}
ENERGIES = {20: 4.5}
MAIN, EXACT = "powers on the grid", "Clebsch-Gordan"
# Messages made like the product. So many channels give back what weights per path would add.
LIKE_PRODUCT: dict[str, Any] = {"weights": "per-degree", "message_channels": 96}
MODELS: dict[str, dict[str, Any]] = {
    MAIN: {"product": "power", "order": 3},
    "gate": {"product": "gate"},
    EXACT: {"product": "clebsch-gordan"},
    f"{EXACT}, both parities": {"product": "clebsch-gordan", "paths": "all"},
    "Gaunt": {"product": "gaunt"} | LIKE_PRODUCT,
    "Gaunt, both parities": {"product": "gaunt", "paths": "all"} | LIKE_PRODUCT,
    "CP": {"product": "cp"} | LIKE_PRODUCT,
}
RECIPE: dict[str, Any] = {"batch_size": 5, "learning_rate": 1e-2, "ema": 0.99}
SEEDS = 3
MINUTES = 20
# Products in place of Clebsch-Gordan at degree 3, after as many steps: most of its error, and least
# of its steps in a second, that they may have.
SAME_STEPS, SAME_DEGREE = 1500, 3
SAME_ERROR, SAME_PACE = 1.1, 1.5
# 3BPA: forces in meV/angstrom and energies in meV on test_300K, from 500 frames at 300 K (Musaelian
# et al., 2023; Batatia et al., 2022; nequip-eqx's table), and a run of ours.
PUBLISHED = {
    "NequIP": (10.8, 3.3),
    "nequip-eqx, 128 channels, L=3": (9.5, 2.9),
    "MACE, L=2": (8.8, 3.0),
}
LARGER: dict[str, Any] = {"channels": 32, "degree": 3, "edge_degree": 3} | LIKE_PRODUCT
LARGER_STEPS = 36_000
CHECKPOINTS = ROOT / "out" / f"3bpa-{LARGER_STEPS}"


def cases(quick: bool) -> list[Case]:
    """Return the cases, a run each; none where the data set is absent."""
    if not DATA.is_dir():
        return []
    if quick:
        return [Case(SUITE, f"{MAIN}, a few seconds", "float32", Training("quick", {}, 0.1))]
    runs = [
        (name, MINUTES, seed) for name in MODELS for seed in range(SEEDS if name == MAIN else 1)
    ]
    runs += [(MAIN, 60, seed) for seed in range(SEEDS)]
    found = [
        Case(
            SUITE, f"{name}, {minutes} minutes, seed {seed}", "float32",
            Training(name, MODELS[name], minutes, seed),
        )
        for name, minutes, seed in runs
    ]  # fmt: skip
    if LARGER_DATA.is_dir():
        found.append(Case(SUITE, f"3BPA, {LARGER_STEPS:,} steps", "float32", Larger()))
    plain = functools.partial(step_of, EXACT, plain=True)
    written = Speed(functools.partial(step_of, EXACT), [Peer(plain, target=1.0)])
    found.append(Case(SUITE, f"{EXACT} for plain einsums, L={SAME_DEGREE}", "float32", written))
    return found + [
        Case(SUITE, f"{name} for {EXACT}, L={SAME_DEGREE}", "float32", Replaced(name))
        for name in ("Gaunt, both parities", "Gaunt", "CP")
    ]


@functools.cache
def config(quick: bool, **options: Any) -> Config:
    """Return what is trained."""
    size = {"channels": 4, "layers": 1} if quick else {"channels": 32, "edge_degree": 3}
    return config_for(frames()[0], **size | options)


def train(made: Config, steps: int, seed: int = 0, **options: Any) -> Any:
    """Train on the frames to learn from."""
    known, held, _ = frames()
    given = RECIPE | {"steps": steps, "validation": held} | options
    return fit(made, known, key=jax.random.key(seed), **given)


def steps_in(made: Config, seconds: float) -> int:
    """Return how many steps fit into so many seconds of a process that has compiled nothing."""
    start, times = time.perf_counter(), []
    train(
        made, 60, validation=None, validate_every=20,
        callback=lambda _: times.append(time.perf_counter() - start),
    )  # fmt: skip
    pace = (times[-1] - times[0]) / 40
    # Validation takes some of it, and the machine may slow down.
    return max(int(0.95 * (seconds - (times[0] - 20 * pace)) / pace), 20)


class Marks:
    """A callback that keeps the last model before each of some times, in minutes."""

    def __init__(self, minutes: Iterable[float]):
        self.start, self.last, self.models = time.perf_counter(), None, {}
        self._left = sorted(minutes)

    @property
    def passed(self) -> float:
        """Minutes since the start."""
        return (time.perf_counter() - self.start) / 60

    def __call__(self, report: Any) -> None:
        """Take a report of `fit`."""
        while self._left and self.passed > self._left[0] and self.last is not None:
            self.models[self._left.pop(0)] = self.last
        self.last = report.model

    def finish(self, model: Any) -> None:
        """Take the model that a run ended with, where it ended in time."""
        while self._left:
            mark = self._left.pop(0)
            late = self.passed > mark and self.last is not None
            self.models[mark] = self.last if late else model


@dataclasses.dataclass(frozen=True)
class Training:
    """Errors on the test set after some minutes of one run, whose schedule ends with the last."""

    name: str
    options: dict[str, Any]
    minutes: float
    seed: int = 0

    def program(self) -> Program:
        """Return a few steps of training."""
        made = self._config()
        return Program("ours", lambda: train(made, 20).history.loss)

    def _config(self) -> Config:
        return config(self.name == "quick", **self.options)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Train once."""
        made = self._config()
        steps = steps_in(made, 60 * self.minutes)
        jax.clear_caches()  # the minutes count from a process that has compiled nothing
        marks = Marks(sorted({m for m in FORCES if m < self.minutes} | {self.minutes}))
        result = train(made, steps, self.seed, callback=marks)
        took = marks.passed
        best = result.best_model
        marks.finish(best.potential)
        size = sum(leaf.size for leaf in jax.tree.leaves(result.model))
        note = f"{steps} steps in {took:.1f} minutes, {size:,} parameters"
        for minutes, model in marks.models.items():
            errors = evaluate(dataclasses.replace(best, potential=model), frames()[2]).errors
            for k, (name, unit, targets) in enumerate(
                (("forces rmse", "meV/angstrom", FORCES), ("energy rmse", "meV", ENERGIES))
            ):
                ours = 1000 * errors[name]
                target = targets.get(int(minutes)) if self.name == MAIN else None
                theirs = {p: told[minutes][k] for p, told in PEERS.items() if minutes in told}
                for peer, error in theirs.items() or (("", None),):
                    yield case.row(
                        context,
                        quantity="error",
                        unit=f"{unit} after {minutes:g} minutes",
                        ours=ours,
                        peer_name=peer,
                        peer=error,
                        ratio=None if error is None else ratio(error, ours),
                        rounds=1,
                        target=target,
                        target_is="" if target is None else "ours at most",
                        met=None if target is None else ours <= target,
                        note=note,
                    )


class Plain(eqx.Module):
    """x + x (x) x by one einsum a path, as one writes it down."""

    weights: Array
    squared: Any

    def __call__(self, x: Array, species: Array) -> Array:  # noqa: ARG002  as the others
        made = self.squared.product.bilinear
        parts = [x[..., s] for s in made.irreps_in1.slices()]
        for n, path in enumerate(made.triples):
            i, j, k = path
            table = jnp.asarray(made.path_tensor(path), x.dtype)
            z = jnp.einsum(
                "nci,ncj,ijk->nck", *(x[..., made.irreps_in1.slices()[m]] for m in (i, j)), table,
                precision="highest",
            )  # fmt: skip
            parts[k] = parts[k] + self.weights[:, n, None] * z
        return jnp.concatenate(parts, -1)


def step_of(name: str, *, plain: bool = False) -> Program:
    """Return a step of training of a model of degree 3, its product also as plain einsums."""
    made = config(False, degree=SAME_DEGREE, **MODELS[name])
    batch = batch_of(made, frames()[0][: RECIPE["batch_size"]])

    def written_out(potential: Potential) -> Potential:
        for n, layer in enumerate(potential.layers):
            other = Plain(layer.product.product.weights, layer.product)
            potential = eqx.tree_at(lambda p, n=n: p.layers[n].product, potential, other)
        return potential

    model = ours(made, batch.graph, written_out if plain else lambda potential: potential)
    program = compiled(STEP, model, batch).program()
    program.name = f"{name}, plain einsums" if plain else name
    return program


@dataclasses.dataclass(frozen=True)
class Larger:
    """Errors on a larger molecule beside published ones; a run that was killed goes on."""

    def program(self) -> Program:
        """Return a few steps of training."""
        return Program("ours", lambda: self.train(20, None).history.loss)

    def train(self, steps: int, checkpoint: Any) -> Any:
        known, held, _ = larger_frames()
        made = config_for(known, **LARGER)
        return fit(
            made, known, key=jax.random.key(0), steps=steps, validation=held,
            checkpoint=checkpoint, **RECIPE,
        )  # fmt: skip

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Train once."""
        best = self.train(LARGER_STEPS, CHECKPOINTS).best_model
        errors = evaluate(best, larger_frames()[2]).errors
        shutil.rmtree(CHECKPOINTS, ignore_errors=True)  # what comes next is another run
        size = sum(leaf.size for leaf in jax.tree.leaves(best.potential))
        for k, (name, unit) in enumerate((("forces rmse", "meV/angstrom"), ("energy rmse", "meV"))):
            for peer, told in PUBLISHED.items():
                yield case.row(
                    context,
                    quantity="error",
                    unit=f"{unit} on test_300K",
                    ours=1000 * errors[name],
                    peer_name=f"{peer}, published",
                    peer=told[k],
                    ratio=ratio(told[k], 1000 * errors[name]),
                    rounds=1,
                    note=f"{size:,} parameters, {LARGER}, one seed",
                )


@functools.cache
def after_same_steps(name: str) -> float:
    """Return the root mean square of forces, in meV/angstrom, of a product after those steps."""
    made = config(False, degree=SAME_DEGREE, **MODELS[name])
    best = train(made, SAME_STEPS).best_model
    return 1000 * evaluate(best, frames()[2]).errors["forces rmse"]


@dataclasses.dataclass(frozen=True)
class Replaced:
    """Another product in place of Clebsch-Gordan's: errors after the same steps, and seconds."""

    name: str

    @property
    def peer(self) -> str:
        """The Clebsch-Gordan product of as many parities."""
        both = MODELS[self.name].get("paths") == "all"
        return EXACT + (", both parities" if both else "")

    def program(self) -> Program:
        """Return a step of training."""
        return step_of(self.name)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure seconds of a step, then train both."""
        peer = Peer(functools.partial(step_of, self.peer), target=SAME_PACE)
        yield from Speed(self.program, [peer]).rows(case, context)
        ours, theirs = after_same_steps(self.name), after_same_steps(self.peer)
        reached = ratio(theirs, ours)
        yield case.row(
            context,
            quantity="error",
            unit=f"meV/angstrom after {SAME_STEPS} steps",
            ours=ours,
            peer_name=self.peer,
            peer=theirs,
            ratio=reached,
            rounds=1,
            target=1 / SAME_ERROR,
            target_is="ratio at least",
            met=None if reached is None else reached >= 1 / SAME_ERROR,
            note="forces on test_MD_300K, one seed",
        )
