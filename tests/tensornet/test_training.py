"""The training loop: right steps, validation, and ends that say why."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import ADAM, KEY, CrashError, bits, crash_at, linear, noisy, rows, squares

from tensornet.status import Status
from tensornet.training import Traced, fit

pytestmark = pytest.mark.usefixtures("x64")  # the fixture `dtype` has the last word

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


def test_every_step_has_random_numbers_of_its_own():
    def loss(model, _batch, key):
        return jnp.sum(model.w**2), {"drawn": jax.random.uniform(key)}

    drawn = fit(linear(), loss, rows(), key=KEY, optimizer=ADAM, steps=40).history.train["drawn"]
    assert len(set(drawn.tolist())) == 40


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


def test_patience_is_remembered_over_a_resume(tmp_path):
    arguments = {"key": KEY, "optimizer": ADAM, "validate_every": 2, "patience": 4, "steps": 100}
    validation = {"validation": lambda model: abs(float(model.w[0]) - 0.5)}
    whole = fit(linear(), squares, rows(), **arguments, **validation)
    with pytest.raises(CrashError):
        fit(
            linear(),
            squares,
            rows(),
            **arguments,
            **validation,
            checkpoint=tmp_path,
            checkpoint_every=2,
            callback=crash_at(whole.best_step + 6),
        )
    resumed = fit(linear(), squares, rows(), **arguments, **validation, checkpoint=tmp_path)
    assert resumed.step == whole.step == whole.best_step + 8
    ended = fit(linear(), squares, rows(), **arguments, **validation, checkpoint=tmp_path)
    assert (ended.step, ended.status == Status.converged) == (whole.step, True)


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


@pytest.mark.parametrize(
    ("source", "where"),
    [("rows", "loss"), ("host", "loss"), ("traced", "loss"), ("rows", "gradient")],
)
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
