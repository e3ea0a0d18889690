"""The real matrices that pyamg ships (`gauntax[pde]`): small, from unstructured meshes."""

from typing import Any

from ..sparse.pattern import canonical
from .problem import Problem

# Of pyamg's, those that are real, symmetric and positive definite.
EXAMPLES = ("airfoil", "bar", "knot", "local_disc_galerkin_diffusion", "unit_cube")


def example(name: str) -> Problem:
    """Return one of pyamg's example matrices.

    Raises:
        ImportError: pyamg is not installed.
        ValueError: an unknown name.
    """
    if name not in EXAMPLES:
        raise ValueError(f"name: expected one of {', '.join(EXAMPLES)}, got {name!r}")
    try:
        from pyamg.gallery import load_example
    except ImportError as error:
        raise ImportError("pyamg: expected it installed (gauntax[pde]), got none") from error
    found: Any = load_example(name)
    matrix = canonical(found["A"])
    matrix = ((matrix + matrix.T) / 2).tocsr()  # files keep fewer digits than mirror one another
    return Problem(name, matrix, found.get("vertices"))
