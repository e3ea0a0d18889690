"""The deep conjugate direction method on grids and on graphs, beside plain CG.

The networks are those of the package, trained by `examples/train_direction.py`: that on grids for
-Laplace on 32^3 points with boxes among them, never with balls; that on graphs for diffusion on
squares and L-shapes of up to 500 unknowns.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from solvers import Status, flexible_cg, pcg
from solvers.preconditioners import (
    PRETRAINED_DIRECTIONS,
    Chebyshev,
    GraphDirection,
    Jacobi,
    pretrained_direction,
)
from solvers.problems import balls, fem, poisson_around
from solvers.sparse import from_scipy

from ..case import Case, Context
from ..measure import Program
from ..rows import Row, ratio

SUITE = "dcdm"
MOST = 40.0  # iterations to 1e-4 on 64^3 points
LESS_THAN_UNTRAINED, LESS_THAN_JACOBI = 1.5, 4.0  # on graphs
ROUNDS = 9  # of solves timed in turn


def cases(quick: bool) -> list[Case]:
    """Return the cases: a grid or a mesh each; the quick ones are small and promise nothing."""
    sizes = (16,) if quick else (32, 64)
    kinds: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
        "Poisson": functools.partial(np.ones, dtype=np.float32),
        "Poisson around 6 balls": functools.partial(balls, count=6, seed=1000),
    }
    grids = [
        Case(SUITE, f"{name} {n}^3", "float64", Directions(functools.partial(make, (n,) * 3)))
        for name, make in kinds.items()
        for n in sizes
    ]
    meshes = [("disk", 4)] if quick else [("disk", 5), ("ring", 4), ("disk", 6)]
    graphs = [
        Case(SUITE, f"mesh of a {geometry}, refined {n} times", "float64", OnGraph(geometry, n))
        for geometry, n in meshes
    ]
    return [*grids, *graphs]


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


@dataclasses.dataclass(frozen=True)
class OnGraph:
    """Iterations and seconds on a mesh of a geometry and a seed never trained on."""

    geometry: str
    refinements: int

    def program(self) -> Program:
        """Return a solve."""
        matrix, b = self._problem()
        ready = pretrained_direction(PRETRAINED_DIRECTIONS[1]).analyse(matrix).setup(matrix.data)
        return Program("ours", lambda: flexible_cg(matrix, b, ready).value)

    def _problem(self) -> tuple[Any, jax.Array]:
        seed = 1000
        assert fem.held_out(self.geometry, seed)
        problem = fem.family("smooth", self.geometry, self.refinements, seed)
        return from_scipy(problem.matrix), jnp.asarray(problem.right_side(0))

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Solve to 1e-8 with and without the network, and with polynomials."""
        matrix, b = self._problem()
        trained = pretrained_direction(PRETRAINED_DIRECTIONS[1]).analyse(matrix)
        degree = len(trained.network.scalars)
        # The last takes as many products with the matrix's pattern as the network.
        peers: dict[str, tuple[Any, Any, float | None]] = {
            "CG": (pcg, None, None),
            "Jacobi": (pcg, Jacobi(matrix), LESS_THAN_JACOBI),
            "untrained": (flexible_cg, GraphDirection(matrix, degree=degree), LESS_THAN_UNTRAINED),
            f"Chebyshev({2 * degree})": (pcg, Chebyshev(matrix, degree=2 * degree), None),
        }
        ours = trained.setup(matrix.data)
        solvers = {"ours": (flexible_cg, ours), **{k: v[:2] for k, v in peers.items()}}
        found, seconds = _in_turn(matrix, b, solvers)
        if bool(found["ours"].fallback):
            raise RuntimeError("GraphDirection: expected no fallback, got one")
        for name, (_, _, wanted) in peers.items():
            target = None if context.quick else wanted
            steps = {k: int(found[k].iterations) for k in ("ours", name)}
            gain = ratio(steps[name], steps["ours"])
            shared: dict[str, Any] = {
                "peer_name": name,
                "error_ours": _error(matrix.mv, found["ours"], b),
                "error_peer": _error(matrix.mv, found[name], b),
                "note": f"rtol 1e-08, {len(b)} unknowns",
            }
            yield case.row(
                context,
                quantity="iterations",
                unit="steps",
                ours=float(steps["ours"]),
                peer=float(steps[name]),
                ratio=gain,
                target=target,
                target_is="" if target is None else "ratio at least",
                met=None if target is None else (gain or 0) >= target,
                **shared,
            )
            yield case.row(
                context,
                quantity="seconds",
                unit="s",
                ours=seconds["ours"],
                peer=seconds[name],
                ratio=ratio(seconds[name], seconds["ours"]),
                **{**shared, "note": f"{shared['note']}; least of {ROUNDS} in turn, setup apart"},
            )


def _in_turn(
    matrix: Any, b: jax.Array, solvers: dict[str, tuple[Any, Any]]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return each one's converged solution, and the least seconds of solves in turn."""
    found: dict[str, Any] = {}
    seconds = dict.fromkeys(solvers, float("inf"))
    for _ in range(1 + ROUNDS):
        for name, (solve, preconditioner) in solvers.items():
            start = time.perf_counter()
            solution = jax.block_until_ready(solve(matrix, b, preconditioner))
            if name in found:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
            found[name] = solution
    for name, solution in found.items():
        if not bool(solution.status == Status.converged):
            raise RuntimeError(f"{name}: expected convergence, got {solution}")
    return found, seconds


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
