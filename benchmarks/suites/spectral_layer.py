"""Spectral layers, forward and backward: against neuraloperator, and the choice against all."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from solvers.operators import SpectralConv
from solvers.operators.program import METHODS

from ..case import Case, Context, Speed
from ..measure import Program, interleave
from ..operator_peers import ABSENT, builders
from ..rows import Row, ratio

SUITE = "spectral_layer"
FORMATS = (("tucker", "Tucker"), ("cp", "CP"), ("tt", "TT"))
RANKS = (0.42, 0.1, 0.01)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A layer and its input.

    Attributes:
        factorization: of ours; `peer_factorization` is the peer's name for it.
        rank: share of the dense parameters.
        batch, width, grid, modes: of the fields.
    """

    factorization: str | None
    rank: float | None
    batch: int = 8
    width: int = 64
    grid: tuple[int, ...] = (64, 64)
    modes: tuple[int, ...] = (16, 16)

    @property
    def name(self) -> str:
        form = f"{self.factorization} {self.rank}" if self.factorization else "dense"
        grid, modes = ("x".join(map(str, n)) for n in (self.grid, self.modes))
        return f"{form}, batch {self.batch}, width {self.width}, grid {grid}, modes {modes}"

    def layer(self, method: str = "auto") -> SpectralConv:
        """Make our layer."""
        return SpectralConv(
            self.width,
            self.width,
            self.modes,
            factorization=self.factorization,
            rank=self.rank,
            method=method,
            key=jax.random.key(0),
        )

    def shape(self) -> tuple[int, ...]:
        """Of the input."""
        return (self.batch, self.width, *self.grid)

    def program(self, method: str = "auto") -> Program:
        """Value and gradient with respect to input and weights."""
        weights, rest = eqx.partition(self.layer(method), eqx.is_array)
        x = jnp.asarray(np.random.default_rng(0).normal(size=self.shape()), jnp.float32)

        @jax.jit
        def run(weights: Any, x: jax.Array) -> Any:
            def value(weights: Any, x: jax.Array) -> jax.Array:
                return jnp.sum(eqx.combine(weights, rest)(x) ** 2)

            return jax.value_and_grad(value, argnums=(0, 1))(weights, x)

        return Program(method, lambda: run(weights, x))

    def peers(self) -> list[Callable[[], Program]]:
        """What makes the peer's forms."""
        names = dict(FORMATS)
        return builders(
            factorization=names[self.factorization] if self.factorization else None,
            rank=self.rank,
            batch=self.batch,
            width=self.width,
            grid=self.grid,
            modes=self.modes,
        )


TABLE = (Setting(None, None), *(Setting(f, r) for f, _ in FORMATS for r in RANKS))
OTHERS = (
    Setting(None, None, batch=1),
    Setting("tucker", 0.1, batch=1),
    Setting("cp", 0.1, batch=1),
    Setting("tt", 0.1, batch=64, width=32),
    Setting("cp", 0.1, batch=64, width=32),
    Setting("tucker", 0.1, grid=(1024,), modes=(64,)),
    Setting("tt", 0.1, batch=32, grid=(256,), modes=(16,)),
    Setting("tucker", 0.1, batch=2, width=24, grid=(24, 24, 24), modes=(8, 8, 8)),
    Setting(None, None, batch=2, width=24, grid=(24, 24, 24), modes=(8, 8, 8)),
)
QUICK = (Setting("tucker", 0.1, batch=2, width=8, grid=(16, 16), modes=(6, 6)),)


def cases(quick: bool) -> list[Case]:
    """Return the cases: those with a peer, those that compare our own programs, a summary."""
    found = [
        Case(SUITE, setting.name, "float32", Compared(setting, target=None if quick else 1.0))
        for setting in (QUICK if quick else TABLE)
    ]
    found += [
        Case(SUITE, f"choice: {setting.name}", "float32", Choice(setting))
        for setting in (QUICK if quick else (*TABLE, *OTHERS))
    ]
    return found if quick else [*found, Case(SUITE, "all", "float32", Summary())]


_RATIOS: list[float] = []
_EXCESS: list[tuple[float, float]] = []


@dataclasses.dataclass(frozen=True, init=False)
class Compared(Speed):
    """Ours against the fastest form of the peer."""

    setting: Setting
    least: float | None

    def __init__(self, setting: Setting, target: float | None):
        super().__init__(setting.program)
        object.__setattr__(self, "setting", setting)
        object.__setattr__(self, "least", target)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure against each form, and tell the fastest."""
        ours = self.setting.program()
        chosen = self.setting.layer().choice(self.setting.shape())[0]
        first = ours.seconds()
        builds = self.setting.peers()
        least, most = context.rounds
        found = []
        for build in builds:
            with closing(build()) as peer:
                peer.seconds()
                budget = context.budget / (4 * len(builds))
                times = interleave(ours, peer, budget=budget, least=least, most=most)
                found.append((statistics.median(times.peer), min(times.peer), peer.name, times))
        if not found:
            times = interleave(ours, None, budget=context.budget / 8, least=least, most=most)
            found.append((None, None, "", times))
        middle, best, name, times = min(found, key=lambda f: f[0] or 0.0)
        fastest, mine = min(times.ours), statistics.median(times.ours)
        ratios = ratio(best, fastest), ratio(middle, mine)
        met = None
        if self.least is not None and ratios[1] is not None:
            _RATIOS.append(ratios[1])
            met = min(r for r in ratios if r is not None) >= self.least
        yield case.row(
            context,
            quantity="seconds",
            unit="s",
            ours=fastest,
            peer_name=name,
            peer=best,
            ratio=ratios[0],
            aa_ratio=times.aa_ratio,
            spread=times.spread,
            rounds=times.rounds,
            ours_median=mine,
            peer_median=middle,
            ratio_median=ratios[1],
            target=self.least,
            target_is="" if self.least is None else "ratio at least",
            met=met,
            note=f"chosen: {chosen}; {'its fastest form' if name else ABSENT}",
        )
        yield case.row(
            context,
            quantity="compile_seconds",
            unit="s",
            ours=max(first - fastest, 0.0),
            note="first call less a later one; jax's compilation cache off",
        )


@dataclasses.dataclass(frozen=True, init=False)
class Choice(Speed):
    """The program that is chosen against every one there is."""

    setting: Setting

    def __init__(self, setting: Setting):
        super().__init__(setting.program)
        object.__setattr__(self, "setting", setting)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Time all in turns."""
        chosen, table = self.setting.layer().choice(self.setting.shape())
        names = [name for name in METHODS if f" {name} " in table]
        programs = {name: self.setting.program(name) for name in names}
        screened = {}
        for name, program in programs.items():
            program.seconds()
            screened[name] = min(program.seconds() for _ in range(2))
        # What is far behind stays out of the rounds.
        near = sorted(names, key=screened.__getitem__)[:3]
        near = [chosen, *(name for name in near if name != chosen)]
        times: dict[str, list[float]] = {name: [] for name in (*near, "again")}
        for _ in range(3 if context.quick else 11):
            for name, spent in times.items():
                spent.append(programs[chosen if name == "again" else name].seconds())
        middle = {name: statistics.median(spent) for name, spent in times.items()}
        best = min(near, key=middle.__getitem__)
        aa = max(middle["again"] / middle[chosen], middle[chosen] / middle["again"])
        regret = middle[chosen] / middle[best]
        if not context.quick:
            _EXCESS.append((max(1.0, regret / aa), middle[chosen]))
        yield case.row(
            context,
            quantity="seconds",
            unit="s",
            ours=min(times[chosen]),
            peer_name=best,
            peer=min(times[best]),
            ratio=min(times[best]) / min(times[chosen]),
            ours_median=middle[chosen],
            peer_median=middle[best],
            ratio_median=1 / regret,
            aa_ratio=aa,
            rounds=len(times[chosen]),
            note=f"chosen: {chosen}, the fastest: {best}, of {len(names)}",
        )


class Summary(Speed):
    """Geometric means over the cases measured before in the same run."""

    def __init__(self):
        pass

    def program(self) -> Any:
        """Return a program that does nothing."""
        return Program("ours", lambda: None)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Sum up."""
        figures: list[tuple[str, float, float, bool]] = []
        if _RATIOS:
            mean = math.exp(statistics.fmean(map(math.log, _RATIOS)))
            figures.append(("geometric mean of the peer's seconds over ours", mean, 1.8, False))
        if _EXCESS:
            mean = math.exp(statistics.fmean(math.log(e) for e, _ in _EXCESS))
            worst = max((e for e, seconds in _EXCESS if seconds > 3e-3), default=1.0)
            figures.append(("geometric mean of regret over A/A", mean, 1.05, True))
            figures.append(("worst regret over A/A above 3 ms", worst, 1.3, True))
        for unit, value, target, at_most in figures:
            yield case.row(
                context,
                quantity="error",
                unit=unit,
                ours=value,
                target=target,
                target_is="ours at most" if at_most else "ours at least",
                met=value <= target if at_most else value >= target,
                note=f"{len(_EXCESS if at_most else _RATIOS)} cases",
            )
