"""The training loop: right steps, exact resume, and ends that say why."""

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
import jaxtyping
import numpy as np
import optax
import pytest

from tensornet.status import Status
from tensornet.training import Interrupted, Traced, fit

pytestmark = pytest.mark.usefixtures("x64")  # the fixture `dtype` has the last word

KEY = jax.random.key(7)
ADAM = optax.adam(0.05)  # one object: the compiled loops are kept by its identity


class Linear(eqx.Module):
    """A linear map beside things that are not trained."""

    w: jax.Array
    count: jax.Array
    name: str = eqx.field(static=True)

    def __call__(self, x):
        # A sum of products, not x @ w: explicit sharding asks no question of it.
        return jnp.sum(x * self.w[None, :], axis=1)


def linear(dtype=jnp.float64, size=3) -> Linear:
    return Linear(jnp.zeros(size, dtype), jnp.asarray(5), "linear")


def rows(n=24, dtype=np.float64, size=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, size)).astype(dtype)
    return {"x": x, "y": (x @ np.arange(1.0, size + 1) + rng.normal(size=n) / 10).astype(dtype)}


def squares(model, batch, _key):
    return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)


def noisy(model, batch, key):
    """Squares with noise from the key on the input, and a figure beside it."""
    noise = 0.1 * jax.random.normal(key, batch["x"].shape, batch["x"].dtype)
    residual = model(batch["x"] + noise) - batch["y"]
    return jnp.mean(residual**2), {"largest": jnp.max(jnp.abs(residual))}


def bits(result) -> list[bytes]:
    """Everything a run determines: weights, best and average ones, and figures."""
    trees = [result.model.w, result.best_model.w, result.history.train, result.history.validation]
    trees += [] if result.average_model is None else [result.average_model.w]
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(trees)]


class CrashError(Exception):
    pass


def crash_at(step):
    def callback(report):
        if report.step >= step:
            raise CrashError

    return callback


# Right steps.


def test_steps_are_those_of_a_plain_loop(dtype):
    data, model = rows(dtype=dtype), linear(dtype)
    result = fit(model, squares, data, key=KEY, optimizer=ADAM, steps=50)
    weights, losses = model, []
    state = ADAM.init(eqx.filter(model, eqx.is_inexact_array))
    step = eqx.filter_jit(eqx.filter_value_and_grad(squares))
    for _ in range(50):
        loss, gradient = step(weights, jax.tree.map(jnp.asarray, data), KEY)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = ADAM.update(gradient, state)
        weights = eqx.apply_updates(weights, updates)
        losses.append(loss)
    tolerance = 200 * float(jnp.finfo(dtype).eps)
    assert result.model.w.dtype == dtype
    np.testing.assert_allclose(result.model.w, weights.w, rtol=tolerance)
    np.testing.assert_allclose(result.history.loss, losses, rtol=tolerance)
    assert result.history.loss.dtype == dtype
    assert (result.step, result.status == Status.max_iterations) == (50, True)
    assert result.model.name == "linear"
    np.testing.assert_array_equal(result.model.count, 5)
    np.testing.assert_array_equal(model.w, 0.0)  # the caller's arrays are whole


@pytest.mark.parametrize("number", [jnp.float64, jnp.complex128])
def test_least_squares_by_lbfgs_is_numpys(number):
    """The line search is given its value function; complex gradients point the right way."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20, 3, 2)) @ np.array([1, 1j])
    x, y = (x, y[:, 0]) if number == jnp.complex128 else (x.real, y[:, 0].real)

    def loss(model, batch, _key):
        return jnp.mean(jnp.abs(model(batch["x"]) - batch["y"]) ** 2)

    exact = np.linalg.lstsq(x, y)[0]
    optimizer = (
        optax.lbfgs()
        if number == jnp.float64
        else optax.adam(optax.exponential_decay(0.1, 100, 0.5))
    )
    result = fit(linear(number), loss, {"x": x, "y": y}, key=KEY, optimizer=optimizer, steps=2000)
    # The loss is flat to rounding within the square root of eps of its minimum.
    np.testing.assert_allclose(result.model.w, exact, atol=10 * np.sqrt(np.finfo(float).eps))


def test_every_row_once_an_epoch_in_a_new_order():
    """24 rows in batches of 4: powers of two summed over an epoch tell every row apart."""

    def loss(model, batch, _key):
        return jnp.sum(model.w**2), {"rows": jnp.sum(jnp.ones_like(batch["i"]) << batch["i"])}

    result = fit(
        linear(), loss, {"i": np.arange(24)}, key=KEY, optimizer=ADAM, epochs=3, batch_size=4
    )
    sums = result.history.train["rows"].reshape(3, 6)
    np.testing.assert_array_equal(sums.sum(axis=1), 2**24 - 1)
    assert all({int(s).bit_count() for s in epoch} == {4} for epoch in sums)
    assert len({tuple(epoch) for epoch in sums}) == 3
    # A batch size that does not divide leaves some out, others each epoch.
    result = fit(
        linear(), loss, {"i": np.arange(24)}, key=KEY, optimizer=ADAM, epochs=3, batch_size=5
    )
    sums = result.history.train["rows"].reshape(3, 4).sum(axis=1)
    assert [int(s).bit_count() for s in sums] == [20, 20, 20]
    assert len(set(sums)) == 3


def test_where_a_run_is_cut_into_dispatches_changes_nothing():
    arguments = {"key": KEY, "optimizer": ADAM, "steps": 60, "batch_size": 5}
    whole = fit(linear(), noisy, rows(), **arguments, validate_every=60)
    for every in (1, 7, 13):
        assert bits(fit(linear(), noisy, rows(), **arguments, validate_every=every)) == bits(whole)
    other = fit(linear(), noisy, rows(), **{**arguments, "key": jax.random.key(8)})
    assert bits(other) != bits(whole)
    old_style = fit(linear(), noisy, rows(), **{**arguments, "key": jax.random.key_data(KEY)})
    assert bits(old_style) == bits(whole)


def test_batches_from_functions():
    """The same function, traced into the loop and called from the host, gives the same run."""
    steps = []

    def batch(step, key):
        steps.append(step)
        x = jax.random.normal(key, (6, 3))
        return {"x": x, "y": x @ jnp.arange(1.0, 4.0)}

    arguments = {"key": KEY, "optimizer": ADAM, "steps": 300}
    host = fit(linear(), squares, batch, **arguments)
    assert steps == list(range(300))
    traced = fit(linear(), squares, Traced(batch), **arguments)
    assert len(steps) < 310  # traced, not called
    np.testing.assert_allclose(host.model.w, traced.model.w, rtol=1e-12)
    np.testing.assert_allclose(host.model.w, [1, 2, 3], atol=1e-3)


def test_only_what_is_asked_for_is_trained():
    model = eqx.nn.MLP(3, "scalar", 4, 1, key=KEY)
    chosen = jax.tree.map(lambda _: False, model)
    chosen = eqx.tree_at(lambda m: m.layers[0].weight, chosen, True)

    def loss(model, batch, _key):
        return jnp.mean((jax.vmap(model)(batch["x"]) - batch["y"]) ** 2)

    result = fit(model, loss, rows(), key=KEY, optimizer=ADAM, steps=3, trainable=chosen)
    before, after = eqx.filter(model, eqx.is_array), eqx.filter(result.model, eqx.is_array)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), before, after)
    assert jax.tree.leaves(same) == [False, True, True, True]


# Validation, best model, average.


def test_validation_is_the_mean_over_all_rows(dtype):
    data, held_out = rows(dtype=dtype), rows(11, dtype)
    result = fit(
        linear(dtype),
        squares,
        data,
        key=KEY,
        optimizer=ADAM,
        steps=20,
        validation=held_out,
        validation_batch_size=4,
        validate_every=8,
        metrics={"bias": lambda model, batch: jnp.mean(model(batch["x"]) - batch["y"])},
    )
    np.testing.assert_array_equal(result.history.validation_steps, [8, 16, 20])
    residual = held_out["x"] @ np.asarray(result.model.w) - held_out["y"]
    got = [result.history.validation[name][-1] for name in ("loss", "bias")]
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got, [np.mean(residual**2), np.mean(residual)], rtol=tolerance)


def test_validation_runs_in_inference_mode():
    class Dropped(eqx.Module):
        w: jax.Array
        dropout: eqx.nn.Dropout

    def loss(model, batch, key):
        return jnp.mean(model.dropout(batch, key=key)) + jnp.sum(model.w**2)

    model = Dropped(jnp.zeros(1), eqx.nn.Dropout(0.5))
    data = np.ones((64, 1))
    result = fit(model, loss, data, key=KEY, optimizer=ADAM, steps=4, validation=data)
    np.testing.assert_array_equal(result.history.validation["loss"], 1.0)
    assert np.std(result.history.loss) > 0.01


def test_best_model_and_patience():
    """A validation loss with its minimum on the way: the best model is kept, patience ends."""
    seen = {}

    def distance(model):
        return float(jnp.abs(model.w[0] - 0.5)), {"w": model.w[0]}

    def keep(report):
        seen[report.step] = np.asarray(report.model.w)

    arguments = {"key": KEY, "optimizer": ADAM, "validation": distance, "validate_every": 2}
    result = fit(linear(), squares, rows(), **arguments, steps=100, patience=3, callback=keep)
    losses = [abs(w[0] - 0.5) for w in seen.values()]
    best = list(seen)[int(np.argmin(losses))]
    assert result.status == Status.converged
    assert (result.best_step, result.step) == (best, best + 6)
    assert result.best_loss == min(losses)
    np.testing.assert_array_equal(result.best_model.w, seen[best])
    np.testing.assert_array_equal(result.model.w, seen[result.step])
    np.testing.assert_array_equal(result.history.validation["w"], [w[0] for w in seen.values()])


def test_moving_average():
    seen = []
    result = fit(
        linear(),
        squares,
        rows(),
        key=KEY,
        optimizer=ADAM,
        steps=30,
        ema=0.9,
        validate_every=1,
        callback=lambda report: seen.append(np.asarray(report.model.w)),
    )
    raw = [
        np.asarray(fit(linear(), squares, rows(), key=KEY, optimizer=ADAM, steps=n).model.w)
        for n in range(1, 31)
    ]
    weights = 0.9 ** np.arange(29, -1, -1.0)
    expected = weights @ np.stack(raw) / weights.sum()
    np.testing.assert_allclose(result.average_model.w, expected, rtol=1e-13)
    np.testing.assert_allclose(seen[-1], expected, rtol=1e-13)
    np.testing.assert_array_equal(result.best_model.w, result.average_model.w)
    np.testing.assert_array_equal(result.model.w, raw[-1])


def test_callback_ends_the_run():
    reports = []

    def callback(report):
        reports.append(report)
        return report.step == 9

    result = fit(
        linear(),
        squares,
        rows(),
        key=KEY,
        optimizer=ADAM,
        steps=30,
        validate_every=3,
        callback=callback,
    )
    assert (result.step, result.status == Status.converged) == (9, True)
    assert [report.step for report in reports] == [3, 6, 9]
    means = result.history.loss.reshape(3, 3).mean(axis=1)
    np.testing.assert_allclose([report.loss for report in reports], means, rtol=1e-14)
    assert float(reports[0].model.w[0]) != float(reports[2].model.w[0])  # kept, not donated


@pytest.mark.parametrize("source", ["rows", "host", "traced"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_step_is_not_taken(source, where):
    def loss(model, batch, _key):
        value = jnp.sum((model.w - 1) ** 2)
        if where == "loss":
            return jnp.where(batch["i"][0] == 17, jnp.inf, value)
        # Finite itself, but the root's slope at zero is not.
        return value + jnp.sqrt(jnp.sum(model.w**2) * jnp.where(batch["i"][0] == 17, 0.0, 1.0))

    def count(step, _key):
        return {"i": jnp.asarray([step])}

    data = {"rows": {"i": np.arange(40)}, "host": count, "traced": Traced(count)}[source]
    size = 1 if source == "rows" else None
    arguments = {"key": KEY, "optimizer": ADAM, "batch_size": size}
    model = eqx.tree_at(lambda m: m.w, linear(), jnp.full(3, 0.5))
    result = fit(model, loss, data, **arguments, steps=40)
    assert result.status == Status.non_finite
    if source != "rows":
        assert result.step == 17
    assert len(result.history.loss) == result.step + 1
    assert bool(np.isinf(result.history.loss[-1])) == (where == "loss")
    before = fit(model, loss, data, **arguments, steps=result.step)
    assert before.status == Status.max_iterations
    assert result.model.w.tobytes() == before.model.w.tobytes()


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
             callback=lambda _: time.sleep(0.02))
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


def run_with(tmp_path, **changes):
    arguments = {
        "key": KEY,
        "optimizer": ADAM,
        "steps": 30,
        "batch_size": 5,
        "checkpoint": tmp_path / "run",
        "checkpoint_every": 10,
    }
    model, data = changes.pop("model", None), changes.pop("data", None)
    return fit(
        linear() if model is None else model,
        noisy,
        rows() if data is None else data,
        **{**arguments, **changes},
    )


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


def test_ctrl_c_finishes_the_step_and_writes_a_checkpoint(tmp_path):
    whole = run_with(tmp_path, checkpoint=None)

    def press(report):
        if report.step == 13:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    for folder in (None, tmp_path / "run"):
        with pytest.raises(KeyboardInterrupt) as caught:
            run_with(tmp_path, checkpoint=folder, validate_every=1, callback=press)
        assert isinstance(caught.value, Interrupted)
        assert caught.value.fit.step == 13
        thirteen = run_with(tmp_path, checkpoint=None, steps=13)
        assert bits(caught.value.fit) == bits(thirteen)
        assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "run" / "step-000000000013.ckpt").exists()
    assert bits(run_with(tmp_path)) == bits(whole)

    def press_twice(_report):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        run_with(tmp_path, checkpoint=None, validate_every=1, callback=press_twice)
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is handler


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
    spread = jax.device_put(jax.tree.map(jnp.asarray, rows()), sharding)
    seen = []

    def loss(model, batch, _key):
        seen.append(jax.typeof(batch["x"]).sharding.spec)
        if kind == "Auto":
            jax.debug.inspect_array_sharding(batch["x"], callback=lambda s: seen.append(s.spec))
        return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)

    arguments = {"key": KEY, "optimizer": ADAM, "steps": 20, "validation_batch_size": 8}
    for size in (None, 8):
        one = fit(linear(), squares, rows(), **arguments, batch_size=size, validation=rows())
        many = fit(linear(), loss, spread, **arguments, batch_size=size, validation=spread)
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


# Progress and bad input.


def test_progress_is_told():
    class Meter:
        def __init__(self):
            self.calls = []

        def init(self, total, description=""):
            self.calls.append(("init", total, description))

        def step(self, done, facts=None):
            self.calls.append((done, dict(facts or {})))

        def close(self):
            self.calls.append("close")

    meter = Meter()
    arguments = {"key": KEY, "optimizer": ADAM, "steps": 40, "validate_every": 20}
    result = fit(linear(), squares, rows(), **arguments, validation=rows(), progress=meter)
    assert meter.calls[:2] == [("init", 40, "training"), (0, {})]
    assert meter.calls[-1] == "close"
    done, facts = meter.calls[-2]
    assert done == 40
    assert facts == {"loss": result.history.loss[-1], "validation": result.best_loss}
    counts = [call[0] for call in meter.calls[1:-1]]
    assert counts == sorted(set(counts))
    meter.calls.clear()
    with pytest.raises(CrashError):
        fit(linear(), squares, rows(), **arguments, progress=meter, callback=crash_at(20))
    assert meter.calls[-1] == "close"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": None}, ValueError, "steps, epochs: expected one of them, got neither"),
        ({"epochs": 2}, ValueError, "expected one of them, got steps=5 and epochs=2"),
        ({"steps": 0}, ValueError, "steps: expected at least 1, got 0"),
        ({"steps": 2.0}, TypeError, r"steps: expected an integer, got 2\.0 \(float\)"),
        ({"steps": None, "epochs": 0}, ValueError, "epochs: expected at least 1, got 0"),
        ({"batch_size": 25}, ValueError, r"batch_size: expected between 1 and 24 .*got 25"),
        ({"batch_size": True}, TypeError, r"batch_size: expected an integer, got True \(bool\)"),
        ({"keep": 0}, ValueError, "keep: expected at least 1, got 0"),
        ({"validate_every": 0}, ValueError, "validate_every: expected at least 1, got 0"),
        ({"ema": 1.0}, ValueError, r"ema: expected a decay above 0 and below 1, got 1\.0"),
        ({"patience": 3}, ValueError, "patience: expected validation with it, got none"),
        ({"metrics": {}}, ValueError, "metrics: expected validation with it, got none"),
        (
            {"metrics": {}, "validation": lambda _: 0.0},
            ValueError,
            "metrics: expected rows as validation, got a function",
        ),
        ({"progress": 3}, TypeError, "progress: expected True, False, None or a meter.*got 3"),
        ({"data": {}}, ValueError, "data: expected at least one array, got none"),
        (
            {"data": {"x": np.ones((4, 2)), "y": np.ones((5, 1))}},
            ValueError,
            r"data\['y'\]: expected 4 rows \(as data\['x'\]\), got 5 \(shape \(5, 1\)\)",
        ),
        ({"data": [np.ones((0, 2))]}, ValueError, r"data\[0\]: expected at least one row, got 0"),
        ({"data": [np.array(1.0)]}, ValueError, r"data\[0\]: .*got a scalar"),
        ({"data": {"x": "text"}}, TypeError, r"data\['x'\]: expected an array of numbers, got str"),
        (
            {"validation": {"x": np.ones((3, 3)), "y": np.ones(2)}},
            ValueError,
            r"validation\['y'\]: expected 3 rows \(as validation\['x'\]\), got 2",
        ),
        (
            {"validation": {"x": np.ones((3, 3))}, "validation_batch_size": 4},
            ValueError,
            "validation_batch_size: expected between 1 and 3 .*got 4",
        ),
        (
            {"data": lambda _step, _key: None, "batch_size": 3},
            ValueError,
            "batch_size: expected none where data is a function, got 3",
        ),
        (
            {"data": lambda _step, _key: None, "steps": None, "epochs": 2},
            ValueError,
            "epochs: expected steps where data is a function, got epochs=2",
        ),
        ({"model": {"n": 3}}, ValueError, "model: expected at least one floating .*got none"),
        ({"loss": lambda m, _b, _k: m.w}, ValueError, r"loss: expected a scalar, .*shape \(3,\)"),
        ({"loss": lambda m, _b, _k: jnp.sum(m.count)}, TypeError, "loss: expected a real.*got int"),
        (
            {"loss": lambda *_: None},
            TypeError,
            "loss: expected a real scalar .*got NoneType",
        ),
        (
            {"loss": lambda m, _b, _k: (jnp.sum(m.w), 3)},
            TypeError,
            "expected a dictionary.*got int",
        ),
        (
            {"loss": lambda m, _b, _k: (jnp.sum(m.w), {"a": m.w})},
            ValueError,
            r"loss: expected a scalar as 'a', got shape \(3,\)",
        ),
        (
            {"loss": lambda m, _b, _k: (jnp.sum(m.w), {"loss": 0.0})},
            ValueError,
            "loss: expected other names than 'loss'",
        ),
    ],
)
def test_bad_input(changes, error, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it
    model = changes.pop("model", None)
    arguments = {"loss": squares, "data": rows(dtype=np.float32), "steps": 5, **changes}
    model = linear(jnp.float32) if model is None else model
    with pytest.raises(error, match=message):
        fit(model, key=KEY, optimizer=ADAM, **arguments)


def test_a_fit_shows_itself_in_a_line():
    result = fit(linear(), squares, rows(), key=KEY, optimizer=ADAM, steps=3)
    assert repr(result).startswith("Fit(Linear, step=3, status=max_iterations, loss=")
