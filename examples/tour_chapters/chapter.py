"""What a chapter is given and what it hands back."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensornet.progress import ProgressMeter


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a chapter works with.

    Attributes:
        out: the folder for its pictures.
        progress: told how far the chapter has come.
        seed: of everything random in it.
    """

    out: Path
    progress: ProgressMeter
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Check:
    """An accuracy the chapter promises: `value` is at most `at_most`."""

    name: str
    value: float
    at_most: float

    @property
    def holds(self) -> bool:
        """Whether the promise is kept; a NaN keeps none."""
        return self.value <= self.at_most


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as they are shown, the first column left-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file and what to see in it."""

    path: Path
    caption: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a chapter found.

    Attributes:
        story: paragraphs that come before the tables and pictures.
        tables: shown in the terminal and on the page.
        pictures: shown on the page.
        checks: promises of accuracy; the tour fails if one does not hold.
        results: figures for `results.json`, plain numbers and strings.
    """

    story: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    checks: Sequence[Check]
    results: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Chapter:
    """A part of the tour.

    Attributes:
        name: a word for the command line and for file names.
        title: its heading.
        budget: seconds it should take on two cores; a longer run is told, not failed.
        run: does the work.
    """

    name: str
    title: str
    budget: float
    run: Callable[[Stage], Findings]
