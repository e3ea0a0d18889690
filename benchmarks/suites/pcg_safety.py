"""No wrong answer: learned preconditioners, good and spoilt, on every problem and real matrix.

A solve fails if it calls converged what is not, fails where Jacobi converges, or raises.
What falling back to Jacobi costs is counted in products with the matrix, the trial's included.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.io

from solvers import Status, pcg
from solvers.krylov.guard import LARGE, STEPS
from solvers.preconditioners import PRETRAINED, Jacobi, pretrained
from solvers.problems import anisotropic, fem, poisson, read_matrix_market
from solvers.problems.examples import EXAMPLES, example
from solvers.sparse import from_scipy

from ..case import Case, Context
from ..measure import Program
from ..rows import Row

SUITE = "pcg_safety"
RTOL = 1e-8
MOST = 1.2  # of Jacobi's products
KINDS = ("poisson", "smooth", "contrast", "heat")


def cases(quick: bool) -> list[Case]:
    """Return the cases: problems of one pattern, so that they share their compilation."""
    fine = 3 if quick else 7
    patterns: dict[str, Callable[[], list[Any]]] = {
        "disk": lambda: [fem.family(kind, "disk", fine, 1000) for kind in KINDS],
        "ring": lambda: [fem.family(kind, "ring", fine - 1, 1001) for kind in KINDS[1::2]],
        "cube": lambda: [fem.family(k, "cube", 2 if quick else 5, 1002) for k in KINDS[1:3]],
        "elasticity": lambda: [fem.family("elasticity", "l-shape", fine - 1, 1003)],
        "anisotropic grid": lambda: [anisotropic((20,) * 2 if quick else (180,) * 2)],
        "Poisson 3D": lambda: [poisson((8,) * 3 if quick else (32,) * 3)],
        **{name: functools.partial(_example, name) for name in EXAMPLES},
        "MatrixMarket": _from_file,
    }
    return [Case(SUITE, name, "float64", Safe(build)) for name, build in patterns.items()]


def _example(name: str) -> list[Any]:
    return [example(name)]


def _from_file() -> list[Any]:
    """One of pyamg's matrices, written to a file and read again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bar.mtx"
        scipy.io.mmwrite(path, example("bar").matrix.tocoo(), symmetry="symmetric", precision=17)
        return [read_matrix_market(path)]


def variants(model: Any) -> dict[str, Any]:
    """Return a model as trained, untrained, and spoilt in several ways."""
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(model.network)

    def shaken(size: float) -> Any:
        moved = [x + jnp.asarray(size * rng.normal(size=x.shape), x.dtype) for x in leaves]
        return eqx.tree_at(lambda m: m.network, model, tree.unflatten(moved))

    def decoder(value: float) -> Any:
        last = model.network.decoder[1]
        filled = eqx.tree_at(lambda d: d.bias, last, jnp.full_like(last.bias, value))
        return eqx.tree_at(lambda m: m.network.decoder[1], model, filled)

    still = eqx.tree_at(lambda m: m.network, model, jax.tree.map(jnp.zeros_like, model.network))
    return {
        "trained": model,
        "untrained": still,
        "shaken": shaken(0.1),
        "spoilt": shaken(2.0),
        "overflowing": decoder(1e30),
        "NaN": decoder(np.nan),
    }


@dataclasses.dataclass(frozen=True)
class Safe:
    """Failures, and the dearest fallback."""

    build: Callable[[], Sequence[Any]]

    def program(self) -> Program:
        """Return a solve with a trained model."""
        problem = self.build()[0]
        matrix, b = from_scipy(problem.matrix), problem.right_side(0)
        ready = pretrained(PRETRAINED[0]).analyse(matrix).setup(matrix.data)
        return Program("ours", lambda: pcg(matrix, b, ready).value)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Solve with everything."""
        failures: list[str] = []
        fallbacks, kept, solves = [], [], 0
        size = 0
        for problem in self.build():
            matrix, b = from_scipy(problem.matrix), jnp.asarray(problem.right_side(0))
            size = problem.size
            jacobi = pcg(matrix, b, Jacobi(matrix), throw=False)
            if not _honest(problem, b, jacobi):
                failures.append(f"{problem.name}, Jacobi")
            for name in PRETRAINED:
                analysed = pretrained(name).analyse(matrix)
                for label, model in variants(analysed).items():
                    found = pcg(matrix, b, model.setup(matrix.data), rtol=RTOL, throw=False)
                    solves += 1
                    wrong = not _honest(problem, b, found)
                    # What Jacobi solves has to be solved.
                    wrong |= bool(jacobi.status == Status.converged) and not bool(
                        found.status == Status.converged
                    )
                    if wrong:
                        failures.append(f"{problem.name}, {name} {label}: {found}")
                    spent = int(found.iterations) + STEPS + 1 + 2
                    share = spent / (int(jacobi.iterations) + 2)
                    (fallbacks if bool(found.fallback) else kept).append(share)
        shared = f"{size} unknowns, {solves} solves"
        yield case.row(
            context,
            quantity="count",
            unit="failures",
            ours=float(len(failures)),
            target=0.0,
            target_is="ours at most",
            met=not failures,
            note="; ".join([shared, *failures]),
        )
        for what, shares, held in (
            ("by the fallback", fallbacks, size >= LARGE),
            ("by what was kept", kept, False),
        ):
            if shares:
                yield case.row(
                    context,
                    quantity="count",
                    unit="of Jacobi's products",
                    ours=max(shares),
                    target=MOST if held else None,
                    target_is="ours at most" if held else "",
                    met=max(shares) <= MOST if held else None,
                    note=f"{shared}; the most of {len(shares)} {what}, trial included",
                )


def _honest(problem: Any, b: Any, found: Any) -> bool:
    """Tell whether a solution that is called converged is one; any other status is a warning."""
    if not bool(found.status == Status.converged):
        return True
    rest = np.linalg.norm(problem.matrix @ np.asarray(found.value) - np.asarray(b))
    return bool(rest <= RTOL * np.linalg.norm(b) * (1 + 1e-6))
