"""Rows of equal length, multiplied entry by entry: what XLA fuses into one pass.

In ELL a block holds rows of one length k as arrays (k, rows): y += v[j] * x[c[j]] for j < k,
written out, is one loop over rows for XLA; the same as a sum over an axis is not, and takes 4 to
40 times as long. Rows of many lengths are binned, so that little is padded. A full diagonal is
apart: it needs no column, and x stands where it is read.
"""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from tensornet.validation import is_traced

from .matrix import SparseMatrix, check_entries, put, spread, take_or_zero
from .pattern import Pattern

_UNROLL = 16  # entries of a row that are written out
_CHUNK = 8  # of longer rows: written out in a loop, as so many gathers take long to compile
_WASTE = 1.25  # padding that one block may have before rows are binned
_BINS = 4
_BIN_SHARE = 0.02  # of the entries that one more block has to save,
_BIN_LEAST = 20_000  # and how many at least: a block costs compiling and a launch


class Block(eqx.Module):
    """Rows of one length, padded entries with value zero and column zero.

    Columns are unsigned: XLA checks signed ones at both ends.
    """

    columns: UInt[Array, "length rows"]
    slots: Int[Array, "length rows"]  # which value of the pattern; its nnz where padded
    values: Float[Array, "length rows"]

    def mv(self, x: Array) -> Array:
        """Return the block's rows of the product."""
        length, rows = self.values.shape
        if length == 0:
            return jnp.zeros((rows, *x.shape[1:]), self.values.dtype)
        if length <= _UNROLL:
            return _sum(self.values, self.columns, x)
        chunks = -(-length // _CHUNK)
        pad = ((0, chunks * _CHUNK - length), (0, 0))
        values = jnp.pad(self.values, pad).reshape(chunks, _CHUNK, rows)
        columns = jnp.pad(self.columns, pad).reshape(chunks, _CHUNK, rows)

        def add(y: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
            return y + _sum(*chunk, x), None

        start = jnp.zeros((rows, *x.shape[1:]), jnp.result_type(values.dtype, x.dtype))
        return jax.lax.scan(add, start, (values, columns))[0]


class Diagonal(eqx.Module):
    """The diagonal of a square matrix that has an entry in each place of it."""

    slots: Int[Array, " rows"]  # which value of the pattern
    values: Float[Array, " rows"]


class ELL(SparseMatrix):
    """A sparse matrix as blocks of rows of equal length.

    Attributes:
        own: the diagonal, None where the pattern lacks some of it.
        blocks: the rows, without that, shortest first.
        order: where each row stands in the blocks one after the other; None where they are in
            order, in a single block.
    """

    own: Diagonal | None
    blocks: tuple[Block, ...]
    order: Int[Array, " rows"] | None
    _pattern: Pattern = eqx.field(static=True)

    @classmethod
    def build(cls, pattern: Pattern, data: Any) -> "ELL":
        """Lay out values of a pattern.

        Raises:
            ValueError: `data` has not one value for each entry.
        """
        data = check_entries(data, pattern)
        bins, order = layout(pattern)
        blocks = tuple(
            Block(jnp.asarray(columns), jnp.asarray(slots), take_or_zero(data, jnp.asarray(slots)))
            for columns, slots in bins
        )
        own = None
        if has_diagonal(pattern):
            slots = jnp.asarray(pattern.diagonal)
            own = Diagonal(slots, take_or_zero(data, slots))
        return cls(own, blocks, None if order is None else jnp.asarray(order), pattern)

    @property
    def pattern(self) -> Pattern:  # noqa: D102
        return self._pattern

    @property
    def dtype(self) -> Any:  # noqa: D102
        return self.blocks[0].values.dtype

    @property
    def data(self) -> Float[Array, " entries"]:  # noqa: D102
        joined = np if not is_traced(self.blocks) else jnp
        parts = self.blocks if self.own is None else (*self.blocks, self.own)
        values = [joined.asarray(part.values).ravel() for part in parts]
        slots = [joined.asarray(part.slots).ravel() for part in parts]
        return put(joined.concatenate(values), joined.concatenate(slots), self.nnz)

    def with_data(self, data: Float[Array, " entries"]) -> "ELL":  # noqa: D102
        data = check_entries(data, self._pattern)
        blocks = tuple(
            Block(block.columns, block.slots, take_or_zero(data, block.slots))
            for block in self.blocks
        )
        own = self.own
        if own is not None:
            own = Diagonal(own.slots, take_or_zero(data, own.slots))
        return ELL(own, blocks, self.order, self._pattern)

    def diagonal(self) -> Float[Array, " least"]:  # noqa: D102
        return super().diagonal() if self.own is None else self.own.values

    def row_norms(self) -> Float[Array, " rows"]:  # noqa: D102
        found = self._ordered([jnp.sum(jnp.abs(block.values), axis=0) for block in self.blocks])
        return found if self.own is None else jnp.abs(self.own.values) + found

    def mv(self, x: Float[Array, "columns *many"]) -> Float[Array, "rows *many"]:  # noqa: D102
        found = self._ordered([block.mv(x) for block in self.blocks])
        return found if self.own is None else spread(self.own.values, x) * x + found

    def _ordered(self, parts: list[Array]) -> Array:
        if self.order is None:
            return parts[0]
        return (
            jnp.concatenate(parts)
            .at[self.order]
            .get(mode="promise_in_bounds", wrap_negative_indices=False)
        )


def _sum(values: Array, columns: Array, x: Array) -> Array:
    def term(j: int) -> Array:
        return spread(values[j], x) * _rows(x, columns[j])

    return functools.reduce(lambda y, j: y + term(j), range(1, len(values)), term(0))


def _rows(x: Array, places: Array) -> Array:
    # x[places]; jnp's indexing casts them to signed ones, whose lower end is then checked.
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(range(1, x.ndim)), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    return jax.lax.gather(x, places[:, None], numbers, (1, *x.shape[1:]), mode="promise_in_bounds")


@functools.lru_cache(maxsize=64)
def layout(pattern: Pattern) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray | None]:
    """Return columns and slots of each block, and the place of each row in them."""
    kept = np.arange(pattern.nnz + 1, dtype=np.int32)  # the last one: where none is
    if has_diagonal(pattern):
        beside = pattern.rows != pattern.indices
        pattern, kept = pattern.select(beside), kept[np.append(beside, True)]
    lengths = pattern.lengths
    edges = bin_lengths(lengths)
    if len(edges) == 1:
        return [_block(pattern, kept, np.arange(pattern.shape[0]), edges[0])], None
    blocks, places, least = [], [], -1
    for most in edges:
        rows = np.flatnonzero((lengths > least) & (lengths <= most))
        blocks.append(_block(pattern, kept, rows, most))
        places.append(rows)
        least = most
    order = np.empty(pattern.shape[0], np.int32)
    order[np.concatenate(places)] = np.arange(pattern.shape[0])
    return blocks, order


def bin_lengths(lengths: np.ndarray) -> list[int]:
    """Return the length that each bin pads to, ascending: a single one where little is padded."""
    longest, total = int(lengths.max(initial=0)), max(int(lengths.sum()), 1)
    if longest * len(lengths) <= _WASTE * total:
        return [longest]
    counts = np.bincount(lengths)
    present = np.flatnonzero(counts)
    # At most 24 candidates: every length, or such quantiles of the entries.
    if len(present) > 24:
        share = np.cumsum(counts * np.arange(len(counts)))[present]
        picks = np.searchsorted(share, np.linspace(0, share[-1], 24)[1:])
        present = np.unique(np.append(present[np.minimum(picks, len(present) - 1)], longest))
    below = np.cumsum(counts)[present]  # rows up to each candidate
    best = (float("inf"), [longest])
    for bins in range(1, min(_BINS, len(present)) + 1):
        for inner in itertools.combinations(range(len(present) - 1), bins - 1):
            cut = np.array([*inner, len(present) - 1])
            padded = np.diff(below[cut], prepend=0) @ present[cut]
            cost = padded + max(_BIN_SHARE * total, _BIN_LEAST) * bins
            if cost < best[0]:
                best = (float(cost), [int(n) for n in present[cut]])
    return best[1]


def has_diagonal(pattern: Pattern) -> bool:
    """Return whether a pattern is square and has every place of its diagonal."""
    return pattern.shape[0] == pattern.shape[1] and bool((pattern.diagonal < pattern.nnz).all())


def _block(
    pattern: Pattern, kept: np.ndarray, rows: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    places = np.arange(length)[:, None]
    slots = pattern.indptr[rows][None, :] + places
    inside = places < pattern.lengths[rows][None, :]
    slots = np.where(inside, slots, pattern.nnz)
    padded = np.append(pattern.indices, 0)
    return padded[slots].astype(np.uint32), kept[slots]
