"""A run under way: its state, its figures, what of them is kept on disk."""

import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..status import Status
from .batches import Rows
from .checkpoints import Checkpoints
from .log import CsvLog
from .results import Fit, History, Report
from .step import BLOCK, Problem, State, averaged, shuffle_key, take_host_step, take_steps

_SECONDS_PER_DISPATCH = 0.25  # so that progress, Ctrl-C and the clock are looked at
_SECONDS_PER_CHECKPOINT = 60.0  # where no number of steps is given


class Run:
    """A run under way: its state and its figures, moved on by `fit`."""

    def __init__(
        self,
        problem: Problem,
        state: State,
        host: Callable[[int, Any], Any] | None,
        judge: Callable[[Any], dict[str, float]] | None,
        files: Checkpoints | None,
        patience: int | None,
    ):
        self.problem, self.state, self.host = problem, state, host
        self.judge, self.files, self.patience = judge, files, patience
        self.step = 0
        self.status: Any = None
        self.best: Any = None  # weights
        self.best_step, self.best_loss, self.stale = 0, math.nan, 0
        self.train: dict[str, list[np.ndarray]] = {}
        self.validation: dict[str, list[float]] = {"step": []}
        self.facts: dict[str, float] = {}  # shown as progress
        self.log: CsvLog | None = None
        self.callback: Callable[[Report], Any] | None = None
        self.only = False
        self.order: Any = None
        self.pace = 1  # steps in the next dispatch
        self.since: list[np.ndarray] = []  # losses since the last report
        self.written: int | None = None
        self.clock = self.start = time.monotonic()
        self._order()

    def advance(self, stop: int) -> None:
        """Take steps, up to `stop` at most, and keep their figures."""
        count = min(self.pace, stop - self.step)
        began = time.monotonic()
        if self.host is not None:
            tried, figures = self._host_steps(self.host, count)
        else:
            self.state, self.order, done, figures = take_steps(
                self.problem, self.state, self.order, jnp.asarray(count, jnp.int32)
            )
            tried = int(done)
            figures = {name: np.asarray(x)[:tried] for name, x in figures.items()}
        self.step = int(self.state.step)
        for name, values in figures.items():
            self.train.setdefault(name, []).append(values)
        self.since.append(figures["loss"])
        self.facts["loss"] = float(figures["loss"][-1])
        if not bool(self.state.ok):
            self.status = Status.non_finite
        seconds = max(time.monotonic() - began, 1e-9)
        fitting = int(tried * _SECONDS_PER_DISPATCH / seconds)
        if count == self.pace or fitting < self.pace:
            self.pace = max(1, min(fitting, 8 * self.pace, BLOCK))

    def report(self) -> None:
        """Validate, keep the best, log, and ask the callback."""
        weights = self._weights()
        figures = {} if self.judge is None else self.judge(self._model(weights))
        loss = float(np.mean(np.concatenate(self.since)))
        self.since = []
        row = {"step": self.step, "loss": loss}
        if figures:
            self.validation["step"].append(self.step)
            for name, value in figures.items():
                self.validation.setdefault(name, []).append(value)
                row[f"validation {name}"] = value
            self.facts["validation"] = figures["loss"]
            self.facts |= {name: value for name, value in figures.items() if name != "loss"}
            if figures["loss"] < (math.inf if self.best is None else self.best_loss):
                self.best = jax.tree.map(jnp.copy, weights)
                self.best_step, self.best_loss, self.stale = self.step, figures["loss"], 0
            else:
                self.stale += 1
        if self.log is not None:
            self.log.write(row | {"seconds": round(time.monotonic() - self.start, 3)})
        self._judge_patience()
        if self.callback is not None:
            model = self._model(jax.tree.map(jnp.copy, weights))
            if self.callback(Report(self.step, model, loss, figures)) is True:
                self.status = Status.converged

    def checkpoint(self, every: int | None, *, last: bool = False) -> None:
        """Write a checkpoint where one is due; never of a step that was not finite."""
        if self.files is None or self.written == self.step or not bool(self.state.ok):
            return
        now = time.monotonic()
        due = now - self.clock > _SECONDS_PER_CHECKPOINT if every is None else not self.step % every
        if not (due or last):
            return
        tree = {
            "state": jax.tree.leaves(self.state),
            "best": jax.tree.leaves(self.best),
            "train": self._train(),
            "validation": {name: np.asarray(x) for name, x in self.validation.items()},
            "since": np.concatenate([np.zeros(0), *self.since]),
        }
        facts = {
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "stale": self.stale,
        }
        self.files.write(self.step, tree, facts, only=self.only)
        self.only = False
        self.written, self.clock = self.step, time.monotonic()

    def resume(self) -> None:
        """Continue from the newest checkpoint, where there is one."""
        found = None if self.files is None else self.files.newest()
        if found is None:
            return
        tree, facts = found
        self.state = _refill(self.state, tree["state"])
        self.best = _refill(self.state.trainable, tree["best"]) if tree["best"] else None
        self.train = {name: [values] for name, values in tree["train"].items()}
        self.validation = {name: values.tolist() for name, values in tree["validation"].items()}
        self.best_step, self.best_loss = facts["best_step"], facts["best_loss"]
        self.stale, self.since = facts["stale"], [tree["since"]]
        self.step = self.written = int(self.state.step)
        self._order()
        self._judge_patience()

    def result(self) -> Fit:
        """Return what the run came to."""
        average = None
        if self.problem.ema is not None:
            average = self._model(averaged(self.state, self.problem.ema))
        model = self._model(self.state.trainable)
        validation = {name: np.asarray(x) for name, x in self.validation.items()}
        best = model if average is None else average
        if self.best is not None:
            best = self._model(self.best)
        return Fit(
            model=model,
            best_model=best,
            average_model=average,
            history=History(self._train(), validation.pop("step").astype(int), validation),
            status=Status.max_iterations if self.status is None else self.status,
            step=self.step,
            best_step=self.step if self.best is None else self.best_step,
            best_loss=self.best_loss,
        )

    def _host_steps(
        self, batch: Callable[[int, Any], Any], count: int
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Take `count` steps on batches from the host, which makes one while the last runs."""
        key = shuffle_key(self.problem.key)
        taken = []
        for step in range(self.step, self.step + count):
            rows = jax.tree.map(jnp.asarray, batch(step, jax.random.fold_in(key, step)))
            self.state, figures = take_host_step((self.problem, rows), self.state)
            taken.append(figures)
        tried = count if bool(self.state.ok) else int(self.state.step) - self.step + 1
        return tried, jax.tree.map(lambda *x: np.stack(x), *jax.device_get(taken[:tried]))

    def _order(self) -> None:
        """Draw the order of the epoch that the next step is in."""
        source = self.problem.source
        if isinstance(source, Rows):
            epoch = jnp.asarray(self.step // source.per_epoch, jnp.int32)
            self.order = source.order(epoch, shuffle_key(self.problem.key))

    def _weights(self) -> Any:
        ema = self.problem.ema
        return self.state.trainable if ema is None else averaged(self.state, ema)

    def _model(self, weights: Any) -> Any:
        return eqx.combine(weights, self.problem.rest)

    def _judge_patience(self) -> None:
        if self.patience is not None and self.stale >= self.patience:
            self.status = Status.converged

    def _train(self) -> dict[str, np.ndarray]:
        """Return the figures of all steps, joined."""
        self.train = {name: [np.concatenate(parts)] for name, parts in self.train.items()}
        return {name: parts[0] for name, parts in self.train.items()} or {"loss": np.zeros(0)}


def _refill(like: Any, leaves: list[Any]) -> Any:
    """Return a tree like another with other leaves, each where its counterpart lies."""
    old, treedef = jax.tree.flatten(like)
    return treedef.unflatten(
        jax.device_put(new, x.sharding) if x.committed else new
        for x, new in zip(old, leaves, strict=True)
    )
