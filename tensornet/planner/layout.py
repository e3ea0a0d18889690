"""The ways to run one pairwise step: in which axis orders, as a matrix product or a fused loop.

A pairwise step sorts its indices into batch (in both operands, wanted later), contracted (in
both, not wanted later), left and right. It is one matrix product without a copy when in each
operand each group is contiguous and the batch leads; the result then comes out as batch-left-right
or, operands swapped, as batch-right-left.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .cost import Rates

Order = tuple[int, ...]


class Lowering(NamedTuple):
    """One way to run a pairwise step, and what it costs.

    Attributes:
        kind: `"matmul"` or `"loop"` (multiply and sum, left to fusion).
        left, right: axis orders the operands are brought to; another order than they have is
            a copy.
        out: axis order of the result.
        batch: the leading indices both operands of a product share; an index that one of
            them lacks is spread over it.
        contracted: the indices summed, in their order.
        seconds, flops, bytes, copied: the cost.
    """

    kind: str
    left: Order
    right: Order
    out: Order
    batch: Order
    contracted: Order
    seconds: float
    flops: int
    bytes: int
    copied: int


class Layouts:
    """All lowerings worth trying for pairs of axis orders, priced for one table of rates."""

    def __init__(self, sizes: Sequence[int], itemsize: int, rates: Rates, *, gradients: bool):
        self.sizes, self.itemsize, self.rates = sizes, itemsize, rates
        self.gradients = gradients
        self._volumes: dict[int, int] = {0: 1}
        self._memo: dict[tuple[Order, Order, int], list[Lowering]] = {}

    def volume(self, mask: int) -> int:
        """Number of entries of a tensor with the indices of a bit mask."""
        found = self._volumes.get(mask)
        if found is None:
            low = mask & -mask
            found = self.volume(mask ^ low) * self.sizes[low.bit_length() - 1]
            self._volumes[mask] = found
        return found

    def pair(self, a: Order, b: Order, keep: int) -> list[Lowering]:
        """Lowerings of the product of two tensors held in orders `a` and `b`."""
        key = (a, b, keep & (mask_of(a) | mask_of(b)))
        found = self._memo.get(key)
        if found is None:
            ways = (self._matmuls, self._outer, self._loops)
            found = _best_per_order([low for way in ways for low in way(a, b, keep)])
            self._memo[key] = found
        return found

    def copy_seconds(self, old: Order, new: Order) -> float:
        """Seconds of bringing a tensor from one axis order to another."""
        lead = staying(old, new)
        nbytes, stride = (self.volume(mask_of(axes)) * self.itemsize for axes in (old, old[lead:]))
        return self.rates.copy_seconds(nbytes, stride, rows=old[-1] == new[-1])

    def dearest_copy(self, mask: int) -> float:
        """Seconds that no copy of a tensor exceeds."""
        nbytes = self.volume(mask) * self.itemsize
        return self.rates.copy_seconds(nbytes, nbytes, rows=False)

    # Matrix products ----------------------------------------------------------------------

    def _matmuls(self, a: Order, b: Order, keep: int) -> Iterator[Lowering]:
        in_a, in_b = mask_of(a), mask_of(b)
        contracted, batch = in_a & in_b & ~keep, in_a & in_b & keep
        if not contracted:
            return
        for bo in dict.fromkeys((_only(a, batch), _only(b, batch))):
            for co in dict.fromkeys((_only(a, contracted), _only(b, contracted))):
                yield from self._matmul(a, b, bo, co)
                # A free group before the contracted one can lead as a batch instead of
                # being moved: the other operand, usually small, is spread over it.
                for x, y, swap in ((a, b, False), (b, a, True)):
                    lead = _leading(x, bo, contracted)
                    if lead and not _ready(x, bo, co) and _ready(x, bo + lead, co):
                        for low in self._matmul(x, y, bo + lead, co, spread=mask_of(lead)):
                            yield low._replace(left=low.right, right=low.left) if swap else low

    def _matmul(
        self, a: Order, b: Order, bo: Order, co: Order, spread: int = 0
    ) -> Iterator[Lowering]:
        batch, inner = mask_of(bo), mask_of(co)
        left, right = mask_of(a) & ~batch & ~inner, mask_of(b) & ~batch & ~inner
        own = bo if not spread else tuple(i for i in bo if not spread >> i & 1)
        a2 = a if _ready(a, bo, co) else bo + _only(a, left) + co
        b2 = b if _ready(b, own, co) else own + co + _only(b, right)
        lo, ro = _only(a2, left), _only(b2, right)
        size, item = self.volume, self.itemsize
        nb, m, n, k = size(batch), size(left), size(right), size(inner)
        copied = (a2 != a) * nb * m * k + (b2 != b) * size(mask_of(b))
        copied += (nb * n * k) if spread else 0
        flops = 2 * nb * m * n * k
        moved = (nb * (m * k + k * n + m * n) + 2 * copied) * item
        seconds = sum(
            self.copy_seconds(old, new) * (1 + 2 * self.gradients)
            for old, new in ((a, a2), (b, b2))
            if old != new
        )
        if spread:
            seconds += self.rates.write_seconds(nb * n * k * item)
        # Stored as k x m instead of m x k, as n x k instead of k x n.
        a_turned = bool(co) and a2[len(bo) :][: len(co)] == co and m > 1
        b_turned = n > 1 and b2[len(own) :][: len(co)] != co
        for out, dims, turned in (
            (bo + lo + ro, (m, n), (a_turned, b_turned)),
            (bo + ro + lo, (n, m), (not b_turned and n > 1, not a_turned and m > 1)),
        ):
            time = self.rates.matmul_seconds(nb, *dims, k, turned=turned, itemsize=item)
            if self.gradients:
                time += self._matmul_gradients(nb, *dims, k, turned)
            yield Lowering(
                "matmul", a2, b2, out, bo, co, seconds + time, flops, moved, copied * item
            )
            if not lo or not ro:
                break

    def _matmul_gradients(self, b: int, m: int, n: int, k: int, turned: tuple[bool, bool]) -> float:
        """Seconds of both operands' gradients, each written as its operand is stored.

        What is read in order in the product is read turned in the gradient of the other operand.
        """
        first, second = turned
        ways = (
            ((k, m, n), (second, True)) if first else ((m, k, n), (False, not second)),
            ((n, k, m), (True, first)) if second else ((k, n, m), (not first, False)),
        )
        return sum(
            self.rates.matmul_seconds(b, *dims, turned=flags, itemsize=self.itemsize)
            for dims, flags in ways
        )

    # Outer products -----------------------------------------------------------------------

    def _outer(self, a: Order, b: Order, keep: int) -> Iterator[Lowering]:
        """Yield products that sum nothing, written as matrix products.

        XLA turns them into the loops they are, but their gradients are matrices times vectors,
        several times faster than loops that sum.
        """
        shared = mask_of(a) & mask_of(b)
        left, right = mask_of(a) & ~shared, mask_of(b) & ~shared
        bo, lo, ro = _only(a, shared), _only(a, left), _only(b, right)
        if shared & ~keep or not lo or not ro:
            return
        size, item, rates = self.volume, self.itemsize, self.rates
        nb, m, n = size(shared), size(left), size(right)
        every, read = nb * m * n, nb * (m + n) * item
        seconds = rates.loop_seconds(every, read, every * item, rate=rates.vector)
        copied = 0
        for old, new in ((a, bo + lo), (b, bo + ro)):
            if old != new:
                seconds += self.copy_seconds(old, new) * (1 + 2 * self.gradients)
                copied += size(mask_of(old)) * item
        if self.gradients:
            none = (False, False)
            seconds += rates.matmul_seconds(nb, m, 1, n, turned=none, itemsize=item)
            seconds += rates.matmul_seconds(nb, n, 1, m, turned=none, itemsize=item)
        for out in (bo + lo + ro, bo + ro + lo):
            moved = read + every * item + 2 * copied
            yield Lowering("matmul", bo + lo, bo + ro, out, bo, (), seconds, every, moved, copied)

    # Fused loops --------------------------------------------------------------------------

    def _loops(self, a: Order, b: Order, keep: int) -> Iterator[Lowering]:
        in_a, in_b = mask_of(a), mask_of(b)
        batch, inner = in_a & in_b & keep, in_a & in_b & ~keep
        left, right = in_a & ~in_b, in_b & ~in_a
        size, item = self.volume, self.itemsize
        if inner and min(size(left), size(right)) > 4:
            return  # a matrix product is faster
        la, rb = _only(a, left), _only(b, right)
        orders = {_only(a, keep) + rb: None, _only(b, keep) + la: None}
        for bo in dict.fromkeys((_only(a, batch), _only(b, batch))):
            for parts in ((la, rb, bo), (rb, la, bo), (bo, la, rb), (bo, rb, la)):
                orders[sum(parts, ())] = None
        co = _only(a, inner)
        every = size(in_a | in_b)
        result = size((in_a | in_b) & keep)
        flops = every * (2 if inner else 1)
        moved = (size(in_a) + size(in_b) + result) * item
        larger = a if size(in_a) >= size(in_b) else b
        for out in orders:
            if inner:
                rate = self.rates.column if self._strided(larger, out, inner) else self.rates.jump
            else:
                jumps = any(self._strided(x, out, inner) for x in (a, b))
                rate = self.rates.jump if jumps else self.rates.vector
            written = result * item
            time = self.rates.loop_seconds(every, moved - written, written, rate=rate)
            if self.gradients:
                time += self._loop_gradient(a, b, every, written, out, inner)
                time += self._loop_gradient(b, a, every, written, out, inner)
            yield Lowering("loop", a, b, out, (), co, time, flops, moved, 0)

    def _loop_gradient(
        self, x: Order, other: Order, every: int, nbytes: int, out: Order, inner: int
    ) -> float:
        """Seconds of an operand's gradient: the result's times the other operand, summed."""
        rates, size = self.rates, self.volume(mask_of(x)) * self.itemsize
        summed = mask_of(out) & ~mask_of(x)
        if not summed:
            rate = rates.jump if self._strided(x, out, inner) else rates.vector
        else:
            strided = any(self._strided(order, out, summed) for order in (out, other))
            rate = rates.column if strided else rates.jump
        return rates.loop_seconds(every, nbytes, size, rate=rate)

    def _strided(self, order: Order, out: Order, inner: int) -> bool:
        """Tell whether the innermost loop jumps through an operand held in `order`.

        That is the loop over a summed index, if any, else over the last one of the result.
        """
        if inner:
            return not inner >> order[-1] & 1
        return bool(order and out) and order[-1] != out[-1] and out[-1] in order


def staying(old: Sequence, new: Sequence) -> int:
    """How many leading axes two orders have in common."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(old), len(new)))


def mask_of(order: Sequence[int]) -> int:
    """Bit mask of a set of indices."""
    mask = 0
    for i in order:
        mask |= 1 << i
    return mask


def _only(order: Order, mask: int) -> Order:
    return tuple([i for i in order if mask >> i & 1])


def _leading(order: Order, batch: Order, contracted: int) -> Order:
    """The free indices between the batch and the first contracted index."""
    lead: list[int] = []
    for i in order[len(batch) :]:
        if contracted >> i & 1:
            break
        lead.append(i)
    return tuple(lead)


def _ready(order: Order, batch: Order, contracted: Order) -> bool:
    """Tell whether each group is contiguous, the batch first."""
    rest = order[len(batch) :]
    n = len(contracted)
    return order[: len(batch)] == batch and (
        rest[:n] == contracted or rest[len(rest) - n :] == contracted
    )


def _best_per_order(options: Sequence[Lowering]) -> list[Lowering]:
    best: dict[Order, Lowering] = {}
    for low in options:
        if low.out not in best or low.seconds < best[low.out].seconds:
            best[low.out] = low
    return sorted(best.values(), key=lambda low: low.seconds)
