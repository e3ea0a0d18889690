"""A learned Cholesky factor on the matrix's own pattern."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, PRNGKeyArray

from ..sparse import Pattern
from ..sparse.matrix import spread, take_or_zero
from .approximate_inverse import lower_power
from .base import pattern_of
from .graph_network import Graph, GraphNetwork, numbers, scaled
from .incomplete_cholesky import compute, factorization
from .learned import Learned
from .ordering import check_order, ordered
from .triangular import triangles

STARTS = ("matrix", "incomplete")


class GraphCholesky(Learned):
    """L L^T with L on the lower triangle of A's pattern, of a graph network.

    After Li et al., "Learning preconditioners for conjugate gradient PDE solvers" (ICML 2023):
    diag(L) is the root of A's diagonal, entries below are learned, here as what is added to the
    scaled matrix's own; or, with `start="incomplete"`, to IC(0)'s factor, diagonal included
    (Trifonov et al., PreCorrector). Positive definite by its positive diagonal.

    Attributes:
        network: gives what is added.
        start: "matrix" or "incomplete".
        order: of the unknowns, "natural" (the matrix's own) or "rcm" (reverse Cuthill-McKee: on
            refined meshes the better factor to learn, with more levels in each solve).
    """

    network: GraphNetwork
    start: str = eqx.field(static=True)
    order: str = eqx.field(static=True)

    def __init__(
        self,
        A: Any = None,
        *,
        network: GraphNetwork | None = None,
        width: int = 16,
        rounds: int = 3,
        start: str = "matrix",
        order: str = "natural",
        key: PRNGKeyArray | None = None,
    ):
        if start not in STARTS:
            raise ValueError(f"start: expected one of {', '.join(STARTS)}, got {start!r}")
        self.start, self.order = start, check_order(order)
        self.network = (
            GraphNetwork.build(width, rounds, numbers(key)) if network is None else network
        )
        self._begin(A)

    @property
    def root(self) -> Float[Array, " n"]:  # noqa: D102
        return self.state[0]

    def _analyse(self, matrix: Any) -> Any:
        pattern, ordering = ordered(pattern_of(matrix), self.order)
        lower = lower_power(pattern, 1)
        factors = factorization(pattern, lower) if self.start == "incomplete" else None
        both = pattern.find(lower.rows, lower.indices)
        back = lower.find(pattern.rows, pattern.indices)
        places = (pattern.rows, pattern.indices, pattern.diagonal, both, back)
        return tuple(jnp.asarray(x) for x in places), factors, triangles(lower), ordering

    def _setup(self, values: Array) -> Any:
        (rows, columns, diagonal, both, back), factors, (lower, upper), ordering = self.analysis
        values = ordering.values(values)
        graph, root = scaled(rows, columns, values, take_or_zero(values, diagonal))
        extra = None
        if factors is not None:
            extra = take_or_zero(factors.factor(graph.values), back)
        entries = take_or_zero(self.entries(graph, extra), both)
        return ordering.back(root), lower.prepare(entries), upper.prepare(entries)

    def _apply(self, r: Array) -> Array:
        _, _, (lower, upper), ordering = self.analysis
        root, forward, backward = self.state
        r = ordering.into(spread(root, r) * r)
        z = ordering.back(upper.solve(backward, lower.solve(forward, r)))
        return spread(root, z) * z

    def entries(self, graph: Graph, extra: Any = None) -> Float[Array, " entries"]:
        """Return the factor's entries on the graph of a scaled matrix, zero above the diagonal."""
        begin = graph.values if extra is None else extra
        below = jnp.where(graph.rows > graph.columns, begin + self.network(graph), 0)
        own = jnp.ones_like(begin) if extra is None else begin
        return jnp.where(graph.diagonal, own, below)

    def misfit(self, graph: Graph, extra: Any, x: Array, b: Array) -> Float[Array, ""]:
        """Return `|L L^T x - b|^2 / |b|^2`."""
        entries = self.entries(graph, extra if self.start == "incomplete" else None)
        found = graph.mv(entries, graph.transposed_mv(entries, x))
        return jnp.sum((found - b) ** 2) / jnp.sum(b**2)

    def product(self, graph: Graph, extra: Any) -> Any:
        """Return x -> (L L^T)^-1 x by dense triangles."""
        entries = self.entries(graph, extra if self.start == "incomplete" else None)
        # Padded nodes, which have no entries, get a diagonal of one.
        own = graph.to_rows(jnp.where(graph.diagonal, 1.0, 0.0).astype(entries.dtype))
        lower = jnp.diag(1 - own).at[graph.rows, graph.columns].add(entries, mode="drop")

        def apply(x: Array) -> Array:
            half = jax.scipy.linalg.solve_triangular(lower, x, lower=True)
            return jax.scipy.linalg.solve_triangular(lower, half, lower=True, trans=1)

        return apply

    def numbered(self, matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
        """Return the matrix with its unknowns in the order of the factor."""
        pattern, ordering = ordered(Pattern.of(matrix), self.order)
        # On the host, whose values stay in double precision.
        moved = slice(None) if ordering.entries is None else np.asarray(ordering.entries)
        return pattern.to_scipy(matrix.data[moved])

    def extras(self, matrix: scipy.sparse.csr_array) -> np.ndarray | None:
        """Return the factor of IC(0) at each entry of the matrix, where training starts from it."""
        if self.start == "matrix":
            return None
        pattern = Pattern.of(matrix)
        lower = lower_power(pattern, 1)
        found = compute(factorization(pattern, lower), jnp.asarray(matrix.data))
        return np.append(found, 0)[lower.find(pattern.rows, pattern.indices)]
