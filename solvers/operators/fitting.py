"""Training of operators: data normalized by channel, relative losses, the common loop."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from tensornet import training
from tensornet.training import Fit
from tensornet.validation import as_real, check_finite

from .losses import BOUNDARIES, loss_of


class Normalizer(eqx.Module):
    """Mean and deviation of each channel; they are not trained."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, data: Float[ArrayLike, "..."], argument: str = "data") -> "Normalizer":
        """Take them from fields `[batch, channels, *grid]`.

        Raises:
            ValueError: a channel that is the same everywhere, or NaN.
        """
        x = as_real(data, argument)
        check_finite(x, argument)
        values = np.moveaxis(np.asarray(x, np.float64), 1, 0).reshape(x.shape[1], -1)
        mean, deviation = values.mean(axis=1), values.std(axis=1)
        least = 10 * float(jnp.finfo(x.dtype).eps)
        for k, (m, s) in enumerate(zip(mean, deviation, strict=True)):
            if s <= least * abs(m) or s == 0:
                raise ValueError(
                    f"{argument}: expected channel {k} to vary, got {m:.6g} everywhere; it cannot "
                    "be normalized"
                )
        return cls(jnp.asarray(mean, x.dtype), jnp.asarray(deviation, x.dtype))

    def encode(self, x: Array) -> Array:
        """Return fields of mean zero and deviation one."""
        return (x - _each(self.mean, x)) / _each(self.deviation, x)

    def decode(self, x: Array) -> Array:
        """Undo `encode`."""
        return x * _each(self.deviation, x) + _each(self.mean, x)


class Normalized(eqx.Module):
    """A model between normalizers: it maps fields in their own units.

    Attributes:
        model: maps normalized fields to normalized fields.
        inputs: normalizer of the inputs.
        outputs: of the results.
    """

    model: Any
    inputs: Normalizer
    outputs: Normalizer

    def __call__(self, x: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Map fields `[batch, channels, *grid]`."""
        return self.outputs.decode(self.model(self.inputs.encode(as_real(x, "x"))))


def fit(
    model: Any,
    data: tuple[Any, Any],
    *,
    key: PRNGKeyArray,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    loss: Any = "h1",
    boundary: str = "periodic",
    learning_rate: float | int = 5e-3,
    weight_decay: float | int = 1e-4,
    optimizer: optax.GradientTransformation | None = None,
    validation: tuple[Any, Any] | None = None,
    **options: Any,
) -> Fit:
    """Train an operator.

    Args:
        model: maps `[batch, channels, *grid]`. One that is not `Normalized` yet is put between
            normalizers taken from the data.
        data: inputs and truths, `[rows, channels, *grid]`.
        key: all randomness comes from it.
        steps: how many to take.
        epochs: or how often to go through the data.
        batch_size: rows per step.
        loss: `"h1"`, `"l2"`, or a function of prediction and truth, both in their own units.
        boundary: of the differences in H1, `"periodic"` or `"one-sided"`.
        learning_rate: of AdamW at the start; it falls to zero as a cosine.
        weight_decay: of AdamW.
        optimizer: from optax, in place of these two.
        validation: more inputs and truths; the loss on them is recorded.
        options: those of `tensornet.training.fit`: `checkpoint` for one, with which a run that was
            killed goes on to the same weights.

    Returns:
        The `Fit`; its models are `Normalized`.

    Raises:
        TypeError, ValueError: an argument is not what it must be, NaN in the data, a checkpoint of
            another architecture.
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary: expected one of {BOUNDARIES}, got {boundary!r}")
    measure = loss_of(loss, boundary)
    rows = _rows(data, "data")
    if not isinstance(model, Normalized):
        ends = (Normalizer.of(rows[name], f"data ({name})") for name in ("x", "y"))
        model = Normalized(model, *ends)
    if (steps is None) == (epochs is None):
        raise ValueError(f"steps, epochs: expected one of them, got {steps} and {epochs}")
    size = min(batch_size, len(rows["x"]))
    total = steps if steps is not None else (epochs or 0) * (len(rows["x"]) // size)
    facts: dict[str, Any] = {"loss": loss if isinstance(loss, str) else "a function"}
    facts |= {"boundary": boundary}
    if optimizer is None:
        optimizer = _adamw(learning_rate, weight_decay, total)
        facts |= {"learning_rate": learning_rate, "weight_decay": weight_decay, "steps": total}
    trainable = jax.tree.map(eqx.is_inexact_array, model)
    fixed = jax.tree.map(lambda _: False, (model.inputs, model.outputs))
    trainable = eqx.tree_at(lambda m: (m.inputs, m.outputs), trainable, fixed)
    return training.fit(
        model,
        _objective(measure),
        rows,
        key=key,
        optimizer=optimizer,
        steps=total,
        batch_size=size,
        trainable=trainable,
        validation=None if validation is None else _rows(validation, "validation"),
        hyperparameters=facts | dict(options.pop("hyperparameters", {})),
        validate_every=options.pop("validate_every", max(1, len(rows["x"]) // size)),
        **options,
    )


# One object for one choice: compiled loops are found again by the identity of what they call.


@lru_cache(maxsize=64)
def _adamw(
    learning_rate: float | int, weight_decay: float | int, steps: int
) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(learning_rate, max(1, steps))
    return optax.adamw(schedule, weight_decay=weight_decay)


@lru_cache(maxsize=64)
def _objective(measure: Callable[..., Any]) -> Callable[..., Any]:
    def objective(model: Any, batch: Any, _key: Any) -> Array:
        return measure(model(batch["x"]), batch["y"])

    return objective


def _rows(data: Any, argument: str) -> dict[str, Array]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"{argument}: expected a pair of inputs and truths, got {type(data).__name__}"
        )
    x, y = as_real(data[0], f"{argument}[0]"), as_real(data[1], f"{argument}[1]")
    for k, array in enumerate((x, y)):
        if array.ndim < 3:
            raise ValueError(
                f"{argument}[{k}]: expected [rows, channels, *grid], got shape {array.shape}"
            )
        check_finite(array, f"{argument}[{k}]")
    if len(x) != len(y):
        raise ValueError(
            f"{argument}: expected as many truths as inputs, got {len(y)} and {len(x)}"
        )
    return {"x": x, "y": y}


def _each(x: Array, like: Array) -> Array:
    return x.astype(like.dtype).reshape(1, -1, *(1,) * (like.ndim - 2))
