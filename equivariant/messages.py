"""Messages along edges, summed at their receivers: how they are computed, and in what memory.

Arrays are channel-last in here. The coefficients are contracted with the harmonics of an edge
before the channels come in, so that what is done per channel is a small matrix product per edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensornet.planner import cheapest

from .bilinear import BilinearMap, Path
from .method import Table, Use, planned, times_table

METHODS = ("auto", "by path", "by irrep")


class Messages(NamedTuple):
    """One way to compute the messages of a map whose weights are per path.

    Attributes:
        cost: what `cheapest` compares.
        run: takes x [edges, irreps_in1.dim, channels] and harmonics [edges, irreps_in2.dim];
            returns for every path [edges, dimension, channels], unweighted.
    """

    cost: tuple[Any, ...]
    run: Callable[[Array, Array], list[Array]]


def chosen(bilinear: BilinearMap, method: str, use: Use) -> tuple[str, Messages, str]:
    """Return the name of a method, the method, and how all compared."""
    return _chosen(bilinear, method, replace(use, device=use.device or jax.default_backend()))


@lru_cache(maxsize=256)
def _chosen(bilinear: BilinearMap, method: str, use: Use) -> tuple[str, Messages, str]:
    found = {
        "by path": _in_groups(bilinear, [[n] for n in range(len(bilinear.triples))], use),
        "by irrep": _in_groups(bilinear, _groups(bilinear), use),
    }
    if method != "auto":
        return method, found[method], "asked for by name"
    name, _, table = cheapest({k: m.cost for k, m in found.items()}, device=use.device)
    return name, found[name], table


def _groups(bilinear: BilinearMap) -> list[list[int]]:
    """Return the paths of every irrep of the first input."""
    groups: dict[int, list[int]] = {}
    for n, path in enumerate(bilinear.triples):
        groups.setdefault(path.first, []).append(n)
    return list(groups.values())


def _in_groups(bilinear: BilinearMap, groups: Sequence[Sequence[int]], use: Use) -> Messages:
    """Return the program that computes each group of paths, all of one first irrep, together."""
    made = [_group(bilinear, [bilinear.triples[n] for n in group], use) for group in groups]
    back = np.argsort([n for group in groups for n in group])

    def run(x: Array, harmonics: Array) -> list[Array]:
        results = [z for part in made for z in part.run(x, harmonics)]
        return [results[n] for n in back]

    return Messages(tuple(c for part in made for c in part.cost), run)


def _group(bilinear: BilinearMap, paths: Sequence[Path], use: Use) -> Messages:
    first = bilinear.block(paths[0])[0]
    used = sorted({path.second for path in paths})
    seconds = [bilinear.irreps_in2.slices()[j] for j in used]
    dims = [2 * bilinear.degrees(path)[2] + 1 for path in paths]
    ends = np.cumsum(dims)
    rows, inner = int(ends[-1]), first.stop - first.start
    columns = np.zeros((sum(s.stop - s.start for s in seconds), rows, inner))
    starts = dict(zip(used, np.cumsum([0, *(s.stop - s.start for s in seconds)]), strict=False))
    for path, end, dim in zip(paths, ends, dims, strict=True):
        tensor = bilinear.path_tensor(path)  # [i, j, k]
        j = int(starts[path.second])
        columns[j : j + tensor.shape[1], end - dim : end] = tensor.transpose(1, 2, 0)
    table = times_table(columns.reshape(len(columns), -1), 1, use)
    product = planned(
        "bki,bic->bkc", (use.batch, rows, inner), (use.batch, inner, use.channels), use=use,
        gradients=use.gradients,
    )  # fmt: skip
    weigh = use.loop(use.rows * rows, 3 * use.rows * rows)

    def run(x: Array, harmonics: Array) -> list[Array]:
        matrices = _matrices(table, [harmonics[:, s] for s in seconds], rows, inner)
        z = product(matrices, x[:, first])
        return jnp.split(z, ends[:-1], axis=1) if len(ends) > 1 else [z]

    return Messages((*table.cost, product, weigh), run)


def _matrices(table: Table, parts: Sequence[Array], rows: int, inner: int) -> Array:
    joined = jnp.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    return table.run(joined[:, None]).reshape(-1, rows, inner)


# Sums at the receivers ---------------------------------------------------------------------


class Edges(NamedTuple):
    """What belongs to an edge; all have edges as their first axis.

    Attributes:
        senders, receivers: positions of nodes.
        harmonics: [edges, irreps_in2.dim].
        radial: what the radial weights are made of.
    """

    senders: Array
    receivers: Array
    harmonics: Array
    radial: Array


def summed(
    messages: Messages,
    x: Array,
    edges: Edges,
    weights: Callable[[Array], Array],
    dims: Sequence[int],
    size: int,
) -> list[Array]:
    """Return for every path the sum at each node of the weighted messages it receives.

    Args:
        messages: how they are computed.
        x: [nodes, irreps_in1.dim, channels].
        edges: senders, receivers, harmonics, radial.
        weights: makes [edges, n_paths, channels] of `radial`.
        dims: dimension of each path's result.
        size: edges to compute at a time. Each block but the last is recomputed for gradients.

    Returns:
        [nodes, dimension, channels] each.
    """
    nodes, _, channels = x.shape
    number = edges.senders.shape[0]

    def add(sums: list[Array], x: Array, block: Edges) -> list[Array]:
        factors = weights(block.radial)
        made = messages.run(x[block.senders], block.harmonics)
        return [
            total.at[block.receivers].add(z * factors[:, n, None])
            for n, (total, z) in enumerate(zip(sums, made, strict=True))
        ]

    sums = [jnp.zeros((nodes, dim, channels), x.dtype) for dim in dims]
    if number <= size:
        return add(sums, x, edges)
    whole = number // size * size
    blocks = jax.tree.map(lambda z: z[:whole].reshape(-1, size, *z.shape[1:]), edges)
    # The sums are linear in what came before, so that only the block's inputs are kept.
    body = jax.checkpoint(add, prevent_cse=False)
    sums, _ = jax.lax.scan(lambda sums, block: (body(sums, x, block), None), sums, blocks)
    if whole < number:
        sums = body(sums, x, jax.tree.map(lambda z: z[whole:], edges))
    return sums


def block_size(
    bilinear: BilinearMap, features: int | None, edges: int, nodes: int, use: Use, limit: int | None
) -> int:
    """Return how many edges to compute at a time in so many bytes of temporaries.

    The estimate counts what the gradient holds at once: gathered inputs, radial weights, messages
    before and after these, and the cotangents of all.

    Raises:
        ValueError: one edge at a time needs more.
    """
    if limit is None:
        return max(edges, 1)
    of_messages = sum(2 * bilinear.degrees(path)[2] + 1 for path in bilinear.triples)
    paths, dim = len(bilinear.triples), bilinear.irreps_in1.dim
    itemsize, channels = np.dtype(use.dtype).itemsize, use.channels
    each = 2 * channels * (dim + paths + 2 * of_messages)
    each += 2 * sum(
        (2 * bilinear.degrees(p)[0] + 1) * (2 * bilinear.degrees(p)[2] + 1)
        for p in bilinear.triples
    )
    mixed = (features or 0) * paths * channels
    fixed = 2 * nodes * channels * (2 * dim + of_messages) + 2 * mixed
    fits = (limit // itemsize - fixed) // each
    if fits < 1:
        least = itemsize * (fixed + each)
        raise ValueError(
            f"memory_limit: expected at least {least} bytes for {nodes} nodes and one edge at a "
            f"time, got {limit}"
        )
    blocks = -(-edges // min(fits, max(edges, 1))) if edges else 1
    # Blocks of equal size need no copy of what is cut.
    for count in range(blocks, 2 * blocks):
        if edges % count == 0:
            return max(edges // count, 1)
    return max(-(-edges // blocks), 1)
