"""A message-passing potential: interactions, products of what was received, readouts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from tensornet.planner import contract

from ..bilinear import PATHS
from ..draw import normal
from ..interaction import WEIGHTS, Interaction
from ..nn import ZBL, Bessel, Gate, Linear, ManyBody, Readout, ScaleShift
from ..tensor_product import TensorProduct
from .graph import Graph

PRODUCTS = ("power", "gate", "gaunt", "clebsch-gordan", "cp")
# Coupling, weights, and how it is computed, of those that are tensor products.
_COUPLINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gaunt": ("gaunt", "per-degree", {}),
    "clebsch-gordan": ("clebsch-gordan", "per-path", {}),
    "cp": ("clebsch-gordan", "per-degree", {"method": "cp", "rtol": 1e-9}),
}
_CP_DEGREE = 3  # up to which there are exact tables


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
            `TensorProduct` of that coupling; `"cp"`: Clebsch-Gordan from the exact CP tables, with
            weights per degree, of degrees up to 3.
        paths: of tensor products. `"even"`: features are of natural parity (0e, 1o, 2e, ...);
            `"all"`: of both parities, with the paths of odd l1 + l2 + l3 between them.
        weights: of messages. `"per-path"`: a radial weight of each path, Clebsch-Gordan coupling;
            `"per-degree"`: one for each degree of the edge's harmonics, which makes a message one
            product; its coupling is Clebsch-Gordan's with `"cp"` (whose exact tables then compute
            it where that is fastest) and `"clebsch-gordan"`, else Gaunt's.
        message_channels: channels of messages, those of the features by default; where they are
            others, nodes mix theirs into as many before they send.
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
    paths: str = "even"
    weights: str = "per-path"
    message_channels: int | None = None
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
        if self.paths not in PATHS:
            raise ValueError(f"paths: expected one of {PATHS}, got {self.paths!r}")
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights: expected one of {WEIGHTS}, got {self.weights!r}")
        if self.paths == "all" and self.product in ("power", "cp"):
            raise ValueError(
                f"paths: expected 'even' with product={self.product!r}, which knows natural "
                "parity alone, got 'all'"
            )
        if self.product == "cp" and _largest(self) > _CP_DEGREE:
            raise ValueError(
                f"degree, edge_degree: expected at most {_CP_DEGREE} with product='cp', got "
                f"{self.degree} and {self.edge_degree}"
            )
        if self.energies is not None and len(self.energies) != len(self.species):
            raise ValueError(
                f"energies: expected one for each of {len(self.species)} species, got "
                f"{len(self.energies)}"
            )
        least = {"layers": 1, "degree": 0, "width": 1, "channels": 1, "message_channels": 1}
        for name, smallest in least.items():
            got = getattr(self, name)
            if got is None and name == "message_channels":
                continue
            if isinstance(got, bool) or not isinstance(got, (int, np.integer)):
                raise ValueError(f"{name}: expected an integer, got {got!r}")
            if got < smallest:
                raise ValueError(f"{name}: expected at least {smallest}, got {got}")
        if not self.neighbours > 0:
            raise ValueError(f"neighbours: expected a positive number, got {self.neighbours!r}")


class Layer(eqx.Module):
    """One interaction, the product of what each node received, and what it keeps of itself.

    Attributes:
        radial: weights of the radial network, without constants, so that what is beyond the
            cutoff stays zero.
        sent: to the channels of messages; None where these are those of the features.
        own: `[species, channels]`, by which a node's features are scaled before `skip`.
        skip: from the features before to those after.
    """

    radial: tuple[Array, Array]
    sent: Linear | None
    interaction: Interaction
    product: Any
    mixing: Linear
    own: Array
    skip: Linear
    neighbours: float = eqx.field(static=True)

    def __init__(self, config: Config, irreps_in: e3nn.Irreps, wanted: Any, *, key: PRNGKeyArray):
        """Draw the weights of a layer whose results are what it can make of those wanted."""
        keys = jax.random.split(key, 7)
        width, channels = config.width, config.channels
        self.neighbours = float(config.neighbours)
        self.radial = tuple(
            normal(k, (size, width)) / math.sqrt(size)
            for k, size in zip(keys, (config.functions, width), strict=False)
        )  # type: ignore[assignment]
        inner = channels if config.message_channels is None else config.message_channels
        self.sent = None
        if inner != channels:
            self.sent = Linear(
                irreps_in, irreps_in, channels=channels, channels_out=inner,
                key=jax.random.fold_in(keys[2], 1),
            )  # fmt: skip
        self.interaction = Interaction(
            irreps_in,
            _edge_irreps(config),
            _reached(irreps_in, _edge_irreps(config), _features(config, _largest(config))),
            channels=inner,
            channels_out=channels,
            features=width,
            weights=config.weights,
            coupling=_coupling_of_messages(config),
            method=config.method,
            memory_limit=config.memory_limit,
            key=keys[2],
        )
        received = self.interaction.irreps_out
        self.product, made = _product(config, received, wanted, keys[3])
        kept = _among(irreps_in, wanted)
        irreps_out = _first(kept, _among(wanted, made))
        self.mixing = Linear(made, irreps_out, channels=channels, key=keys[4])
        self.own = normal(keys[5], (len(config.species), channels))
        self.skip = Linear(irreps_in, kept, channels=channels, key=keys[6])

    def __call__(self, x: Array, vectors: Array, basis: Array, graph: Graph) -> Array:
        """Return the features of the nodes after this layer."""
        first, second = (w.astype(x.dtype) for w in self.radial)
        features = jax.nn.silu(contract("ef,fw->ew", basis, first))
        features = jax.nn.silu(contract("ef,fw->ew", features, second))
        sent = x if self.sent is None else self.sent(x)
        received = self.interaction(
            sent, None, features, graph.senders, graph.receivers, vectors=vectors
        )
        made = self.mixing(self.product(received / math.sqrt(self.neighbours), graph.species))
        kept = self.skip(x * self.own.astype(x.dtype)[graph.species][:, :, None])
        # What is kept are the first irreps of the result.
        return made.at[:, :, : kept.shape[2]].add(kept)


class Squared(eqx.Module):
    """x + x (x) x, channel by channel, of a product whose first irreps are those of x.

    With `mixing` the second factor is a mix of all channels: of one alone, odd paths between equal
    degrees are zero, as v x v is, and no axial vector would be made of vectors.
    """

    product: TensorProduct
    mixing: Linear | None

    def __call__(self, x: Array, species: Array) -> Array:  # noqa: ARG002  as the others
        """Apply to `[nodes, channels, dim]`."""
        other = x if self.mixing is None else self.mixing(x)
        return self.product(x, other).at[..., : x.shape[-1]].add(x)


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
        hidden = _features(config, config.degree)
        scalar = e3nn.Irreps("0e")
        layers, readouts, irreps = [], [], scalar
        for n in range(config.layers):
            last = n == config.layers - 1
            layers.append(Layer(config, irreps, scalar if last else hidden, key=keys[2 * n]))
            irreps = layers[-1].mixing.irreps_out
            width = config.width if last else None
            readouts.append(
                Readout(irreps, channels=config.channels, width=width, key=keys[2 * n + 1])
            )
        self.layers, self.readouts = tuple(layers), tuple(readouts)
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
    coupling, weights, how = _COUPLINGS[config.product]
    made = _first(irreps, _reached(irreps, irreps, _features(config, _largest(config))))
    product = TensorProduct(
        irreps, irreps, made, coupling=coupling, weights=weights, paths=config.paths,
        channels=channels, key=key, **how,
    )  # fmt: skip
    mixing = None
    if config.paths == "all":
        mixing = Linear(irreps, irreps, channels=channels, key=jax.random.fold_in(key, 1))
    return Squared(product, mixing), made


def natural(degree: int) -> e3nn.Irreps:
    """Return the irreps of functions on the sphere up to a degree: 0e, 1o, 2e, ..."""
    return e3nn.Irreps.spherical_harmonics(degree)


def _coupling_of_messages(config: Config) -> str:
    own = config.weights == "per-path" or config.product in ("cp", "clebsch-gordan")
    return "clebsch-gordan" if own else "gaunt"


def _edge_irreps(config: Config) -> e3nn.Irreps:
    return natural(config.degree if config.edge_degree is None else config.edge_degree)


def _largest(config: Config) -> int:
    """Return the largest degree of the sums that a node receives."""
    return max(config.degree, _edge_irreps(config).lmax)


def _features(config: Config, degree: int) -> e3nn.Irreps:
    """Return the irreps that features up to a degree may have."""
    if config.paths == "even":
        return natural(degree)
    return natural(degree) + e3nn.Irreps("+".join(f"{n}{'oe'[n % 2]}" for n in range(degree + 1)))


def _reached(first: Any, second: Any, wanted: e3nn.Irreps) -> e3nn.Irreps:
    """Return those of the wanted irreps that some path of two others leads to."""
    made = {ir for _, a in e3nn.Irreps(first) for _, b in e3nn.Irreps(second) for ir in a * b}
    return _among(wanted, e3nn.Irreps([(1, ir) for ir in made]))


def _among(irreps: e3nn.Irreps, others: e3nn.Irreps) -> e3nn.Irreps:
    """Return those irreps that are among others, in their order."""
    known = {ir for _, ir in others}
    return e3nn.Irreps([(1, ir) for _, ir in irreps if ir in known])


def _first(irreps: e3nn.Irreps, others: e3nn.Irreps) -> e3nn.Irreps:
    """Return irreps, and after them those of others that are not among them."""
    known = {ir for _, ir in irreps}
    return irreps + e3nn.Irreps([(1, ir) for _, ir in others if ir not in known])
