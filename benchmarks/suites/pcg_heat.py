"""One implicit step of the heat equation, setup counted: ours against the best of theirs.

The pattern stays from step to step and is analysed once; the values are new, so `setup` and the
solve are timed together, and for the peers the preconditioner and the solve. Their best is the
fastest of pyamg's smoothed aggregation and scipy's conjugate gradients with Jacobi and, where ilupp
is installed, its incomplete factors. A ratio of 1.3 is what this is to reach one day; nothing is
promised.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyamg
import scipy.sparse as sp

from solvers import pcg
from solvers.preconditioners import (
    Chebyshev,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
    SparseApproximateInverse,
    pretrained,
)
from solvers.problems import coefficients, fem
from solvers.sparse import from_scipy

from ..case import Case, Context
from ..measure import Program, interleave
from ..rows import Row, ratio
from .pcg_classical import ILUPP

SUITE = "pcg_heat"
RTOL = 1e-8
OURS: dict[str, Callable[[], Any]] = {
    "Jacobi": Jacobi,
    "Chebyshev(4)": Chebyshev,
    "FSAI(A)": SparseApproximateInverse,
    "IC(0)": IncompleteCholesky,
    "IC(0), rcm": functools.partial(IncompleteCholesky, order="rcm"),
    "IC(A^2, drop 1e-2)": functools.partial(IncompleteCholesky, power=2, drop=1e-2),
    "multigrid SA": Multigrid,
    "learned Cholesky": functools.partial(pretrained, "cholesky-diffusion-2d"),
}


def cases(quick: bool) -> list[Case]:
    """Return the cases; the quick ones are small."""
    fine = 4 if quick else 8
    return [Case(SUITE, name, "float64", Heat(name, fine)) for name in OURS]


@functools.cache
def _problem(refinements: int) -> Any:
    mesh = fem.mesh("disk", refinements, seed=0)
    return fem.heat_step(mesh, 1e-3, functools.partial(coefficients.smooth, seed=0))


def _judge(problem: Any, b: np.ndarray, count: Callable[[Any], float]) -> Any:
    def judge(found: Any) -> dict[str, float]:
        x = np.asarray(getattr(found, "value", found))
        error = float(np.linalg.norm(problem.matrix @ x - b) / np.linalg.norm(b))
        return {"error": error, "iterations": count(found)}

    return judge


def peers(refinements: int) -> dict[str, Program]:
    """Return their programs."""
    problem = _problem(refinements)
    matrix, b = sp.csr_matrix(problem.matrix), problem.right_side(0)
    count = [0]

    def tell(_: Any) -> None:
        count[0] += 1

    def preconditioned(build: Callable[[], Any]) -> Any:
        count[0] = 0
        return sp.linalg.cg(matrix, b, rtol=RTOL, M=build(), callback=tell)[0]

    def aggregation() -> Any:
        history: list[float] = []
        solver = pyamg.smoothed_aggregation_solver(matrix)
        x = solver.solve(b, tol=RTOL, accel="cg", residuals=history, maxiter=500)
        count[0] = len(history) - 1
        return x

    builds: dict[str, Callable[[], Any]] = {
        "scipy Jacobi": lambda: sp.diags_array(1 / matrix.diagonal()).tocsr()
    }
    if ILUPP:
        import ilupp

        builds["ilupp IC(0)"] = lambda: ilupp.IChol0Preconditioner(matrix)
        builds["ilupp ICt(10, 1e-2)"] = lambda: ilupp.ICholTPreconditioner(matrix, 10, 1e-2)
    runs = {name: functools.partial(preconditioned, build) for name, build in builds.items()}
    judge = _judge(problem, b, lambda _: float(count[0]))
    return {
        name: Program(name, run, judge) for name, run in {**runs, "pyamg SA": aggregation}.items()
    }


@functools.cache
def _seconds(refinements: int) -> dict[str, float]:
    """Return what each peer takes here, the best of two runs, the fastest first."""
    seconds = {
        name: min(program.seconds() for _ in range(2))
        for name, program in peers(refinements).items()
    }
    return dict(sorted(seconds.items(), key=lambda item: item[1]))


@dataclasses.dataclass(frozen=True)
class Heat:
    """Seconds of setup and solve, and of the analysis that comes once."""

    name: str
    refinements: int

    def program(self) -> Program:
        """Return setup and solve."""
        return self._ours()[0]

    def _ours(self) -> tuple[Program, float]:
        problem = _problem(self.refinements)
        matrix = from_scipy(problem.matrix)
        b = problem.right_side(0)
        start = time.perf_counter()
        analysed = jax.block_until_ready(OURS[self.name]().analyse(matrix))
        analysis = time.perf_counter() - start
        on_device = jnp.asarray(b)

        @eqx.filter_jit
        def step(matrix: Any, analysed: Any, b: Any) -> Any:
            return pcg(matrix, b, analysed.setup(matrix.data), rtol=RTOL)

        judge = _judge(problem, b, lambda found: float(found.iterations))
        return Program("ours", lambda: step(matrix, analysed, on_device), judge), analysis

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure in turns with the best of theirs."""
        ours, analysis = self._ours()
        first = ours.seconds()
        theirs_all = _seconds(self.refinements)
        peer = peers(self.refinements)[next(iter(theirs_all))]
        least, most = context.rounds
        times = interleave(ours, peer, budget=context.budget / 4, least=least, most=most)
        reached, theirs = ours.quality(), peer.quality()
        best, other = min(times.ours), min(times.peer)
        shared: dict[str, Any] = {
            "peer_name": peer.name,
            "error_ours": reached["error"],
            "error_peer": theirs["error"],
        }
        size = f"{_problem(self.refinements).size} unknowns"
        yield case.row(
            context,
            quantity="seconds",
            unit="s",
            ours=best,
            peer=other,
            ratio=ratio(other, best),
            aa_ratio=times.aa_ratio,
            spread=times.spread,
            rounds=times.rounds,
            note=f"setup and solve, {size}; the analysis, once, {analysis:.3f} s; theirs: "
            + ", ".join(f"{name} {spent:.3f}" for name, spent in theirs_all.items()),
            **shared,
        )
        yield case.row(
            context,
            quantity="iterations",
            unit="steps",
            ours=reached["iterations"],
            peer=theirs["iterations"],
            ratio=ratio(theirs["iterations"], reached["iterations"]),
            note=size,
            **shared,
        )
        yield case.row(
            context,
            quantity="compile_seconds",
            unit="s",
            ours=max(first - best, 0.0),
            note="first call less the fastest later one",
        )
