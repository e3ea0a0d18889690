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
        double: how many times slower a product in float64 is.
        vector: multiply-adds per second of an elementwise loop, fused or not.
        bandwidth: bytes per second of reading or writing memory in order.
        strided: bytes per second where neighbours in the result are far apart in the operand
            (transposed copies, sums over a leading axis).
        cache: bytes within which a stride costs nothing.
        overhead: seconds every step costs at least.
        product: seconds every matrix product of a batch costs at least.
        half: rows, columns and inner length at which a product reaches half its rate.
        turned: how many times slower a product is when the first, the second, or both operands
            are stored with their axes swapped.
    """

    device: str
    matmul: float
    double: float
    vector: float
    bandwidth: float
    strided: float
    cache: float
    overhead: float
    product: float
    half: tuple[float, float, float]
    turned: tuple[float, float, float]

    def matmul_seconds(
        self, b: int, m: int, n: int, k: int, *, turned: tuple[bool, bool], itemsize: int
    ) -> float:
        """Seconds of `b` products of an m x k and a k x n matrix."""
        rate = self.matmul / (self.double if itemsize >= 8 else 1.0)
        rows, columns, inner = self.half
        compute = 2.0 * b * (m + rows) * (n + columns) * (k + inner) / rate
        if turned[0] or turned[1]:
            compute *= self.turned[turned[0] + 2 * turned[1] - 1]
        traffic = itemsize * b * (m * k + k * n + m * n) / self.bandwidth
        return max(compute, traffic) + self.overhead + b * self.product

    def elementwise_seconds(
        self, iterations: float | int, near: float | int, far: float | int
    ) -> float:
        """Seconds of a loop that reads `near` bytes in order and `far` bytes with a stride."""
        far_rate = self.strided if far > self.cache else self.bandwidth
        traffic = near / self.bandwidth + far / far_rate
        return max(iterations / self.vector, traffic) + self.overhead

    def copy_seconds(self, nbytes: float | int) -> float:
        """Seconds of a transposed copy of `nbytes`."""
        rate = self.strided if nbytes > self.cache else self.bandwidth / 4
        return nbytes / rate + self.overhead


# Two cores of an EPYC server, jax 0.10.2: measured (see docs/planner.md).
CPU = Rates(
    device="cpu",
    matmul=1.5e11,
    double=2.0,
    vector=3e9,
    bandwidth=2e10,
    strided=1.6e9,
    cache=2e6,
    overhead=8e-6,
    product=3e-8,
    half=(8.0, 12.0, 16.0),
    turned=(1.3, 1.2, 1.4),
)
# An H100-class accelerator with full float32 products: a guess from its data sheet, not measured.
GPU = Rates(
    device="gpu",
    matmul=4.5e13,
    double=1.0,
    vector=1e12,
    bandwidth=2.5e12,
    strided=1.2e12,
    cache=2e7,
    overhead=4e-6,
    product=1e-9,
    half=(64.0, 64.0, 32.0),
    turned=(1.0, 1.0, 1.0),
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
