"""The packages under jaxtyping and beartype, but for what would only make the tests slow."""

import pathlib

import beartype
from jaxtyping import install_import_hook

PACKAGES = ("tensornet", "equivariant", "solvers")
# Of the planner, what sees no array: one search calls it ten thousand times.
UNCHECKED = (
    *("assemble", "choose", "cost", "layout", "network", "plan"),
    *("search", "sharing", "slicing", "table"),
)


def install() -> None:
    """Check arguments and results of what the packages' modules define, from now on."""
    root = pathlib.Path(__file__).parents[1]
    files = [path.relative_to(root) for name in PACKAGES for path in (root / name).rglob("*.py")]
    modules = [
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in files
        if not (path.parent.name == "planner" and path.stem in UNCHECKED)
        and path.name != "__init__.py"
    ]
    install_import_hook(modules, "typechecks.checked").__enter__()


def checked(function):
    """Check a function or class of a module; not one made anew at each call."""
    if "<locals>" in getattr(function, "__qualname__", ""):
        return function
    return beartype.beartype(function)
