"""Conjugate gradient with classical preconditioners, against those of scipy, pyamg and ilupp."""

import dataclasses
import functools
import importlib.util
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
ILUPP = importlib.util.find_spec("ilupp") is not None  # builds with a C++ compiler
ALIKE = 1 / 1.05  # iterations over the peer's of the same kind
# pyamg smooths by symmetric Gauss-Seidel sweeps, which reduce as much as a polynomial of degree 3;
# that of degree 2, the default, takes less time and on anisotropic problems more iterations.
HELD = ("Jacobi", "IC(0)", "multigrid SA, degree 3", "multigrid RS, degree 3")
CYCLES, CYCLE_TIME, COMPILE = 20.0, 1 / 1.2, 5.0  # of the V-cycle on 130 000 unknowns
PRECONDITIONERS: dict[str, Callable[[Any], Any]] = {
    "Jacobi": Jacobi,
    "Chebyshev(4)": Chebyshev,
    "FSAI(A)": SparseApproximateInverse,
    "FSAI(A^2)": functools.partial(SparseApproximateInverse, power=2),
    "IC(0)": IncompleteCholesky,
    "IC(A^2, drop 1e-2)": functools.partial(IncompleteCholesky, power=2, drop=1e-2),
    "multigrid SA": Multigrid,
    "multigrid RS": functools.partial(Multigrid, method="ruge-stuben"),
    "multigrid SA, degree 3": functools.partial(Multigrid, degree=3),
    "multigrid RS, degree 3": functools.partial(Multigrid, method="ruge-stuben", degree=3),
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
        Case(SUITE, f"{name}, {label}", "float64", Solve(problem, build, label, name, not quick))
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
    name: str
    promised: bool

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
        if self.label == "Jacobi" or (self.label == "IC(0)" and ILUPP):
            if self.label == "Jacobi":
                inverse, name = sp.diags_array(1 / matrix.diagonal()).tocsr(), "scipy"
            else:
                import ilupp

                parts = matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
                inverse = ilupp.IChol0Preconditioner(sp.csr_matrix(parts, shape=matrix.shape))
                name = "scipy, ilupp"

            def run() -> Any:
                count[0] = 0
                return sp.linalg.cg(matrix, b, rtol=RTOL, M=inverse, callback=tell)[0]

            def tell(_: Any) -> None:
                count[0] += 1

        elif self.label.startswith("multigrid"):
            make = pyamg.ruge_stuben_solver
            if "SA" in self.label:
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
        cycle = self.promised and (self.name, self.label) == ("smooth", "multigrid SA")
        least, most = context.rounds
        # A round of solves that promise no seconds will do: some take ten.
        least, share = (least, 1) if cycle else (1, 4)
        times = interleave(ours, peer, budget=context.budget / share, least=least, most=most)
        reached, theirs = ours.quality(), peer.quality() if peer else {}
        shared: dict[str, Any] = {
            "peer_name": peer.name if peer else "",
            "error_ours": reached["error"],
            "error_peer": theirs.get("error"),
        }
        gain = ratio(theirs.get("iterations"), reached["iterations"])
        yield case.row(
            context,
            quantity="iterations",
            unit="steps",
            ours=reached["iterations"],
            peer=theirs.get("iterations"),
            ratio=gain,
            note=f"rtol {RTOL:g}, true residual; setup {setup:.3f} s, compiled"
            + ("; no peer, as ilupp is not installed" * (self.label == "IC(0)" and not ILUPP)),
            **shared,
            **_promise(self.promised and self.label in HELD, gain, ALIKE),
        )
        best = min(times.ours)
        other = min(times.peer) if times.peer else None
        if cycle:
            yield case.row(
                context,
                quantity="iterations",
                unit="V-cycles",
                ours=reached["iterations"],
                **_promise(True, reached["iterations"], CYCLES, at_most=True),
            )
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
            **_promise(cycle, ratio(other, best), CYCLE_TIME),
        )
        yield case.row(
            context,
            quantity="compile_seconds",
            unit="s",
            ours=max(first - best, 0.0),
            note="of the solve; first call less the fastest later one",
            **_promise(cycle, first - best, COMPILE, at_most=True),
        )


def _promise(
    made: bool, found: float | None, target: float, *, at_most: bool = False
) -> dict[str, Any]:
    """Return a row's target, where one is promised, and whether it is met."""
    if not made or found is None:
        return {}
    return {
        "target": target,
        "target_is": "ours at most" if at_most else "ratio at least",
        "met": found <= target if at_most else found >= target,
    }
