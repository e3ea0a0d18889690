"""The command: from a TOML file to a model and its errors; killed and started again; refusals."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from potential_runs import ISOLATED, SMALL, frames, write

from equivariant.potential import (
    Config,
    Potential,
    TrainedPotential,
    command,
    energies,
    evaluate,
    graph_of,
    load_potential,
    read_frames,
    save_potential,
)
from equivariant.potential.command import main, train
from tensornet.io import FileFormatError

pytestmark = pytest.mark.slow

SETTINGS = """
seed = 3
folder = "{folder}"
[data]
train = "train.xyz"
validation = 4
test = ["other.xyz"]
[model]
cutoff = 3.0
channels = 4
layers = 1
order = 2
functions = 4
width = 6
[training]
steps = {steps}
batch_size = 4
validate_every = 10
checkpoint_every = 10
energy_weight = 2
"""


@pytest.fixture
def place(tmp_path):
    write(tmp_path / "train.xyz", frames(20))
    write(tmp_path / "other.xyz", frames(5, seed=1))
    (tmp_path / "small.toml").write_text(SETTINGS.format(folder="small", steps=20))
    return tmp_path


def test_train_and_evaluate(place, capsys):
    assert main(["train", str(place / "small.toml")]) == 0
    out = capsys.readouterr()
    assert "forces rmse" in out.err
    errors = json.loads((place / "small" / "errors.json").read_text())
    assert list(errors) == ["training", "validation", "other"]
    rows = list(csv.DictReader((place / "small" / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["10", "20"]
    assert "validation forces rmse" in rows[0]
    model = place / "small" / "potential.gauntax"
    assert main(["evaluate", str(model), str(place / "other.xyz")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"{1000 * errors['other']['forces rmse']:.2f}" in told[1]
    # Against a direct computation from the model.
    trained, some = load_potential(model), read_frames(place / "other.xyz")
    gaps = []
    for f in some:
        graph = graph_of(f.positions, f.numbers, cutoff=3.0, species=(1, 8))
        energy = float(energies(trained, graph)[0]) + trained.isolated(f.numbers)
        gaps.append(energy - f.energy)
    np.testing.assert_allclose(errors["other"]["energy mae"], np.mean(np.abs(gaps)), rtol=1e-3)


def test_killed_by_force_it_goes_on_to_the_same_weights(place):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}

    def start(name):
        settings = place / f"{name}.toml"
        settings.write_text(SETTINGS.format(folder=name, steps=300))
        command = [sys.executable, "-m", "equivariant.potential", "train", str(settings)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)

    process = start("killed")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if list((place / "killed" / "checkpoints").glob("step-*.ckpt")):
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (place / "killed" / "potential.gauntax").exists()
    for name in ("killed", "whole"):
        process = start(name)
        _, error = process.communicate()
        assert process.returncode == 0, error
    one, two = (place / name / "potential.gauntax" for name in ("killed", "whole"))
    assert one.read_bytes() == two.read_bytes()


def test_files_of_models(tmp_path):
    trained = TrainedPotential(Potential(SMALL, key=jax.random.key(1)), (-13.5, -2041.25))
    path = tmp_path / "potential.gauntax"
    save_potential(path, trained)
    again = load_potential(path)
    assert (again.config, again.energies) == (trained.config, trained.energies)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(x, y)
    with jax.enable_x64(True):
        kept = load_potential(path)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(kept)} == {"float32"}
    some = frames(3)
    one, two = evaluate(trained, some), evaluate(again, some)
    np.testing.assert_array_equal(one.energy, two.energy)
    assert dict(zip(again.config.species, again.energies, strict=True)) == ISOLATED
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileFormatError, match=r"potential\.gauntax: expected"):
        load_potential(path)


def test_every_entry_of_a_config_can_be_set():
    fields = {field.name for field in dataclasses.fields(Config)}
    assert set(command._KNOWN["model"]) == fields - {"energies"}  # these are added on the host


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels", "chanels", "model.chanels: expected one of"),
        ("seed", "sead", "sead: expected one of"),
        ("validation = 4", "validation = 20", "data.validation: expected between 1 and 19 frames"),
        ('train = "train.xyz"', "", "data.train: expected the path of a file, got none"),
        ("train.xyz", "none.xyz", "none.xyz"),
        ("cutoff = 3.0", "species = [1]\ncutoff = 3.0", r"expected species among \[1\], got \[8\]"),
        ("[training]", "[training]\nenergies = {H = 0.0}", r"got none of \['O'\]"),
        ("[training]", "[training]\nenergies = 3", "training.energies: expected a table, got 3"),
        ("channels = 4", "channels = '4'", "model.channels: expected an integer, got '4'"),
        ("channels = 4", "channels = true", "model.channels: expected an integer, got True"),
        ("cutoff = 3.0", "cutoff = '3'", "model.cutoff: expected an integer or a number, got '3'"),
        ("validation = 4", "validation = [4]", "data.validation: expected an integer or a number"),
        ("batch_size = 4", "batch_size = 4.5", "training.batch_size: expected an integer, got 4.5"),
    ],
)
def test_bad_settings_are_refused(place, capsys, old, new, message):
    import tomllib

    text = SETTINGS.format(folder="small", steps=20).replace(old, new, 1)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(tomllib.loads(text), folder=place)
    (place / "bad.toml").write_text(text)
    assert main(["train", str(place / "bad.toml")]) == 1
    assert "Traceback" not in capsys.readouterr().err
