"""Weights that differ from path to path, of one coupling tensor."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensornet.planner import cheapest

from ..bilinear import BilinearMap, Path
from ..method import Program, Use, planned, times_table
from ..weighting import components_of_irreps
from .contraction import batch_letters, contractions, head, without_channels

# More parts than this take long to compile.
_MOST_PARTS = 16
# Entries of a table, beyond which it is not built: mostly zeros.
_LARGEST_TABLE = 4_000_000


def by_path(bilinear: BilinearMap, use: Use) -> dict[str, Program]:
    """Return programs for a map by its `path_weights`.

    The result of each path is kept apart until it is weighted: that of all paths is found at once,
    or in parts, which multiply fewer zeros. Where the batch shares the weights, the tensor can be
    weighted instead.
    """
    n1, n2, _ = bilinear.sizes
    keys: dict[str, Callable[[Path], Any]] = {"paths at once": lambda _: ()}
    if 1 < n1 <= _MOST_PARTS:
        keys["paths by first irrep"] = lambda path: path.first
    if n2 > 1 and n1 * n2 <= _MOST_PARTS:
        keys["paths by pair"] = lambda path: path[:2]
    found = {}
    for name, key in keys.items():
        groups = [tuple(paths) for _, paths in itertools.groupby(bilinear.triples, key)]
        if all(_entries(bilinear, paths) <= _LARGEST_TABLE for paths in groups):
            found[name] = _weighted_paths(bilinear, groups, use)
    if not use.varying:
        found["weighted tensor"] = _weighted_tensor(bilinear, use)
    return found


def _weighted_paths(bilinear: BilinearMap, groups: Sequence[tuple[Path, ...]], use: Use) -> Program:
    """Compute the result of every path, weight them, and sum what goes to one irrep."""
    parts = [_results(bilinear, paths, use) for paths in groups]
    outs = [bilinear.irreps_out[path.out].ir.dim for path in bilinear.triples]
    repeat = np.repeat(np.eye(len(outs)), outs, axis=1)
    unit = np.eye(bilinear.irreps_out.dim)
    collect = np.concatenate([unit[bilinear.block(path)[2]] for path in bilinear.triples])
    weights = replace(use, batch=use.batch if use.varying else 1)
    spread = times_table(repeat, use.channels, weights)
    summed = times_table(collect, use.channels, use)
    entries = len(collect) * use.rows
    loops = use.loop(entries, 3 * entries if len(parts) == 1 else 5 * entries)

    def run(x: Array, y: Array, w: Array) -> Array:
        each = [part.run(x[..., i], y[..., j], None) for i, j, part in parts]
        joined = jnp.concatenate(each, axis=-1) if len(each) > 1 else each[0]
        return summed.run(joined * spread.run(bilinear.path_weights(w)))

    return Program(
        (*(c for _, _, part in parts for c in part.cost), *spread.cost, loops, *summed.cost), run
    )


def _range(bilinear: BilinearMap, paths: Sequence[Path], axis: int) -> slice:
    """Return the components of an input that some paths lie in."""
    blocks = [bilinear.block(path)[axis] for path in paths]
    return slice(min(b.start for b in blocks), max(b.stop for b in blocks))


def _entries(bilinear: BilinearMap, paths: Sequence[Path]) -> int:
    i, j = (_range(bilinear, paths, axis) for axis in (0, 1))
    width = sum(bilinear.irreps_out[path.out].ir.dim for path in paths)
    return (i.stop - i.start) * (j.stop - j.start) * width


def _results(
    bilinear: BilinearMap, paths: Sequence[Path], use: Use
) -> tuple[slice, slice, Program]:
    """Return which components some paths need, and the program of their results, side by side."""
    i, j = (_range(bilinear, paths, axis) for axis in (0, 1))
    tables = []
    for path in paths:
        of_x, of_y, _ = bilinear.block(path)
        one = bilinear.path_tensor(path)
        table = np.zeros((i.stop - i.start, j.stop - j.start, one.shape[2]))
        rows, columns = (
            slice(own.start - whole.start, own.stop - whole.start)
            for own, whole in ((of_x, i), (of_y, j))
        )
        table[rows, columns] = one
        tables.append(table)
    programs = contractions(np.concatenate(tables, axis=2), use)
    name, _, _ = cheapest({k: p.cost for k, p in programs.items()}, device=use.device)
    return i, j, programs[name]


def _weighted_tensor(bilinear: BilinearMap, use: Use) -> Program:
    """Weight the tensor of every channel, entry by entry, then contract."""
    sizes, tensor = bilinear.sizes, bilinear.tensor()
    three = (bilinear.irreps_in1, bilinear.irreps_in2, bilinear.irreps_out)
    index = np.ravel_multi_index(np.array(bilinear.triples).T, sizes)
    place = np.eye(int(np.prod(sizes)))[index]
    repeats = [components_of_irreps(irreps) for irreps in three]
    placed = times_table(place, use.channels, replace(use, batch=1))
    shapes = (use.channels, *sizes), *(r.shape for r in repeats)
    spread = planned("cIJK,Ii,Jj,Kk->cijk", *shapes, use=use, batch=None)
    loop = use.loop(use.channels * tensor.size, 3 * use.channels * tensor.size)
    a, b, _ = batch_letters(use)
    joined = use.product(
        f"{a}i,{b}j,cijk->bck",
        (*head(use, a), tensor.shape[0]),
        (*head(use, b), tensor.shape[1]),
        (use.channels, *tensor.shape),
    )

    def run(x: Array, y: Array, w: Array) -> Array:
        each = placed.run(bilinear.path_weights(w))
        each = each.reshape(use.channels, *sizes)
        whole = spread(each, *(jnp.asarray(r, x.dtype) for r in repeats))
        whole = whole * jnp.asarray(tensor, x.dtype)[None]
        x, y = (without_channels(z, s) for z, s in zip((x, y), use.shared, strict=True))
        return joined(x, y, whole)

    twice = 2 if use.gradients else 1
    return Program((*placed.cost, *(spread,) * twice, loop, joined), run)
