"""Check the built wheel in an environment that holds it and its hard dependencies only."""

import importlib
import importlib.util
import sys
import zipfile
from pathlib import PurePosixPath

PACKAGES = {"tensornet", "equivariant", "solvers"}
EXTRAS = ["matplotlib", "tqdm", "cotengra", "skfem", "pyamg", "ase", "pytest", "beartype"]


def check_contents(wheel):
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    top = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert top == PACKAGES, f"{wheel}: expected {sorted(PACKAGES)}, got {sorted(top)}"
    for package in PACKAGES:
        assert PurePosixPath(package, "py.typed") in names, (
            f"{wheel}: {package}/py.typed is missing"
        )
    weights = ("solvers", "preconditioners", "weights")
    for data in (
        PurePosixPath("equivariant", "coupling", "cp_tables.npz"),
        PurePosixPath("equivariant", "coupling", "separable_terms.npz"),
        PurePosixPath(*weights, "inverse-diffusion-2d.gauntax"),
        PurePosixPath(*weights, "cholesky-diffusion-2d.gauntax"),
    ):
        assert data in names, f"{wheel}: {data} is missing"
    assert any(name.name == "LICENSE" for name in names), f"{wheel}: LICENSE is missing"


def check_imports():
    present = [name for name in EXTRAS if importlib.util.find_spec(name)]
    assert not present, f"expected an environment without extras, got {present}"
    for package in sorted(PACKAGES):
        module = importlib.import_module(package)
        assert "site-packages" in str(module.__file__), f"{package} is not the installed one"


def check_use():
    import jax
    import jax.numpy as jnp

    import tensornet as tn

    factors = [jax.random.normal(jax.random.key(n), (6 + n, 2)) for n in range(3)]
    x = jnp.asarray(tn.contract("ir,jr,kr->ijk", *factors))
    fitted = tn.cp_als(x, 2, key=jax.random.key(3))
    assert fitted.relative_error < 1e-3, fitted
    assert x.dtype == jnp.float32, "importing the packages turned 64-bit types on"
    print(fitted)


def check_absence():
    """What an extra is for says which one, and nothing else needs it."""
    import tensornet.plot
    from tensornet.progress import TqdmProgress

    for extra, use in {
        "plot": lambda: tensornet.plot.compression({"CP": [(2.0, 0.1)]}),
        "progress": TqdmProgress,
    }.items():
        try:
            use()
        except ImportError as error:
            assert f"gauntax[{extra}]" in str(error), error
        else:
            raise AssertionError(f"{extra}: expected an ImportError without the extra")


if __name__ == "__main__":
    check_contents(sys.argv[1])
    check_imports()
    check_use()
    check_absence()
    print(f"{sys.argv[1]}: good")
