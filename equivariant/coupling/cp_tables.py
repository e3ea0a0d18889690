"""Exact CP tensors of the Clebsch-Gordan coupling of degrees 0 to 1, 2 or 3.

They are the smallest that were found: of ranks 8, 30 and 90 with all paths, 6, 18 and 52 with the
even ones. `python -m equivariant.coupling.cp_tables FILE` computes them anew, in a minute or so.
"""

import functools
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from .cp_fit import RIDGES, Factors, Fit, fitted, refine
from .shipped import shipped
from .tables import clebsch_gordan

Paths = Literal["all", "even"]

_FILE = "cp_tables.npz"
_RANKS: dict[tuple[Paths, int], int] = {
    ("all", 1): 8,
    ("all", 2): 30,
    ("all", 3): 90,
    ("even", 1): 6,
    ("even", 2): 18,
    ("even", 3): 52,
}
_ERROR = 1e-14  # what is written at most
_POLISHES, _HOPELESS = 5, 1e-3


@functools.cache
def clebsch_gordan_tensor(degree: int, paths: Paths) -> Float64[np.ndarray, "d d d"]:
    """Return the coupling of degrees 0 to `degree` with themselves to themselves.

    In component normalization, with weight one on each path; with "even" on those whose three
    degrees have an even sum. The array is shared between calls, and read-only.
    """
    size = (degree + 1) ** 2
    tensor = np.zeros((size, size, size))
    for l1, l2 in np.ndindex(degree + 1, degree + 1):
        for l3 in range(abs(l1 - l2), min(degree, l1 + l2) + 1):
            if paths == "all" or (l1 + l2 + l3) % 2 == 0:
                block = tuple(slice(n * n, (n + 1) ** 2) for n in (l1, l2, l3))
                tensor[block] = math.sqrt(2 * l3 + 1) * clebsch_gordan(l1, l2, l3)
    tensor.flags.writeable = False
    return tensor


def exact_factors(tensor: Float64[np.ndarray, "m n k"]) -> Factors | None:
    """Return exact factors of a tensor that there is a table for, else None."""
    for paths, degree in _RANKS:
        if tensor.shape == ((degree + 1) ** 2,) * 3:
            known = clebsch_gordan_tensor(degree, paths)
            if np.allclose(tensor, known, rtol=0, atol=1e-13):
                return _unpacked(shipped(_FILE)[f"{paths}-{degree}"], degree, paths)
    return None


def part_of_table(
    tensor: Float64[np.ndarray, "m n k"], degrees: Sequence[Sequence[int]]
) -> Factors | None:
    """Return exact factors of a tensor between irreps of such degrees, from a table that holds it.

    None where no table does.
    """
    largest = max(1, *itertools.chain(*degrees))
    for paths, degree in _RANKS:
        if degree != largest:
            continue
        whole = _unpacked(shipped(_FILE)[f"{paths}-{degree}"], degree, paths)
        columns = [[np.arange(n * n, (n + 1) ** 2) for n in own] for own in degrees]
        left, middle, last = (
            factor[:, np.concatenate(own)] for factor, own in zip(whole, columns, strict=True)
        )
        if np.allclose(tensor, fitted((left, middle, last)), rtol=0, atol=1e-13):
            return left, middle, last
    return None


def compute(paths: Paths, degree: int) -> Float64[np.ndarray, "rank entries"]:
    """Compute a table: the factors side by side, or for the even paths the one they share.

    With each degree of the output divided by its normalization, coefficients of even sums are
    symmetric in all three indices, and iterates that start with three equal factors keep them so.
    """
    exact = clebsch_gordan_tensor(degree, paths)
    seed = 0
    while True:
        table = _attempt(paths, degree, seed)
        missing = exact - fitted(_unpacked(table, degree, paths))
        if np.linalg.norm(missing) <= _ERROR * np.linalg.norm(exact):
            return table
        seed += 1


def _attempt(paths: Paths, degree: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = _RANKS[paths, degree], (degree + 1) ** 2
    tensor = clebsch_gordan_tensor(degree, paths)
    if paths == "even":
        tensor = tensor / _normalization(degree)
        shared = rng.standard_normal(shape)
        fit = Fit((shared, shared, shared), math.inf)
    else:
        left, middle, last = rng.standard_normal((3, *shape))
        fit = Fit((left, middle, last), math.inf)
    for ridges in (RIDGES, *_POLISHES * [RIDGES[-1:]]):
        fit = refine(tensor, fit.factors, ridges=ridges)
        if paths == "even":
            shared = np.mean(fit.factors, axis=0)
            fit = Fit((shared, shared, shared), fit.error)
        if fit.error > _HOPELESS or fit.error <= _ERROR:
            break
    return fit.factors[0] if paths == "even" else np.concatenate(fit.factors, axis=1)


def write(path: Path) -> None:
    """Compute all tables and write them to a file."""
    tables = {f"{paths}-{degree}": compute(paths, degree) for paths, degree in _RANKS}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **tables)


def _unpacked(table: np.ndarray, degree: int, paths: Paths) -> Factors:
    if paths == "even":
        return table, table, table * _normalization(degree)
    left, middle, last = np.split(table, 3, axis=1)
    return left, middle, last


def _normalization(degree: int) -> np.ndarray:
    degrees = np.arange(degree + 1)
    return np.repeat(np.sqrt(2 * degrees + 1), 2 * degrees + 1)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
