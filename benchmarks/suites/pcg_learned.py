"""Learned preconditioners on meshes never trained on, beside untrained forms and classics.

The weights are those of the package, from `examples/train_preconditioners.py`. Work is counted in
nonzeros: those of the matrix, and those a preconditioner reads, at each iteration.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from solvers import Status, pcg
from solvers.preconditioners import (
    PRETRAINED,
    Chebyshev,
    GraphApproximateInverse,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
    SparseApproximateInverse,
    pretrained,
)
from solvers.problems import fem
from solvers.sparse import from_scipy

from ..case import Case, Context
from ..measure import Program
from ..rows import Row, ratio

SUITE = "pcg_learned"
CLASSICAL: dict[str, Callable[[], Any]] = {
    "Chebyshev(3)": functools.partial(Chebyshev, degree=3),
    "IC(0)": IncompleteCholesky,
    "IC(0), rcm": functools.partial(IncompleteCholesky, order="rcm"),
    "FSAI(A)": SparseApproximateInverse,
    "FSAI(A^2)": functools.partial(SparseApproximateInverse, power=2),
    "multigrid SA": Multigrid,
    # Untrained, but for its first guess: the first terms of a series for the inverse's root.
    "series inverse": GraphApproximateInverse,
}
LESS_THAN_UNTRAINED, LESS_THAN_JACOBI = 1.3, 2.0


def cases(quick: bool) -> list[Case]:
    """Return the cases: a mesh each; the quick one is small and promises nothing."""
    # Trained on up to 500 unknowns: these have about as many, 4, 16 and 60 times as many.
    meshes = {
        "disk of 500": ("disk", 4),
        "disk of 2000": ("disk", 5),
        "ring of 2000": ("ring", 4),
        "disk of 8000": ("disk", 6),
        "disk of 32000": ("disk", 7),
    }
    chosen = dict(list(meshes.items())[:1]) if quick else meshes
    return [
        Case(SUITE, name, "float64", Compare(*mesh, promised=not quick and name != "disk of 32000"))
        for name, mesh in chosen.items()
    ]


def untrained(model: Any) -> Any:
    """Return what a model is before training: its network gives zero."""
    still = jax.tree.map(jnp.zeros_like, model.network)
    return eqx.tree_at(lambda m: m.network, model, still)


def nonzeros(ready: Any) -> int:
    """Return how many entries a preconditioner reads each time it is applied."""
    n, entries = ready.pattern.shape[0], ready.pattern.nnz
    if isinstance(ready, Chebyshev):
        return (ready.degree - 1) * entries + ready.degree * n
    if isinstance(ready, Multigrid):
        states, inverse = ready.state
        return inverse.size + sum(
            2 * ready.degree * smooth.matrix.nnz + down.nnz + up.nnz for smooth, down, up in states
        )
    if isinstance(ready, GraphApproximateInverse):
        return 2 * entries + 2 * n
    if isinstance(ready, Jacobi):
        return n
    # Incomplete factors are on A's own pattern.
    power = ready.power if isinstance(ready, SparseApproximateInverse) else 1
    places = ready.pattern.to_scipy(jnp.ones(entries))
    reach = functools.reduce(lambda x, _: x @ places, range(power - 1), places)
    return reach.nnz + n  # both triangles


@dataclasses.dataclass(frozen=True)
class Compare:
    """Iterations and work of every preconditioner on one mesh."""

    geometry: str
    refinements: int
    promised: bool

    def program(self) -> Program:
        """Return a solve with a trained model."""
        problem = self._problem()
        matrix, b = from_scipy(problem.matrix), problem.right_side(0)
        ready = pretrained(PRETRAINED[0]).analyse(matrix).setup(matrix.data)
        return Program("ours", lambda: pcg(matrix, b, ready).value)

    def _problem(self) -> Any:
        seed = 1000
        assert fem.held_out(self.geometry, seed)
        return fem.family("smooth", self.geometry, self.refinements, seed)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Solve with everything."""
        problem = self._problem()
        matrix, b = from_scipy(problem.matrix), problem.right_side(0)
        counts: dict[str, int] = {}
        work: dict[str, float] = {}
        fallback: dict[str, bool] = {}

        def solve(name: str, analysed: Any) -> None:
            ready = analysed.setup(matrix.data)
            found = pcg(matrix, b, ready)
            if not bool(found.status == Status.converged):
                raise RuntimeError(f"{name}: expected convergence, got {found}")
            counts[name], fallback[name] = int(found.iterations), bool(found.fallback)
            work[name] = counts[name] * (matrix.nnz + nonzeros(ready))

        solve("Jacobi", Jacobi().analyse(matrix))
        for name, make in CLASSICAL.items():
            solve(name, make().analyse(matrix))
        for name in PRETRAINED:
            analysed = pretrained(name).analyse(matrix)
            solve(name, analysed)
            solve(f"{name} untrained", untrained(analysed))
        size = f"{problem.size} unknowns"
        for name in counts:
            peers: list[tuple[str, float | None]] = [("Jacobi", None)]
            if name in PRETRAINED:
                peers = [
                    ("Jacobi", LESS_THAN_JACOBI),
                    (f"{name} untrained", LESS_THAN_UNTRAINED),
                ]
            for peer, wanted in peers:
                target = wanted if self.promised else None
                gain = ratio(counts[peer], counts[name])
                yield case.row(
                    context,
                    quantity="iterations",
                    unit="steps",
                    ours=counts[name],
                    peer_name=peer.replace(name, "").strip(),
                    peer=counts[peer],
                    ratio=gain,
                    target=target,
                    target_is="" if target is None else "ratio at least",
                    met=None if target is None else (gain or 0) >= target,
                    note=f"{name}, {size}" + (", by the fallback" if fallback[name] else ""),
                )
            yield case.row(
                context,
                quantity="count",
                unit="million nonzeros",
                ours=work[name] / 1e6,
                peer_name="Jacobi",
                peer=work["Jacobi"] / 1e6,
                ratio=ratio(work["Jacobi"], work[name]),
                note=f"{name}, {size}; the trial of a learned one not counted",
            )
