"""From what the search found to the steps of a plan."""

import copy
from collections.abc import Sequence
from typing import Any

from .cost import Rates
from .layout import Layouts, staying
from .network import Labels, Network, volume
from .plan import Step
from .search import EXACT_OPERANDS, Entry, Search, Tree, outside_trees, tree_of


class Assembly:
    """The steps of one network (or one slice of it) while they are put together.

    Args:
        network: what is contracted.
        rates: what steps cost.
        inputs: positions of the operands, 0, 1, ... by default.
        first: position of the first step's result, after the operands by default.

    Attributes:
        steps: so far.
        live: position of every tensor that is left to contract, with its index labels.
    """

    def __init__(
        self,
        network: Network,
        rates: Rates,
        inputs: Sequence[int] | None = None,
        first: int | None = None,
    ):
        n = len(network.terms)
        self.network, self.rates = network, rates
        self.inputs = tuple(range(n)) if inputs is None else tuple(inputs)
        self.first = n if first is None else first
        self.steps: list[Step] = []
        self.live: dict[int, Labels] = {i: network.axes(p) for p, i in enumerate(self.inputs)}

    def branch(self) -> "Assembly":
        """A copy to go on from here."""
        other = copy.copy(self)
        other.steps, other.live = list(self.steps), dict(self.live)
        return other

    @property
    def itemsize(self) -> int:
        """Bytes per entry."""
        return self.network.itemsize

    def nbytes(self, labels: Labels) -> int:
        """Bytes of a tensor."""
        return volume(labels, self.network.sizes) * self.itemsize

    def add(self, step: Step) -> int:
        """Append a step, retire its inputs, and return the position of its result."""
        position = self.first + len(self.steps)
        self.steps.append(step)
        for i in step.inputs:
            self.live.pop(i, None)
        self.live[position] = step.output
        return position

    def add_step(self, *fields: Any) -> int:
        """Append a step given by its fields."""
        return self.add(Step(*fields))

    def arrange(self, position: int, output: Labels) -> int:
        """Bring a tensor to other axes: diagonals, sums, order."""
        term = self.live[position]
        if term == output:
            return position
        read, written = self.nbytes(tuple(dict.fromkeys(term))), self.nbytes(output)
        summed = set(output) < set(term)
        copied = 0 if summed else written
        seconds = (
            self.rates.loop_seconds(read / self.itemsize, read, written, rate=self.rates.vector)
            if summed
            else self.rates.copy_seconds(
                written,
                self.nbytes(tuple(x for x in term[staying(term, output) :] if x in output)),
                rows=term[-1] == output[-1],
            )
        )
        flops = read // self.itemsize if summed else 0
        return self.add(
            Step(
                "arrange",
                (position,),
                (term,),
                (term,),
                output,
                contracted=tuple(x for x in dict.fromkeys(term) if x not in output),
                flops=flops,
                bytes=read + written,
                copied=copied,
                seconds=seconds,
            )
        )

    def prepare(self) -> None:
        """Take diagonals, and sum every index that one operand alone holds."""
        wanted = set(self.network.kept_output)
        for position, constant in self.network.constants:  # where a copy tensor has acted
            if not constant.shape and constant.value == 1 and len(self.live) > 1:
                del self.live[self.inputs[position]]
        for p in list(self.live):
            others = {x for q, term in self.live.items() if q != p for x in term}
            term = self.live[p]
            kept = tuple(x for x in dict.fromkeys(term) if x in others or x in wanted)
            self.arrange(p, kept)

    def search(
        self,
        objective: str,
        search: object,
        seed: int,
        gradients: bool,
        *,
        known: Sequence[tuple[frozenset[int], int, Labels]] = (),
        slack: float = 1.0,
        chain: Sequence[frozenset[int]] = (),
    ) -> list[Entry]:
        """Search order and layout of what is left; return candidates, the best first.

        Args:
            objective: see `plan`, as for the next three.
            search: how.
            seed: of searches that draw.
            gradients: price the gradients too.
            known: products of operands that exist already: the positions they multiply, their
                own position, and their axis order.
            slack: how many times worse than the best a candidate may be.
            chain: growing sets of positions whose products every order makes.
        """
        sizes = self.network.sizes
        positions = list(self.live)
        labels = list(
            dict.fromkeys(x for t in (*self.live.values(), self.network.kept_output) for x in t)
        )
        number = {x: i for i, x in enumerate(labels)}
        layouts = Layouts(
            [sizes[x] for x in labels], self.itemsize, self.rates, gradients=gradients
        )
        terms = [tuple(number[x] for x in self.live[p]) for p in positions]
        output = tuple(number[x] for x in self.network.kept_output)
        self.labels = labels
        self.given = {1 << i: p for i, p in enumerate(positions)}
        masks = [sum(1 << i for i, p in enumerate(positions) if p in part) for part in chain]
        finder = Search(terms, output, layouts, objective, slack=slack, chain=masks)
        for operands, position, order in known:
            mask = sum(1 << positions.index(p) for p in operands)
            if set(order) == {labels[i] for i in range(len(labels)) if finder.keep(mask) >> i & 1}:
                finder.given[mask] = tuple(number[x] for x in order)
                self.given[mask] = position
                self.live[position] = order
        n = len(terms)
        if isinstance(search, str):
            if search == "exact" or (search == "auto" and n <= EXACT_OPERANDS):
                return finder.exact()
            trees = outside_trees(terms, output, layouts.sizes, search, seed)
        else:
            trees = [_given_tree(search, n)]  # type: ignore[arg-type]
        found = [entry for tree in trees for entry in finder.on_tree(tree)]
        return finder.finish(found)

    def follow(self, entry: Entry) -> int:
        """Append the steps of an entry that `search` returned; return the result's position."""
        at: dict[int, int] = {}  # identity of an entry -> position of its tensor
        for node in _post_order(entry):
            if node.how is None or node.parts is None:
                at[id(node)] = self.given[node.operands]
                continue
            at[id(node)] = self._join(node, tuple(at[id(part)] for part in node.parts))
        return self.arrange(at[id(entry)], self.network.kept_output)

    def _join(self, entry: Entry, inputs: tuple[int, ...]) -> int:
        low, sizes = entry.how, self.network.sizes
        assert low is not None

        def name(order: Sequence[int]) -> Labels:
            return tuple(self.labels[i] for i in order)

        left, right = name(low.left), name(low.right)
        batch, contracted, output = name(low.batch), name(low.contracted), name(low.out)
        shared = batch or tuple(x for x in left if x in right and x in output)
        m = volume([x for x in left if x not in shared and x not in contracted], sizes)
        n = volume([x for x in right if x not in shared and x not in contracted], sizes)
        size = (m, n, volume(contracted, sizes), volume(shared, sizes))
        return self.add(
            Step(
                low.kind,
                inputs,
                tuple(self.live[i] for i in inputs),
                (left, right),
                output,
                batch,
                contracted,
                size,
                low.flops,
                low.bytes,
                low.copied,
                low.seconds,
            )
        )

    @property
    def peak_bytes(self) -> int:
        """Temporaries and result at their worst moment, in the order of the steps."""
        n = len(self.network.terms)
        last: dict[int, int] = {}
        for s, step in enumerate(self.steps):
            last.update(dict.fromkeys(step.inputs, s))
        alive = most = 0
        size: dict[int, int] = {}
        for s, step in enumerate(self.steps):
            size[n + s] = self.nbytes(step.output)
            most = max(most, alive + size[n + s] + step.copied * (step.how != "arrange"))
            alive += size[n + s]
            alive -= sum(size.get(i, 0) for i in set(step.inputs) if last[i] == s)
        return max(most, self.nbytes(self.network.kept_output))

    @property
    def order(self) -> tuple[tuple[int, ...], ...]:
        """The order in opt_einsum's form."""
        pool = list(range(len(self.network.terms)))
        path = []
        for s, step in enumerate(self.steps):
            made = len(self.network.terms) + s
            if len(step.inputs) == 1:
                pool[pool.index(step.inputs[0])] = made
                continue
            where = tuple(sorted(pool.index(i) for i in step.inputs))
            pool = [p for p in pool if p not in step.inputs] + [made]
            path.append(where)
        return tuple(path)


def _given_tree(order: Sequence[Sequence[int]], n: int) -> Tree:
    try:
        steps = [tuple(int(i) for i in step) for step in order]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f'search: expected "auto", "exact", "opt_einsum", "cotengra" or an order, got {order!r}'
        ) from error
    return tree_of(steps, n)


def _post_order(entry: Entry) -> list[Entry]:
    """Entries so that parts come before what they make, the part with the larger peak first."""
    found: list[Entry] = []
    stack = [(entry, False)]
    while stack:
        node, visited = stack.pop()
        if visited or node.parts is None:
            found.append(node)
            continue
        x, y = node.parts
        first, second = (x, y) if x.peak - x.size >= y.peak - y.size else (y, x)
        stack += [(node, True), (second, False), (first, False)]
    return found
