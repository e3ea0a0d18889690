"""A symmetric multigrid cycle in XLA; its hierarchy from pyamg, its values refreshed under jit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from tensornet.validation import check_rank

from ..sparse import Pattern, Product, SparseMatrix, from_pattern, product
from .base import Preconditioner, with_values
from .chebyshev import coefficients, smoother
from .hierarchy import METHODS, interpolations


class Level(eqx.Module):
    """What a level needs of the patterns, and its interpolation.

    Attributes:
        matrix: the level's matrix, its layout; values come with `setup`.
        down: restriction, the transpose of `up`.
        up: interpolation from the next level.
        half: the product of the matrix with `up`.
        whole: the product of `down` with that: the next level's matrix.
    """

    matrix: SparseMatrix
    down: SparseMatrix
    up: SparseMatrix
    half: Product
    whole: Product


class Coarsest(eqx.Module):
    """Where the coarsest level's values stand in its dense matrix."""

    rows: Int[Array, " entries"]
    columns: Int[Array, " entries"]
    size: int = eqx.field(static=True)


class Multigrid(Preconditioner):
    """One V-cycle: Chebyshev smoothing before and after, a dense solve at the coarsest level.

    Interpolation is pyamg's (smoothed aggregation or Ruge-Stuben), chosen in `analyse` by the
    values it is given. `setup` keeps it and makes the coarse matrices of new values by P^T A P
    under jit, so a sequence of matrices needs the host once. Before and after smooth by the same
    polynomial, so the cycle is symmetric, and positive definite where the smoother's bound holds.

    Attributes:
        method: "smoothed-aggregation" or "ruge-stuben".
        degree: products with the matrix in each smoothing.
        ratio: of the ends of the interval the smoother works on.
        coarsest: unknowns that the level solved densely may have.
    """

    method: str = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    ratio: float = eqx.field(static=True)
    coarsest: int = eqx.field(static=True)
    _candidates: Any = eqx.field(static=True)
    _options: Any = eqx.field(static=True)

    def __init__(
        self,
        A: Any = None,
        *,
        method: str = "smoothed-aggregation",
        degree: int = 2,
        ratio: float | int = 8,
        coarsest: int = 600,
        candidates: Any = None,
        options: Any = (),
    ):
        """Choose the cycle.

        Args:
            A: a matrix to set up for at once.
            method: which of pyamg's interpolations.
            degree: see above.
            ratio: see above.
            coarsest: see above.
            candidates: vectors (n, k) that smoothed aggregation interpolates exactly: rigid body
                motions for elasticity; constants when left out.
            options: further keywords of pyamg's solver, as a dictionary.
        """
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
        self.method = method
        self.degree = check_rank(degree, "degree")
        if not ratio > 1:
            raise ValueError(f"ratio: expected above 1, got {ratio}")
        self.ratio = float(ratio)
        self.coarsest = check_rank(coarsest, "coarsest")
        kept = None if candidates is None else np.asarray(candidates, np.float64)
        self._candidates = None if kept is None else tuple(map(tuple, kept))
        self._options = tuple(sorted(dict(options).items()))
        self._begin(A)

    def _analyse(self, matrix: Any) -> Any:
        matrix = with_values("Multigrid", matrix)
        candidates = None if self._candidates is None else np.array(self._candidates)
        found = interpolations(
            matrix.to_scipy(), self.method, self.coarsest, candidates, dict(self._options)
        )
        levels, pattern = [], matrix.pattern
        dtype = np.dtype(matrix.dtype)
        for up in found:
            values: Any = up.data.astype(dtype)
            places = Pattern.of(up)
            across, order = places.transposed
            half = product(pattern, places)
            whole = product(across, half.pattern)
            levels.append(
                Level(
                    from_pattern(pattern, np.zeros(pattern.nnz, dtype)),
                    from_pattern(across, values[order], layout="ell"),
                    from_pattern(places, values, layout="ell"),
                    half,
                    whole,
                )
            )
            pattern = whole.pattern
        last = Coarsest(jnp.asarray(pattern.rows), jnp.asarray(pattern.indices), pattern.shape[0])
        return tuple(levels), last

    def _setup(self, values: Array) -> Any:
        levels, last = self.analysis
        states = []
        for level in levels:
            matrix = level.matrix.with_data(values)
            down, up = level.down.astype(values.dtype), level.up.astype(values.dtype)
            states.append((smoother(matrix), down, up))
            values = level.whole(down.data, level.half(values, up.data))
        dense = jnp.zeros((last.size, last.size), values.dtype)
        dense = dense.at[last.rows, last.columns].add(values)
        inverse = jnp.linalg.inv(dense)
        return tuple(states), (inverse + inverse.T) / 2

    def _apply(self, r: Array) -> Array:
        return self._cycle(0, r)

    def _cycle(self, depth: int, r: Array) -> Array:
        states, inverse = self.state
        if depth == len(states):
            return jnp.matmul(inverse, r, precision=jax.lax.Precision.HIGHEST)
        smooth, down, up = states[depth]
        x, r = smooth.before(r, self.degree, self.ratio)
        d = up.mv(self._cycle(depth + 1, down.mv(r)))
        return smooth.after(d, x + d, r, coefficients(self.ratio, self.degree))
