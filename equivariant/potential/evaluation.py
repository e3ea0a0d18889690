"""What a potential says of labelled structures, and how far it is off."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from .batches import examples_of, in_order
from .energy import energy_forces_stress
from .frames import Frame
from .trained import TrainedPotential

# Compiled once for a size and a kind of model.
predict = eqx.filter_jit(energy_forces_stress)


class Evaluation(NamedTuple):
    """Predictions for frames, in their units, and errors where there are labels.

    Attributes:
        energy: of every frame, that of its isolated atoms included.
        forces: on the atoms of all frames.
        stress: of every frame; NaN where the cell has no volume.
        errors: by quantity and kind: `"forces rmse"`, `"energy mae"`, `"energy per atom rmse"`.
    """

    energy: Float64[np.ndarray, " frames"]
    forces: Float64[np.ndarray, "atoms 3"]
    stress: Float64[np.ndarray, "frames 3 3"]
    errors: dict[str, float]


def evaluate(
    trained: TrainedPotential, frames: Sequence[Frame], *, batch_size: int = 16, dtype: Any = None
) -> Evaluation:
    """Predict frames, and compare with what labels they have.

    Args:
        trained: the potential.
        frames: at least one.
        batch_size: frames at a time.
        dtype: of the computation.

    Raises:
        ValueError: no frames, or one that cannot be used; the message says which.
    """
    if not frames:
        raise ValueError("frames: expected at least one, got none")
    config = trained.config
    examples = examples_of(
        frames, species=config.species, cutoff=config.cutoff, energies=trained.energies, dtype=dtype
    )
    energy, forces, stress = [], [], []
    for batch in in_order(examples, batch_size, cutoff=config.cutoff):
        made = predict(trained.potential, batch.graph)
        real, atoms = np.asarray(batch.graph.real), np.asarray(batch.graph.atoms)
        energy.append(np.asarray(made.energy, np.float64)[real])
        stress.append(np.asarray(made.stress, np.float64)[real])
        forces.append(np.asarray(made.forces, np.float64)[atoms])
    isolated = [trained.isolated(frame.numbers) for frame in frames]
    totals = np.concatenate(energy) + isolated
    result = Evaluation(totals, np.concatenate(forces), np.concatenate(stress), {})
    return result._replace(errors=_errors(frames, result))


def labels(frames: Sequence[Frame]) -> dict[str, np.ndarray]:
    """Return energies, forces and stresses of frames, NaN where there are none."""
    return {
        "energy": np.array([np.nan if f.energy is None else f.energy for f in frames]),
        "forces": np.concatenate(
            [np.full_like(f.positions, np.nan) if f.forces is None else f.forces for f in frames]
        ),
        "stress": np.stack(
            [np.full((3, 3), np.nan) if f.stress is None else f.stress for f in frames]
        ),
    }


def error_table(errors: Mapping[str, Mapping[str, float]]) -> str:
    """Return mean absolute and root mean square errors of several sets as text, in thousandths."""
    names = list(dict.fromkeys(name for one in errors.values() for name in one))
    rows = [["in thousandths", *names]]
    for split, one in errors.items():
        rows.append([split, *(f"{1000 * one[n]:.2f}" if n in one else "" for n in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _errors(frames: Sequence[Frame], made: Evaluation) -> dict[str, float]:
    atoms = np.array([len(frame.numbers) for frame in frames])
    truth = labels(frames)
    gaps = {
        "energy": made.energy - truth["energy"],
        "energy per atom": (made.energy - truth["energy"]) / atoms,
        "forces": made.forces - truth["forces"],
        "stress": made.stress - truth["stress"],
    }
    found = {}
    for name, gap in gaps.items():
        known = gap[np.isfinite(gap)]
        if len(known):
            found[f"{name} mae"] = float(np.abs(known).mean())
            found[f"{name} rmse"] = float(np.sqrt((known**2).mean()))
    return found
