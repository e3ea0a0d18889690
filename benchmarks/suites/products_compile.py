"""How long the value and gradient of every method take to trace and compile."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ..case import Case, Context, Speed
from ..measure import Program
from ..products import EXACT, Problem
from ..rows import Row, ratio

SUITE = "products_compile"
MAPS = (
    {"paths": "all", "coupling": "gaunt", "weights": "per-degree"},
    {"paths": "all", "coupling": "clebsch-gordan", "weights": None},
)
# e3nn-jax unrolls its paths: beyond it takes minutes.
_LAST_PEER = 4


def cases(quick: bool) -> list[Case]:
    """Return a case for each map, degree and method."""
    size = {"batch": 16, "channels": 4} if quick else {}
    found = [
        (Problem(degree, **fields, gradients=True, **size), method)
        for fields in (MAPS[:1] if quick else MAPS)
        for degree in ((1,) if quick else range(1, 9))
        for method in EXACT
    ]
    # Exact tables of the Clebsch-Gordan coupling come with the package up to there.
    found += [
        (Problem(degree, **MAPS[1], gradients=True, even=True, **size), "cp")
        for degree in ((1,) if quick else (1, 2, 3))
    ]
    return [Case(SUITE, f"{m}: {p.name}", "float32", Compile(p, m)) for p, m in found]


@dataclasses.dataclass(frozen=True, init=False)
class Compile(Speed):
    """Seconds from a function to a compiled program, planning included, once from nothing."""

    problem: Problem
    method: str

    def __init__(self, problem: Problem, method: str):
        super().__init__(lambda: Program("ours", self._once))
        object.__setattr__(self, "problem", problem)
        object.__setattr__(self, "method", method)

    def _once(self) -> float:
        options = {"rtol": 1e-9} if self.method == "cp" else {}
        made = self.problem.product(self.method, **options)
        x, y, w = self.problem.arrays()
        return _seconds(made, x, y, *(() if self.problem.weights is None else (w,)))

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Compile, and e3nn-jax's product once a degree."""
        try:
            ours = self._once()
        except ValueError as error:
            # What a method cannot implement it refuses when it is made; there is nothing to time.
            if "method:" not in str(error):
                raise
            return
        problem, peer = self.problem, None
        if self.method == "gaunt-grid" and problem.degree <= _LAST_PEER:
            x, y, _ = problem.arrays()
            peer = _seconds(problem.e3nn_function(), x, y, *problem.by_irrep())
        yield case.row(
            context,
            quantity="compile_seconds",
            unit="s",
            ours=ours,
            peer_name="" if peer is None else "e3nn-jax",
            peer=peer,
            ratio=ratio(peer, ours),
            target=None if context.quick else 1.0,
            target_is="" if context.quick else "ours at most",
            met=None if context.quick else ours <= 1.0,
            note="trace, planning and compilation of value and gradient, once",
        )


def _seconds(function: Callable[..., jax.Array], *operands: Any) -> float:
    arrays = [jnp.asarray(a) for a in operands]

    def loss(x: Any, y: Any, *more: Any) -> jax.Array:
        return 0.5 * jnp.sum(function(x, y, *more) ** 2)

    start = time.perf_counter()
    jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arrays).compile()
    return time.perf_counter() - start
