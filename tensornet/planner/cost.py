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
        turned: bytes per second at which a product takes in its first and its second operand
            when that is stored with rows and columns swapped.
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
    turned: tuple[float, float]

    def matmul_seconds(
        self, b: int, m: int, n: int, k: int, *, turned: tuple[bool, bool], itemsize: int
    ) -> float:
        """Seconds of `b` products of an m x k and a k x n matrix."""
        traffic = itemsize * b * (m * k + k * n + m * n) / self.bandwidth
        fixed = self.overhead + b * self.product
        if m == 1 or n == 1:  # a matrix times a vector
            return traffic + fixed
        rate = self.matmul / (self.double if itemsize >= 8 else 1.0)
        rows, columns, inner = self.half
        compute = 2.0 * b * (m + rows) * (n + columns) * (k + inner) / rate
        packing = turned[0] * m * k / self.turned[0] + turned[1] * k * n / self.turned[1]
        written = b * itemsize * m * n / self.bandwidth  # results are cleared, then added to
        return max(compute, traffic) + b * itemsize * packing + written + fixed

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
    matmul=1.25e11,
    double=2.0,
    vector=3e9,
    bandwidth=3e10,
    strided=1.6e9,
    cache=2e6,
    overhead=1e-5,
    product=4e-8,
    half=(5.0, 9.0, 6.0),
    turned=(4e9, 1.2e10),
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
    turned=(1e13, 1e13),
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
