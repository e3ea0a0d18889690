"""The order of pairwise contractions, found jointly with the axis order of every intermediate."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import opt_einsum

from .layout import Layouts, Lowering, Order, mask_of

EXACT_OPERANDS = 8
_OUTER_OPERANDS = 5  # up to here products of operands without a common index are tried too
_ORDERS = (5, 3)  # axis orders remembered for each intermediate, of few and of many operands

Tree = Any  # an operand's position, or a pair of trees


class Entry(NamedTuple):
    """The best way found to hold the product of some operands in one axis order.

    Attributes:
        operands: bit mask of the operands multiplied.
        order: axis order of the result.
        cost: what is minimised, then seconds.
        seconds, flops, bytes, copied: totals.
        peak: bytes alive at the worst moment while this is computed.
        size: bytes of the result, none for an operand as given.
        how: the last step, or None for what is given.
        parts: the two entries that the last step joins.
    """

    operands: int
    order: Order
    cost: tuple[float, float]
    seconds: float
    flops: int
    bytes: int
    copied: int
    peak: int
    size: int
    how: Lowering | None
    parts: tuple["Entry", "Entry"] | None


class Search:
    """Searches orders and layouts of one network given as integer indices.

    Args:
        terms: the axis order of every operand, each index once.
        output: the wanted axis order.
        layouts: prices the steps.
        objective: `"seconds"`, `"flops"`, `"bytes"` or `"memory"`.
        given: products of operands that exist already, by mask, in the axis order of each.
        chain: growing masks of operands that every tree passes through; all trees without.
        slack: how many times worse than the best a tree may be and still be looked at.
    """

    def __init__(
        self,
        terms: Sequence[Order],
        output: Order,
        layouts: Layouts,
        objective: str = "seconds",
        given: Mapping[int, Order] | None = None,
        slack: float = 1.0,
        chain: Sequence[int] = (),
    ):
        self.terms, self.output, self.layouts = list(terms), output, layouts
        self.objective, self.slack, self.chain = objective, slack, chain
        self.given = dict(given or {})
        self.masks = [mask_of(term) for term in terms]
        self.full = (1 << len(terms)) - 1
        self._keep: dict[int, int] = {}

    # What a set of operands leaves open ---------------------------------------------------

    def union(self, operands: int) -> int:
        """Indices held by a set of operands."""
        mask = 0
        while operands:
            low = operands & -operands
            mask |= self.masks[low.bit_length() - 1]
            operands ^= low
        return mask

    def keep(self, operands: int) -> int:
        """Indices of a set of operands that are still wanted outside it."""
        found = self._keep.get(operands)
        if found is None:
            outside = mask_of(self.output) | self.union(self.full & ~operands)
            found = self.union(operands) & outside
            self._keep[operands] = found
        return found

    # Pricing ------------------------------------------------------------------------------

    def leaf(self, operands: int, order: Order) -> Entry:
        """What is given: it costs nothing."""
        return Entry(operands, order, (0.0, 0.0), 0.0, 0, 0, 0, 0, 0, None, None)

    def join(self, x: Entry, y: Entry, low: Lowering) -> Entry:
        """The product of two entries by one lowering."""
        size = self.layouts.volume(mask_of(low.out)) * self.layouts.itemsize
        together = x.size + y.size + low.copied + size
        peak = max(together, min(max(x.peak, x.size + y.peak), max(y.peak, y.size + x.peak)))
        seconds = x.seconds + y.seconds + low.seconds
        flops, nbytes = x.flops + y.flops + low.flops, x.bytes + y.bytes + low.bytes
        first = {"seconds": seconds, "flops": flops, "bytes": nbytes, "memory": peak}
        return Entry(
            x.operands | y.operands,
            low.out,
            (first[self.objective], seconds),
            seconds,
            flops,
            nbytes,
            x.copied + y.copied + low.copied,
            peak,
            size,
            low,
            (x, y),
        )

    def combine(
        self, operands: int, pairs: Iterator[tuple[list[Entry], list[Entry]]]
    ) -> list[Entry]:
        """All products of pairs of entries: the best of each axis order, cheapest first."""
        keep, best = self.keep(operands), {}
        by_seconds = self.objective == "seconds"
        copy, worst = self.layouts.dearest_copy(keep), math.inf
        for xs, ys in pairs:
            least = self._least(xs[0].operands, ys[0].operands) if by_seconds else 0.0
            for x in xs:
                for y in ys:
                    if by_seconds and x.seconds + y.seconds + least > worst:
                        break
                    for low in self.layouts.pair(x.order, y.order, keep):
                        known = best.get(low.out)
                        seconds = x.seconds + y.seconds + low.seconds
                        if by_seconds and (
                            seconds > worst or (known is not None and seconds >= known.seconds)
                        ):
                            continue
                        entry = self.join(x, y, low)
                        if known is None or entry.cost < known.cost:
                            best[low.out] = entry
                            # What is slower than copying the best one is of no use.
                            worst = min(worst, entry.seconds + copy)
        ranked = sorted(best.values(), key=lambda e: e.cost)
        if by_seconds:
            ranked = [e for e in ranked if e.seconds <= worst]
        return ranked[: _ORDERS[len(self.terms) > _OUTER_OPERANDS]]

    # Trees --------------------------------------------------------------------------------

    def on_tree(self, tree: Tree) -> list[Entry]:
        """The best layouts on a given tree."""
        done: list[list[Entry]] = []
        stack: list[tuple[Tree, bool]] = [(tree, False)]
        while stack:  # trees of hundreds of operands are deeper than Python recurses
            node, visited = stack.pop()
            if isinstance(node, int):
                done.append([self.leaf(1 << node, self.terms[node])])
            elif visited:
                y, x = done.pop(), done.pop()
                done.append(self.combine(x[0].operands | y[0].operands, iter([(x, y)])))
            else:
                stack += [(node, True), (node[1], False), (node[0], False)]
        return self.finish(done[0])

    def finish(self, entries: list[Entry]) -> list[Entry]:
        """Rank complete entries with the copy that brings them to the output's axis order."""
        size = self.layouts.volume(mask_of(self.output)) * self.layouts.itemsize

        def cost(e: Entry) -> tuple[Any, ...]:
            moved = e.order != self.output
            extra = self.layouts.copy_seconds(e.order, self.output) if moved else 0.0
            first = e.cost[0]
            if self.objective == "seconds":
                first += extra
            elif self.objective == "bytes" and extra:
                first += 2 * size
            return first, e.seconds + extra, e.copied

        return sorted(entries, key=cost)

    def exact(self) -> list[Entry]:
        """All trees and layouts of a small network, cheapest first (several for other uses)."""
        n = len(self.terms)
        if n == 1 or self.full in self.given:
            order = self.given.get(self.full, self.terms[0])
            return [self.leaf(self.full, order)]
        splits = self._splits()
        inside, outside = self._bounds(splits)
        table: dict[int, list[Entry]] = {
            1 << i: [self.leaf(1 << i, t)] for i, t in enumerate(self.terms)
        }
        # The best tree without layouts, with layouts, bounds what is worth looking at.
        limit = self.on_tree(self._light_tree(splits, inside))[0].cost[0] * self.slack * (1 + 1e-9)
        for s in sorted(splits, key=lambda s: (s.bit_count(), s)):
            if s in self.given:
                table[s] = [self.leaf(s, self.given[s])]
                continue
            slack = limit - outside.get(s, math.inf)
            pairs = (
                (table[a], table[b])
                for a, b in splits[s]
                if table.get(a)
                and table.get(b)
                and inside[a] + inside[b] + self._least(a, b) <= slack
            )
            if s != self.full:
                table[s] = self.combine(s, pairs)
            else:
                every = [e for pair in pairs for e in self.combine(s, iter([pair]))]
                return self.finish(every)
        raise AssertionError("the search ended without reaching all operands")

    def _splits(self) -> dict[int, list[tuple[int, int]]]:
        """The sets of operands that trees pass through, and the pairs of halves of each."""
        n = len(self.terms)
        if not self.chain:
            near = self._neighbours()
            return {s: list(_splits(s, near)) for s in _connected(n, near)}
        splits: dict[int, list[tuple[int, int]]] = {}
        before = 0
        for whole in dict.fromkeys((*self.chain, self.full)):
            added = whole & ~before
            for part in _subsets(added):
                # The operands that are added, on their own and with what came before.
                splits[part] = [(a, part ^ a) for a in _subsets(part) if a < part ^ a]
                if before and part:
                    splits[before | part] = [
                        (before | a, part ^ a) for a in (0, *_subsets(part)) if part ^ a
                    ]
            before |= whole
        return {s: pairs for s, pairs in splits.items() if s & (s - 1)}

    def _neighbours(self) -> list[int]:
        n = len(self.terms)
        near = [
            sum(1 << j for j in range(n) if j != i and self.masks[i] & self.masks[j])
            for i in range(n)
        ]
        if n <= _OUTER_OPERANDS:
            return [self.full & ~(1 << i) for i in range(n)]
        # Separate parts are joined by outer products, in whatever order is cheapest.
        parts = []
        left = self.full
        while left:
            part = _grow(left & -left, near)
            parts.append(part)
            left &= ~part
        return [
            near[i] | sum(p for p in parts if not p >> i & 1) if len(parts) > 1 else near[i]
            for i in range(n)
        ]

    def _least(self, a: int, b: int) -> float | int:
        """A lower bound on a step's objective whatever its layout."""
        keep_a, keep_b = self.keep(a), self.keep(b)
        keep = self.keep(a | b)
        size, item, rates = self.layouts.volume, self.layouts.itemsize, self.layouts.rates
        summed = keep_a & keep_b & ~keep
        flops = size(keep_a | keep_b) * (2 if summed else 1)
        nbytes = (size(keep_a) + size(keep_b) + size(keep)) * item
        if self.objective == "flops":
            return flops
        if self.objective == "bytes":
            return nbytes
        if self.objective == "memory":
            return 0.0
        written = size(keep) * item
        least = max(flops / rates.matmul if summed else 0.0, (nbytes - written) / rates.bandwidth)
        return least + rates.write_seconds(written) + rates.overhead

    def _bounds(self, splits: dict[int, list[tuple[int, int]]]) -> Any:
        inside: dict[int, float] = {1 << i: 0.0 for i in range(len(self.terms))}
        inside.update(dict.fromkeys(self.given, 0.0))
        order = sorted(splits, key=lambda s: (s.bit_count(), s))
        for s in order:
            if s not in self.given:
                inside[s] = min(inside[a] + inside[b] + self._least(a, b) for a, b in splits[s])
        outside = {self.full: 0.0}
        for s in reversed(order):
            if s not in outside or s in self.given:
                continue
            for a, b in splits[s]:
                step = outside[s] + self._least(a, b)
                outside[a] = min(outside.get(a, math.inf), step + inside[b])
                outside[b] = min(outside.get(b, math.inf), step + inside[a])
        return inside, outside

    def _light_tree(
        self, splits: dict[int, list[tuple[int, int]]], inside: dict[int, float]
    ) -> Tree:
        def build(s: int) -> Tree:
            if s not in splits:
                return s.bit_length() - 1
            # What exists already is not reused here, so that the bound stays an upper one.
            a, b = min(splits[s], key=lambda p: inside[p[0]] + inside[p[1]] + self._least(*p))
            return build(a), build(b)

        return build(self.full)


def _subsets(s: int) -> Iterator[int]:
    """Non-empty subsets of a set, the set itself first."""
    part = s
    while part:
        yield part
        part = (part - 1) & s


def _grow(start: int, near: Sequence[int]) -> int:
    part, front = start, start
    while front:
        i = (front & -front).bit_length() - 1
        front &= front - 1
        new = near[i] & ~part
        part |= new
        front |= new
    return part


def _connected(n: int, near: Sequence[int]) -> list[int]:
    """Sets of at least two operands that hang together."""
    found = []
    for s in range(1, 1 << n):
        if s & (s - 1):
            inside = [near[i] & s for i in range(n)]
            if _grow(s & -s, inside) & s == s:
                found.append(s)
    return found


def _splits(s: int, near: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of connected halves of a connected set."""
    low = s & -s
    rest = s ^ low
    part = rest
    while part:  # `part` runs through the non-empty subsets of `rest`
        other = s ^ part
        inside = [x & s for x in near]
        if _whole(part, inside) and _whole(other, inside):
            yield other, part
        part = (part - 1) & rest


def _whole(s: int, near: Sequence[int]) -> bool:
    masked = [x & s for x in near]
    return _grow(s & -s, masked) == s


# Larger networks ------------------------------------------------------------------------------


def outside_trees(
    terms: Sequence[Order], output: Order, sizes: Sequence[int], search: str, seed: int
) -> list[Tree]:
    """Trees that opt_einsum (or, when asked, cotengra) finds for a large network."""
    names = [opt_einsum.get_symbol(i) for i in range(len(sizes))]
    inputs = ["".join(names[i] for i in term) for term in terms]
    result = "".join(names[i] for i in output)
    lengths = dict(zip(names, sizes, strict=True))
    if search == "cotengra":
        return _cotengra_trees(inputs, result, lengths, seed)
    sets = [frozenset(x) for x in inputs]
    finders: list[Any] = [opt_einsum.paths.greedy]
    held = Counter(i for term in terms for i in set(term))
    # Any operands that share an index may come first: over many, the program takes minutes.
    together = sum(any(held[i] > 2 for i in term) for term in terms)
    if len(terms) <= 16 and together <= 10:
        finders.append(opt_einsum.paths.dynamic_programming)
    return [tree_of(find(sets, frozenset(result), lengths, None), len(terms)) for find in finders]


def _cotengra_trees(
    inputs: Sequence[str], output: str, sizes: Mapping[str, int], seed: int
) -> list[Tree]:
    """Randomized greedy trees, their subtrees rearranged: fixed counts and seeds, no clock."""
    try:
        import cotengra
    except ImportError as error:
        raise ImportError(
            "search=\"cotengra\" needs cotengra: pip install 'gauntax[search]'"
        ) from error
    terms = [tuple(term) for term in inputs]
    options: Any = {"max_repeats": 32, "accel": False, "parallel": False}
    found = []
    for k in range(4):
        greedy = cotengra.RandomGreedyOptimizer(seed=seed + k, **options)
        tree = greedy.search(terms, tuple(output), dict(sizes))
        tree.subtree_reconfigure_(subtree_size=8, minimize="flops", seed=seed)
        found.append(tree_of(tree.get_path(), len(inputs)))
    return found


def tree_of(path: Sequence[Sequence[int]], n: int) -> Tree:
    """Turn an order in opt_einsum's form (positions in a shrinking list) into a tree.

    Raises:
        ValueError: the order does not contract `n` operands to one.
    """
    pool: list[Tree] = list(range(n))
    for step in path:
        if len(set(step)) != len(step) or not all(0 <= i < len(pool) for i in step):
            raise ValueError(f"order: step {tuple(step)} does not fit {len(pool)} operands")
        taken = [pool[i] for i in step]
        pool = [t for i, t in enumerate(pool) if i not in set(step)]
        joined = taken[0]
        for tree in taken[1:]:
            joined = (joined, tree)
        pool.append(joined)
    if len(pool) != 1:
        raise ValueError(f"order: expected one result, {len(pool)} operands are left")
    return pool[0]
