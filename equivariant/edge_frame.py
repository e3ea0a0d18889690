"""Messages in a frame whose axis is the edge, where a path takes m to m (eSCN's route).

The axis has harmonics of m = 0 alone, so that coupling with them is diagonal in |m|: inputs are
turned into the frame, multiplied by numbers of each path and m, and turned back. This is exact for
any weights. All paths from one irrep to another are turned back side by side.
See Passaro and Zitnick, Reducing SO(3) convolutions to SO(2), 2023.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .bilinear import BilinearMap
from .method import Use, planned
from .rotations import onto_axis


class _Pair(NamedTuple):
    """All paths from one irrep to another."""

    paths: tuple[int, ...]
    first: int
    degrees: tuple[int, int]
    factors: np.ndarray  # [2 least + 1, paths], by the m of the result
    mirrored: bool


def are_harmonics(irreps: e3nn.Irreps) -> bool:
    """Return whether all parities are those of harmonics of a vector."""
    return all(irrep.p == (-1) ** irrep.l for _, irrep in irreps)


def frame_program(
    bilinear: BilinearMap, use: Use
) -> tuple[tuple[Any, ...], Callable[[Array, Array, Array], list[Array]], list[tuple[int, ...]]]:
    """Return what messages in the frame cost, how they run on vectors, and their paths."""
    pairs = _pairs(bilinear)
    order = [n for pair in pairs for n in pair.paths]
    scalar = np.array([bilinear.degrees(bilinear.triples[n])[1] == 0 for n in order])
    first = bilinear.irreps_in1
    starts = sorted({pair.first for pair in pairs})
    largest = max(max(pair.degrees) for pair in pairs)
    into = {i: _product(use, 2 * first[i].ir.l + 1, 2 * first[i].ir.l + 1, 1) for i in starts}
    back = [
        _product(use, len(pair.factors), 2 * pair.degrees[1] + 1, len(pair.paths)) for pair in pairs
    ]

    def run(x: Array, vectors: Array, weights: Array) -> list[Array]:
        edges, _, channels = x.shape
        turns = onto_axis(vectors, largest)
        slices = first.slices()
        turned = {i: into[i](turns[first[i].ir.l].swapaxes(1, 2), x[:, slices[i]]) for i in starts}
        # Harmonics of no direction are zero, but for the scalar.
        there = ((vectors**2).sum(1) > 0)[:, None] | scalar[None]
        scaled = weights[:, np.array(order)] * there[:, :, None].astype(x.dtype)
        results, at = [], 0
        for pair, product in zip(pairs, back, strict=True):
            (l1, l3), least = pair.degrees, min(pair.degrees)
            inner = turned[pair.first][:, l1 - least : l1 + least + 1]
            inner = inner[:, ::-1] if pair.mirrored else inner
            own = scaled[:, None, at : at + len(pair.paths)]
            at += len(pair.paths)
            factors = jnp.asarray(pair.factors[None, :, :, None], x.dtype)
            wide = inner[:, :, None] * own * factors
            wide = wide.reshape(edges, len(pair.factors), len(pair.paths) * channels)
            results.append(product(turns[l3][:, l3 - least : l3 + least + 1], wide))
        return results

    entries = sum(pair.factors.size for pair in pairs)
    # The gradient of inputs times weights is summed across the middle of arrays, at a fraction of a
    # loop's pace: eight operations an entry tell the measured order of the methods, two did not.
    square = sum((2 * n + 1) ** 2 for n in range(largest + 1))
    cost = (
        *into.values(),
        *back,
        use.loop(8 * use.rows * entries, use.rows * (2 * entries + 2 * len(order))),
        use.loop(4 * use.batch * square, 6 * use.batch * square),
    )
    return cost, run, [pair.paths for pair in pairs]


def _product(use: Use, inner: int, rows: int, paths: int) -> Any:
    return planned(
        "bik,bic->bkc", (use.batch, inner, rows), (use.batch, inner, paths * use.channels),
        use=use, gradients=use.gradients,
    )  # fmt: skip


def _pairs(bilinear: BilinearMap) -> list[_Pair]:
    found: dict[tuple[int, int], list[int]] = {}
    for n, path in enumerate(bilinear.triples):
        found.setdefault((path.first, path.out), []).append(n)
    pairs = []
    for (i, _), paths in found.items():
        l1, _, l3 = bilinear.degrees(bilinear.triples[paths[0]])
        least, columns, odd = min(l1, l3), [], False
        for n in paths:
            _, l2, _ = bilinear.degrees(bilinear.triples[n])
            odd = (l1 + l2 + l3) % 2 == 1
            # The axis' harmonics are sqrt(2 l + 1) at m = 0.
            tensor = bilinear.path_tensor(bilinear.triples[n])[:, l2] * np.sqrt(2 * l2 + 1)
            block = tensor[l1 - least : l1 + least + 1, l3 - least : l3 + least + 1]
            columns.append(np.diagonal(block[::-1] if odd else block))
        pairs.append(_Pair(tuple(paths), i, (l1, l3), np.stack(columns, 1), odd))
    return pairs
