"""A message-passing potential: interactions, products of what was received, readouts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from tensornet.planner import contract

from ..draw import normal
from ..interaction import Interaction
from ..nn import ZBL, Bessel, Gate, Linear, ManyBody, Readout, ScaleShift
from ..tensor_product import TensorProduct
from .graph import Graph

PRODUCTS = ("power", "gate", "gaunt", "clebsch-gordan")


@dataclass(frozen=True)
class Config:
    """What a `Potential` is made of. Lengths and energies are in the units of the data.

    Attributes:
        species: atomic numbers it knows.
        cutoff: of the neighbours of an atom.
        channels: of the features.
        degree: the largest of the features.
        edge_degree: the largest of the harmonics of an edge, and of the received sums that a
            product is made of; by default that of the features.
        layers: how many interactions.
        product: what makes more of the received sums A. `"power"`: `ManyBody`, powers up to
            `order` on the grid; `"gate"`: `Gate`; `"gaunt"`, `"clebsch-gordan"`: A + A (x) A, by a
            `TensorProduct` of that coupling.
        order: of `"power"`.
        functions: of the radial basis.
        width: of the radial network's two hidden layers, and of the last readout.
        neighbours: typical number of an atom, by which sums are scaled.
        scale: of the energy of an atom.
        energies: of isolated atoms, one of each species; zero by default.
        repulsion: cutoff of a `ZBL` repulsion (eV and angstrom); none by default.
        method: of the interactions.
        memory_limit: of an interaction.
    """

    species: tuple[int, ...]
    cutoff: float | int = 5.0
    channels: int = 32
    degree: int = 1
    edge_degree: int | None = None
    layers: int = 2
    product: str = "power"
    order: int = 3
    functions: int = 8
    width: int = 32
    neighbours: float | int = 16.0
    scale: float | int = 1.0
    energies: tuple[float | int, ...] | None = None
    repulsion: float | int | None = None
    method: str = "auto"
    memory_limit: int | str | None = None

    def __post_init__(self):
        """Check what no layer checks.

        Raises:
            ValueError: naming the entry.
        """
        if not self.species or len(set(self.species)) < len(self.species):
            raise ValueError(f"species: expected distinct atomic numbers, got {self.species}")
        if self.product not in PRODUCTS:
            raise ValueError(f"product: expected one of {PRODUCTS}, got {self.product!r}")
        if self.energies is not None and len(self.energies) != len(self.species):
            raise ValueError(
                f"energies: expected one for each of {len(self.species)} species, got "
                f"{len(self.energies)}"
            )
        for name, least in (("layers", 1), ("degree", 0), ("width", 1), ("channels", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not self.neighbours > 0:
            raise ValueError(f"neighbours: expected a positive number, got {self.neighbours!r}")


class Layer(eqx.Module):
    """One interaction, the product of what each node received, and what it keeps of itself.

    Attributes:
        radial: weights of the radial network, without constants, so that what is beyond the
            cutoff stays zero.
        own: `[species, channels]`, by which a node's features are scaled before `skip`.
        skip: from the features before to those after.
    """

    radial: tuple[Array, Array]
    interaction: Interaction
    product: Any
    mixing: Linear
    own: Array
    skip: Linear
    neighbours: float = eqx.field(static=True)

    def __init__(self, config: Config, irreps_in: Any, irreps_out: Any, *, key: PRNGKeyArray):
        """Draw the weights of one layer of a `Potential`."""
        keys = jax.random.split(key, 7)
        width, channels = config.width, config.channels
        self.neighbours = float(config.neighbours)
        self.radial = tuple(
            normal(k, (size, width)) / math.sqrt(size)
            for k, size in zip(keys, (config.functions, width), strict=False)
        )  # type: ignore[assignment]
        self.interaction = Interaction(
            irreps_in,
            _edge_irreps(config),
            natural(min(_largest(config), _reach(config, irreps_in))),
            channels=channels,
            features=width,
            method=config.method,
            memory_limit=config.memory_limit,
            key=keys[2],
        )
        received = self.interaction.irreps_out
        self.product, made = _product(config, received, irreps_out, keys[3])
        self.mixing = Linear(made, irreps_out, channels=channels, key=keys[4])
        kept = e3nn.Irreps([i for i in irreps_out if i in list(e3nn.Irreps(irreps_in))])
        self.own = normal(keys[5], (len(config.species), channels))
        self.skip = Linear(irreps_in, kept, channels=channels, key=keys[6])

    def __call__(self, x: Array, vectors: Array, basis: Array, graph: Graph) -> Array:
        """Return the features of the nodes after this layer."""
        first, second = (w.astype(x.dtype) for w in self.radial)
        features = jax.nn.silu(contract("ef,fw->ew", basis, first))
        features = jax.nn.silu(contract("ef,fw->ew", features, second))
        received = self.interaction(
            x, None, features, graph.senders, graph.receivers, vectors=vectors
        )
        made = self.mixing(self.product(received / math.sqrt(self.neighbours), graph.species))
        kept = self.skip(x * self.own.astype(x.dtype)[graph.species][:, :, None])
        # What is kept are the first irreps of the result.
        return made.at[:, :, : kept.shape[2]].add(kept)


class Squared(eqx.Module):
    """x + x (x) x, channel by channel."""

    product: TensorProduct

    def __call__(self, x: Array, species: Array) -> Array:  # noqa: ARG002  as the others
        """Apply to `[nodes, channels, dim]`."""
        return x + self.product(x, x)


class Gated(eqx.Module):
    """A gate that takes, and ignores, species."""

    gate: Gate

    def __call__(self, x: Array, species: Array) -> Array:  # noqa: ARG002  as the others
        """Apply to `[nodes, channels, dim]`."""
        return self.gate(x)


class Potential(eqx.Module):
    """The energy of every atom of a graph, by messages among neighbours.

    Attributes:
        embedding: `[species, channels]`, the first features.
        basis: radial functions.
        layers: interactions and products.
        readouts: one a layer, whose sum is the energy.
        scale_shift: of that sum, by species.
        repulsion: or None.
        config: what it was made of.
    """

    embedding: Array
    basis: Bessel
    layers: tuple[Layer, ...]
    readouts: tuple[Readout, ...]
    scale_shift: ScaleShift
    repulsion: ZBL | None
    config: Config = eqx.field(static=True)

    def __init__(self, config: Config, *, key: PRNGKeyArray):
        """Draw the weights.

        Raises:
            ValueError: what a layer refuses.
        """
        self.config = config
        first, *keys = jax.random.split(key, 1 + 2 * config.layers)
        self.embedding = normal(first, (len(config.species), config.channels))
        self.basis = Bessel(config.cutoff, config.functions)
        hidden = natural(config.degree)
        scalar = e3nn.Irreps("0e")
        ends = [scalar, *[hidden] * (config.layers - 1), scalar]
        self.layers = tuple(
            Layer(config, ends[n], ends[n + 1], key=keys[2 * n]) for n in range(config.layers)
        )
        self.readouts = tuple(
            Readout(
                ends[n + 1],
                channels=config.channels,
                width=config.width if n == config.layers - 1 else None,
                key=keys[2 * n + 1],
            )
            for n in range(config.layers)
        )
        number = len(config.species)
        self.scale_shift = ScaleShift([config.scale] * number, config.energies or [0.0] * number)
        cut = config.repulsion
        self.repulsion = None if cut is None else ZBL(config.species, cutoff=cut)

    def __call__(self, graph: Graph) -> Float[Array, " nodes"]:
        """Return the energy of every node."""
        vectors = graph.vectors
        distances = jnp.sqrt((vectors**2).sum(1))
        basis = self.basis(distances)
        x = self.embedding.astype(vectors.dtype)[graph.species][:, :, None]
        total = jnp.zeros(len(graph.positions), vectors.dtype)
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            x = layer(x, vectors, basis, graph)
            total = total + readout(x)
        total = self.scale_shift(total, graph.species)
        if self.repulsion is not None:
            kinds = (graph.species[graph.receivers], graph.species[graph.senders])
            pair = self.repulsion(distances, *kinds) / 2
            total = total.at[graph.receivers].add(pair)
        return total


def _product(
    config: Config, irreps: e3nn.Irreps, wanted: Any, key: PRNGKeyArray
) -> tuple[Callable[..., Array], e3nn.Irreps]:
    """Return what makes more of the received sums, and the irreps of its result."""
    channels, wanted = config.channels, e3nn.Irreps(wanted)
    if config.product == "power":
        number = len(config.species)
        many = ManyBody(
            irreps, wanted, order=config.order, channels=channels, species=number, key=key
        )
        return many, wanted
    if config.product == "gate":
        return Gated(Gate(irreps, channels=channels, key=key)), irreps
    weights = "per-path" if config.product == "clebsch-gordan" else "per-degree"
    product = TensorProduct(
        irreps, irreps, irreps, coupling=config.product, weights=weights, paths="even",
        channels=channels, key=key,
    )  # fmt: skip
    return Squared(product), irreps


def natural(degree: int) -> e3nn.Irreps:
    """Return the irreps of functions on the sphere up to a degree: 0e, 1o, 2e, ..."""
    return e3nn.Irreps.spherical_harmonics(degree)


def _edge_irreps(config: Config) -> e3nn.Irreps:
    return natural(config.degree if config.edge_degree is None else config.edge_degree)


def _largest(config: Config) -> int:
    """Return the largest degree of the sums that a node receives."""
    return max(config.degree, _edge_irreps(config).lmax)


def _reach(config: Config, irreps_in: Any) -> int:
    """Return the largest degree that an interaction can reach."""
    return e3nn.Irreps(irreps_in).lmax + _edge_irreps(config).lmax
