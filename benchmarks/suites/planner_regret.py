"""How far the planner's choices are from the fastest of many, and how well it predicts."""

import dataclasses
import itertools
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum
import scipy.stats

from tensornet.planner import Plan, plan
from tensornet.planner.cost import shipped_rates
from tensornet.planner.planning import candidates

from ..case import Case, Context, Speed
from ..measure import Program
from ..rows import Row

SUITE = "planner_regret"
HIGHEST = jax.lax.Precision.HIGHEST
SCREENED = 6

# What the library contracts: name, expression, shapes.
CONTRACTIONS: tuple[tuple[str, str, tuple[tuple[int, ...], ...]], ...] = (
    ("MTTKRP 200^3 mode 0", "ijk,jr,kr->ir", ((200,) * 3, (200, 16), (200, 16))),
    ("MTTKRP 200^3 mode 1", "ijk,ir,kr->jr", ((200,) * 3, (200, 16), (200, 16))),
    ("MTTKRP 200^3 mode 2", "ijk,ir,jr->kr", ((200,) * 3, (200, 16), (200, 16))),
    ("MTTKRP 48^4 mode 2", "ijkl,ir,jr,lr->kr", ((48,) * 4, *[(48, 16)] * 3)),
    ("Tucker core 100^3", "ijk,ia,jb,kc->abc", ((100,) * 3, *[(100, 20)] * 3)),
    ("HOOI mode 0 100^3", "ijk,jb,kc->ibc", ((100,) * 3, *[(100, 20)] * 2)),
    (
        "CP coupling L=3",
        "ni,nj,ir,jr,rk->nk",
        ((16384, 16), (16384, 16), (16, 48), (16, 48), (48, 16)),
    ),
    (
        "CP coupling L=6",
        "ni,nj,ir,jr,rk->nk",
        ((2048, 49), (2048, 49), (49, 147), (49, 147), (147, 49)),
    ),
    ("dense coupling L=3", "ni,nj,ijk->nk", ((8192, 16), (8192, 16), (16, 16, 16))),
    (
        "CP spectral weight",
        "bixy,ir,or,xr,yr->boxy",
        ((8, 32, 24, 24), (32, 32), (32, 32), (24, 32), (24, 32)),
    ),
    (
        "TT spectral weight",
        "bixy,ia,aoc,cxd,dy->boxy",
        ((8, 32, 24, 24), (32, 16), (16, 32, 16), (16, 24, 16), (16, 24)),
    ),
    (
        "TT matrix times batch",
        "nabc,aep,pbfq,qcg->nefg",
        ((256, 8, 8, 8), (8, 8, 16), (16, 8, 8, 16), (16, 8, 8)),
    ),
    (
        "one-site sweep step",
        "awb,bsc,wstv,dvc->atd",
        ((64, 5, 64), (64, 4, 64), (5, 4, 4, 5), (64, 5, 64)),
    ),
    ("TT environment", "ab,aic,bid->cd", ((64, 64), (64, 32, 64), (64, 32, 64))),
)


def cases(quick: bool) -> list[Case]:
    """Return a case for the value and one for the gradient of each contraction."""
    found = [
        Case(
            SUITE,
            f"{name}, {'value and gradient' if gradients else 'value'}",
            "float32",
            Regret(expression, shapes, gradients),
        )
        for name, expression, shapes in CONTRACTIONS
        for gradients in (False, True)
    ]
    return found[:2] if quick else [*found, Case(SUITE, "all", "float32", Summary())]


# Regret and rank correlation of each case measured so far in this process.
_MEASURED: list[tuple[float, float, float, float]] = []


@dataclasses.dataclass(frozen=True, init=False)
class Regret(Speed):
    """Ours against the fastest of all trees in several axis orders and of named programs."""

    def __init__(self, expression: str, shapes: Any, gradients: bool):
        for name, value in (
            ("expression", expression),
            ("shapes", shapes),
            ("gradients", gradients),
        ):
            object.__setattr__(self, name, value)

    expression: str
    shapes: tuple[tuple[int, ...], ...]
    gradients: bool

    def program(self) -> Any:
        """Return our program."""
        made = plan(self.expression, *self.shapes, gradients=self.gradients)
        return Program("ours", self._compiled(made)[0])

    def _compiled(self, function: Callable) -> tuple[Callable, str]:
        """Return a program and its text, by which those that are the same are told."""
        rng = np.random.default_rng(0)
        arrays = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in self.shapes]
        if self.gradients:
            inner = function

            def value(arrays: Sequence[jax.Array]) -> jax.Array:
                return jnp.sum(inner(*arrays) ** 2)

            made = jax.jit(jax.value_and_grad(value)).lower(arrays).compile()
            return lambda: made(arrays), _text(made)
        made = jax.jit(function).lower(*arrays).compile()
        return lambda: made(*arrays), _text(made)

    def _plans(self, most: int) -> list[Plan]:
        """Plans on every tree in several axis orders, the least flops first.

        The orders are those that the planner takes for the best, and those that a search for
        the least flops is left with, which does not look at copies: many more flops cannot win.
        """
        ours = plan(self.expression, *self.shapes, gradients=self.gradients)
        found: dict[Plan, None] = {}
        for tree, objective in itertools.product(_trees(len(self.shapes)), ("seconds", "flops")):
            for made in candidates(
                ours.network,
                objective=objective,
                search=tree,
                gradients=self.gradients,
                precision="HIGHEST",
                rates=shipped_rates(),
                seed=0,
            )[:3]:
                found[made] = None
        least = min(p.flops for p in found)
        close = sorted(
            (p for p in found if p.flops <= 4 * least and p != ours), key=lambda p: p.flops
        )
        return close[:most]

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Screen all candidates, then time the best of them in turns with ours."""
        ours = plan(self.expression, *self.shapes, gradients=self.gradients)
        functions: dict[str, tuple[Callable, float | None]] = {"ours": (ours, ours.seconds)}
        for k, made in enumerate(self._plans(4 if context.quick else 24)):
            functions[f"plan {k} {list(made.order)}"] = made, made.seconds
        for optimize in (None, "optimal"):
            options = {} if optimize is None else {"optimize": optimize}

            def einsum(*a: jax.Array, options: dict = options) -> jax.Array:
                return jnp.einsum(self.expression, *a, precision=HIGHEST, **options)

            functions[f"jnp.einsum {optimize or 'default'}"] = einsum, None

        def outside(*a: jax.Array) -> jax.Array:
            return jnp.asarray(opt_einsum.contract(self.expression, *a, backend="jax"))

        functions["opt_einsum"] = outside, None
        programs: dict[str, tuple[Callable, float | None]] = {}
        texts: set[str] = set()
        for name, (function, seconds) in functions.items():
            run, text = self._compiled(function)
            if text not in texts:
                texts.add(text)
                programs[name] = run, seconds
        screened = _screen({name: run for name, (run, _) in programs.items()})
        predicted = [(p, screened[name]) for name, (_, p) in programs.items() if p is not None]
        rank = float("nan")
        if len(predicted) > 3:
            rank = float(scipy.stats.spearmanr(*zip(*predicted, strict=True)).statistic)
        finalists = sorted((n for n in screened if n != "ours"), key=screened.__getitem__)[:4]
        rounds = 3 if context.quick else 15
        times: dict[str, list[float]] = {name: [] for name in ("ours", *finalists, "again")}
        for _ in range(rounds):
            for name, spent in times.items():
                run = programs["ours" if name == "again" else name][0]
                spent.append(_once(run))
        middle = {name: statistics.median(spent) for name, spent in times.items()}
        best = min(finalists, key=middle.__getitem__)
        aa = middle["again"] / middle["ours"]
        regret = middle["ours"] / min(middle[best], middle["ours"])
        _MEASURED.append((regret, max(aa, 1 / aa), rank, middle["ours"]))
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
            aa_ratio=aa,
            rounds=rounds,
            note=f"the fastest of {len(programs) - 1}; Spearman of predicted and measured "
            f"seconds {rank:.2f}",
        )


class Summary(Speed):
    """The regret over all cases, measured before in the same run."""

    def __init__(self):
        pass

    def program(self) -> Any:
        """Return a program that does nothing."""
        return Program("ours", lambda: None)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Sum up."""
        if not _MEASURED:
            return
        excess = [max(1.0, regret / aa) for regret, aa, _, _ in _MEASURED]
        mean = math.exp(statistics.fmean(map(math.log, excess)))
        worst = max((e for e, m in zip(excess, _MEASURED, strict=True) if m[3] > 3e-3), default=1.0)
        ranks = [m[2] for m in _MEASURED if not math.isnan(m[2])]
        rank = statistics.median(ranks)
        for unit, value, target, at_most in (
            ("geometric mean of regret over A/A", mean, 1.05, True),
            ("worst regret over A/A above 3 ms", worst, 1.3, True),
            ("median Spearman of predicted and measured", rank, 0.8, False),
        ):
            yield case.row(
                context,
                quantity="error",
                unit=unit,
                ours=value,
                target=target,
                target_is="ours at most" if at_most else "ours at least",
                met=value <= target if at_most else value >= target,
                note=f"{len(_MEASURED)} cases",
            )


def _trees(n: int) -> list[list[tuple[int, ...]]]:
    """Every order of contracting `n` operands pairwise, one for each tree."""

    def grow(pool: tuple[Any, ...]) -> Iterator[tuple[Any, list[tuple[int, ...]]]]:
        if len(pool) == 1:
            yield pool[0], []
            return
        for i, j in itertools.combinations(range(len(pool)), 2):
            joined = frozenset((pool[i], pool[j]))
            rest = tuple(x for k, x in enumerate(pool) if k not in (i, j))
            for tree, order in grow((*rest, joined)):
                yield tree, [(i, j), *order]

    found: dict[Any, list[tuple[int, ...]]] = {}
    for tree, order in grow(tuple(range(n))):
        found.setdefault(tree, order)
    return list(found.values())


def _text(compiled: Any) -> str:
    """The optimized program without what tells where it was written."""
    return re.sub(r", metadata=\{[^}]*\}", "", compiled.as_text())


def _once(run: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def _screen(programs: dict[str, Callable]) -> dict[str, float]:
    """Shortest times, in turns: what disturbs a machine for a while disturbs all alike."""
    for run in programs.values():
        jax.block_until_ready(run())
        print(".", end="", file=sys.stderr, flush=True)
    best = dict.fromkeys(programs, math.inf)
    for _ in range(SCREENED):
        for name, run in programs.items():
            best[name] = min(best[name], _once(run), _once(run))
    return best
