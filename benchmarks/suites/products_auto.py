"""The method that `auto` chooses against the fastest of all methods and peers for the map."""

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ..case import Case, Context, Speed
from ..measure import Program
from ..products import Problem, implementations
from ..rows import Row

SUITE = "products_auto"
MAPS = (
    {"paths": "all", "coupling": "gaunt", "weights": "per-degree"},
    {"paths": "all", "coupling": "clebsch-gordan", "weights": None},
    {"paths": "even", "coupling": "gaunt", "weights": "per-degree"},
)
# Bytes of the largest array that a candidate may make.
_LARGEST = 5e8
# A candidate that takes so many times as long as ours when it is screened is not timed further.
_HOPELESS = 3.0

# Excess over the fastest, over A/A, and our seconds, of each case measured in this process.
_MEASURED: list[tuple[float, float]] = []


def cases(quick: bool) -> list[Case]:
    """Return one case for each degree, number of channels and size of batch.

    The map and whether gradients count go round, so that each pair of them is met at every size.
    """
    degrees = (1, 2) if quick else range(1, 9)
    sizes = [(4, 8)] if quick else list(itertools.product((1, 32, 128), (64, 1000)))
    found = []
    for degree in degrees:
        for number, (channels, batch) in enumerate(sizes):
            fields = MAPS[(degree + number // 2) % 3]
            problem = Problem(
                degree,
                **fields,
                batch=batch,
                channels=channels,
                gradients=bool((degree + number) % 2),
            )
            found.append(Case(SUITE, problem.name, "float32", Choice(problem)))
    return found if quick else [*found, Case(SUITE, "all", "float32", Summary())]


@dataclasses.dataclass(frozen=True, init=False)
class Choice(Speed):
    """`auto` in turns with the fastest of the others."""

    problem: Problem

    def __init__(self, problem: Problem):
        super().__init__(problem.ours)
        object.__setattr__(self, "problem", problem)

    def _others(self) -> dict[str, Callable[[], Program]]:
        problem = self.problem
        rows, d = problem.batch * problem.channels, (problem.degree + 1) ** 2
        largest = {
            "clebsch-gordan": rows * d * d * 4,
            "gaunt-grid": rows * 2 * d * 4 * 4,
            "gaunt-fourier": rows * (4 * problem.degree + 2) ** 2 * 4 * 2,
        }
        found: dict[str, Callable[[], Program]] = {
            method: lambda m=method: problem.ours(m)
            for method in implementations(problem)
            if largest[method] <= _LARGEST
        }
        if problem.degree <= 4 and largest["clebsch-gordan"] <= _LARGEST:
            found["jnp.einsum, one"] = problem.einsum_dense
            found["jnp.einsum by pairs"] = problem.einsum_paths
        if problem.degree <= 2:
            found["e3nn-jax"] = problem.e3nn
        return found

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Screen the candidates, then time the three fastest of them in turns with ours."""
        ours = self.problem.ours()
        limit = _HOPELESS * _shortest(ours)
        screened: dict[str, tuple[float, Program]] = {}
        for name, build in self._others().items():
            program = build()
            spent = _shortest(program)
            if spent <= limit:
                screened[name] = spent, program
        finalists = sorted(screened, key=lambda name: screened[name][0])[:3]
        programs = {"ours": ours, **{n: screened[n][1] for n in finalists}, "again": ours}
        times: dict[str, list[float]] = {name: [] for name in programs}
        stop = time.perf_counter() + context.budget / 15
        while len(times["ours"]) < 3 or (
            time.perf_counter() < stop and len(times["ours"]) < 15 and not context.quick
        ):
            for name, program in programs.items():
                times[name].append(program.seconds())
        middle = {name: statistics.median(spent) for name, spent in times.items()}
        best = min(finalists or ["again"], key=middle.__getitem__)
        aa = middle["again"] / middle["ours"]
        excess = middle["ours"] / min(middle[best], middle["ours"]) / max(aa, 1 / aa)
        chosen = self.problem.product().method_for(
            self.problem.batch, gradients=self.problem.gradients
        )
        _MEASURED.append((max(excess, 1.0), middle["ours"]))
        yield case.row(
            context,
            quantity="seconds",
            unit="s",
            ours=min(times["ours"]),
            peer_name=best,
            peer=min(times[best]),
            ratio=min(times[best]) / min(times["ours"]),
            ours_median=middle["ours"],
            peer_median=middle[best],
            ratio_median=middle[best] / middle["ours"],
            error_ours=ours.quality().get("error"),
            aa_ratio=aa,
            rounds=len(times["ours"]),
            note=f"the fastest of {len(self._others())}; chosen: {chosen}",
        )


class Summary(Speed):
    """The excess over all cases, measured before in the same run."""

    def __init__(self):
        super().__init__(lambda: Program("ours", lambda: None))

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Sum up."""
        if not _MEASURED:
            return
        mean = math.exp(statistics.fmean(math.log(excess) for excess, _ in _MEASURED))
        worst = max((excess for excess, seconds in _MEASURED if seconds > 1e-3), default=1.0)
        for unit, value, most in (
            ("geometric mean of excess over A/A", mean, 1.05),
            ("worst excess over A/A above 1 ms", worst, 1.3),
        ):
            yield case.row(
                context,
                quantity="error",
                unit=unit,
                ours=value,
                target=most,
                target_is="ours at most",
                met=value <= most,
                note=f"{len(_MEASURED)} cases",
            )


def _shortest(program: Any) -> float:
    """Return the shorter of two runs after one that compiles."""
    jax.block_until_ready(program.seconds())
    return min(program.seconds() for _ in range(2))
