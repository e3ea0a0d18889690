"""A trained potential with the energies of isolated atoms, and its file."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tensornet.io import FileFormatError, Header, load, save

from .graph import Graph
from .model import Config, Potential

_KIND, _VERSION = "potential", 1


class TrainedPotential(eqx.Module):
    """A potential whose energies count from isolated atoms, and what these add.

    Energies of atoms are thousands of times larger than what a potential learns. In single
    precision they would drown it: they are added on the host, in double precision.

    Attributes:
        potential: the model.
        energies: of isolated atoms, one of each species.
    """

    potential: Potential
    energies: tuple[float, ...] = eqx.field(static=True)

    @property
    def config(self) -> Config:
        """What the potential is made of."""
        return self.potential.config

    def __call__(self, graph: Graph) -> Any:
        """Return the energy of every node, less that of its isolated atom."""
        return self.potential(graph)

    def isolated(self, numbers: Sequence[int] | np.ndarray) -> float:
        """Return the energy of so many isolated atoms, given by atomic number."""
        known = dict(zip(self.config.species, self.energies, strict=True))
        return float(sum(known[int(z)] for z in numbers))


def save_potential(path: str | os.PathLike[str], trained: TrainedPotential) -> None:
    """Write a potential to a file, in one step.

    Raises:
        OSError: the file cannot be written; what was there is untouched.
    """
    facts = {"config": dataclasses.asdict(trained.config), "energies": list(trained.energies)}
    save(path, trained.potential, kind=_KIND, hyperparameters=facts, version=_VERSION)


def load_potential(path: str | os.PathLike[str]) -> TrainedPotential:
    """Read a potential; its weights keep their precision, whatever jax's default is.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: not the file of a potential, cut, damaged, or newer.
    """
    energies: list[tuple[float, ...]] = []

    def make(header: Header) -> Potential:
        try:
            facts = header.hyperparameters["config"]
            given: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()
            }
            config = Config(**given)
            energies.append(tuple(float(e) for e in header.hyperparameters["energies"]))
        except (KeyError, TypeError) as error:
            raise FileFormatError(
                f"{os.fspath(path)}: expected the facts of a potential, got {error}"
            ) from error
        like = eqx.filter_eval_shape(lambda: Potential(config, key=jax.random.key(0)))
        dtypes = {leaf.path: leaf.dtype for leaf in header.leaves}
        return jax.tree_util.tree_map_with_path(
            lambda at, x: jax.ShapeDtypeStruct(
                x.shape, jnp.dtype(dtypes.get(jax.tree_util.keystr(at), x.dtype))
            ),
            like,
        )

    potential = load(path, make=make, kind=_KIND, version=_VERSION)
    return TrainedPotential(potential, energies[0])
