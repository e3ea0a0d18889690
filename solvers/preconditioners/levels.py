"""Work in an order of dependence, as few batches of equal size: what a loop in XLA can run."""

import numpy as np

_OVERHEAD = 300  # entries that the start of one batch is worth


def levels(count: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the level of each of `count` items: one above all that it waits for.

    Args:
        count: how many items.
        before: the first item of each dependence.
        after: the item that waits for it.
    """
    order = np.argsort(before, kind="stable")
    after = after[order]
    lengths = np.bincount(before, minlength=count)
    starts = np.cumsum(lengths) - lengths
    waiting = np.bincount(after, minlength=count)
    level = np.zeros(count, np.int32)
    front, depth = np.flatnonzero(waiting == 0), 0
    while len(front):
        level[front] = depth
        sizes = lengths[front]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        touched = after[np.repeat(starts[front], sizes) + within]
        np.subtract.at(waiting, touched, 1)
        touched = np.unique(touched)
        front, depth = touched[waiting[touched] == 0], depth + 1
    return level


def batches(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place items so that batches of one size each lie within a level.

    Returns:
        The place of each item, and the item at each place as (batches, size), -1 where none is.
    """
    sizes = np.bincount(level)
    candidates = [2**k for k in range(3, 1 + int(np.ceil(np.log2(max(sizes.max(), 8)))))]

    def cost(size: int) -> int:
        chunks = int((-(-sizes // size)).sum())
        return chunks * (size + _OVERHEAD)

    size = min(candidates, key=cost)
    padded = -(-sizes // size) * size
    order = np.argsort(level, kind="stable")
    within = np.arange(len(level)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.empty(len(level), np.int32)
    place[order] = np.repeat(np.cumsum(padded) - padded, sizes) + within
    items = np.full(int(padded.sum()), -1, np.int32)
    items[place] = np.arange(len(level))
    return place, items.reshape(-1, size)


def padded_rows(owner: np.ndarray, values: np.ndarray, count: int, fill: int) -> np.ndarray:
    """Return the values of each owner as a row, (count, most), filled up."""
    order = np.argsort(owner, kind="stable")
    lengths = np.bincount(owner, minlength=count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found = np.full((count, max(int(lengths.max(initial=0)), 1)), fill, np.int32)
    found[owner[order], within] = values[order]
    return found
