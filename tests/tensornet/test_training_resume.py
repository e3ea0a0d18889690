"""Training that is killed, cut, continued, or spread over devices."""

import csv
import logging
import os
import random
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import (
    ADAM,
    KEY,
    CrashError,
    bits,
    crash_at,
    linear,
    noisy,
    rows,
    run_with,
    squares,
)

from tensornet.status import Status
from tensornet.training import Interrupted, Traced, fit

# The fixture `dtype` has the last word.
pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

# Resume.


@pytest.mark.parametrize("source", ["rows", "host", "traced"])
def test_resume_is_exact_in_all_that_a_run_determines(tmp_path, source):
    def batch(_step, key):
        x = jax.random.normal(key, (6, 3))
        return {"x": x, "y": x @ jnp.arange(1.0, 4.0)}

    arguments = {
        "data": {"rows": rows(), "host": batch, "traced": Traced(batch)}[source],
        "batch_size": 5 if source == "rows" else None,
        "key": KEY,
        "optimizer": ADAM,
        "steps": 90,
        "ema": 0.9,
        "validation": rows(10),
        "validation_batch_size": 10,
        "validate_every": 9,
    }
    whole = fit(linear(), noisy, **arguments)
    folder = tmp_path / "run"
    for crash in (20, 50, 77):
        with pytest.raises(CrashError):
            fit(
                linear(),
                noisy,
                **arguments,
                checkpoint=folder,
                checkpoint_every=6,
                callback=crash_at(crash),
            )
        assert len(list(folder.iterdir())) == 2
    resumed = fit(linear(), noisy, **arguments, checkpoint=folder)
    assert bits(resumed) == bits(whole)
    assert (resumed.step, resumed.best_step) == (whole.step, whole.best_step)
    # What is finished is returned as it was, without another step.
    again = fit(linear(), noisy, **arguments, checkpoint=folder, callback=crash_at(0))
    assert bits(again) == bits(whole)
    # And may go on.
    longer = {**arguments, "steps": 120}
    assert (
        bits(fit(linear(), noisy, **longer, checkpoint=folder))[0]
        == bits(fit(linear(), noisy, **longer))[0]
    )


def test_a_run_that_was_not_finite_resumes_before_that(tmp_path):
    """No checkpoint holds the bad step, so a resumed run tries it again."""

    def loss(model, batch, _key):
        return jnp.where(batch["i"][0] == 17, jnp.inf, jnp.sum(model.w**2))

    data = Traced(lambda step, _key: {"i": step[None]})
    arguments = {"key": KEY, "optimizer": ADAM, "checkpoint": tmp_path, "checkpoint_every": 5}
    for _ in range(2):
        result = fit(linear(), loss, data, **arguments, steps=40)
        assert (result.step, result.status == Status.non_finite) == (17, True)
        assert len(result.history.loss) == 18
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["step-000000000010.ckpt", "step-000000000015.ckpt"]


PROGRAM = """
import sys, time
import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax
from tensornet import save
from tensornet.training import fit

jax.config.update("jax_enable_x64", True)
out, folder = sys.argv[1], sys.argv[2] or None
x = np.random.default_rng(0).normal(size=(200, 8))
data = (x, np.sin(x).sum(axis=1))

def loss(model, batch, key):
    x, y = batch
    x = x + 0.1 * jax.random.normal(key, (8,))
    return jnp.mean((jnp.tanh(x @ model["in"]) @ model["out"] - y) ** 2)

model = {"in": jnp.eye(8, 16) / 3, "out": jnp.linspace(-1, 1, 16)}
schedule = optax.cosine_decay_schedule(1e-2, 1000)
result = fit(model, loss, data, key=jax.random.key(1),
             optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule)),
             steps=1000, batch_size=32, ema=0.99, validation=data, validation_batch_size=200,
             validate_every=20, checkpoint=folder, checkpoint_every=20,
             callback=lambda _: time.sleep(0.03))
save(out, [result.model, result.best_model, result.average_model,
           result.history.loss, result.history.validation["loss"]])
"""


def test_killed_and_resumed_ends_bit_for_bit_where_a_whole_run_does(tmp_path):
    """SIGKILL at random times, then resume: float64 on the CPU, in processes of their own."""
    folder = tmp_path / "run"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # each process compiles for itself

    def start(name, checkpoints):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / name), checkpoints],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def newest():
        return max((path.name for path in folder.glob("*.ckpt")), default="")

    whole = start("whole", "")
    process = start("killed", str(folder))
    deadline = time.monotonic() + 120
    while not newest() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    delay = random.uniform(0, 0.5)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"ended before it was killed: {error}"
    assert not (tmp_path / "killed").exists()
    resumed_from = newest()
    assert resumed_from
    for process in (start("resumed", str(folder)), whole):
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    expected, got = ((tmp_path / name).read_bytes() for name in ("whole", "resumed"))
    assert expected == got, f"resumed from {resumed_from}, killed after {delay}"


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_loads(tmp_path, caplog, damage):
    whole = run_with(tmp_path)
    old, new = sorted((tmp_path / "run").iterdir())
    assert [old.name, new.name] == ["step-000000000020.ckpt", "step-000000000030.ckpt"]
    good = new.read_bytes()
    middle = len(good) // 2
    broken = {
        "cut": good[:middle],
        "flip": good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :],
        "empty": b"",
        "foreign": b"PK\x03\x04",
    }[damage]
    new.write_bytes(broken)
    steps = []
    with caplog.at_level(logging.WARNING, logger="tensornet.training"):
        again = run_with(
            tmp_path, validate_every=1, callback=lambda report: steps.append(report.step)
        )
    assert "refused a checkpoint" in caplog.text
    assert "step-000000000030.ckpt: expected" in caplog.text
    assert steps == list(range(21, 31))
    assert bits(again) == bits(whole)
    assert new.read_bytes() == good
    # Both damaged: from the start, and said so.
    caplog.clear()
    for path in (old, new):
        path.write_bytes(broken)
    assert bits(run_with(tmp_path)) == bits(whole)
    assert "starting from step 0" in caplog.text


def test_checkpoints_by_the_clock(tmp_path, monkeypatch):
    """Without a number of steps they come by the clock, which cannot change the weights."""
    arguments = {"checkpoint_every": None, "validate_every": 3}
    whole = run_with(tmp_path, **arguments)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-000000000030.ckpt"]
    arguments["checkpoint"] = tmp_path / "clock"
    monkeypatch.setattr("tensornet.training.run._SECONDS_PER_CHECKPOINT", 0.0)
    with pytest.raises(CrashError):
        run_with(tmp_path, **arguments, callback=crash_at(20))
    assert len(list((tmp_path / "clock").iterdir())) == 2
    assert bits(run_with(tmp_path, **arguments)) == bits(whole)


def test_leftovers_of_a_killed_write_are_swept(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".step-000000000010.ckpt.123.abcd.tmp").write_bytes(b"half")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    run_with(tmp_path)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["notes.txt", "step-000000000020.ckpt", "step-000000000030.ckpt"]


def test_another_runs_checkpoint_is_refused(tmp_path):
    run_with(tmp_path, hyperparameters={"rate": 0.05})
    same = {"hyperparameters": {"rate": 0.05}}
    for changes, message in [
        ({"batch_size": 6, **same}, "batch_size: expected 6, got 5"),
        ({"hyperparameters": {"rate": 0.1}}, "hyperparameters rate: expected 0.1, got 0.05"),
        ({"key": jax.random.key(8), **same}, r"key: expected \[0, 8\], got \[0, 7\]"),
        ({"ema": 0.5, **same}, "ema: expected 0.5, got None"),
        (
            {"model": linear(size=2), "data": rows(size=2), **same},
            r"data\['x'\]: expected float64\[24, 2\], got float64\[24, 3\]",
        ),
        ({"data": rows(25), **same}, r"expected float64\[25, 3\], got float64\[24, 3\]"),
        ({"model": linear(jnp.float32), **same}, r"model\.w: expected float32\[3\], got float64"),
        (
            {"model": eqx.tree_at(lambda m: m.count, linear(), jnp.asarray(6)), **same},
            "rest of the model: expected [0-9a-f]{64}, got [0-9a-f]{64}",
        ),
        ({"optimizer": optax.sgd(0.1), **same}, r"optimizer.*: expected none, got float64\[3\]"),
    ]:
        with pytest.raises(ValueError, match=rf"is of another run: .*{message}.*resume=False"):
            run_with(tmp_path, **changes)


def test_resume_false_starts_again(tmp_path):
    run_with(tmp_path)
    other = run_with(tmp_path, batch_size=6, resume=False, steps=12)
    assert other.step == 12
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["step-000000000010.ckpt", "step-000000000012.ckpt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="checkpoint: expected a folder, got the file"):
        run_with(tmp_path, checkpoint=tmp_path / "file")


@pytest.fixture
def ctrl_c():
    """Have Ctrl-C interrupt, as in a terminal; a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_finishes_the_step_and_writes_a_checkpoint(tmp_path, ctrl_c):
    whole = run_with(tmp_path, checkpoint=None)

    def press(report):
        if report.step == 13:
            signal.raise_signal(signal.SIGINT)

    for folder in (None, tmp_path / "run"):
        with pytest.raises(KeyboardInterrupt) as caught:
            run_with(tmp_path, checkpoint=folder, validate_every=1, callback=press)
        assert isinstance(caught.value, Interrupted)
        assert caught.value.fit.step == 13
        thirteen = run_with(tmp_path, checkpoint=None, steps=13)
        assert bits(caught.value.fit) == bits(thirteen)
        assert signal.getsignal(signal.SIGINT) is ctrl_c
    assert (tmp_path / "run" / "step-000000000013.ckpt").exists()
    assert bits(run_with(tmp_path)) == bits(whole)

    def press_twice(_report):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        run_with(tmp_path, checkpoint=None, validate_every=1, callback=press_twice)
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_log_is_continued(tmp_path):
    log = tmp_path / "log.csv"
    arguments = {"validation": rows(10), "validate_every": 4, "log": log}

    def read():
        with log.open(newline="") as file:
            return [
                {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
            ]

    result = run_with(tmp_path, **arguments)
    whole = read()
    assert list(whole[0]) == ["step", "loss", "validation loss", "validation largest"]
    assert [int(row["step"]) for row in whole] == [4, 8, 12, 16, 20, 24, 28, 30]
    losses = [float(row["validation loss"]) for row in whole]
    np.testing.assert_array_equal(losses, result.history.validation["loss"])
    np.testing.assert_allclose(float(whole[0]["loss"]), result.history.loss[:4].mean(), rtol=1e-14)
    arguments["checkpoint"] = tmp_path / "crashing"
    with pytest.raises(CrashError):
        run_with(tmp_path, **arguments, callback=crash_at(16))
    with log.open("a") as file:
        file.write("99,0.1")  # cut by the kill
    run_with(tmp_path, **arguments)
    assert read() == whole


# Devices.


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_rows_spread_over_devices(kind):
    """Batches lie as the rows do, and the numbers are those of one device."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType[kind],))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("data"))
    spread, held_out = jax.device_put(jax.tree.map(jnp.asarray, (rows(), rows(28))), sharding)
    seen = []

    def loss(model, batch, _key):
        seen.append(jax.typeof(batch["x"]).sharding.spec)
        if kind == "Auto":
            jax.debug.inspect_array_sharding(batch["x"], callback=lambda s: seen.append(s.spec))
        return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)

    arguments = {"key": KEY, "optimizer": ADAM, "steps": 20, "validation_batch_size": 8}
    one = fit(linear(), squares, rows(), **arguments, batch_size=8, validation=rows(28))
    many = fit(linear(), loss, spread, **arguments, batch_size=8, validation=held_out)
    np.testing.assert_allclose(many.model.w, one.model.w, rtol=1e-13)
    got, expected = many.history.validation["loss"], one.history.validation["loss"]
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    assert any(spec and spec[0] == "data" for spec in seen)
    with pytest.raises(ValueError, match=r"batch_size: expected a multiple of the devices.*got 6"):
        fit(linear(), loss, spread, key=KEY, optimizer=ADAM, steps=2, batch_size=6)


def test_spread_run_resumes(tmp_path):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("data"))
    spread = jax.device_put(jax.tree.map(jnp.asarray, rows()), sharding)
    model = jax.device_put(linear(), jax.sharding.NamedSharding(mesh, jax.P()))
    arguments = {"model": model, "data": spread, "batch_size": 8, "validate_every": 10}
    whole = run_with(tmp_path, **arguments, checkpoint=None)
    with pytest.raises(CrashError):
        run_with(tmp_path, **arguments, callback=crash_at(20))
    assert bits(run_with(tmp_path, **arguments)) == bits(whole)
