"""`make gpu`: the tests marked gpu, then the quick suites, on the accelerator that jax sees."""

import subprocess
import sys
from collections.abc import Callable, Sequence

from .child import ROOT

_PROBE = "import jax; print(jax.default_backend())"
_STEPS = (
    ("the tests marked gpu", ("-m", "pytest", "-q", "-m", "gpu")),
    ("the quick benchmarks", ("-m", "benchmarks", "--quick", "--save")),
)


def backend() -> str:
    """Return the backend jax starts on, asked of another process.

    The process that asks would otherwise hold most of the accelerator's memory.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _PROBE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = answer.stdout.split()
    return lines[-1] if answer.returncode == 0 and lines else "none"


def main(
    find: Callable[[], str] = backend,
    run: Callable[[Sequence[str]], int] = lambda command: subprocess.call(command, cwd=ROOT),
) -> int:
    """Run both steps; non-zero without an accelerator or when a step fails."""
    found = find()
    if found in ("cpu", "none"):
        print(
            f"make gpu: expected jax to see an accelerator, got backend {found!r}. Install a jax "
            "for it (make gpu EXTRAS=cuda13, or cuda12), or use one that is installed (make gpu "
            "RUN=python3), and see that JAX_PLATFORMS does not hide it. Nothing was run.",
            file=sys.stderr,
        )
        return 1
    outcomes = []
    for name, command in _STEPS:
        print(f"== {name}, on {found}", flush=True)
        outcomes.append(run([sys.executable, *command]))
    return 1 if any(outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
