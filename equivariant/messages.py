"""Messages along edges, summed at their receivers: how they are computed, and in what memory.

Arrays are channel-last in here. The coefficients are contracted with the harmonics of an edge
before the channels come in, so that what is done per channel is a small matrix product per edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from tensornet.planner import cheapest, contract

from .bilinear import BilinearMap, Path
from .edge_frame import frame_program
from .method import Use, planned, times_table
from .separable_messages import Places, by_cp, on_grid, place_program

METHODS = ("auto", "direct", "so2", "gaunt-grid", "cp")
# Bytes of a block of edges that a CPU computes from its caches, and blocks that are not worth
# computing twice for a gradient; products at places are, as they cost little beside the memory.
_IN_CACHE, _FEW = 8e6, 8


class Messages(NamedTuple):
    """One way to compute messages.

    Attributes:
        cost: what `cheapest` compares.
        run: takes x [edges, rows, channels], the edges' harmonics or vectors, and weights [edges,
            n_weights, channels]; returns arrays [edges, rows, channels or several times these].
        sums: rows and multiples of the channels of each array.
        results: of each array, the irrep of the result, and which of the matrices that mix its
            channels are for it; for `places` one matrix for each irrep.
        held: entries that a gradient holds of an edge: times the channels, and besides.
        places: where nodes enter before, and leave after.
    """

    cost: tuple[Any, ...]
    run: Callable[[Array, Array, Array], list[Array]]
    sums: tuple[tuple[int, int], ...]
    results: tuple[tuple[int, slice], ...]
    held: tuple[int, int]
    places: Places | None = None


def chosen(
    bilinear: BilinearMap, method: str, use: Use, *, vectors: bool
) -> tuple[str, Messages, str]:
    """Return the name of a method, the method, and how all compared.

    Args:
        bilinear: the map, with weights per path or per degree (of the harmonics alone).
        method: one of `METHODS`.
        use: the call.
        vectors: whether edges are told by vectors, which `"so2"` needs.
    """
    use = replace(use, device=use.device or jax.default_backend())
    return _chosen(bilinear, method, use, vectors)


@lru_cache(maxsize=256)
def _chosen(
    bilinear: BilinearMap, method: str, use: Use, vectors: bool
) -> tuple[str, Messages, str]:
    made: dict[str, Any] = {"direct": _direct} | ({"so2": _in_frame} if vectors else {})
    for name in ("gaunt-grid", "cp"):
        places = places_of(bilinear, name)
        if places is not None:
            made[name] = partial(_at_places, places)
    if method != "auto":
        return method, made[method](bilinear, use), "asked for by name"
    found = {name: make(bilinear, use) for name, make in made.items()}
    name, _, table = cheapest({k: m.cost for k, m in found.items()}, device=use.device)
    return name, found[name], table


def places_of(bilinear: BilinearMap, method: str) -> Places | None:
    """Return where a method multiplies a map of weights per degree; None where it cannot."""
    if bilinear.weights == "per-path":
        return None
    return on_grid(bilinear) if method == "gaunt-grid" else by_cp(bilinear)


def _at_places(places: Places, bilinear: BilinearMap, use: Use) -> Messages:
    cost, run = place_program(bilinear, places, use)
    (_, entered), (_, size) = places.first.shape, places.second.shape
    left = sum(map(len, places.out))
    degrees = len(bilinear.irreps_in2)
    return Messages(
        cost, run, tuple((len(table), 1) for table in places.out),
        tuple((o, slice(0, 1)) for o in range(len(bilinear.irreps_out))),
        (entered + degrees + size + 2 * left, degrees * size), places,
    )  # fmt: skip


def _by_path(
    bilinear: BilinearMap, cost: Any, run: Any, groups: Sequence[Sequence[int]]
) -> Messages:
    """Return messages from a program whose arrays hold groups of paths, all to one irrep each."""
    dims = [2 * bilinear.degrees(path)[2] + 1 for path in bilinear.triples]
    squares = ((2 * a + 1) * (2 * c + 1) for a, _, c in map(bilinear.degrees, bilinear.triples))
    held = (bilinear.irreps_in1.dim + len(dims) + 2 * sum(dims), sum(squares))
    to = [bilinear.triples[paths[0]].out for paths in groups]
    if bilinear.weights == "per-path":
        results, starts = [], dict.fromkeys(to, 0)
        for o, paths in zip(to, groups, strict=True):
            results.append((o, slice(starts[o], starts[o] + len(paths))))
            starts[o] += len(paths)
        sums = tuple((dims[paths[0]], len(paths)) for paths in groups)
        return Messages(cost, run, sums, tuple(results), held)
    degrees = np.array([path.second for path in bilinear.triples])
    outs = range(len(bilinear.irreps_out))

    def summed_up(x: Array, geometry: Array, weights: Array) -> list[Array]:
        found: dict[int, Array] = {}
        for o, z in zip(to, run(x, geometry, weights[:, degrees]), strict=True):
            z = z.reshape(*z.shape[:2], -1, weights.shape[2]).sum(2)
            found[o] = found[o] + z if o in found else z
        return [found[o] for o in outs]

    sums = tuple((ir.dim, 1) for _, ir in bilinear.irreps_out)
    return Messages(cost, summed_up, sums, tuple((o, slice(0, 1)) for o in outs), held)


def _in_frame(bilinear: BilinearMap, use: Use) -> Messages:
    return _by_path(bilinear, *frame_program(bilinear, use))


def _direct(bilinear: BilinearMap, use: Use) -> Messages:
    """Weigh what is sent, then multiply with a matrix of the edge and path.

    In this order a gradient recomputes weighted inputs, and no product.
    """
    made = [_path(bilinear, path, use) for path in bilinear.triples]

    def run(x: Array, harmonics: Array, weights: Array) -> list[Array]:
        return [part(x, harmonics, weights[:, n, None]) for n, (_, part) in enumerate(made)]

    cost = tuple(c for costs, _ in made for c in costs)
    return _by_path(bilinear, cost, run, [(n,) for n in range(len(made))])


def _path(
    bilinear: BilinearMap, path: Path, use: Use
) -> tuple[tuple[Any, ...], Callable[[Array, Array, Array], Array]]:
    first, second, _ = bilinear.block(path)
    tensor = bilinear.path_tensor(path)  # [i, j, k]
    inner, _, rows = tensor.shape
    columns = tensor.transpose(1, 0, 2)
    table = times_table(columns.reshape(len(columns), -1), 1, use)
    product = planned(
        "bik,bic->bkc", (use.batch, inner, rows), (use.batch, inner, use.channels), use=use,
        gradients=use.gradients,
    )  # fmt: skip
    # Small products lose pace as their degrees grow, against the frame's wide ones: so many more
    # operations tell the measured order, "direct" first to degree 3 and last from 4 on.
    small = inner * (inner + rows) / 2
    weigh = use.loop(use.rows * small, 3 * use.rows * inner)

    def run(x: Array, harmonics: Array, weights: Array) -> Array:
        matrices = table.run(harmonics[:, None, second]).reshape(-1, inner, rows)
        return product(matrices, weights * x[:, first])

    return (*table.cost, product, weigh), run


# Sums at the receivers ---------------------------------------------------------------------


class Edges(NamedTuple):
    """What belongs to an edge; all have edges as their first axis.

    Attributes:
        senders, receivers: positions of nodes.
        geometry: harmonics [edges, irreps_in2.dim], or vectors [edges, 3].
        radial: what the radial weights are made of.
    """

    senders: Array
    receivers: Array
    geometry: Array
    radial: Array


# x, geometry, radial and table by name; senders and receivers.
Operands = dict[str, Array]
Ends = tuple[Array, Array]


def summed(
    messages: Messages,
    x: Array,
    edges: Edges,
    table: Array | None,
    size: int,
) -> list[Array]:
    """Return for each result of the messages the sum at each node of those it receives.

    Args:
        messages: how they are computed.
        x: [nodes, rows, channels].
        edges: senders, receivers, geometry, radial.
        table: [features, n_weights, channels], which makes weights of `radial`; None where these
            are the weights.
        size: edges to compute at a time, recomputed for gradients. With several blocks the first
            derivative is in reverse mode.

    Returns:
        Arrays [nodes, rows, channels or several times these], as `Messages.sums`.
    """
    nodes, _, channels = x.shape

    def made(given: Operands) -> list[Array]:
        weights = given["radial"]
        if "table" in given:
            weights = contract("ef,fpc->epc", weights, given["table"])
        return messages.run(given["x"], given["geometry"], weights)

    def add(sums: list[Array], given: Operands, ends: Ends) -> list[Array]:
        new = made(_sent(given, ends))
        return [total.at[ends[1]].add(z) for total, z in zip(sums, new, strict=True)]

    def zeros() -> list[Array]:
        return [jnp.zeros((nodes, rows, n * channels), x.dtype) for rows, n in messages.sums]

    def run(given: Operands, ends: Ends) -> list[Array]:
        body = jax.checkpoint(add, prevent_cse=False)
        whole, own = _split(given)
        return _scanned(
            lambda sums, block: (body(sums, whole | block[0], block[1]), ()),
            zeros(), (own, ends), size,
        )[0]  # fmt: skip

    def forward(given: Any, ends: Any) -> Any:
        """Keep apart what is differentiated by, which names say: they are static."""
        ends = tuple(z.value for z in ends)
        varied = {name: z.value for name, z in given.items() if z.perturbed}
        fixed = {name: z.value for name, z in given.items() if not z.perturbed}
        return run(varied | fixed, ends), (varied, fixed, ends)

    def backward(kept: Any, cotangents: list[Any]) -> Any:
        varied, fixed, ends = kept
        cotangents = [
            jnp.zeros(z.shape, x.dtype) if isinstance(z, SymbolicZero) else z for z in cotangents
        ]

        @partial(jax.checkpoint, prevent_cse=False)
        def slopes(cts: list[Array], varied: Operands, fixed: Operands, ends: Ends) -> Operands:
            rest = _sent(fixed, ends)
            pull = jax.vjp(lambda own: made(rest | own), _sent(varied, ends))[1]
            return pull([ct[ends[1]] for ct in cts])[0]

        (whole, own), (others, rest) = _split(varied), _split(fixed)

        def step(totals: Operands, block: Any) -> tuple[Operands, Operands]:
            own, rest, ends = block
            new, each = _split(slopes(cotangents, whole | own, others | rest, ends))
            if "x" in new:
                new["x"] = totals["x"].at[ends[0]].add(new["x"])
            if "table" in new:
                new["table"] = totals["table"] + new["table"]
            return new, each

        start = {name: jnp.zeros_like(z) for name, z in whole.items()}
        totals, each = _scanned(step, start, (own, rest, ends), size)
        return dict.fromkeys(fixed) | totals | each, None

    given = {"x": x, "geometry": edges.geometry, "radial": edges.radial}
    given |= {} if table is None else {"table": table}
    ends = (edges.senders, edges.receivers)
    if len(edges.senders) <= size:
        return add(zeros(), given, ends)
    # The derivative of a scan would keep the cotangents of the sums once for each block where it
    # is itself differentiated; here they are the same for all.
    in_blocks = jax.custom_vjp(run)
    in_blocks.defvjp(forward, backward, symbolic_zeros=True)
    return in_blocks(given, ends)


def _split(given: Operands) -> tuple[Operands, Operands]:
    """Return what is the same for all edges, and what belongs to each."""
    each = {name: given[name] for name in ("geometry", "radial") if name in given}
    return {name: z for name, z in given.items() if name not in each}, each


def _sent(given: Operands, ends: Ends) -> Operands:
    """Return the operands with x at the senders."""
    return given | ({"x": given["x"][ends[0]]} if "x" in given else {})


def _scanned(step: Callable[..., Any], carry: Any, edges: Any, size: int) -> tuple[Any, Any]:
    """Go through the edges in blocks; what each returns for its edges is joined."""
    number = len(jax.tree.leaves(edges)[0])
    whole = number // size * size
    blocks = jax.tree.map(lambda z: z[:whole].reshape(-1, size, *z.shape[1:]), edges)
    carry, made = jax.lax.scan(step, carry, blocks)
    made = jax.tree.map(lambda z: z.reshape(-1, *z.shape[2:]), made)
    if whole < number:
        carry, rest = step(carry, jax.tree.map(lambda z: z[whole:], edges))
        made = jax.tree.map(lambda *z: jnp.concatenate(z), made, rest)
    return carry, made


def block_size(
    messages: Messages, table: int, x: Sequence[int], edges: int, use: Use, limit: int | None
) -> int:
    """Return how many edges to compute at a time in so many bytes of temporaries.

    The estimate counts what the gradient holds at once: gathered inputs, radial weights, messages
    before and after these, and the cotangents of all. Without a limit all edges are taken at once,
    but on a CPU where they leave its caches.

    Args:
        messages: how they are computed.
        table: entries of what makes the weights.
        x: nodes, rows and channels of what is sent.
        edges: how many.
        use: the call.
        limit: bytes, or None.

    Raises:
        ValueError: one edge at a time needs more.
    """
    (nodes, rows, channels), itemsize = x, np.dtype(use.dtype).itemsize
    each = 2 * channels * messages.held[0] + 2 * messages.held[1]
    if limit is None:
        held = int(_IN_CACHE // itemsize // each)
        few = _FEW if messages.places is None else 1
        if (use.device or jax.default_backend()) != "cpu" or edges <= few * held:
            return max(edges, 1)
        return _equal_blocks(edges, max(held, 1))
    made = sum(rows * n for rows, n in messages.sums)
    fixed = 2 * nodes * channels * (2 * rows + made) + 2 * table
    fits = (limit // itemsize - fixed) // each
    if fits < 1:
        least = itemsize * (fixed + each)
        raise ValueError(
            f"memory_limit: expected at least {least} bytes for {nodes} nodes and one edge at a "
            f"time, got {limit}"
        )
    return _equal_blocks(edges, fits)


def _equal_blocks(edges: int, most: int) -> int:
    """Return the size of blocks of at most so many; equal ones need no copy of what is cut."""
    blocks = -(-edges // min(most, max(edges, 1))) if edges else 1
    for count in range(blocks, 2 * blocks):
        if edges % count == 0:
            return max(edges // count, 1)
    return max(-(-edges // blocks), 1)
