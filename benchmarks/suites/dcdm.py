"""The deep conjugate direction method on -Laplace in three dimensions, beside plain CG.

The network is that of the package, trained on 32^3 points with boxes among them by
`examples/train_direction.py`; balls it has never seen.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from solvers import Status, flexible_cg
from solvers.preconditioners import PRETRAINED_DIRECTIONS, pretrained_direction
from solvers.problems import balls, poisson_around

from ..case import Case, Context
from ..measure import Program
from ..rows import Row, ratio

SUITE = "dcdm"
MOST = 40.0  # iterations to 1e-4 on 64^3 points


def cases(quick: bool) -> list[Case]:
    """Return the cases: a grid each; the quick one is small and promises nothing."""
    sizes = (16,) if quick else (32, 64)
    kinds: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
        "Poisson": functools.partial(np.ones, dtype=np.float32),
        "Poisson around 6 balls": functools.partial(balls, count=6, seed=1000),
    }
    return [
        Case(SUITE, f"{name} {n}^3", "float64", Directions(functools.partial(make, (n,) * 3)))
        for name, make in kinds.items()
        for n in sizes
    ]


@dataclasses.dataclass(frozen=True)
class Directions:
    """Iterations to two tolerances, and the seconds of a solve, with the network and without."""

    free: Callable[[], np.ndarray]

    def program(self) -> Program:
        """Return a solve."""
        matvec, b, model = self._problem()
        return Program("ours", lambda: flexible_cg(matvec, b, model, rtol=1e-4).value)

    def _problem(self) -> tuple[Any, jax.Array, Any]:
        free = jnp.asarray(self.free())
        b = np.random.default_rng(0).normal(size=free.size) * np.asarray(free, np.float64).ravel()
        model = pretrained_direction(PRETRAINED_DIRECTIONS[0]).on(free)
        # One function for all solves, so that they are compiled once.
        return functools.partial(poisson_around, free), jnp.asarray(b), model

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Solve to 1e-4 and to 1e-8."""
        matvec, b, model = self._problem()
        size = int(np.sum(self.free()))
        promised = not context.quick and case.name.endswith("64^3")
        for rtol in (1e-4, 1e-8):
            found, seconds = _solve(matvec, b, model, rtol)
            plain, theirs = _solve(matvec, b, None, rtol)
            steps, others = int(found.iterations), int(plain.iterations)
            target = MOST if promised and rtol == 1e-4 else None
            shared: dict[str, Any] = {
                "peer_name": "CG",
                "error_ours": _error(matvec, found, b),
                "error_peer": _error(matvec, plain, b),
                "note": f"rtol {rtol:g}, {size} unknowns",
            }
            yield case.row(
                context,
                quantity="iterations",
                unit="steps",
                ours=float(steps),
                peer=float(others),
                ratio=ratio(others, steps),
                target=target,
                target_is="" if target is None else "ours at most",
                met=None if target is None else steps <= target,
                **shared,
            )
            yield case.row(
                context,
                quantity="seconds",
                unit="s",
                ours=seconds,
                peer=theirs,
                ratio=ratio(theirs, seconds),
                **{**shared, "note": f"{shared['note']}; one run each"},
            )


def _solve(matvec: Any, b: jax.Array, model: Any, rtol: float) -> tuple[Any, float]:
    """Return a converged solution and the seconds of a second solve."""

    def run() -> Any:
        return jax.block_until_ready(flexible_cg(matvec, b, model, rtol=rtol))

    found = run()
    if not bool(found.status == Status.converged):
        raise RuntimeError(f"flexible_cg: expected convergence, got {found}")
    start = time.perf_counter()
    run()
    return found, time.perf_counter() - start


def _error(matvec: Any, found: Any, b: jax.Array) -> float:
    rest = b - matvec(found.value)
    return float(jnp.linalg.norm(rest) / jnp.linalg.norm(b))
