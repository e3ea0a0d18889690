"""Models, data and losses that the tests of training share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tensornet.training import fit

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
