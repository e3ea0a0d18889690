"""A learned factor of the inverse: products only, positive definite whatever the network says."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..sparse import from_pattern
from ..sparse.matrix import spread, take_or_zero
from .base import pattern_of
from .graph_network import Graph, GraphNetwork, numbers, scaled
from .learned import Learned


class GraphApproximateInverse(Learned):
    """D^-1/2 (G G^T + eps I) D^-1/2 with G on A's pattern, of a graph network.

    After "Learning sparse approximate inverse preconditioners" (NeurIPS 2025, arXiv
    2510.27517); here G = (1 + start) I - start S + network, with S the scaled matrix, so that an
    untrained network is the first terms of S^-1/2, or Jacobi for `start=0`.

    Attributes:
        network: gives G's entries.
        epsilon: what keeps the product definite.
        start: see above.
    """

    network: GraphNetwork
    epsilon: float = eqx.field(static=True)
    start: float = eqx.field(static=True)

    def __init__(
        self,
        A: Any = None,
        *,
        network: GraphNetwork | None = None,
        width: int = 16,
        rounds: int = 3,
        epsilon: float = 1e-3,
        start: float = 0.5,
        key: PRNGKeyArray | None = None,
    ):
        if not epsilon > 0:
            raise ValueError(f"epsilon: expected above 0, got {epsilon}")
        self.epsilon, self.start = float(epsilon), float(start)
        self.network = (
            GraphNetwork.build(width, rounds, numbers(key)) if network is None else network
        )
        self._begin(A)

    @property
    def root(self) -> Float[Array, " n"]:  # noqa: D102
        return self.state[0]

    def _analyse(self, matrix: Any) -> Any:
        pattern = pattern_of(matrix)
        upper, order = pattern.transposed
        zeros = np.zeros(pattern.nnz, np.float32)
        places = (pattern.rows, pattern.indices, pattern.diagonal, order)
        return (
            *(jnp.asarray(x) for x in places),
            from_pattern(pattern, zeros),
            from_pattern(upper, zeros),
        )

    def _setup(self, values: Array) -> Any:
        rows, columns, diagonal, order, factor, transposed = self.analysis
        graph, root = scaled(rows, columns, values, take_or_zero(values, diagonal))
        entries = self.entries(graph)
        return root, factor.with_data(entries), transposed.with_data(entries[order])

    def _apply(self, r: Array) -> Array:
        root, factor, transposed = self.state
        r = spread(root, r) * r
        return spread(root, r) * (factor.mv(transposed.mv(r)) + self.epsilon * r)

    def entries(self, graph: Graph) -> Float[Array, " entries"]:
        """Return G's entries on the graph of a scaled matrix."""
        own = jnp.where(graph.diagonal, 1 + self.start, 0).astype(graph.values.dtype)
        return own - self.start * graph.values + self.network(graph)

    def misfit(self, graph: Graph, extra: Any, x: Array, b: Array) -> Float[Array, ""]:
        """Return `|S M x - x|^2 / |x|^2`."""
        del extra, b
        z = self.product(graph, None)(x)
        return jnp.sum((graph.mv(graph.values, z) - x) ** 2) / jnp.sum(x**2)

    def product(self, graph: Graph, extra: Any) -> Any:
        """Return x -> G G^T x + eps x."""
        del extra
        entries = self.entries(graph)
        return lambda x: graph.mv(entries, graph.transposed_mv(entries, x)) + self.epsilon * x
