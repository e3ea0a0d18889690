"""Learned preconditioners whose weights come with the package."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from tensornet.io import Header, load

from .conjugate_direction import ConjugateDirection
from .graph_cholesky import GraphCholesky
from .graph_direction import GraphDirection
from .graph_inverse import GraphApproximateInverse
from .learned import Learned

PRETRAINED = ("inverse-diffusion-2d", "cholesky-diffusion-2d")
PRETRAINED_DIRECTIONS = ("direction-poisson-3d", "direction-diffusion-2d")
VERSION = 1
_FOLDER = Path(__file__).resolve().parent / "weights"
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (GraphApproximateInverse, GraphCholesky, ConjugateDirection, GraphDirection)
}


def pretrained(name: str) -> Learned:
    """Return a trained preconditioner, to be analysed and set up like any other.

    Those of `"...-diffusion-2d"` were trained on linear elements for -div(k grad u), k smooth, on
    jittered meshes of squares and L-shapes with a few hundred unknowns, by
    `examples/train_preconditioners.py`. Whatever they are used on, `pcg` tries them first.

    Args:
        name: one of `PRETRAINED`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PRETRAINED:
        raise ValueError(f"name: expected one of {', '.join(PRETRAINED)}, got {name!r}")
    return load(_FOLDER / f"{name}.gauntax", make=_build, version=VERSION)


def pretrained_direction(name: str) -> ConjugateDirection | GraphDirection:
    """Return a trained direction network, for `flexible_cg`.

    That of `"direction-poisson-3d"`, to be put on a grid (`on`), was trained for -Laplace on 32^3
    points with boxes among them; that of `"direction-diffusion-2d"`, to be analysed and set up,
    for diffusion on the meshes that those of `pretrained` were. Both by
    `examples/train_direction.py`.

    Args:
        name: one of `PRETRAINED_DIRECTIONS`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PRETRAINED_DIRECTIONS:
        known = ", ".join(PRETRAINED_DIRECTIONS)
        raise ValueError(f"name: expected one of {known}, got {name!r}")
    return load(_FOLDER / f"{name}.gauntax", make=_build, version=VERSION)


def _build(header: Header) -> Any:
    options = header.hyperparameters["options"]
    found = eqx.filter_eval_shape(lambda: _KINDS[header.kind](**options))
    # Weights are in single precision, whatever is the default.
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), found)
