"""Tables that come with the package, as files beside this one."""

import functools
import importlib.resources
from collections.abc import Mapping

import numpy as np


@functools.cache
def shipped(file: str) -> Mapping[str, np.ndarray]:
    """Return the arrays of a file, by name; shared between calls."""
    with (
        importlib.resources.files("equivariant.coupling").joinpath(file).open("rb") as opened,
        np.load(opened, allow_pickle=False) as tables,
    ):
        return {name: tables[name] for name in tables.files}
