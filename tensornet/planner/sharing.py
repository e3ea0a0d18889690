"""Which products the stages of a sweep share: a tree of intervals of stages.

The stages of an interval can share the product of the operands that all of them use and none of
them but the last replaces. Halving intervals down to single stages gives a dimension tree (Phan,
Tichavsky and Cichocki, 2013), whatever the sweep is of: CP, Tucker or tensor ring.
"""

import functools
from collections.abc import Sequence

from .cost import Rates
from .network import Network, volume

Operands = frozenset[str]


def shared_products(
    networks: Sequence[Network],
    names: Sequence[Sequence[str]],
    replaced: Sequence[Sequence[str]],
    rates: Rates,
) -> list[list[Operands]]:
    """Find the cheapest tree of intervals, by operations and bytes.

    Args:
        networks: of the stages, in order.
        names: of each stage's operands.
        replaced: the operands that are new after each stage.
        rates: of the device.

    Returns:
        For every stage the growing sets of operands multiplied on the way to its value, from what
        all stages share to all of its own operands.
    """
    n = len(networks)

    def common(first: int, end: int) -> Operands:
        used = frozenset.intersection(*(frozenset(names[k]) for k in range(first, end)))
        return used - {name for k in range(first, end - 1) for name in replaced[k]}

    def left_open(stage: int, operands: Operands) -> frozenset[str]:
        described = networks[stage]
        inside: set[str] = set()
        outside = set(described.output)
        for name, term in zip(names[stage], described.terms, strict=True):
            (inside if name in operands else outside).update(term)
        return frozenset(inside & outside)

    def seconds(stage: int, parent: Operands, child: Operands) -> float:
        """Of multiplying a product by the operands that an interval inside it adds."""
        added = child - parent
        if not added:
            return 0.0
        described = networks[stage]
        before, new = left_open(stage, parent), left_open(stage, added)
        after = left_open(stage, child)
        read, written, every = (
            volume(sorted(labels), described.sizes) for labels in (before, after, before | new)
        )
        moved = (read + written) * described.itemsize
        return 2 * every / rates.matmul + moved / rates.bandwidth

    @functools.cache
    def best(first: int, end: int) -> tuple[float, int]:
        """Least seconds inside an interval, and where to halve it."""
        if end - first == 1:
            return 0.0, end
        whole = common(first, end)
        options = []
        for cut in range(first + 1, end):
            total = 0.0
            for a, b in ((first, cut), (cut, end)):
                total += seconds(a, whole, common(a, b)) + best(a, b)[0]
            # Of equals the most even one.
            options.append((total, abs(2 * cut - first - end), cut))
        total, _, cut = min(options)
        return total, cut

    found = []
    for stage in range(n):
        first, end = 0, n
        chain = [common(first, end)]
        while end - first > 1:
            cut = best(first, end)[1]
            first, end = (first, cut) if stage < cut else (cut, end)
            if common(first, end) != chain[-1]:
                chain.append(common(first, end))
        found.append([operands for operands in chain if operands])
    return found
