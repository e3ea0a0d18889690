"""The training loop: the host's side of it."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from ..progress import ProgressMeter, resolve_progress
from .batches import Rows, Traced
from .checkpoints import Checkpoints, describe
from .log import CsvLog
from .results import Fit, Interrupted, Report
from .run import Run
from .step import Problem, initial_state, validate, validation_key


def fit(
    model: Any,
    loss: Callable[..., Any],
    data: Any,
    *,
    key: PRNGKeyArray,
    optimizer: optax.GradientTransformation,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    trainable: Any = eqx.is_inexact_array,
    validation: Any = None,
    validation_batch_size: int | None = None,
    validate_every: int | None = None,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    patience: int | None = None,
    ema: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    keep: int = 2,
    resume: bool = True,
    hyperparameters: Mapping[str, Any] | None = None,
    log: str | os.PathLike[str] | None = None,
    progress: ProgressMeter | bool | None = None,
    callback: Callable[[Report], Any] | None = None,
) -> Fit:
    """Train a model; a run that is killed and resumed ends with the same weights, bit for bit.

    Many steps run in one dispatch, so that small models are not bound by it. What happens at a
    step (the order of the rows, the random numbers of the loss) is a function of `key` and the
    step alone. A step whose loss or weights are not finite is not applied and ends the run.

    Args:
        model: any equinox module or pytree.
        loss: `loss(model, batch, key)` returns a real scalar, or it and a dictionary of scalars
            that are recorded beside it.
        data: a tree of arrays with the rows of all first (jax or numpy; spread over devices by
            rows, so is each batch); or a function `batch(step, key)`, called on the host, once
            a step, or compiled into the loop when wrapped in `Traced`.
        key: all randomness comes from it.
        optimizer: from optax, which also has schedules and gradient clipping; gradient, value
            and `value_fn` are passed on to those that want them (`optax.lbfgs`).
        steps: how many steps to take in all, those before a resume included.
        epochs: or how many times to go through the rows.
        batch_size: rows per step; all rows, in their order, when left out.
        trainable: which leaves are trained, a function of a leaf or a tree of bools.
        validation: rows like `data`, or a function of the model returning its loss, or it and
            a dictionary of figures. On rows the model runs in inference mode.
        validation_batch_size: rows at a time; `batch_size` where that is fewer, when left out.
        validate_every: steps between validations (and rows of the log, and callbacks); an
            epoch when left out, or a hundredth of the run without epochs.
        metrics: functions `metric(model, batch)` returning scalars, averaged over the
            validation rows.
        patience: end after this many validations without a lower validation loss.
        ema: decay of a moving average of the weights (0.999 for one), corrected for its start;
            validation then looks at the average.
        checkpoint: folder of this run's checkpoints.
        checkpoint_every: steps between them; about a minute when left out. One is written at
            the end and at Ctrl-C, too.
        keep: how many checkpoints stay.
        resume: continue from the newest checkpoint in the folder; False starts again, and
            removes what is there once it has written its own.
        hyperparameters: JSON-able facts that a checkpoint must share to be continued (the
            learning rate, which cannot be seen in an optimizer).
        log: CSV file of training loss, validation and seconds at every report.
        progress: True writes to standard error; or a meter.
        callback: called with a `Report` every `validate_every` steps; returning True ends.

    Raises:
        TypeError, ValueError: an argument is not what it must be, or a checkpoint is of another
            run; the message says which, what was expected, and what came.
        Interrupted: Ctrl-C (a `KeyboardInterrupt`). The step under way is finished, a
            checkpoint is written where there is a folder, and `.fit` holds the model. A second
            Ctrl-C stops at once.
    """
    meter = resolve_progress(progress)
    key = _checked_key(key)
    source = _source(data, batch_size)
    per_epoch = source.per_epoch if isinstance(source, Rows) else None
    steps = _total(steps, epochs, per_epoch)
    if validate_every is None:
        epoch = 1 if per_epoch is None else per_epoch
        validate_every = epoch if epoch > 1 else max(1, steps // 100)
    for name, value in {
        "validate_every": validate_every,
        "checkpoint_every": checkpoint_every,
        "keep": keep,
        "patience": patience,
    }.items():
        _check_count(name, value)
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema: expected a decay above 0 and below 1, got {ema}")
    weights, rest = eqx.partition(model, trainable)
    if not jax.tree.leaves(weights):
        raise ValueError(
            "model: expected at least one floating or complex array to train, got none"
        )
    judge = _judge(validation, validation_batch_size, batch_size, loss, metrics, patience, key)
    host = source if callable(source) else None
    problem = Problem(rest, loss, optimizer, None if host else source, key, ema)
    state = initial_state(weights, optimizer, ema)
    files = None
    if checkpoint is not None:
        configuration = {
            "batch_size": source.size if isinstance(source, Rows) else None,
            "data": describe(source.arrays) if isinstance(source, Rows) else None,
            "ema": ema,
            "validate_every": None if judge is None else validate_every,
            "metrics": sorted(metrics or {}),
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "hyperparameters": dict(hyperparameters or {}),
            "rest of the model": _digest(rest),
            "model": describe(state.trainable),
            "optimizer": describe(state.optimizer),
        }
        files = Checkpoints(checkpoint, keep, configuration)
    run = Run(problem, state, host, judge, files, patience)
    if resume:
        run.resume()
    run.log = None if log is None else CsvLog(log, run.step)
    run.callback = callback
    run.only = not resume
    with _DeferredInterrupt() as interrupt:
        meter.init(steps, "training")
        try:
            meter.step(run.step)
            while run.step < steps and run.status is None and not interrupt.requested:
                run.advance(_next_stop(run.step, steps, validate_every, checkpoint_every))
                if run.status is None and (run.step % validate_every == 0 or run.step == steps):
                    run.report()
                meter.step(run.step, run.facts)
                run.checkpoint(checkpoint_every)
        finally:
            meter.close()
        run.checkpoint(None, last=True)
    if interrupt.requested:
        raise Interrupted(run.result())
    return run.result()


class _DeferredInterrupt:
    """Turns the first Ctrl-C into a request; the second one interrupts as ever."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "_DeferredInterrupt":
        # Only the main thread gets signals, and a handler of the user's own is left alone.
        self._ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._ours:
            signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _request(self, *_: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def _source(data: Any, batch_size: int | None) -> Any:
    if callable(data) or isinstance(data, Traced):
        if batch_size is not None:
            raise ValueError(
                f"batch_size: expected none where data is a function, got {batch_size}"
            )
        return data
    return Rows(data, batch_size)


def _total(steps: int | None, epochs: int | None, per_epoch: int | None) -> int:
    if (steps is None) == (epochs is None):
        got = "neither" if steps is None else f"steps={steps} and epochs={epochs}"
        raise ValueError(f"steps, epochs: expected one of them, got {got}")
    _check_count("steps", steps)
    _check_count("epochs", epochs)
    if steps is not None:
        return int(steps)
    if per_epoch is None:
        raise ValueError(f"epochs: expected steps where data is a function, got epochs={epochs}")
    return int(epochs or 0) * per_epoch


def _check_count(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r} ({type(value).__name__})")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


def _checked_key(key: PRNGKeyArray) -> PRNGKeyArray:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if typed else jax.random.wrap_key_data(key)


def _judge(
    validation: Any,
    size: int | None,
    batch_size: int | None,
    loss: Callable[..., Any],
    metrics: Mapping[str, Callable[..., Any]] | None,
    patience: int | None,
    key: PRNGKeyArray,
) -> Callable[[Any], dict[str, float]] | None:
    """Return what gives a model its figures, None without validation."""
    if validation is None:
        for name, value in {"metrics": metrics, "patience": patience}.items():
            if value is not None:
                raise ValueError(f"{name}: expected validation with it, got none")
        return None
    if callable(validation):
        if metrics is not None:
            raise ValueError("metrics: expected rows as validation, got a function")

        def ask(model: Any) -> dict[str, float]:
            value: Any = validation(model)
            value, more = value if isinstance(value, tuple) else (value, {})
            return {"loss": float(value), **{name: float(x) for name, x in more.items()}}

        return ask
    if size is None and batch_size is not None:
        size = min(batch_size, Rows(validation, None, "validation").n)
    rows = Rows(validation, size, "validation")

    def measure(model: Any) -> dict[str, float]:
        figures = validate(model, loss, dict(metrics or {}), rows, validation_key(key))
        names = ["loss", *(name for name in figures if name != "loss")]
        return {name: float(figures[name]) for name in names}

    return measure


def _next_stop(step: int, steps: int, *intervals: int | None) -> int:
    """Return the next step at which something is due."""
    return min([steps, *(step + n - step % n for n in intervals if n is not None)])


def _digest(tree: Any) -> str:
    """Return a hash of the arrays of a tree, for a fingerprint."""
    sha256 = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        sha256.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha256.hexdigest()
