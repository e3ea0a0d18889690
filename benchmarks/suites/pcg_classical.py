"""Conjugate gradient with classical preconditioners, against scipy, and pyamg's hierarchies."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pyamg
import scipy.sparse as sp

from solvers.krylov.solve import compiled
from solvers.preconditioners import (
    Chebyshev,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
    SparseApproximateInverse,
)
from solvers.problems import Problem, anisotropic, coefficients, fem, poisson
from solvers.sparse import from_scipy

from ..case import Case, Context
from ..measure import Program, interleave
from ..rows import Row, ratio

SUITE = "pcg_classical"
RTOL = 1e-8
PRECONDITIONERS: dict[str, Callable[[Any], Any]] = {
    "Jacobi": Jacobi,
    "Chebyshev(4)": Chebyshev,
    "FSAI(A)": SparseApproximateInverse,
    "FSAI(A^2)": functools.partial(SparseApproximateInverse, power=2),
    "IC(0)": IncompleteCholesky,
    "IC(A^2, drop 1e-2)": functools.partial(IncompleteCholesky, power=2, drop=1e-2),
    "multigrid SA": Multigrid,
    "multigrid RS": functools.partial(Multigrid, method="ruge-stuben"),
}


def cases(quick: bool) -> list[Case]:
    """Return the cases; the quick ones are smaller and promise nothing."""
    fine = 5 if quick else 8
    problems = {
        "smooth": functools.partial(_disk, "smooth", fine),
        "heat step": functools.partial(_disk, "heat", fine),
        "contrast 1e4": functools.partial(_disk, "contrast", fine),
        "anisotropic": functools.partial(anisotropic, (40,) * 2 if quick else (320,) * 2),
        "Poisson 3D": functools.partial(poisson, (16,) * 3 if quick else (64,) * 3),
        "elasticity": functools.partial(_elasticity, 3 if quick else 6),
    }
    return [
        Case(SUITE, f"{name}, {label}", "float64", Solve(problem, build, label))
        for name, problem in problems.items()
        for label, build in PRECONDITIONERS.items()
    ]


def _disk(kind: str, refinements: int) -> Problem:
    mesh = fem.mesh("disk", refinements, seed=0)
    if kind == "heat":
        return fem.heat_step(mesh, 1e-3, functools.partial(coefficients.smooth, seed=0))
    field = coefficients.smooth if kind == "smooth" else coefficients.inclusions
    return fem.diffusion(mesh, functools.partial(field, seed=0))


def _elasticity(refinements: int) -> Problem:
    return fem.elasticity(fem.mesh("square", refinements, seed=0))


@dataclasses.dataclass(frozen=True)
class Solve:
    """Iterations beside the peer's with the same kind of preconditioner, and seconds."""

    problem: Callable[[], Problem]
    build: Callable[[Any], Any]
    label: str

    def program(self) -> Any:
        """Return the solve."""
        return self._ours()[0]

    def _ours(self) -> tuple[Program, float]:
        problem = self.problem()
        matrix = from_scipy(problem.matrix)
        b = problem.right_side(0)
        jax.block_until_ready(self.build(matrix))  # compiles
        start = time.perf_counter()
        preconditioner = jax.block_until_ready(self.build(matrix))
        setup = time.perf_counter() - start
        on_device = jax.numpy.asarray(b)
        tolerances = jax.numpy.asarray([RTOL, 0.0])

        def run() -> Any:
            return compiled(matrix, preconditioner, on_device, None, tolerances, 10_000, 0)

        def judge(found: Any) -> dict[str, float]:
            rest = problem.matrix @ np.asarray(found.value) - b
            error = float(np.linalg.norm(rest) / np.linalg.norm(b))
            return {"error": error, "iterations": float(found.iterations)}

        return Program("ours", run, judge), setup

    def _peer(self) -> Program | None:
        problem = self.problem()
        matrix, b = problem.matrix, problem.right_side(0)
        count = [0]
        if self.label == "Jacobi":
            inverse = sp.diags_array(1 / matrix.diagonal()).tocsr()

            def run() -> Any:
                count[0] = 0
                return sp.linalg.cg(matrix, b, rtol=RTOL, M=inverse, callback=tell)[0]

            def tell(_: Any) -> None:
                count[0] += 1

            name = "scipy"
        elif self.label.startswith("multigrid"):
            make = pyamg.ruge_stuben_solver
            if self.label.endswith("SA"):
                make = pyamg.smoothed_aggregation_solver
            solver = make(sp.csr_matrix(matrix))

            def run() -> Any:
                history: list[float] = []
                x = solver.solve(b, tol=RTOL, accel="cg", residuals=history, maxiter=2000)
                count[0] = len(history) - 1
                return x

            name = "pyamg"
        else:
            return None

        def judge(x: Any) -> dict[str, float]:
            error = float(np.linalg.norm(matrix @ x - b) / np.linalg.norm(b))
            return {"error": error, "iterations": float(count[0])}

        return Program(name, run, judge)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure iterations once and seconds in turn."""
        ours, setup = self._ours()
        first = ours.seconds()
        peer = self._peer()
        least, most = context.rounds
        times = interleave(ours, peer, budget=context.budget / 4, least=least, most=most)
        reached, theirs = ours.quality(), peer.quality() if peer else {}
        shared: dict[str, Any] = {
            "peer_name": peer.name if peer else "",
            "error_ours": reached["error"],
            "error_peer": theirs.get("error"),
        }
        yield case.row(
            context,
            quantity="iterations",
            unit="steps",
            ours=reached["iterations"],
            peer=theirs.get("iterations"),
            ratio=ratio(theirs.get("iterations"), reached["iterations"]),
            note=f"rtol {RTOL:g}, true residual; setup {setup:.3f} s, compiled",
            **shared,
        )
        best = min(times.ours)
        other = min(times.peer) if times.peer else None
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
            **shared,
        )
        yield case.row(
            context,
            quantity="compile_seconds",
            unit="s",
            ours=max(first - best, 0.0),
            note="of the solve; first call less the fastest later one",
        )
