"""Time programs in turn, so that what slows the machine slows both sides alike."""

import dataclasses
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Protocol

import jax

CLAIM_ROUNDS = 15
_REST = 0.05  # seconds; OpenBLAS spins for 2**26 cycles, about half of this
_SHORT = 0.1  # seconds; what takes less runs in a loop, so long untimed and so long timed


class Timed(Protocol):
    """Anything that can be timed: here or in a child process."""

    name: str

    def seconds(self) -> float:
        """Run once and return the seconds it took."""
        ...

    def quality(self) -> dict[str, float]:
        """Return what the last run reached, such as `{"error": 0.1, "iterations": 12}`."""
        ...

    def close(self) -> None:
        """Give back what the program holds."""
        ...


@dataclasses.dataclass
class Program:
    """A program of this process: `run()` does the work, `judge(result)` says how well."""

    name: str
    run: Callable[[], Any]
    judge: Callable[[Any], dict[str, float]] | None = None
    result: Any = None

    def seconds(self) -> float:
        start = time.perf_counter()
        result = jax.block_until_ready(self.run())
        elapsed = time.perf_counter() - start
        self.result = result
        return elapsed

    def quality(self) -> dict[str, float]:
        return {} if self.judge is None or self.result is None else self.judge(self.result)

    def close(self) -> None:
        self.result = None


@dataclasses.dataclass(frozen=True)
class Timings:
    """Seconds of each round: ours, the peer, ours again."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]
    again: tuple[float, ...]

    @property
    def rounds(self) -> int:
        return len(self.ours)

    @property
    def aa_ratio(self) -> float:
        """Our second timings over our first: how far from 1 the machine alone can move a ratio."""
        return statistics.median(self.again) / statistics.median(self.ours)

    @property
    def spread(self) -> float:
        """Interquartile range over the median of all our timings."""
        every = sorted((*self.ours, *self.again))
        low, _, high = statistics.quantiles(every, n=4) if len(every) > 1 else (every[0],) * 3
        return (high - low) / statistics.median(every)


def _rested(program: Timed, *, short: bool) -> float:
    time.sleep(_REST)
    if not short:
        return program.seconds()
    _loop(program)
    return statistics.fmean(_loop(program))


def _loop(program: Timed) -> list[float]:
    times: list[float] = []
    while sum(times) < _SHORT:
        times.append(program.seconds())
    return times


def interleave(
    ours: Timed, peer: Timed | None, *, budget: float, least: int = 3, most: int = CLAIM_ROUNDS
) -> Timings:
    """Time `ours`, `peer`, `ours` in turn until the budget or `most` rounds are reached.

    Both are warmed up by two calls that do not count, of which the first may compile. No garbage is
    collected meanwhile, and each call waits until the threads that a BLAS has left spinning after
    the one before are asleep. A short program then runs in a loop, of whose second half the mean
    call counts: the first ones find caches cold and threads and virtual cores asleep, which says
    more of the other program and of the host than of this one.

    Args:
        ours: the program that is timed twice a round.
        peer: what it is compared with, if anything.
        budget: seconds the whole may take; `least` rounds run whatever it says.
        least: rounds at least.
        most: rounds at most.
    """
    mine, theirs = (0.0 if p is None else (p.seconds(), p.seconds())[1] for p in (ours, peer))
    short, peer_short = mine < _SHORT, theirs < _SHORT
    loops = 2 * _SHORT * (2 * short + peer_short)
    cost = 2 * mine + theirs + loops + 3 * _REST
    rounds = max(least, min(most, int(budget / max(cost, 1e-9)) - 1))
    first, second, other = [], [], []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            first.append(_rested(ours, short=short))
            if peer is not None:
                other.append(_rested(peer, short=peer_short))
            second.append(_rested(ours, short=short))
    finally:
        gc.enable()
    return Timings(tuple(first), tuple(other), tuple(second))


def compiled_cost(function: Callable, *operands: Any) -> dict[str, float]:
    """Return what XLA says of a function compiled for `operands`: temporary bytes and flops.

    XLA counts the body of a loop once and the work of LAPACK calls not at all.
    """
    compiled = jax.jit(function).lower(*operands).compile()
    cost = compiled.cost_analysis()
    if isinstance(cost, (list, tuple)):
        cost = cost[0] if cost else {}
    found = {"flops": float((cost or {}).get("flops", float("nan")))}
    memory = compiled.memory_analysis()
    if memory is not None:
        found["temp_bytes"] = float(memory.temp_size_in_bytes)
    return found


def allocated(program: Program) -> float:
    """Return the most bytes that numpy and Python held at once beyond those at the start.

    LAPACK's own workspace is not among them.
    """
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        program.run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return float(peak - before)
