"""What training returns, reports on the way, and raises when it is interrupted."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ..status import name


@dataclasses.dataclass(frozen=True)
class History:
    """Figures of a run, one-dimensional numpy arrays.

    Attributes:
        train: `"loss"` of every step's batch, and what the loss returned beside it; after a
            non-finite step the last entry is that step's.
        validation_steps: the steps after which validation ran.
        validation: `"loss"` and the metrics at those steps.
    """

    train: dict[str, np.ndarray]
    validation_steps: np.ndarray
    validation: dict[str, np.ndarray]

    @property
    def loss(self) -> np.ndarray:
        """Loss of every step's batch."""
        return self.train["loss"]


@dataclasses.dataclass(frozen=True, repr=False)
class Fit:
    """A trained model, and how it came about.

    Attributes:
        model: the model after the last step; after a non-finite loss the last good one.
        best_model: the model of the lowest validation loss; without validation the last one
            (its moving average where `ema` is given).
        average_model: the moving average of the weights, None without `ema`.
        history: figures of every step and every validation.
        status: `Status.max_iterations` when all steps were taken, `Status.converged` when
            `patience` ran out or the callback stopped the run, `Status.non_finite`.
        step: how many steps were taken, those before a resume included.
        best_step: the step of `best_model`.
        best_loss: its validation loss, NaN without validation.
    """

    model: Any
    best_model: Any
    average_model: Any
    history: History
    status: Any
    step: int
    best_step: int
    best_loss: float

    def __repr__(self) -> str:
        last = float(self.history.loss[-1]) if len(self.history.loss) else float("nan")
        return (
            f"Fit({type(self.model).__name__}, step={self.step}, status={name(self.status)}, "
            f"loss={last:.4g}, best_loss={self.best_loss:.4g} at step {self.best_step})"
        )


class Report(NamedTuple):
    """What a callback is given every `validate_every` steps.

    Attributes:
        step: how many steps were taken.
        model: the model then; it may be kept.
        loss: mean training loss since the report before.
        validation: `"loss"` and the metrics, empty without validation.
    """

    step: int
    model: Any
    loss: float
    validation: dict[str, float]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; `fit` holds the model as it was after the last whole step."""

    def __init__(self, fit: Fit):
        super().__init__(f"training was interrupted after step {fit.step}")
        self.fit = fit
