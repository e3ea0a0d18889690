"""CP decompositions of the Clebsch-Gordan coupling: exact ranks, what lower ranks cost, seconds."""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np

from equivariant import representation
from equivariant.coupling.cp import CPCoupling, decompose_coupling
from equivariant.coupling.cp_tables import clebsch_gordan_tensor

from ..case import Case, Context, Speed
from ..measure import Program
from ..rows import Row

SUITE = "cp_tables"

# All paths of degrees 0 to L among themselves, each of weight one.
EXACT_RANKS = {1: 8, 2: 30, 3: 90}
# What rank 7 L^2, the default of tensor decomposition networks, is to reach.
DEFAULT_ERRORS = {1: 1.7e-2, 2: 5.0e-2, 3: 1.0e-1}
# Ranks of the curves, in parts of 7 L^2.
PARTS = (0.25, 0.5, 1.0)
SECONDS_AT_4 = 60.0


def cases(quick: bool) -> list[Case]:
    """Return the cases."""
    found = [
        Case(SUITE, f"exact, L={degree}", "float64", Exact(degree))
        for degree in ((1,) if quick else EXACT_RANKS)
    ]
    for degree in (1,) if quick else (1, 2, 3, 4, 5, 6):
        for part in (1.0,) if quick else PARTS:
            rank = max(1, round(part * 7 * degree**2))
            name = f"rank {rank}, L={degree}"
            found.append(Case(SUITE, name, "float64", Curve(degree, rank)))
    return found


@dataclasses.dataclass(frozen=True, init=False)
class Exact(Speed):
    """The least rank that is exact, as it comes with the package."""

    degree: int

    def __init__(self, degree: int):
        super().__init__(lambda: Program("ours", lambda: _timed(degree, rtol=1e-9)))
        object.__setattr__(self, "degree", degree)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure."""
        found, spent = _timed(self.degree, rtol=1e-9)
        most = EXACT_RANKS[self.degree]
        yield case.row(
            context,
            quantity="count",
            unit="rank",
            ours=float(found.rank),
            error_ours=found.relative_error,
            target=float(most),
            target_is="ours at most",
            met=found.rank <= most and found.relative_error <= 1e-9,
            note="relative error at most 1e-9; a table of the package",
        )
        yield case.row(
            context,
            quantity="seconds",
            unit="s",
            ours=spent,
            error_ours=found.relative_error,
            note="the table is read and its error certified",
        )


@dataclasses.dataclass(frozen=True, init=False)
class Curve(Speed):
    """Error of the tensor, of equivariance, the certified bound, and seconds, at one rank."""

    degree: int
    rank: int

    def __init__(self, degree: int, rank: int):
        super().__init__(lambda: Program("ours", lambda: _timed(degree, rank=rank)))
        object.__setattr__(self, "degree", degree)
        object.__setattr__(self, "rank", rank)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Decompose from nothing, and measure."""
        found, spent = _timed(self.degree, rank=self.rank)
        default = self.rank == 7 * self.degree**2
        most = DEFAULT_ERRORS.get(self.degree) if default else None
        note = f"rank {found.rank}"
        yield case.row(
            context,
            quantity="error",
            unit="tensor, relative Frobenius",
            ours=found.relative_error,
            target=most,
            target_is="" if most is None else "ours at most",
            met=None if most is None else found.relative_error <= most,
            note=note,
        )
        yield case.row(
            context,
            quantity="error",
            unit="equivariance of the tensor, relative Frobenius",
            ours=_equivariance(found, self.degree),
            note=f"{note}; the largest over 8 rotations",
        )
        yield case.row(
            context,
            quantity="error",
            unit="certified bound of the map over |x| |y|",
            ours=found.error_bound,
            note=f"{note}; twice this bounds the error of equivariance",
        )
        at_most = SECONDS_AT_4 if default and self.degree == 4 else None
        yield case.row(
            context,
            quantity="seconds",
            unit="s",
            ours=spent,
            error_ours=found.relative_error,
            target=at_most,
            target_is="" if at_most is None else "ours at most",
            met=None if at_most is None else spent <= at_most,
            note=f"{note}; from an empty cache, compilation included",
        )


def _timed(degree: int, **options: float) -> tuple[CPCoupling, float]:
    """Return a decomposition that no cache holds, and its seconds."""
    tensor = clebsch_gordan_tensor(degree, "all")
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict("os.environ", GAUNTAX_CACHE_DIR=folder),
    ):
        start = time.perf_counter()
        found = decompose_coupling(tensor, **options)
        return found, time.perf_counter() - start


def _equivariance(found: CPCoupling, degree: int) -> float:
    """Return by how much, relative to it, rotations change the tensor of a decomposition."""
    irreps = "+".join(f"{n}e" for n in range(degree + 1))
    tensor, rng, most = found.to_dense(), np.random.default_rng(0), 0.0
    for _ in range(8):
        q, r = np.linalg.qr(rng.standard_normal((3, 3)))
        q = q * np.sign(np.diag(r))
        d = representation(irreps, q * np.linalg.det(q))
        turned = np.einsum("ijk,li,mj,nk->lmn", tensor, d, d, d, optimize=True)
        most = max(most, float(np.linalg.norm(turned - tensor)))
    return most / float(np.linalg.norm(tensor))
