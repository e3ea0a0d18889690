"""Messages with weights per degree: x and the edge become numbers at places, multiplied there.

Places are points of a grid on the sphere for the Gaunt coupling, components of an exact CP tensor
for Clebsch-Gordan's. Nodes enter and leave them once, before edges are gathered and after messages
are summed; an edge costs its filter, the sum over degrees of weights times harmonics, and a product
at each place. See Luo et al., Enabling efficient equivariant operations in the Fourier basis via
Gaunt tensor products, 2024.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from tensornet.planner import contract

from .bilinear import BilinearMap
from .coupling.cp_tables import part_of_table
from .coupling.fields import Field, fields_of
from .coupling.gaunt import tables_of
from .method import Use, planned, times_table
from .weighting import components_of_irreps

# Edges to a node, by which what is done for nodes is priced.
_NEIGHBOURS = 16


class Product(NamedTuple):
    """Places of the first and of the second input whose products, with a sign, are summed."""

    first: slice
    second: slice
    out: int
    sign: int


class Places(NamedTuple):
    """A bilinear map as products at places.

    Attributes:
        first: from the components of x, [d1, P1].
        second: from those of the harmonics, [d2, P2].
        out: from each sum of products to the components of the result, [Q, d] each.
        products: at least one for each of `out`.
    """

    first: Float64[np.ndarray, "d1 P1"]
    second: Float64[np.ndarray, "d2 P2"]
    out: tuple[Float64[np.ndarray, "Q d"], ...]
    products: tuple[Product, ...]

    def enter(self, x: Array) -> Array:
        """Return [nodes, P1, channels] from [nodes, d1, channels]."""
        return contract("ndc,dp->npc", x, jnp.asarray(self.first, x.dtype))

    def leave(self, sums: list[Array]) -> Array:
        """Return [nodes, d, channels] from the sums at the places."""
        made = (
            contract("nqc,qd->ndc", z, jnp.asarray(t, z.dtype))
            for z, t in zip(sums, self.out, strict=True)
        )
        return reduce(jnp.add, made)


@lru_cache(maxsize=256)
def by_cp(bilinear: BilinearMap) -> Places | None:
    """Return a map by the exact CP tables, or None where none is known."""
    three = (bilinear.irreps_in1, bilinear.irreps_in2, bilinear.irreps_out)
    degrees = [[ir.l for _, ir in irreps] for irreps in three]
    factors = part_of_table(bilinear.tensor(), degrees)
    if factors is None:
        return None
    a, b, c = factors
    every = slice(0, len(a))
    return Places(a.T, b.T, (c,), (Product(every, every, 0, 1),))


@lru_cache(maxsize=256)
def on_grid(bilinear: BilinearMap) -> Places | None:
    """Return a map by functions on the sphere, or None where that takes too many of them."""
    try:
        fields = fields_of(bilinear)
    except ValueError:
        return None
    first, second, out = tables_of(fields.irreps)
    into, sent = _entrance(fields.irreps[0], fields.first, first)
    filters, own = _entrance(fields.irreps[1], fields.second, second)
    # Products of gradients may have points of their own; their sums then leave apart.
    tangent = [fields.first[p.first].component > 0 for p in fields.products]
    kinds = [int(t and out[1] is not out[0]) for t in tangent]
    keys = sorted({(p.out, kind) for p, kind in zip(fields.products, kinds, strict=True)})
    products = tuple(
        Product(sent[p.first], own[p.second], keys.index((p.out, kind)), p.sign)
        for p, kind in zip(fields.products, kinds, strict=True)
    )
    back = (_scaled(fields.irreps[2], fields.out[n], out[kind].T).T for n, kind in keys)
    return Places(into, filters, tuple(back), products)


def _entrance(
    irreps: e3nn.Irreps, fields: Sequence[Field], tables: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[slice]]:
    """Return the table into all fields of an input, and the places of each."""
    parts = [_scaled(irreps, field, tables[field.component]) for field in fields]
    ends = np.cumsum([0, *(part.shape[1] for part in parts)]).tolist()
    return np.concatenate(parts, axis=1), [slice(*pair) for pair in itertools.pairwise(ends)]


def _scaled(irreps: e3nn.Irreps, field: Field, table: np.ndarray) -> np.ndarray:
    """Return a table [d, Q] for each term of a field side by side, zero for no members."""
    scale = field.scale_of_all(len(irreps)) @ components_of_irreps(irreps)
    return (table[:, None] * scale.T[:, :, None]).reshape(len(table), -1)


def place_program(
    bilinear: BilinearMap, places: Places, use: Use
) -> tuple[tuple[Any, ...], Callable[[Array, Array, Array], list[Array]]]:
    """Return what messages at places cost, and how they run on x that has entered."""
    irreps = bilinear.irreps_in2
    size = places.second.shape[1]
    # [d2, degrees, P2]: harmonics of one degree are not summed with another's before the weights.
    apart = components_of_irreps(irreps).T[:, :, None] * places.second[:, None]
    table = times_table(apart.reshape(irreps.dim, -1), 1, use)
    product = planned(
        "ejp,ejc->epc", (use.batch, len(irreps), size), (use.batch, len(irreps), use.channels),
        use=use, gradients=use.gradients, batch="e",
    )  # fmt: skip

    def run(x: Array, harmonics: Array, weights: Array) -> list[Array]:
        functions = table.run(harmonics[:, None]).reshape(-1, len(irreps), size)
        filters = product(functions, weights)
        found: list[Any] = [0] * len(places.out)
        for p in places.products:
            made = x[:, p.first] * filters[:, p.second]
            found[p.out] = found[p.out] + (made if p.sign > 0 else -made)
        return found

    entries = sum(p.first.stop - p.first.start for p in places.products)
    ends = places.first.shape[1] + size + sum(map(len, places.out))
    nodes = replace(use, batch=max(use.batch // _NEIGHBOURS, 1))
    into = times_table(places.first, use.channels, nodes)
    back = [times_table(z, use.channels, nodes) for z in places.out]
    cost = (
        *table.cost, product, use.loop(2 * use.rows * entries, use.rows * ends),
        *into.cost, *(c for z in back for c in z.cost),
    )  # fmt: skip
    return cost, run
