"""A training step of the same operator, ours and neuraloperator's, each in a process of its own."""

import dataclasses
import statistics
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from ..case import Case, Context, Speed
from ..child import ChildProgram
from ..measure import interleave
from ..operator_peers import ABSENT, INSTALLED
from ..operators import training_step
from ..rows import Row, ratio

SUITE = "operator_training"

# Darcy's problem as the peer's configuration and its small example have it.
SETTINGS: tuple[dict[str, Any], ...] = (
    {"batch": 8, "grid": 64, "modes": 16, "width": 24, "factorization": None, "rank": None},
    {"batch": 32, "grid": 16, "modes": 8, "width": 24, "factorization": None, "rank": None},
    {"batch": 32, "grid": 16, "modes": 16, "width": 32, "factorization": "tucker", "rank": 0.1},
    {"batch": 8, "grid": 64, "modes": 16, "width": 32, "factorization": "tucker", "rank": 0.1},
)
QUICK = ({"batch": 2, "grid": 16, "modes": 4, "width": 8, "factorization": None, "rank": None},)


def cases(quick: bool) -> list[Case]:
    """Return the cases."""
    return [
        Case(SUITE, _name(setting), "float32", Step(setting, None if quick else 1.5))
        for setting in (QUICK if quick else SETTINGS)
    ]


def _name(setting: dict[str, Any]) -> str:
    form = f"{setting['factorization'] or 'dense'}"
    form += f" {setting['rank']}" if setting["rank"] else ""
    return (
        f"{form}, batch {setting['batch']}, grid {setting['grid']}^2, modes "
        f"{setting['modes']}^2, width {setting['width']}"
    )


@dataclasses.dataclass(frozen=True, init=False)
class Step(Speed):
    """Seconds of a step, and the most memory of the process that takes it."""

    setting: dict[str, Any]
    least: float | None

    def __init__(self, setting: dict[str, Any], target: float | None):
        super().__init__(lambda: training_step(**setting))
        object.__setattr__(self, "setting", setting)
        object.__setattr__(self, "least", target)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure in turns, each in its process."""
        least, most = context.rounds
        peer = None
        with closing(
            ChildProgram("ours", "benchmarks.operators:training_step", **self.setting)
        ) as ours:
            ours.seconds()
            if INSTALLED:
                names = {"tucker": "Tucker", "cp": "CP", "tt": "TT", None: None}
                same = self.setting | {"factorization": names[self.setting["factorization"]]}
                peer = ChildProgram(
                    "neuraloperator", "benchmarks.operators:peer_training_step", **same
                )
                peer.seconds()
            times = interleave(ours, peer, budget=context.budget / 4, least=least, most=most)
            held = ours.quality()["peak_bytes"]
            theirs = None
            if peer is not None:
                theirs = peer.quality()["peak_bytes"]
                peer.close()
        best, middle = min(times.ours), statistics.median(times.ours)
        other = (min(times.peer), statistics.median(times.peer)) if peer else (None, None)
        ratios = ratio(other[0], best), ratio(other[1], middle)
        known = [r for r in ratios if r is not None]
        name = "neuraloperator" if peer else ""
        yield case.row(
            context,
            quantity="seconds",
            unit="s",
            ours=best,
            peer_name=name,
            peer=other[0],
            ratio=ratios[0],
            aa_ratio=times.aa_ratio,
            spread=times.spread,
            rounds=times.rounds,
            ours_median=middle,
            peer_median=other[1],
            ratio_median=ratios[1],
            target=self.least,
            target_is="" if self.least is None else "ratio at least",
            met=min(known) >= self.least if known and self.least else None,
            note="" if peer else ABSENT,
        )
        memory = ratio(theirs, held)
        yield case.row(
            context,
            quantity="temp_bytes",
            unit="bytes",
            ours=held,
            peer_name=name,
            peer=theirs,
            ratio=memory,
            target=None if self.least is None else 1.0,
            target_is="" if self.least is None else "ratio at least",
            met=memory >= 1.0 if memory is not None and self.least else None,
            note="the most the whole process has held, compiling and libraries included",
        )
