"""What a step costs: operations, bytes moved, copies, and seconds on a kind of device.

Seconds come from a table shipped for each kind of device, never from a clock, so that the same
plan is made everywhere; `tensornet.planner.calibrate` measures a table for one machine.
"""

import dataclasses
from typing import NamedTuple

import jax


@dataclasses.dataclass(frozen=True)
class Rates:
    """How fast one kind of device runs the few things that a plan is made of.

    Attributes:
        device: kind of device, as `jax.default_backend()` names it.
        matmul: operations per second of a large matrix product in float32.
        batched: the same of a product that is one of a batch.
        double: how many times slower a product in float64 is.
        half: rows, columns and inner length at which a product reaches half its rate.
        turned: bytes per second at which a product takes in its first and its second operand
            when that is stored with rows and columns swapped.
        batched_turned: the same for the products of a batch.
        product: seconds every matrix product of a batch costs at least.
        vector: multiply-adds per second of an elementwise loop, fused or not.
        jump: the same where an operand is not read in order.
        column: the same where the loop also sums, and writes across the order it reads in.
        bandwidth: bytes per second of reading memory in order.
        write: bytes per second of writing a small result.
        fresh: bytes of a result at which writing it takes twice as long: larger ones leave the
            caches, then need memory that the system has to hand out first.
        strided: bytes per second of a transposed copy that strides through more than the caches.
        cache: bytes within which a stride costs little.
        overhead: seconds every step costs at least.
    """

    device: str
    matmul: float
    batched: float
    double: float
    half: tuple[float, float, float]
    turned: tuple[float, float]
    batched_turned: tuple[float, float]
    product: float
    vector: float
    jump: float
    column: float
    bandwidth: float
    write: float
    fresh: float
    strided: float
    cache: float
    overhead: float

    def matmul_seconds(
        self, b: int, m: int, n: int, k: int, *, turned: tuple[bool, bool], itemsize: int
    ) -> float:
        """Seconds of `b` products of an m x k and a k x n matrix."""
        traffic = itemsize * b * (m * k + k * n) / self.bandwidth
        fixed = self.overhead + b * self.product + self.write_seconds(itemsize * b * m * n)
        if m == 1 or n == 1:  # a matrix times a vector
            return traffic + fixed
        rate, packing = (
            (self.matmul, self.turned) if b == 1 else (self.batched, self.batched_turned)
        )
        if itemsize >= 8:
            rate /= self.double
        rows, columns, inner = self.half
        compute = 2.0 * b * (m + rows) * (n + columns) * (k + inner) / rate
        packed = turned[0] * m * k / packing[0] + turned[1] * k * n / packing[1]
        return max(compute, traffic) + b * itemsize * packed + fixed

    def write_seconds(self, nbytes: float | int) -> float:
        """Seconds of writing a result of `nbytes`."""
        return nbytes / self.write * (1 + nbytes / self.fresh)

    def loop_seconds(
        self, iterations: float | int, nbytes: float | int, written: float | int, *, rate: float
    ) -> float:
        """Seconds of a loop that reads `nbytes` and writes, at `rate` iterations a second."""
        busy = max(iterations / rate, nbytes / self.bandwidth)
        return busy + self.write_seconds(written) + self.overhead

    def copy_seconds(self, nbytes: float | int, stride: float | int, *, rows: bool) -> float:
        """Seconds of a transposed copy of `nbytes`.

        Args:
            nbytes: read and written.
            stride: bytes of the blocks inside which entries move.
            rows: the last axis stays, so that whole rows move.
        """
        rate = self.strided
        if rows or stride <= self.cache:
            rate = max(self.bandwidth / (2 if rows else 3), rate)
        return nbytes / rate + self.write_seconds(nbytes) + self.overhead


# Two cores of an EPYC server, jax 0.10.2: fitted to measurements (see docs/planner.md).
CPU = Rates(
    device="cpu",
    matmul=9.6e10,
    batched=8e10,
    double=2.0,
    half=(15.0, 17.0, 2.5),
    turned=(8.6e9, 2.3e10),
    batched_turned=(9.9e8, 6.8e9),
    product=1e-8,
    vector=4.4e9,
    jump=6.7e8,
    column=4.3e8,
    bandwidth=1.9e10,
    write=6e10,
    fresh=1.1e7,
    strided=5.6e9,
    cache=2e6,
    overhead=1.4e-5,
)
# An H100-class accelerator with full float32 products: a guess from its data sheet, not measured.
GPU = Rates(
    device="gpu",
    matmul=4.5e13,
    batched=4.5e13,
    double=1.0,
    half=(64.0, 64.0, 32.0),
    turned=(1e13, 1e13),
    batched_turned=(1e13, 1e13),
    product=1e-9,
    vector=1e12,
    jump=5e11,
    column=2e11,
    bandwidth=2.5e12,
    write=2.5e12,
    fresh=1e15,
    strided=1.2e12,
    cache=2e7,
    overhead=4e-6,
)
SHIPPED = {"cpu": CPU, "gpu": GPU, "cuda": GPU, "rocm": GPU, "tpu": GPU}


def shipped_rates(device: str | None = None) -> Rates:
    """Return the shipped table of a kind of device, by default the one jax runs on."""
    kind = device or jax.default_backend()
    if kind not in SHIPPED:
        raise ValueError(f"device: expected one of {sorted(SHIPPED)}, got {kind!r}")
    return SHIPPED[kind]


class Cost(NamedTuple):
    """The cost of a step or a plan.

    Attributes:
        seconds: predicted.
        flops: multiplications and additions, each counted as one.
        bytes: read and written, copies included.
        copied: bytes of operands that must be transposed first.
        peak: bytes of temporaries and result alive at once.
    """

    seconds: float
    flops: int
    bytes: int
    copied: int
    peak: int
