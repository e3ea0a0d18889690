"""Training and evaluation from files: what `python -m equivariant.potential` does."""

import argparse
import dataclasses
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tensornet import plot
from tensornet.progress import ProgressMeter
from tensornet.training import Fit

from .evaluation import Evaluation, error_table, evaluate, labels
from .frames import SYMBOLS, Frame, read_frames, species_of
from .losses import Weights
from .model import Config
from .trained import TrainedPotential, load_potential, save_potential
from .training import fit, with_statistics

_COUNT, _NUMBER, _TEXT, _TABLE = (int,), (int, float), (str,), (Mapping,)
_KINDS = {
    int: "an integer", float: "a number", str: "text", list: "a list", Mapping: "a table",
}  # fmt: skip
# What each entry of a section may be; other names are refused.
_KNOWN: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"seed": _COUNT, "folder": _TEXT} | dict.fromkeys(("data", "model", "training"), _TABLE),
    "data": dict.fromkeys(("train", "energy", "forces", "stress"), _TEXT)
    | {"validation": (*_NUMBER, *_TEXT), "test": (list,)},
    "model": dict.fromkeys(("cutoff", "neighbours", "scale", "repulsion"), _NUMBER)
    | dict.fromkeys(("channels", "degree", "edge_degree", "layers", "order"), _COUNT)
    | dict.fromkeys(("functions", "width", "message_channels"), _COUNT)
    | dict.fromkeys(("product", "paths", "weights", "method"), _TEXT)
    | {"species": (list,), "memory_limit": (*_COUNT, *_TEXT)},
    "training": dict.fromkeys((f"{name}_weight" for name in Weights._fields), _NUMBER)
    | dict.fromkeys(("learning_rate", "ema"), _NUMBER)
    | dict.fromkeys(("steps", "epochs", "batch_size", "patience"), _COUNT)
    | dict.fromkeys(("validate_every", "checkpoint_every"), _COUNT)
    | {"energies": _TABLE},
}


def train(
    settings: Mapping[str, Any],
    *,
    folder: str | os.PathLike[str] = ".",
    progress: ProgressMeter | bool | None = None,
) -> Fit:
    """Train as settings say, and write the results to their folder.

    These are `potential.gauntax` (the model of the lowest validation loss), `log.csv`,
    `errors.json`, `training.png`, `parity.png` (where matplotlib is installed) and `checkpoints`,
    from which the same call goes on.

    Args:
        settings: what a configuration file holds; see the documentation.
        folder: to which paths are relative.
        progress: as for `tensornet.training.fit`.

    Raises:
        FileNotFoundError: a file of the data is not there.
        ValueError: an entry that is unknown, missing or not what it must be, or what `fit` refuses.
    """
    _check(settings)
    place, data = Path(folder), dict(settings.get("data", {}))
    if "train" not in data:
        raise ValueError("data.train: expected the path of a file, got none")
    names = {name: data[name] for name in ("energy", "forces", "stress") if name in data}
    seed = int(settings.get("seed", 0))
    frames = read_frames(place / data["train"], **names)
    held = data.get("validation", 0.1)
    if isinstance(held, str):
        validation = read_frames(place / held, **names)
    else:
        frames, validation = hold_out(frames, held, seed)
    config = _config(dict(settings.get("model", {})), frames + validation, frames)
    options = dict(settings.get("training", {}))
    given = {name: options.pop(f"{name}_weight") for name in Weights._fields
             if f"{name}_weight" in options}  # fmt: skip
    if "energies" in options:
        options["energies"] = _by_species(options["energies"], config.species)
    out = place / settings.get("folder", "potential")
    out.mkdir(parents=True, exist_ok=True)
    result = fit(
        config,
        frames,
        key=jax.random.key(seed),
        validation=validation,
        weights=Weights(**given),
        checkpoint=out / "checkpoints",
        log=out / "log.csv",
        progress=progress,
        **options,
    )
    save_potential(out / "potential.gauntax", result.best_model)
    sets = {"training": frames, "validation": validation}
    sets |= {Path(p).stem: read_frames(place / p, **names) for p in data.get("test", ())}
    made = {name: evaluate(result.best_model, some) for name, some in sets.items()}
    errors = {name: one.errors for name, one in made.items()}
    (out / "errors.json").write_text(json.dumps(errors, indent=1) + "\n", encoding="utf-8")
    draw(out, result, sets, made)
    return result


def hold_out(
    frames: Sequence[Frame], number: float | int, seed: int
) -> tuple[list[Frame], list[Frame]]:
    """Return frames to learn from, and so many to judge by (a share, where it is below 1).

    The latter are the first of `numpy.random.default_rng(seed).permutation`.

    Raises:
        ValueError: none, or none left.
    """
    count = round(number * len(frames)) if number < 1 else int(number)
    if not 1 <= count < len(frames):
        raise ValueError(
            f"data.validation: expected between 1 and {len(frames) - 1} frames of {len(frames)}, "
            f"got {number}"
        )
    order = np.random.default_rng(seed).permutation(len(frames))
    return [frames[n] for n in order[count:]], [frames[n] for n in order[:count]]


def draw(
    out: Path, result: Fit | None, sets: Mapping[str, Sequence[Frame]], made: Mapping[str, Any]
) -> list[Path]:
    """Draw learning curves and predictions against labels; nothing without matplotlib."""
    told = {name: labels(frames) for name, frames in sets.items()}
    paths = [out / "parity.png"]
    pairs = [
        {n: (told[n][quantity], getattr(made[n], quantity)) for n in sets}
        for quantity in ("energy", "forces")
    ]
    try:
        axes = plot.parity({"energy": pairs[0], "force component": pairs[1]})
    except ImportError:
        return []
    axes[0].figure.savefig(paths[0], dpi=110)
    if result is not None:
        paths.append(out / "training.png")
        plot.history(result).figure.savefig(paths[1], dpi=110)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m equivariant.potential")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train as a TOML file says; a stopped run goes on")
    one.add_argument("settings", type=Path)
    two = commands.add_parser("evaluate", help="tell errors of a trained potential")
    two.add_argument("model", type=Path)
    two.add_argument("frames", type=Path, nargs="+")
    for name in ("energy", "forces", "stress"):
        two.add_argument(f"--{name}", default=name, help=f"name of the {name} in the files")
    options = parser.parse_args(arguments)
    try:
        if options.command == "train":
            settings = tomllib.loads(options.settings.read_text(encoding="utf-8"))
            folder = options.settings.parent
            train(settings, folder=folder, progress=True)
            out = folder / settings.get("folder", "potential")
            errors = json.loads((out / "errors.json").read_text(encoding="utf-8"))
        else:
            trained = load_potential(options.model)
            errors = {}
            for path in options.frames:
                names = {n: getattr(options, n) for n in ("energy", "forces", "stress")}
                errors[path.stem] = _evaluated(trained, read_frames(path, **names)).errors
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(error_table(errors) + "\n")
    return 0


def _evaluated(trained: TrainedPotential, frames: Sequence[Frame]) -> Evaluation:
    made = evaluate(trained, frames)
    if not made.errors:
        raise ValueError("frames: expected labels to compare with, got none")
    return made


def _check(settings: Mapping[str, Any]) -> None:
    """Require known names, and for each a value of a kind that it may have."""
    for section, known in _KNOWN.items():
        given = settings if not section else settings.get(section, {})
        for name, value in given.items():
            where = f"{section}.{name}" if section else name
            if name not in known:
                raise ValueError(f"{where}: expected one of {sorted(known)}, got {name!r}")
            if isinstance(value, bool) or not isinstance(value, known[name]):
                kinds = " or ".join(_KINDS[kind] for kind in known[name])
                raise ValueError(f"{where}: expected {kinds}, got {value!r}")


def _config(options: dict[str, Any], every: Sequence[Frame], frames: Sequence[Frame]) -> Config:
    species = options.pop("species", None)
    if species is None:
        species = species_of(every)
    else:
        species = tuple(SYMBOLS.index(z) if z in SYMBOLS else z for z in species)
    config = with_statistics(Config(species, **options), frames)
    kept = {name: options[name] for name in ("neighbours", "scale") if name in options}
    return dataclasses.replace(config, **kept)


def _by_species(energies: Mapping[str, float], species: Sequence[int]) -> list[float]:
    missing = [SYMBOLS[z] for z in species if SYMBOLS[z] not in energies]
    if missing:
        raise ValueError(f"training.energies: expected one of every species, got none of {missing}")
    return [float(energies[SYMBOLS[z]]) for z in species]
