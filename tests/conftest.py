"""Every test runs under jaxtyping and beartype, strict promotion, and several CPU devices."""

import os
from pathlib import Path

# A second run finds what the first compiled, and takes about half of its time.
cache = Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Several test processes share an accelerator, where there is one.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402 (it reads the variables above once)

flags = [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=4",
    # The tests compile much and compute little: machine code is left unoptimised, which saves
    # a third of their time. The program XLA makes, which some tests read, stays the same.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
if jax.__version_info__ < (0, 11):
    # The older of XLA's two ways to write a fused loop compiles in half the time.
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(flags)

from typechecks import install  # noqa: E402

install()  # for the whole process: the packages are imported by the tests

import hypothesis  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "gauntax", deadline=None, max_examples=20, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("gauntax")


def accelerator():
    """Return the device jax uses by default where that is not a CPU, else None."""
    device = jax.devices()[0]
    return None if device.platform == "cpu" else device


def pytest_collection_modifyitems(items):
    """Skip the tests marked gpu where there is no accelerator; their CPU twins still run."""
    if accelerator() is None:
        reason = "no accelerator: jax sees CPU devices only"
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _place(request):
    """Run on the accelerator what is marked gpu, all else on the CPU, whatever the machine has."""
    if accelerator() is None or request.node.get_closest_marker("gpu"):
        yield
    else:
        with jax.default_device(jax.devices("cpu")[0]):
            yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Run a test in both precisions, each as a user has it: x64 off for float32, on for float64."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture
def x64():
    """Run a test with 64-bit types on."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Keep the user's cache out of the tests and the tests out of it."""
    monkeypatch.setenv("GAUNTAX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True, scope="module")
def _free_programs():
    """Free the compiled programs of a file: each holds memory maps, of which a process has few."""
    yield
    jax.clear_caches()
