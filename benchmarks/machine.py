"""The machine that figures come from: its name, its libraries, and its two rates."""

import dataclasses
import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp

PACKAGES = ("gauntax", "jax", "jaxlib", "equinox", "numpy", "scipy", "tensorly")


@dataclasses.dataclass(frozen=True)
class Machine:
    """What every row says about where it was measured.

    Attributes:
        device: model of the processor or accelerator that jax runs on.
        threads: CPU threads this process may use.
        versions: of Python and of the packages the figures depend on, and the C library's settings.
        gemm: measured flops a second of a large matrix product, by dtype.
        bandwidth: measured bytes a second of a large copy.
    """

    device: str
    threads: int
    versions: dict[str, str]
    gemm: dict[str, float]
    bandwidth: float

    @property
    def slug(self) -> str:
        """A file name for the device."""
        return slug(f"{self.device} {self.threads} threads")

    def floor(self, dtype: str, *, flops: float = 0.0, read_bytes: float = 0.0) -> float:
        """Return the seconds that `flops` or `read_bytes` take at best, whichever is more."""
        return max(flops / self.gemm[dtype], read_bytes / self.bandwidth)


def slug(text: str) -> str:
    """Return `text` in lower case with single hyphens between words."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def describe(*, quick: bool = False) -> Machine:
    """Name the device and measure its rates."""
    return Machine(
        device=device_name(),
        threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        versions=versions(),
        gemm={dtype: _gemm_rate(dtype, 512 if quick else 1536) for dtype in _dtypes()},
        bandwidth=_bandwidth(2**22 if quick else 2**25),
    )


def device_name() -> str:
    """Return the kind of device jax runs on, with the processor's model on a CPU."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    model = ""
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", information.read_text(), re.MULTILINE)
        model = found.group(1).strip() if found else ""
    return f"cpu {model or platform.processor() or platform.machine()}"


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that is installed, and malloc's settings."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    settings = os.environ.get("GLIBC_TUNABLES")
    return found | ({"GLIBC_TUNABLES": settings} if settings else {})


def _dtypes() -> tuple[str, ...]:
    return ("float32", "float64")


def _least_seconds(program, *operands, rounds: int = 3) -> float:
    jax.block_until_ready(program(*operands))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(program(*operands))
        best = min(best, time.perf_counter() - start)
    return best


def _gemm_rate(dtype: str, n: int) -> float:
    with jax.enable_x64(dtype == "float64"):
        a = jnp.ones((n, n), dtype)
        product = jax.jit(lambda x, y: jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST))
        return 2.0 * n**3 / _least_seconds(product, a, a)


def _bandwidth(n: int) -> float:
    a = jnp.ones(n, "float32")
    # A sum reads each entry once and writes nothing to speak of.
    return 4.0 * n / _least_seconds(jax.jit(jnp.sum), a)
