"""The Clebsch-Gordan coupling as a sum of Gaunt couplings that are weighted by degree.

On a grid a path comes with its Gaunt coefficient c_p. Factors a_i b_j c_o are free there, so the
Clebsch-Gordan coupling of given paths takes R products where 1/c_p, on these paths, is a sum of R
such. R is small because other triples of degrees do not matter.

The terms of all paths between degrees 0 to L, even or odd sums, come with the package up to L = 8:
finding them takes minutes. `python -m equivariant.coupling.separable_terms FILE` does.
"""

import functools
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from tensornet.cache import cached

from .shipped import shipped
from .tables import gaunt_coefficient

Degrees = tuple[int, int, int]
Factors = tuple[np.ndarray, np.ndarray, np.ndarray]

_FILE = "separable_terms.npz"
_SHIPPED = 8
# Largest relative error of a coefficient that counts as rounding.
_EXACT = 1e-13
# Terms tried beyond the number at which there are as many unknowns as paths, and starts of each.
_MORE_TERMS, _STARTS = 3, 8
_STEPS = 200
# Terms may cancel to this part of their sum: float32 keeps five digits.
_LARGEST_AMPLIFICATION = 50.0


def least_terms(paths: Sequence[Degrees]) -> int:
    """Return a number of terms below which `separable_terms` does not look."""
    if not paths:
        return 0
    unknown = sum(len(set(column)) for column in zip(*paths, strict=True)) - 2
    return max(1, math.ceil(len(paths) / unknown) - 1)


def separable_terms(paths: Sequence[Degrees]) -> Factors | None:
    """Return factors such that sum_r a[r, l1] b[r, l2] c[r, l3] = 1/c_p, or None.

    Those that do not come with the package are found by damped Gauss-Newton steps from random
    starts, and kept in the user's cache.

    Args:
        paths: degrees of the irreps of each path, at least one.

    Returns:
        Arrays [R, largest degree + 1], zero at degrees that do not occur; None where no sum of few
        terms was found.
    """
    paths = sorted(set(paths))
    known = _complete().get(tuple(paths))
    if known is not None:
        table = shipped(_FILE)[known]
        return table[0], table[1], table[2]
    found = cached(
        "coupling-terms",
        {"paths": paths, "version": 1},
        lambda: dict(zip("abc", _search(paths) or [np.zeros(0)] * 3, strict=True)),
        kind="npz",
    )
    return (found["a"], found["b"], found["c"]) if found["a"].size else None


@functools.cache
def _complete() -> Mapping[tuple[Degrees, ...], str]:
    """Return the paths of what comes with the package, and their names."""
    names = {}
    for degree, kind in itertools.product(range(1, _SHIPPED + 1), (0, 1)):
        paths = tuple(
            (l1, l2, l3)
            for l1, l2, l3 in np.ndindex(*(degree + 1,) * 3)
            if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == kind
        )
        names[paths] = f"{('even', 'odd')[kind]}-{degree}"
    return names


def write(path: Path) -> None:
    """Find the terms that come with the package, and write them to a file.

    Raises:
        RuntimeError: a search that finds none.
    """
    tables = {}
    for paths, name in _complete().items():
        found = _search(paths)
        if found is None:
            raise RuntimeError(f"{name}: expected a sum of few terms, found none")
        tables[name] = np.stack(found)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **tables)


def _search(paths: Sequence[Degrees]) -> Factors | None:
    target = np.array([1 / gaunt_coefficient(*path) for path in paths])
    columns = np.array(paths).T
    kept = [np.unique(column, return_inverse=True) for column in columns]
    starts = np.cumsum([0, *(len(degrees) for degrees, _ in kept)])
    index = np.stack([own + start for (_, own), start in zip(kept, starts, strict=False)])
    least = least_terms(paths)
    for terms in range(least, least + _MORE_TERMS + 1):
        for seed in range(_STARTS):
            x = _fit(index, target, terms, np.random.default_rng([terms, seed]))
            if x is not None:
                return _spread(x, kept, columns, starts)
    return None


def _spread(x: np.ndarray, kept: list, columns: np.ndarray, starts: np.ndarray) -> Factors:
    """Put the factors of each degree that occurs at its place."""
    factors = []
    for (degrees, _), column, start in zip(kept, columns, starts, strict=False):
        whole = np.zeros((x.shape[1], column.max() + 1))
        whole[:, degrees] = x[start : start + len(degrees)].T
        factors.append(whole)
    return factors[0], factors[1], factors[2]


def _fit(
    index: np.ndarray, target: np.ndarray, terms: int, rng: np.random.Generator
) -> Float64[np.ndarray, "n terms"] | None:
    """Solve prod_k x[index[k]] summed over terms = target, by Levenberg and Marquardt.

    Steps are those of least norm: there are about as many unknowns as equations.
    """
    n, paths = index.max() + 1, len(target)
    x = rng.normal(size=(n, terms)) * np.exp(0.3 * rng.normal(size=(n, terms))) * terms ** (-1 / 6)
    damping, history = 0.1, [math.inf]
    while len(history) <= _STEPS:
        parts = x[index]
        residual = parts.prod(0).sum(1) / target - 1
        history.append(float(residual @ residual))
        if np.abs(residual).max() < _EXACT / 10:
            break
        if len(history) > 40 and history[-1] > 0.8 * history[-15]:
            return None
        jacobian = np.zeros((paths, n, terms))
        for k, others in enumerate(((1, 2), (0, 2), (0, 1))):
            jacobian[np.arange(paths), index[k]] = parts[others, :].prod(0) / target[:, None]
        jacobian = jacobian.reshape(paths, -1)
        better = _improved(x, index, target, jacobian, residual, damping)
        if better is None:
            break
        x, damping = better
    parts = x[index]
    error = np.abs(parts.prod(0).sum(1) / target - 1).max()
    amplification = (np.abs(parts.prod(0)).sum(1) / target).max()
    return x if error < _EXACT and amplification < _LARGEST_AMPLIFICATION else None


def _improved(
    x: np.ndarray,
    index: np.ndarray,
    target: np.ndarray,
    jacobian: np.ndarray,
    residual: np.ndarray,
    damping: float,
) -> tuple[np.ndarray, float] | None:
    """Return a point of less error and the damping to go on with, or None where no step helps."""
    gram = jacobian @ jacobian.T
    while damping < 1e6:
        step = np.linalg.solve(gram + damping * np.eye(len(gram)), residual)
        y = x - (jacobian.T @ step).reshape(x.shape)
        error = y[index].prod(0).sum(1) / target - 1
        if error @ error < residual @ residual:
            return y, max(damping / 5, 1e-14)
        damping *= 4
    return None


if __name__ == "__main__":
    write(Path(sys.argv[1]))
