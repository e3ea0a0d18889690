"""Chapter: a potential learns a molecule's forces, and moves it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from equivariant.potential import (
    Evaluation,
    Frame,
    TrainedPotential,
    config_for,
    energy_fn,
    evaluate,
    fit,
)
from equivariant.potential.command import draw

from .chapter import Chapter, Check, Findings, Picture, Stage, Table

DATA = Path(__file__).resolve().parent.parent / "data" / "ethanol.npz"
LEARNED = 300  # frames; the others judge
MASSES = {1: 1.008, 6: 12.011, 8: 15.999}
# Time in which a mass of 1 u under 1 eV/angstrom is moved half an angstrom, in femtoseconds.
UNIT = 10.180505671156723
BOLTZMANN = 8.617333262e-5  # eV/K
LIMITS = {"forces": 0.15, "drift": 1.0}

STORY = (
    (
        "Ethanol at the temperatures of a simulation, its energies and forces from density "
        "functional theory (PBE, geometries of rMD17). A potential learns them: each atom sums "
        "what its neighbours send, coupled with the spherical harmonics of the edges, and takes "
        "powers of the sums point by point on the sphere; that is the Gaunt tensor product. Of "
        "400 frames 300 teach and 100 judge."
    ),
    (
        "Energies of isolated atoms, thousands of electronvolts, are taken off in double "
        "precision before training in single. Forces are the exact gradient of the energy, so "
        "that a molecule moved by them keeps its energy: half a picosecond shows by how much."
    ),
)


class Motion(NamedTuple):
    """A trajectory at constant energy: times in ps, energies in eV.

    Attributes:
        times: of the steps.
        potential: energy.
        total: energy.
        drift: slope of the total energy, meV/atom/ps.
    """

    times: np.ndarray
    potential: np.ndarray
    total: np.ndarray
    drift: float


def frames() -> list[Frame]:
    """Return the 400 frames."""
    with np.load(DATA) as data:
        numbers = data["numbers"].astype(np.int64)
        rows = zip(data["positions"], data["forces"], data["energy"], strict=True)
        return [
            Frame(numbers, p.astype(np.float64), energy=float(e), forces=f.astype(np.float64))
            for p, f, e in rows
        ]


def move(
    trained: TrainedPotential, frame: Frame, *, steps: int, seed: int, kelvin: float = 300.0
) -> Motion:
    """Move a molecule by velocity Verlet, half a femtosecond a step, at constant energy."""
    dt, count = 0.5 / UNIT, len(frame.numbers)
    others = (np.arange(count)[:, None] + np.arange(1, count)) % count
    pairs = Everybody(others)
    masses = np.array([MASSES[int(z)] for z in frame.numbers])[:, None]
    velocity = np.random.default_rng(seed).normal(size=(count, 3)) * np.sqrt(
        BOLTZMANN * kelvin / masses
    )
    velocity -= (masses * velocity).sum(0) / masses.sum()
    slope = jax.value_and_grad(energy_fn(trained, frame.numbers))
    weight = jnp.asarray(masses, jnp.float32)

    def step(state: Any, _: Any) -> Any:
        place, speed, force = state
        speed = speed + dt / 2 * force / weight
        place = place + dt * speed
        energy, gradient = slope(place, neighbor=pairs)
        speed = speed - dt / 2 * gradient / weight
        kinetic = (weight * speed**2).sum() / 2
        return (place, speed, -gradient), (energy, energy + kinetic)

    @jax.jit
    def run(place: Any, speed: Any) -> Any:
        force = -slope(place, neighbor=pairs)[1]
        return jax.lax.scan(step, (place, speed, force), length=steps)[1]

    start = jnp.asarray(frame.positions, jnp.float32)
    potential, total = (np.asarray(z) for z in run(start, jnp.asarray(velocity, jnp.float32)))
    times = 5e-4 * np.arange(1, steps + 1)
    drift = 1000 * np.polyfit(times, total.astype(np.float64), 1)[0] / count
    return Motion(times, potential, total, float(drift))


class Everybody(NamedTuple):
    """A list of neighbours as jax-md's, where everybody is everybody's."""

    idx: np.ndarray


def run(stage: Stage) -> Findings:
    """Train for about half a minute, compiling included."""
    return learn(stage, steps=600)


def learn(
    stage: Stage,
    *,
    steps: int,
    moves: int = 1000,
    limits: Mapping[str, float] = LIMITS,
    **options: Any,
) -> Findings:
    """Train, judge, and move.

    Args:
        stage: where to write, whom to tell.
        steps: of training.
        moves: steps of half a femtosecond.
        limits: the largest errors that are promised.
        options: of the model.
    """
    every = frames()
    known, held = every[:LEARNED], every[LEARNED:]
    small = {"cutoff": 4.0, "channels": 16, "edge_degree": 2, "width": 16, "layers": 1}
    config = config_for(known, **small | options)
    start = time.perf_counter()
    result = fit(
        config,
        known,
        key=jax.random.key(stage.seed),
        steps=steps,
        batch_size=5,
        learning_rate=0.02,
        progress=stage.progress,
    )
    seconds = time.perf_counter() - start
    trained = result.best_model
    sets = {"unseen frames": held}
    made = {name: evaluate(trained, some, batch_size=20) for name, some in sets.items()}
    motion = move(trained, held[0], steps=moves, seed=stage.seed)
    errors = made["unseen frames"].errors
    spread = float(np.sqrt(np.mean(np.concatenate([f.forces for f in held]) ** 2)))
    energies = float(np.std([f.energy for f in held]))
    size = sum(leaf.size for leaf in jax.tree.leaves(trained))
    pictures = _draw(stage.out, made, sets, motion)
    kinetic = motion.total - motion.potential
    return Findings(
        story=STORY,
        tables=[
            Table(
                ("100 unseen frames", "mean absolute", "root mean square", "spread of the data"),
                [
                    _row("force component, meV/angstrom", errors, "forces", spread),
                    _row("energy, meV", errors, "energy", energies),
                ],
            ),
            Table(
                ("", ""),
                [
                    ("training", f"{result.step} steps, {seconds:.1f} s with compiling"),
                    ("parameters", f"{size:,}"),
                    ("moved", f"{moves / 2000:.2g} ps in steps of 0.5 fs"),
                    ("mean temperature", f"{2 * kinetic.mean() / (3 * 9 * BOLTZMANN):.0f} K"),
                    ("drift of the energy", f"{motion.drift:.3f} meV/atom/ps"),
                    ("largest deviation", f"{1000 * np.ptp(motion.total) / 9:.2f} meV/atom"),
                ],
            ),
        ],
        pictures=pictures,
        checks=[
            Check("root mean square error of forces, eV/angstrom", errors["forces rmse"],
                  limits["forces"]),
            Check("drift of the energy, meV/atom/ps", abs(motion.drift), limits["drift"]),
        ],
        results={
            "errors": errors,
            "drift": motion.drift,
            "parameters": size,
            "training_seconds": seconds,
        },
    )  # fmt: skip


def _row(what: str, errors: Mapping[str, float], name: str, spread: float) -> tuple[str, ...]:
    figures = (errors[f"{name} mae"], errors[f"{name} rmse"], spread)
    return (what, *(f"{1000 * z:.1f}" for z in figures))


def _draw(
    out: Path, made: Mapping[str, Evaluation], sets: Mapping[str, Any], motion: Motion
) -> list[Picture]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from tensornet.plot import COLOURS

    drawn = draw(out, None, sets, made)[0]
    parity = drawn.rename(out / "potential_parity.png")
    path = out / "potential_energy.png"
    figure, ax = plt.subplots(figsize=(5.5, 3), layout="constrained")
    for label, values, colour in (
        ("potential", motion.potential, COLOURS[0]),
        ("total", motion.total, COLOURS[1]),
    ):
        ax.plot(motion.times, 1000 * (values - values.mean()), color=colour, label=label)
    ax.set_xlabel("time, ps")
    ax.set_ylabel("energy less its mean, meV")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=110)
    return [
        Picture(parity, "Energies and force components of unseen frames: truth and prediction."),
        Picture(path, "Energies of ethanol, moved by the potential at constant total energy."),
    ]


CHAPTER = Chapter("potential", "A potential that moves ethanol", 39.0, run)
