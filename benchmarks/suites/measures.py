"""What every method's product can express, and how far it is from equivariance."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from equivariant import equivariance_error, expressivity, interactability, span

from ..case import Case, Context, Speed
from ..measure import Program
from ..products import EXACT, Problem
from ..rows import Row

SUITE = "measures"
MAPS = (
    {"paths": "even", "coupling": "gaunt", "weights": "per-degree"},
    {"paths": "all", "coupling": "gaunt", "weights": "per-degree"},
    {"paths": "all", "coupling": "clebsch-gordan", "weights": None},
)
_MOST = {"float32": 1e-6, "float64": 1e-12}
# Ranks of TDN's schedule, 7 L^2: below the exact ranks, so that there is an error to bound.
_APPROXIMATE = {1: 7, 2: 28, 3: 63}


def cases(quick: bool) -> list[Case]:
    """Return the cases."""
    found = []
    for degree in (1,) if quick else (1, 2, 3, 4, 6, 8):
        for fields in MAPS:
            problem = Problem(degree, **fields, batch=8, channels=2)
            for dtype in _MOST:
                found += [
                    Case(SUITE, f"{method}: {problem.name}", dtype, Equivariance(problem, method))
                    for method in EXACT
                ]
    for degree in (1,) if quick else (1, 2, 3):
        problem = Problem(degree, **MAPS[2], batch=8, channels=1, even=True)
        measure = Equivariance(problem, "cp", _APPROXIMATE[degree])
        name = f"cp, rank {_APPROXIMATE[degree]}: {problem.name}"
        found.append(Case(SUITE, name, "float64", measure))
    weights = ("per-degree",) if quick else (None, "shared", "per-degree", "low-rank:2", "per-path")
    for degree in (1,) if quick else (1, 2, 3, 4):
        for paths in ("even", "all"):
            for kind in weights:
                problem = Problem(degree, paths, "gaunt", kind)
                name = f"counts: {paths} paths, L={degree}, weights {kind}"
                found.append(Case(SUITE, name, "float32", Counts(problem)))
    return found


@dataclasses.dataclass(frozen=True, init=False)
class Equivariance(Speed):
    """The equivariance error of one method, beside its bound where it is not exact."""

    problem: Problem
    method: str
    rank: int | None

    def __init__(self, problem: Problem, method: str, rank: int | None = None):
        super().__init__(lambda: Program("ours", self._error))
        object.__setattr__(self, "problem", problem)
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "rank", rank)

    def _made(self):
        options = {} if self.rank is None else {"rank": self.rank}
        return self.problem.product(self.method, **options)

    def _error(self) -> float:
        made = self._made()
        dtype = jnp.dtype(jnp.result_type(float))
        weights = self.problem.arrays()[2].astype(dtype)
        first, second, out = self.problem.irreps

        @jax.jit
        def f(x: jax.Array, y: jax.Array) -> jax.Array:
            return made(x, y) if self.problem.weights is None else made(x, y, weights)

        channels = self.problem.channels
        return equivariance_error(
            f, (first, second), out, key=jax.random.key(0), samples=4, channels=channels
        )

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure."""
        try:
            made = self._made()
        except ValueError as error:
            if "method:" not in str(error):
                raise
            return  # the map is none that this method can implement
        error = self._error()
        if self.rank is None:
            most = _MOST[case.dtype]
            yield case.row(
                context,
                quantity="error",
                unit="equivariance, relative",
                ours=error,
                target=most,
                target_is="ours at most",
                met=error <= most,
                note=f"{len(made.bilinear.triples)} paths",
            )
            return
        found, bound = _worst(made), made.error_bound
        yield case.row(
            context,
            quantity="error",
            unit="equivariance, relative",
            ours=error,
            note="relative to |z|, the bound to |x| |y|",
        )
        yield case.row(
            context,
            quantity="error",
            unit="operator error over |x| |y|",
            ours=found,
            peer_name="certified bound",
            peer=bound,
            ratio=bound / found,
            target=bound,
            target_is="ours at most",
            met=found <= bound <= 20 * found,
            note="the bound is to hold and to be at most 20 times the error found",
        )


def _worst(made) -> float:
    """Return the largest |z - exact| / (|x| |y|) that alternating maximisation finds."""
    exact = made.bilinear.tensor()
    d1, d2, _ = exact.shape
    # Bilinear: the result for unit vectors is the tensor.
    pairs = np.repeat(np.eye(d1), d2, 0), np.tile(np.eye(d2), (d1, 1))
    z = np.asarray(made(*(jnp.asarray(p[:, None]) for p in pairs)), np.float64)
    off = z.reshape(exact.shape) - exact
    rng, best = np.random.default_rng(0), 0.0
    for _ in range(8):
        y = rng.standard_normal(d2)
        for _ in range(50):  # the best x for y, then the best y for x
            x = np.linalg.svd(np.einsum("ijk,j->ik", off, y))[0][:, 0]
            y = np.linalg.svd(np.einsum("ijk,i->jk", off, x))[0][:, 0]
        best = max(best, float(np.linalg.norm(np.einsum("ijk,i,j->k", off, x, y))))
    return best


@dataclasses.dataclass(frozen=True, init=False)
class Counts(Speed):
    """Expressivity, span and interactability of a map: the same for every method."""

    problem: Problem

    def __init__(self, problem: Problem):
        super().__init__(lambda: Program("ours", lambda: expressivity(problem.map())))
        object.__setattr__(self, "problem", problem)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Count."""
        made = self.problem.map()
        for unit, value in (
            ("expressivity", expressivity(made)),
            ("span", span(made)),
            ("interactability: triples of irreps", len(interactability(made))),
        ):
            yield case.row(
                context,
                quantity="count",
                unit=unit,
                ours=float(value),
                note=f"{len(made.triples)} paths, weights {made.weight_shape}",
            )
