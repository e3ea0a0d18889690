"""Training of potentials on energies, forces and stresses, by the common loop."""

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from tensornet import training
from tensornet.training import Fit

from ..nn import isolated_atom_energies
from .batches import Batch, Example, Shuffled, examples_of, in_order
from .frames import Frame, check_labels, composition, species_of
from .losses import Weights, loss_of
from .model import Config, Potential
from .neighbours import neighbours
from .optimizer import muon
from .trained import TrainedPotential


def fit(
    model: Potential | Config,
    frames: Sequence[Frame],
    *,
    key: PRNGKeyArray,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 5,
    validation: Sequence[Frame] | None = None,
    weights: Weights | None = None,
    energies: Sequence[float | int] | None = None,
    learning_rate: float | int = 1e-2,
    optimizer: optax.GradientTransformation | None = None,
    ema: float | None = 0.99,
    mesh: Mesh | None = None,
    dtype: Any = None,
    **options: Any,
) -> Fit:
    """Train a potential.

    Args:
        model: or what to make one of; its weights are then drawn.
        frames: to learn from.
        key: all randomness comes from it.
        steps: how many to take.
        epochs: or how often to go through the frames.
        batch_size: frames per step.
        validation: more frames; root mean squares of their errors are recorded.
        weights: of the loss's terms; `Weights()` by default.
        energies: of isolated atoms, one of each species; by default what explains the energies
            of the frames best.
        learning_rate: of `muon` after its first steps; it falls to a hundredth as a cosine.
        optimizer: from optax, in place of that.
        ema: decay of the moving average of the weights, which is what validation looks at.
        mesh: of one axis, over whose devices each batch is spread.
        dtype: of the computation, jax's default float if left out.
        options: those of `tensornet.training.fit`: `checkpoint` for one, with which a run that was
            killed goes on to the same weights.

    Returns:
        The `Fit`; its models are `TrainedPotential`s.

    Raises:
        TypeError, ValueError: an argument is not what it must be, frames that cannot be used or
            lack a label, a checkpoint of another run. The message says which.
    """
    weights = Weights() if weights is None else weights
    if min(weights) < 0 or not any(weights):
        raise ValueError(f"weights: expected none negative and one above zero, got {weights}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate: expected above 0, got {learning_rate}")
    needed = {"forces": weights.forces > 0, "stress": weights.stress > 0}
    frames = check_labels(frames, **needed)
    config = model if isinstance(model, Config) else model.config
    if energies is None:
        counts = composition(frames, config.species)
        energies = list(isolated_atom_energies(counts, [f.energy for f in frames]))
    elif len(energies) != len(config.species):
        raise ValueError(
            f"energies: expected one for each of {len(config.species)} species, got {len(energies)}"
        )
    base = tuple(float(e) for e in energies)
    first, second = jax.random.split(key)
    start = Potential(config, key=first) if isinstance(model, Config) else model
    place = {"species": config.species, "cutoff": config.cutoff, "energies": base, "dtype": dtype}
    examples = examples_of(frames, **place)
    seed = np.asarray(jax.random.key_data(jax.random.fold_in(second, 0))).tolist()
    source = Shuffled(examples, batch_size, cutoff=config.cutoff, seed=seed, mesh=mesh)
    if (steps is None) == (epochs is None):
        raise ValueError(f"steps, epochs: expected one of them, got {steps} and {epochs}")
    total = steps if steps is not None else (epochs or 0) * source.per_epoch
    facts: dict[str, Any] = {
        "config": dataclasses.asdict(config), "weights": list(weights), "energies": list(base),
        "batch_size": batch_size, "frames": _digest(examples),
        "dtype": str(examples[0].graph.positions.dtype),
    }  # fmt: skip
    if optimizer is None:
        optimizer = _muon(learning_rate, total)
        facts |= {"learning_rate": learning_rate, "steps": total}
    judge = None
    if validation is not None:
        held = examples_of(check_labels(validation, **needed), **place)
        facts["validation"] = _digest(held)
        judge = _judge(weights, in_order(held, batch_size, cutoff=config.cutoff))
    result = training.fit(
        start,
        loss_of(weights, mesh is not None),
        source,
        key=second,
        optimizer=optimizer,
        steps=total,
        trainable=trained_leaves(start),
        validation=judge,
        ema=ema,
        hyperparameters=facts | dict(options.pop("hyperparameters", {})),
        validate_every=options.pop("validate_every", source.per_epoch),
        **options,
    )
    models = ("model", "best_model", "average_model")
    made = {name: getattr(result, name) for name in models}
    return dataclasses.replace(
        result,
        **{k: None if m is None else TrainedPotential(m, base) for k, m in made.items()},
    )


def trained_leaves(potential: Potential) -> Any:
    """Return which leaves are trained: all floats but the scale, and the energies of lone atoms."""
    chosen = jax.tree.map(eqx.is_inexact_array, potential)
    fixed = jax.tree.map(lambda _: False, potential.scale_shift)
    return eqx.tree_at(lambda m: m.scale_shift, chosen, fixed)


def with_statistics(config: Config, frames: Sequence[Frame]) -> Config:
    """Return the config with the mean number of neighbours, and the forces' size as its scale.

    Raises:
        ValueError: as for `fit`.
    """
    frames = check_labels(frames, forces=True, stress=False)
    composition(frames, config.species)
    sample = frames[:: max(1, len(frames) // 32)]
    edges = sum(
        len(neighbours(f.positions, config.cutoff, cell=f.cell, periodic=f.periodic).senders)
        for f in sample
    )
    forces = np.concatenate([np.asarray(f.forces) for f in frames])
    return dataclasses.replace(
        config,
        neighbours=max(edges / sum(len(f.numbers) for f in sample), 1.0),
        scale=float(np.sqrt(np.mean(forces**2))) or 1.0,
    )


def config_for(frames: Sequence[Frame], **options: Any) -> Config:
    """Return a config for the species of frames, `with_statistics`, and with other options."""
    return with_statistics(Config(species_of(frames), **options), frames)


@lru_cache(maxsize=64)
def _muon(learning_rate: float | int, steps: int) -> optax.GradientTransformation:
    """Return Muon with a short rise and a cosine to a hundredth."""
    steps = max(steps, 2)
    schedule = optax.warmup_cosine_decay_schedule(
        learning_rate / 10, learning_rate, min(100, steps // 2), steps, learning_rate / 100
    )
    return muon(schedule)


@lru_cache(maxsize=64)
def _compiled(weights: Weights) -> Any:
    return eqx.filter_jit(loss_of(weights))


def _judge(weights: Weights, batches: list[Batch]) -> Any:
    """Return what gives a model its figures: means over all batches, by size of these."""
    loss = _compiled(weights)
    shares = np.array([int(b.graph.real.sum()) for b in batches], float)
    shares /= shares.sum()

    def ask(model: Potential) -> tuple[float, dict[str, float]]:
        figures = [loss(model, batch, None)[1] for batch in batches]
        squares = {
            name: float(sum(s * float(f[name]) ** 2 for s, f in zip(shares, figures, strict=True)))
            for name in figures[0]
        }
        total = sum(getattr(weights, name.split()[0]) * x for name, x in squares.items())
        return total, {name: x**0.5 for name, x in squares.items()}

    return ask


def _digest(examples: Sequence[Example]) -> str:
    """Return a hash of structures and labels, for a fingerprint."""
    sha256 = hashlib.sha256()
    for example in examples:
        for leaf in jax.tree.leaves(example):
            sha256.update(np.ascontiguousarray(leaf).tobytes())
    return sha256.hexdigest()
