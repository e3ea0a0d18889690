"""A network on the graph of a matrix: messages along its entries, a number for each of them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

NODE_FEATURES, EDGE_FEATURES = 3, 4


class Graph(eqx.Module):
    """A matrix scaled to ones on its diagonal, as a graph; padded entries have row `nodes`.

    Attributes:
        rows: the row of each entry.
        columns: the column of each entry.
        values: the scaled entry.
        nodes: how many nodes there are, padded ones included.
    """

    rows: Int[Array, " entries"]
    columns: Int[Array, " entries"]
    values: Float[Array, " entries"]
    nodes: int = eqx.field(static=True)

    @property
    def diagonal(self) -> Bool[Array, " entries"]:
        """Whether each entry is on the diagonal."""
        return self.rows == self.columns

    def at_columns(self, x: Float[Array, "nodes ..."]) -> Array:
        """Return the node's value at each entry's column."""
        return x.at[self.columns].get(mode="fill", fill_value=0)

    def at_rows(self, x: Float[Array, "nodes ..."]) -> Array:
        """Return the node's value at each entry's row."""
        return x.at[self.rows].get(mode="fill", fill_value=0)

    def to_rows(self, entries: Float[Array, "entries ..."]) -> Array:
        """Return the sum of the entries of each row."""
        return jax.ops.segment_sum(entries, self.rows, num_segments=self.nodes)

    def to_columns(self, entries: Float[Array, "entries ..."]) -> Array:
        """Return the sum of the entries of each column."""
        return jax.ops.segment_sum(entries, self.columns, num_segments=self.nodes)

    def mv(self, entries: Float[Array, " entries"], x: Float[Array, " nodes"]) -> Array:
        """Return the product of a matrix with these entries and a vector."""
        return self.to_rows(entries * self.at_columns(x))

    def transposed_mv(self, entries: Float[Array, " entries"], x: Float[Array, " nodes"]) -> Array:
        """Return the product of the transpose of that matrix and a vector."""
        return self.to_columns(entries * self.at_rows(x))

    def features(self, *, sides: bool = True) -> tuple[Array, Array]:
        """Return what the network sees of nodes and of entries, whatever the size.

        Of the numbering it sees, unless `sides` is false, on which side of the diagonal an entry
        is: so a factor need not be symmetric, and G G^T reaches more than squares.
        """
        off = jnp.where(self.diagonal, 0, self.values)
        count = self.to_rows(jnp.where(self.rows < self.nodes, 1, 0).astype(off.dtype))
        sums, sizes = self.to_rows(off), self.to_rows(jnp.abs(off))
        nodes = jnp.stack([sums, sizes, jnp.log1p(count) / 2], axis=1)
        mean = sizes / jnp.maximum(count - 1, 1)
        share = off / jnp.maximum(self.at_rows(mean), jnp.finfo(off.dtype).tiny)
        own = self.diagonal.astype(off.dtype)
        edges = [off, jnp.tanh(share), own]
        if sides:
            edges.append(jnp.sign(self.columns - self.rows).astype(off.dtype))
        return nodes, jnp.stack(edges, axis=1)


class Dense(eqx.Module):
    """An affine map of the last axis."""

    weight: Float[Array, "inner outer"]
    bias: Float[Array, " outer"]

    @classmethod
    def build(cls, inner: int, outer: int, key: PRNGKeyArray, *, scale: float = 1.0) -> "Dense":
        """Draw the weights, `scale` times as large as keeps the size of what is mapped."""
        weight = scale * jax.random.normal(key, (inner, outer)) / inner**0.5
        return cls(weight, jnp.zeros(outer, weight.dtype))

    def __call__(self, x: Float[Array, "many inner"]) -> Float[Array, "many outer"]:
        """Map each row."""
        weight, bias = self.weight.astype(x.dtype), self.bias.astype(x.dtype)
        return jnp.matmul(x, weight, precision=jax.lax.Precision.HIGHEST) + bias[None]


class Round(eqx.Module):
    """One exchange of messages: entries see their nodes, nodes the mean of their entries."""

    edge: tuple[Dense, Dense]
    node: tuple[Dense, Dense]

    def __call__(self, graph: Graph, x: Array, e: Array, mean: Array) -> tuple[Array, Array]:
        """Return new states of nodes and entries."""
        seen = jnp.concatenate([e, graph.at_rows(x), graph.at_columns(x)], axis=1)
        e = e + self.edge[1](jax.nn.relu(self.edge[0](seen)))
        heard = graph.to_rows(e) * mean[:, None]
        x = x + self.node[1](jax.nn.relu(self.node[0](jnp.concatenate([x, heard], axis=1))))
        return x, e


class GraphNetwork(eqx.Module):
    """Encode, exchange, decode (Li et al. 2023; Pfaff et al. 2021): a number for each entry.

    The decoder starts at zero, so that an untrained network changes nothing.

    Attributes:
        encoders: of nodes and of entries.
        rounds: of messages.
        decoder: of entries.
        sides: whether it sees on which side of the diagonal an entry is; without, renumbering
            the unknowns renumbers what it returns.
    """

    encoders: tuple[Dense, Dense]
    rounds: tuple[Round, ...]
    decoder: tuple[Dense, Dense]
    sides: bool = eqx.field(static=True, default=True)

    @classmethod
    def build(
        cls, width: int, rounds: int, key: PRNGKeyArray, *, sides: bool = True
    ) -> "GraphNetwork":
        """Draw the weights."""
        keys = iter(jax.random.split(key, 4 + 4 * rounds))
        return cls(
            (
                Dense.build(NODE_FEATURES, width, next(keys)),
                Dense.build(EDGE_FEATURES if sides else EDGE_FEATURES - 1, width, next(keys)),
            ),
            tuple(
                Round(
                    (
                        Dense.build(3 * width, width, next(keys)),
                        Dense.build(width, width, next(keys)),
                    ),
                    (
                        Dense.build(2 * width, width, next(keys)),
                        Dense.build(width, width, next(keys)),
                    ),
                )
                for _ in range(rounds)
            ),
            (
                Dense.build(width, width, next(keys)),
                Dense.build(width, 1, next(keys), scale=0.0),
            ),
            sides,
        )

    def __call__(self, graph: Graph) -> Float[Array, " entries"]:
        """Return a number for each entry."""
        nodes, edges = graph.features(sides=self.sides)
        x, e = self.encoders[0](nodes), self.encoders[1](edges)
        ones = jnp.ones(graph.rows.shape, e.dtype)
        mean = 1 / jnp.maximum(graph.to_rows(ones), 1)
        for exchange in self.rounds:
            x, e = exchange(graph, x, e, mean)
        return self.decoder[1](jax.nn.relu(self.decoder[0](e)))[:, 0]


def scaled(
    rows: Array, columns: Array, values: Array, diagonal: Array
) -> tuple[Graph, Float[Array, " n"]]:
    """Return the graph of a matrix, and one over the root of its diagonal."""
    root = 1 / jnp.sqrt(diagonal)
    entries = values * root[rows] * root[columns]
    return Graph(rows, columns, entries, diagonal.shape[0]), root


def numbers(key: Any) -> PRNGKeyArray:
    """Return a key, the first where none is given: weights to be trained or loaded."""
    return jax.random.key(0) if key is None else key
