"""The rules of the repository itself: versions, sizes, what an import may do."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ["tensornet", "equivariant", "solvers"]
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_one_version():
    version = PROJECT["project"]["version"]
    changelog = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert changelog[:1] == [version]
    assert citation == [version]


def test_wheel_takes_the_three_packages_and_their_marks_of_types():
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == PACKAGES
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


@pytest.mark.parametrize("directory", [*PACKAGES, "tests", "benchmarks", "examples"])
def test_no_file_holds_two_ideas(directory):
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / directory).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 500
    }
    assert long == {}


def test_no_module_without_a_docstring_and_none_empty():
    bare = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert bare == []


def test_no_module_takes_the_name_of_what_its_package_exports():
    """A module imported later would replace what its package exports by the same name."""
    program = f"""
import importlib, pkgutil
for name in {PACKAGES}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        parent, _, child = module.name.rpartition(".")
        exported = getattr(importlib.import_module(parent), child, None)
        try:
            found = importlib.import_module(module.name)
        except ImportError:  # of an extra that is not installed
            continue
        if callable(exported) and getattr(importlib.import_module(parent), child) is found:
            print(module.name)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == ""


def test_contractions_go_through_the_planner():
    """Only the planner may call einsum and its like; linalg, below it, writes plain products."""
    calls = re.compile(r"\b(jnp\.(einsum|tensordot)|lax\.dot_general)\(")
    outside = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if "planner" not in path.parts and calls.search(path.read_text())
    ]
    assert outside == []


PRODUCTS = {f"jnp.{name}" for name in ("matmul", "dot", "vdot", "inner", "vecdot")}


def test_products_are_pinned():
    """Accelerators multiply in fewer bits than the dtype says unless a product forbids it."""
    loose = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in PRODUCTS
        and all(keyword.arg != "precision" for keyword in node.keywords)
    ]
    assert loose == []


def test_every_public_name_is_documented():
    """What `__init__` re-exports has a docstring of its own (functions, classes, their methods)."""
    import tensornet

    bare = []
    for name, value in vars(tensornet).items():
        if name.startswith("_") or not callable(value):
            continue
        members = {name: value}
        if isinstance(value, type) and value.__module__.startswith("tensornet"):
            members |= {
                f"{name}.{attribute}": member
                for attribute, member in vars(value).items()
                if not attribute.startswith("_") and callable(member)
            }
        bare += [label for label, member in members.items() if not (member.__doc__ or "").strip()]
    assert bare == []


IMPORT = """
import json, sys, warnings
before = set(sys.modules)
import {package}
import jax
print(json.dumps({{
    "x64": jax.config.jax_enable_x64,
    "promotion": str(jax.config.jax_numpy_dtype_promotion),
    "filters": any("tensornet" in str(f) for f in warnings.filters),
    "modules": sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}),
}}))
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_import_changes_nothing_and_loads_no_optional_package(package):
    run = subprocess.run(
        [sys.executable, "-c", IMPORT.format(package=package)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    after = json.loads(run.stdout)
    assert (run.stderr, after["x64"], after["filters"]) == ("", False, False)
    assert after["promotion"] == "standard"
    optional = {"tensorly", "matplotlib", "tqdm", "cotengra", "skfem", "pyamg", "ase", "beartype"}
    if package != "equivariant":
        optional |= {"e3nn_jax", "sympy", "flax"}
    if package != "solvers":
        optional |= {"lineax"}
    assert optional & set(after["modules"]) == set()


def test_make_targets_that_the_documents_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert {"demo", "test"} <= named
    assert named <= targets


def test_extras_that_the_documents_name_exist():
    extras = set(PROJECT["project"]["optional-dependencies"])
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *MODULES]
    named = {
        name
        for page in pages
        for group in re.findall(r"gauntax\[([a-z0-9,]+)\]|EXTRAS=([a-z0-9,]+)", page.read_text())
        for name in "".join(group).split(",")
    }
    assert named <= extras


def make(*arguments, **environment):
    return subprocess.run(
        ["make", "-s", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_gpu_without_an_accelerator_says_so_and_fails():
    run = make("gpu", f"RUN={sys.executable}", JAX_PLATFORMS="cpu")
    assert run.returncode != 0
    assert "expected jax to see an accelerator, got backend 'cpu'" in run.stderr
    assert "EXTRAS=cuda13" in run.stderr


def test_make_refuses_a_python_that_is_not_supported(tmp_path):
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 || exit 1\n')
    old.chmod(0o755)
    run = make("test", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert run.returncode != 0
    assert "expected Python 3.11 to 3.13, got Python 3.9.1" in run.stderr
    assert not (tmp_path / "venv").exists()
