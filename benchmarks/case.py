"""A case: what is measured, against whom, and what it is held to."""

import dataclasses
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import jax

from .machine import Machine
from .measure import CLAIM_ROUNDS, Program, Timed, allocated, compiled_cost, interleave
from .rows import Row, ratio


@dataclasses.dataclass(frozen=True)
class Context:
    """What a run shares: the machine, how long a comparison may take, and whether it is quick."""

    machine: Machine
    budget: float = 45.0
    quick: bool = False

    @property
    def rounds(self) -> tuple[int, int]:
        """Least and most rounds of a comparison."""
        return (2, 3) if self.quick else (3, CLAIM_ROUNDS)

    def seconds(self, *, claim: bool) -> float:
        """Return how long a comparison may take; one that promises nothing has a quarter."""
        return self.budget if claim else self.budget / 4


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program to compare with.

    Attributes:
        build: makes it; closed after its comparison.
        target: the least ratio of its seconds to ours, at equal error, if one is promised.
        scale: its seconds are multiplied by this, where it is timed on a part of the work.
        note: what a reader has to know about the comparison.
        memory: also compare what it allocates with our temporary bytes.
    """

    build: Callable[[], Timed]
    target: float | None = None
    scale: float = 1.0
    note: str = ""
    memory: bool = False


@dataclasses.dataclass(frozen=True)
class Speed:
    """Seconds of one program beside its peers', with the error each of them reached.

    Attributes:
        ours: makes our program.
        peers: whom to compare with.
        sweeps: seconds are told per sweep of a run that has this many; a run that has another
            count fails. None: seconds are those of the whole.
        within: relative difference of the errors below which they count as equal.
        error_at_most: the error that was asked for, where the peer was not asked for the same.
        cost: makes a function and its operands, from which XLA's own counts are taken.
        floor: the least seconds of a whole run on a machine.
        floor_note: what that counts.
    """

    ours: Callable[[], Timed]
    peers: Sequence[Peer] = ()
    sweeps: int | None = None
    within: float = 1e-3
    error_at_most: float | None = None
    cost: Callable[[], tuple[Callable, tuple[Any, ...]]] | None = None
    floor: Callable[[Machine], float] | None = None
    floor_note: str = ""
    note: str = ""

    def program(self) -> Timed:
        """Return the program that is timed."""
        return self.ours()

    def rows(self, case: "Case", context: Context) -> Iterator[Row]:
        """Measure, one row at a time."""
        ours = self.ours()
        first = ours.seconds()
        floor = self.floor(context.machine) / (self.sweeps or 1) if self.floor else None
        fastest = math.inf
        peers: Sequence[Peer | None] = tuple(self.peers) or (None,)
        peer_bytes: list[tuple[str, float]] = []
        for peer in peers:
            row, seconds, held = self._compare(case, context, ours, peer, floor)
            fastest = min(fastest, seconds)
            peer_bytes += held
            yield row
        yield case.row(
            context,
            quantity="compile_seconds",
            unit="s",
            ours=max(first - fastest, 0.0),
            note="first call less a later one; jax's compilation cache off",
        )
        if self.cost is not None:
            yield from self._cost_rows(case, context, peer_bytes)

    def _compare(
        self, case: "Case", context: Context, ours: Timed, peer: Peer | None, floor: float | None
    ) -> tuple[Row, float, list[tuple[str, float]]]:
        least, most = context.rounds
        held: list[tuple[str, float]] = []
        target = peer.target if peer else None
        budget = context.seconds(claim=target is not None)
        if peer is None:
            _log("  alone")
            times = interleave(ours, None, budget=budget, least=least, most=most)
            name, theirs = "", {}
        else:
            with closing(peer.build()) as program:
                _log(f"  against {program.name}")
                times = interleave(ours, program, budget=budget, least=least, most=most)
                name, theirs = program.name, program.quality()
                if peer.memory and isinstance(program, Program):
                    held.append((name, allocated(program)))
        quality = ours.quality()
        for reached in (quality, theirs):
            if self.sweeps and reached.get("iterations", self.sweeps) != self.sweeps:
                raise RuntimeError(
                    f"sweeps: expected runs of {self.sweeps}, got {reached['iterations']:g}"
                )
        per = self.sweeps or 1
        best, middle = min(times.ours) / per, statistics.median(times.ours) / per
        peer_best = peer_middle = None
        if peer is not None:
            peer_best = min(times.peer) * peer.scale / per
            peer_middle = statistics.median(times.peer) * peer.scale / per
        ratios = ratio(peer_best, best), ratio(peer_middle, middle)
        notes = (self.note, peer.note if peer else "", self.floor_note if floor else "")
        row = case.row(
            context,
            quantity="seconds",
            unit="s/sweep" if self.sweeps else "s",
            ours=best,
            peer_name=name,
            peer=peer_best,
            ratio=ratios[0],
            floor=floor,
            error_ours=quality.get("error"),
            error_peer=theirs.get("error"),
            aa_ratio=times.aa_ratio,
            spread=times.spread,
            rounds=times.rounds,
            ours_median=middle,
            peer_median=peer_middle,
            ratio_median=ratios[1],
            target=target,
            target_is="" if target is None else "ratio at least",
            met=self._met(ratios, target, quality.get("error"), theirs.get("error")),
            note="; ".join(note for note in notes if note),
        )
        return row, min(times.ours), held

    def _met(
        self,
        ratios: tuple[float | None, float | None],
        target: float | None,
        ours: float | None,
        peer: float | None,
    ) -> bool | None:
        # A target holds only where both the least and the median figures reach it and the error
        # bought with those seconds is no worse than the peer's.
        if target is None:
            return None
        if any(value is None or value < target for value in ratios):
            return False
        if self.error_at_most is not None:
            return ours is not None and ours <= self.error_at_most
        return ours is None or peer is None or ours <= peer * (1 + self.within)

    def _cost_rows(
        self, case: "Case", context: Context, peer_bytes: list[tuple[str, float]]
    ) -> Iterator[Row]:
        assert self.cost is not None
        function, operands = self.cost()
        cost = compiled_cost(function, *operands)
        if "temp_bytes" in cost:
            name, held = peer_bytes[0] if peer_bytes else ("", None)
            yield case.row(
                context,
                quantity="temp_bytes",
                unit="bytes",
                ours=cost["temp_bytes"],
                peer_name=name,
                peer=held,
                ratio=ratio(held, cost["temp_bytes"]),
                note="ours: XLA's temporary buffers; the peer's: most bytes numpy held at once, "
                "without LAPACK's workspace",
            )
        if math.isfinite(cost["flops"]):
            yield case.row(
                context,
                quantity="flops",
                unit="flops",
                ours=cost["flops"],
                note="XLA's count: bodies of loops once, LAPACK calls not at all",
            )


@dataclasses.dataclass(frozen=True)
class Quality:
    """The error a method reaches on given data: the median over seeds, held to a figure.

    Attributes:
        ours: makes our program for a seed.
        seeds: one run each.
        at_most: the error, to `digits` decimals, that is held.
        iterations_at_most: sweeps that are held, where they are.
        peers: makes the peer's program for a seed.
        peer_seeds: how many of the seeds the peer runs.
        published: the peer's error where it is not run, and in the note its source.
    """

    ours: Callable[[int], Timed]
    at_most: float | None = None
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    digits: int = 4
    iterations_at_most: float | None = None
    peer: Callable[[int], Timed] | None = None
    peer_seeds: int = 5
    published: float | None = None
    note: str = ""

    def program(self) -> Timed:
        """Return the program of the first seed."""
        return self.ours(self.seeds[0])

    def rows(self, case: "Case", context: Context) -> Iterator[Row]:
        """Run every seed, then the peer's."""
        seeds = tuple(self.seeds)[: 1 if context.quick else None]
        _log(f"  ours, seeds {', '.join(map(str, seeds))}")
        warm = self.ours(seeds[0])
        first = warm.seconds()
        ours = [_run(self.ours(seed)) for seed in seeds]
        peer_seeds = seeds[: self.peer_seeds] if self.peer is not None else ()
        theirs, name = [], ""
        for seed in peer_seeds:
            assert self.peer is not None
            with closing(self.peer(seed)) as program:
                _log(f"  {program.name}, seed {seed}")
                name = program.name
                theirs.append(_run(program))
        if self.published is not None:
            theirs, name = [{"error": self.published}], "published"
        error, peer_error = _median(ours, "error"), _median(theirs, "error")
        assert error is not None
        same: dict[str, Any] = {
            "peer_name": name,
            "error_ours": error,
            "error_peer": peer_error,
            "rounds": len(seeds),
        }
        values = ", ".join(f"{run['error']:.6f}" for run in ours)
        notes = [f"median of {len(seeds)} seeds ({values})"]
        if name and name != "published":
            notes.append(f"{name}: {len(peer_seeds)} seeds")
        notes += [self.note] if self.note else []
        yield case.row(
            context,
            quantity="error",
            unit="relative Frobenius",
            ours=error,
            peer=peer_error,
            ratio=ratio(peer_error, error),
            target=self.at_most,
            target_is="" if self.at_most is None else "ours at most",
            met=None if self.at_most is None else round(error, self.digits) <= self.at_most,
            note="; ".join(notes),
            **same,
        )
        for quantity, unit, most in (
            ("iterations", "sweeps", self.iterations_at_most),
            ("seconds", "s", None),
        ):
            value, other = _median(ours, quantity), _median(theirs, quantity)
            if value is None:
                continue
            yield case.row(
                context,
                quantity=quantity,
                unit=unit,
                ours=value,
                ours_median=value,
                peer=other,
                peer_median=other,
                ratio=ratio(other, value),
                target=most,
                target_is="" if most is None else "ours at most",
                met=None if most is None else value <= most,
                note="to each one's own stopping rule, not interleaved, median over seeds",
                **same,
            )
        fastest = min(run["seconds"] for run in ours)
        yield case.row(
            context,
            quantity="compile_seconds",
            unit="s",
            ours=max(first - fastest, 0.0),
            note="first call less the fastest later one; jax's compilation cache off",
        )


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of a suite: a name, a precision, and what is measured."""

    suite: str
    name: str
    dtype: str
    measure: Speed | Quality

    def rows(self, context: Context) -> Iterator[Row]:
        """Measure in the case's precision, from empty compilation caches."""
        jax.clear_caches()
        with jax.enable_x64(self.dtype == "float64"):
            yield from self.measure.rows(self, context)

    def row(self, context: Context, **fields: Any) -> Row:
        """Return a row with what all rows of this case share."""
        return Row(
            suite=self.suite,
            case=self.name,
            dtype=self.dtype,
            threads=context.machine.threads,
            device=context.machine.device,
            versions=context.machine.versions,
            **fields,
        )


def _run(program: Timed) -> dict[str, float]:
    seconds = program.seconds()
    return {**program.quality(), "seconds": seconds}


def _median(runs: Sequence[dict[str, float]], quantity: str) -> float | None:
    values = [run[quantity] for run in runs if quantity in run]
    return statistics.median(values) if values else None


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
