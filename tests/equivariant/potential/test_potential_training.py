"""Training of a potential: that it learns, goes on after a crash, spreads over devices, refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from potential_runs import ISOLATED, SMALL, frames

from equivariant.potential import Potential, TrainedPotential, Weights, config_for, evaluate, fit
from equivariant.potential.batches import Shuffled, examples_of, in_order
from equivariant.potential.training import trained_leaves

pytestmark = pytest.mark.slow

KEY = jax.random.key(3)
ADAM, SGD = optax.adam(0.02), optax.sgd(0.02)  # one object each: compiled loops are found by them


def examples(some, **options):
    energies = [ISOLATED[z] for z in (1, 8)]
    return examples_of(some, species=(1, 8), cutoff=3.0, energies=energies, **options)


def run(some=None, **changes):
    arguments = {"key": KEY, "steps": 12, "batch_size": 4, "optimizer": ADAM, "ema": 0.9}
    return fit(SMALL, frames() if some is None else some, **arguments | changes)


def weights(model):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model)]


class CrashError(Exception):
    pass


def crash(report):
    if report.step >= 6:
        raise CrashError


def test_it_learns_and_goes_on_after_a_crash_to_the_same_weights(tmp_path):
    held = frames(6, seed=1)
    options = {"steps": 150, "validation": held, "validate_every": 6, "learning_rate": 0.02}
    options["optimizer"] = None
    whole = run(**options)
    folder = tmp_path / "run"
    with pytest.raises(CrashError):
        run(**options, checkpoint=folder, checkpoint_every=4, callback=crash)
    resumed = run(**options, checkpoint=folder)
    for name in ("model", "best_model", "average_model"):
        assert weights(getattr(resumed, name)) == weights(getattr(whole, name))
    np.testing.assert_array_equal(resumed.history.loss, whole.history.loss)
    # Compositions differ, so that least squares tells the two species apart, but for the bonds.
    assert abs(whole.model.energies[1] - ISOLATED[8]) < 10
    errors = evaluate(whole.best_model, held).errors
    spread = np.sqrt(np.mean(np.concatenate([f.forces for f in held]) ** 2))
    assert errors["forces rmse"] < 0.5 * spread
    # What validation said on the way is what an evaluation says now.
    at = list(whole.history.validation_steps).index(whole.best_step)
    for name, other in (("forces rmse", "forces rmse"), ("energy rmse", "energy per atom rmse")):
        np.testing.assert_allclose(whole.history.validation[name][at], errors[other], rtol=1e-3)


def test_the_scale_and_lone_atoms_stay(tmp_path):
    model = Potential(dataclasses.replace(SMALL, scale=2.5), key=KEY)
    result = fit(model, frames(8), key=KEY, steps=2, batch_size=4, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(result.model.potential.scale_shift.scale, [2.5, 2.5])
    chosen = trained_leaves(model)
    assert not any(jax.tree.leaves(chosen.scale_shift))
    assert chosen.embedding
    other = frames(8, seed=5)
    options = {"key": KEY, "steps": 2, "batch_size": 4, "checkpoint": tmp_path / "run"}
    with pytest.raises(ValueError, match=r"is of another run: .*hyperparameters frames: expected"):
        fit(model, other, **options)
    with pytest.raises(ValueError, match=r"is of another run: hyperparameters config order"):
        fit(dataclasses.replace(SMALL, scale=2.5, order=1), frames(8), **options)


def test_devices_share_a_batch_and_the_losses_are_the_same():
    # Plain descent: Adam's first steps go by the sign of what may be rounding.
    options = {"steps": 3, "optimizer": SGD}
    some = frames(16)
    expected = run(some, **options).history
    for devices in (2, 4):
        mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices])
        got = run(some, **options, mesh=mesh).history
        for name, values in expected.train.items():
            np.testing.assert_allclose(got.train[name], values, rtol=1e-6)
    assert abs(expected.loss[2] / expected.loss[0] - 1) > 1e-3
    with pytest.raises(ValueError, match="batch_size: expected a multiple of 4 devices, got 6"):
        run(some, batch_size=6, mesh=mesh)


def test_stress_is_learned_where_it_has_a_weight():
    cell = np.diag([4.0, 4.2, 4.4])
    some = frames(8, cell=cell)
    told = Weights(energy=0, forces=0, stress=2)
    start = Potential(SMALL, key=KEY)
    options = {"key": KEY, "batch_size": 8, "optimizer": optax.sgd(1.0), "weights": told}
    result = fit(start, some, steps=10, **options)
    first = evaluate(TrainedPotential(start, result.model.energies), some).errors["stress rmse"]
    history = result.history
    np.testing.assert_allclose(history.train["stress rmse"][0], first, rtol=1e-4)
    np.testing.assert_allclose(history.loss[0], 2 * first**2, rtol=1e-4)
    assert history.loss[-1] < history.loss[0]
    with pytest.raises(ValueError, match=r"frames\[0\]: expected stress, got none"):
        run(weights=told)


def test_every_frame_comes_once_an_epoch_in_few_sizes():
    some = examples(frames(23))
    source = Shuffled(some, 4, cutoff=3.0, seed=[7])
    assert source.per_epoch == 5
    assert len(source.sizes) <= 2
    for epoch in range(2):
        batches = [source(5 * epoch + n) for n in range(5)]
        assert {batch.graph.sizes for batch in batches} <= set(source.sizes)
        seen = np.concatenate([b.energy[:4] for b in batches])
        known = [np.float32(e.energy) for e in some]
        assert len(set(seen)) == 20
        assert set(seen) <= set(known)
    again = Shuffled(some, 4, cutoff=3.0, seed=[7])(8)
    np.testing.assert_array_equal(again.graph.positions, source(8).graph.positions)
    assert np.any(source(0).energy != source(5).energy)
    held = in_order(some, 4, cutoff=3.0)
    assert len({batch.graph.sizes for batch in held}) == 1
    np.testing.assert_array_equal(
        np.concatenate([b.energy[np.asarray(b.graph.real)] for b in held]), known
    )


def test_large_energies_of_atoms_cost_no_digits():
    """The oxygen's 2041 eV are taken off in double precision before single begins."""
    batch = in_order(examples(frames(4), dtype=jnp.float32), 4, cutoff=3.0)[0]
    exact = [f.energy - sum(ISOLATED[int(z)] for z in f.numbers) for f in frames(4)]
    np.testing.assert_allclose(batch.energy[:4], exact, rtol=1e-6)


def test_statistics_of_the_data():
    some = frames(12)
    config = config_for(some, cutoff=3.0, channels=2)
    close = [
        np.sum(np.linalg.norm(f.positions[:, None] - f.positions, axis=-1) < 3) - len(f.positions)
        for f in some
    ]
    np.testing.assert_allclose(config.neighbours, sum(close) / sum(len(f.numbers) for f in some))
    forces = np.concatenate([f.forces for f in some])
    np.testing.assert_allclose(config.scale, np.sqrt((forces**2).mean()))
    assert config.species == (1, 8)


def test_refusals():
    some = frames(6)
    bad = np.array(some[2].positions)
    bad[1, 0] = np.nan
    twice = np.array(some[2].positions)
    twice[1] = twice[0]
    cases = [
        ([some[0], some[2]._replace(positions=bad)], r"frames\[1\]: positions: expected finite"),
        ([some[2]._replace(positions=twice)], r"frames\[0\]: positions: .* 0 and 1 on one spot"),
        ([some[0]._replace(numbers=np.array([8, 1, 6]))], r"frames\[0\]: expected species among"),
        ([some[0]._replace(forces=None)], r"frames\[0\]: expected forces, got none"),
        ([some[0]._replace(energy=None)], r"frames\[0\]: expected energy, got none"),
        ([], "frames: expected at least one, got none"),
    ]
    for broken, message in cases:
        with pytest.raises(ValueError, match=message):
            run(broken, batch_size=1)
    with pytest.raises(ValueError, match=r"batch_size: expected between 1 and 6 \(the frames\)"):
        run(some, batch_size=7)
    with pytest.raises(ValueError, match="steps, epochs: expected one of them, got 12 and 3"):
        run(some, epochs=3)
    with pytest.raises(ValueError, match="weights: expected none negative"):
        run(some, weights=Weights(0, 0, 0))
    with pytest.raises(ValueError, match="learning_rate: expected above 0, got -1"):
        run(some, learning_rate=-1.0)
    with pytest.raises(ValueError, match="energies: expected one for each of 2 species, got 1"):
        run(some, energies=[0.0])


def test_isolated_atoms_among_the_frames():
    """They have no edges, and their forces need not be told."""
    lone = [
        f._replace(numbers=f.numbers[:1], positions=f.positions[:1], forces=None, energy=-2041.0)
        for f in frames(2)
    ]
    result = run([*frames(4), *lone], steps=2, batch_size=2)
    assert np.isfinite(result.history.loss).all()
    made = evaluate(result.model, lone)
    assert not np.any(made.forces)
    assert made.energy[0] == made.energy[1]
