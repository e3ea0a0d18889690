"""Training's progress, and what it refuses."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from training_runs import ADAM, KEY, CrashError, crash_at, linear, rows, squares

from tensornet.training import fit

pytestmark = pytest.mark.usefixtures("x64")  # the fixture `dtype` has the last word


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
