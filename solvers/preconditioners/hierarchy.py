"""Multigrid hierarchies from pyamg (`gauntax[pde]`), set up on the host."""

from typing import Any

import numpy as np
import scipy.sparse

from ..sparse.pattern import canonical

METHODS = ("smoothed-aggregation", "ruge-stuben")


def interpolations(
    matrix: scipy.sparse.csr_array, method: str, largest: int, candidates: Any, options: Any
) -> list[scipy.sparse.csr_array]:
    """Return the interpolation from each coarser level, finest first.

    Args:
        matrix: symmetric positive definite.
        method: one of `METHODS`.
        largest: unknowns that the coarsest level may have.
        candidates: near-null vectors (n, k) for smoothed aggregation; constants when None.
        options: further keywords of pyamg's solver.

    Raises:
        ImportError: pyamg is not installed.
    """
    try:
        import pyamg
    except ImportError as error:
        raise ImportError("pyamg: expected it installed (gauntax[pde]), got none") from error
    # pyamg takes the old matrix class.
    old: Any = scipy.sparse.csr_matrix(matrix.astype(np.float64))
    if method == "ruge-stuben":
        built: Any = pyamg.ruge_stuben_solver(old, max_coarse=largest, **options)
    else:
        state = np.random.get_state()  # noqa: NPY002  pyamg draws from numpy's global generator
        np.random.seed(0)  # noqa: NPY002
        try:
            built = pyamg.smoothed_aggregation_solver(
                old, B=candidates, max_coarse=largest, **options
            )
        finally:
            np.random.set_state(state)  # noqa: NPY002
    return [canonical(level.P.tocsr()) for level in built.levels[:-1]]
