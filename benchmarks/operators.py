"""Fourier neural operators as the suites train them: data, recipes, and a step on its own."""

import functools
import resource
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from solvers.operators import FNO, TFNO, evaluate, fit, relative_l2
from solvers.problems.darcy import darcy, pressure, read_darcy

from .measure import Program

SMALL_DARCY = Path(__file__).resolve().parents[2] / "shared" / "data" / "darcy" / "small.npz"
FINE_SEED = 10_000  # of the problems on the finer grid

# Chosen on the last hundred of the thousand training pairs.
RECIPE: dict[str, Any] = {"batch_size": 16, "loss": "l2", "learning_rate": 5e-3}
EPOCHS = 12
BEST: dict[str, Any] = {"modes": (12, 12), "width": 32, "rank": 0.1}
WIDE: dict[str, Any] = {"modes": (16, 16), "width": 32}


@functools.cache
def small_darcy() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Train and test pairs at 16 x 16, and fifty made by the same law at 32 x 32.

    Raises:
        FileNotFoundError: the data set is not where it belongs.
    """
    found = read_darcy(SMALL_DARCY)
    x, y = found["train"]
    # The law does not change where both axes change places.
    x, y = (np.concatenate([z, z.swapaxes(2, 3)]) for z in (x, y))
    found["train"] = (x, y)
    return found | {"fine": darcy(32, 50, seed=FINE_SEED)}


def make(seed: int, **options: Any) -> FNO:
    """Make a model for Darcy's problem."""
    kind = TFNO if "rank" in options else FNO
    return kind(in_channels=1, out_channels=1, key=jax.random.key(seed), **options)


def trained(model: Any, seed: int, epochs: int, **recipe: Any) -> Any:
    """Train on the small data set."""
    made = fit(
        model,
        small_darcy()["train"],
        key=jax.random.key(seed + 1000),
        epochs=epochs,
        **(RECIPE | recipe),
    )
    return made.model


def errors(model: Any) -> dict[str, float]:
    """Return relative L2 and H1 errors on the test pairs and on the finer grid."""
    data = small_darcy()
    found = evaluate(model, {"16": data["test"], "32": data["fine"]}, boundary="one-sided")
    return {f"{norm}@{grid}": value for grid, f in found.items() for norm, value in f.items()}


def law_errors(count: int = 20, refine: int = 8) -> np.ndarray:
    """Relative errors of our pressures for given coefficients, each point's spread around it."""
    x, y = read_darcy(SMALL_DARCY)["train"]
    n = x.shape[-1]
    near = np.clip(np.rint((np.arange(n * refine) + 0.5) / refine).astype(int), 0, n - 1)
    found = []
    for a, u in zip(x[:count, 0], y[:count, 0], strict=True):
        ours = pressure(a[np.ix_(near, near)].astype(float))[: n * refine : refine]
        ours = ours[:, : n * refine : refine]
        found.append(np.linalg.norm((ours - u)[1:, 1:]) / np.linalg.norm(u[1:, 1:]))
    return np.asarray(found)


def fields(batch: int, channels: int, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and truths, for steps that are timed."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, channels, grid, grid)).astype(np.float32)
    return x, rng.normal(size=(batch, 1, grid, grid)).astype(np.float32)


def training_step(
    batch: int, grid: int, modes: int, width: int, factorization: str | None, rank: float | None
) -> "Measured":
    """A step of AdamW on the relative L2 loss; its process is asked what memory it held."""
    given, truth = map(jnp.asarray, fields(batch, 1, grid))
    options = {} if factorization is None else {"factorization": factorization, "rank": rank}
    model = make(0, modes=(modes, modes), width=width, **options)
    optimizer = optax.adamw(1e-3)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit(donate="all")
    def step(model: Any, state: Any) -> Any:
        loss, gradient = eqx.filter_value_and_grad(lambda m: relative_l2(m(given), truth))(model)
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, loss

    held = [model, state]

    def run() -> jax.Array:
        held[0], held[1], loss = step(*held)
        return loss

    return Measured("ours", run)


def peer_training_step(
    batch: int, grid: int, modes: int, width: int, factorization: str | None, rank: float | None
) -> "Measured":
    """The same of neuraloperator."""
    from .operator_peers import training_step as step_of

    x, y = fields(batch, 1, grid)
    options: dict[str, Any] = {"factorization": factorization, "rank": rank or 1.0}
    program, _ = step_of(
        x,
        y,
        n_modes=(modes, modes),
        hidden_channels=width,
        in_channels=1,
        out_channels=1,
        **options,
    )
    return Measured("neuraloperator", program.run)


class Measured(Program):
    """A program whose quality is the most memory its process has held, in bytes."""

    def seconds(self) -> float:
        start = time.perf_counter()
        jax.block_until_ready(self.run())
        return time.perf_counter() - start

    def quality(self) -> dict[str, float]:
        return {"peak_bytes": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
