"""Progress of long work, shown from the host between compiled pieces, never inside them."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class ProgressMeter(Protocol):
    """Shows how far long work has come; one meter may serve several pieces of work in turn."""

    def init(self, total: int, description: str = "") -> None:
        """Start a piece of work of `total` steps."""
        ...

    def step(self, done: int, facts: Mapping[str, float] | None = None) -> None:
        """Say that `done` of the steps are done, with figures worth showing (a loss)."""
        ...

    def close(self) -> None:
        """End the piece of work, finished or not."""
        ...


class NoProgress:
    """Shows nothing."""

    def init(self, total: int, description: str = "") -> None:
        """Do nothing."""

    def step(self, done: int, facts: Mapping[str, float] | None = None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TextProgress:
    """Writes to a stream: one line renewed in place on a terminal, elsewhere now and then a line.

    Args:
        stream: where to, with `write` and `flush`; standard error when left out.
        seconds: least time between two updates; a tenth of a second on a terminal and ten
            seconds elsewhere when left out. The last step is always shown.
    """

    def __init__(self, stream: Any = None, *, seconds: float | None = None):
        self._stream = stream
        self._seconds = seconds
        self._total = 0
        self._pending = False

    def init(self, total: int, description: str = "") -> None:
        """Start a piece of work of `total` steps."""
        # Looked up here: tests and notebooks replace standard error after import.
        self._out = sys.stderr if self._stream is None else self._stream
        self._terminal = bool(getattr(self._out, "isatty", lambda: False)())
        default = 0.1 if self._terminal else 10.0
        self._least = default if self._seconds is None else self._seconds
        self._total, self._description = total, description
        self._start = time.monotonic()
        self._first: int | None = None
        self._shown = -float("inf")
        self._width = 0
        self._pending = False

    def step(self, done: int, facts: Mapping[str, float] | None = None) -> None:
        """Say that `done` of the steps are done, with figures worth showing."""
        now = time.monotonic()
        if self._first is None:
            self._first = done  # resumed work starts above zero: the rate counts from here
            self._start = now
        if done < self._total and now - self._shown < self._least:
            return
        self._shown = now
        line = self._line(done, now - self._start, facts or {})
        if self._terminal:
            self._out.write("\r" + line.ljust(self._width))
            self._width = len(line)
            self._pending = True
        else:
            self._out.write(line + "\n")
        self._out.flush()

    def close(self) -> None:
        """End the piece of work, finished or not."""
        if self._pending:
            self._out.write("\n")
            self._out.flush()
            self._pending = False

    def _line(self, done: int, elapsed: float, facts: Mapping[str, float]) -> str:
        share = f"{100 * done / self._total:3.0f}%" if self._total else "100%"
        parts = [f"{self._description} " * bool(self._description) + share]
        parts.append(f"{done}/{self._total}")
        new = done - (self._first or 0)
        if new > 0 and elapsed > 0:
            left = elapsed / new * (self._total - done)
            parts.append(f"{_clock(elapsed)}, {_clock(left)} left")
        parts += [f"{name} {value:.4g}" for name, value in facts.items()]
        return "  ".join(parts)


class TqdmProgress:
    """Shows a tqdm bar.

    Args:
        **options: passed to `tqdm.auto.tqdm`.

    Raises:
        ImportError: tqdm is not installed.
    """

    def __init__(self, **options: Any):
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError(
                "TqdmProgress needs tqdm: pip install 'gauntax[progress]' (or use progress=True, "
                "which needs nothing)"
            ) from error
        self._tqdm = tqdm
        self._options = options
        self._bar: Any = None

    def init(self, total: int, description: str = "") -> None:
        """Start a piece of work of `total` steps."""
        self.close()
        self._bar = self._tqdm(**{"total": total, "desc": description or None, **self._options})

    def step(self, done: int, facts: Mapping[str, float] | None = None) -> None:
        """Say that `done` of the steps are done, with figures worth showing."""
        if facts:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in facts.items()}, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the piece of work, finished or not."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def resolve_progress(progress: ProgressMeter | bool | None) -> ProgressMeter:
    """Return the meter an argument `progress` stands for: True is text, None and False nothing.

    Raises:
        TypeError: neither a bool, None, nor a meter.
    """
    if progress is None or progress is False:
        return NoProgress()
    if progress is True:
        return TextProgress()
    if isinstance(progress, ProgressMeter) and not isinstance(progress, type):
        return progress
    raise TypeError(
        "progress: expected True, False, None or a meter with init, step and close, "
        f"got {progress!r}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
