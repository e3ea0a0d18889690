"""Potentials of packages that need not be installed, on the same graph and edges as ours.

mlip's MACE couples with e3j or, by its Gaunt option, on points of the sphere; nequip-eqx is NequIP.
Each is what its package makes; only the graph is handed over.
"""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equivariant.potential import Config, Graph, Potential, energy_forces_stress

# Hidden layers of the peers' radial networks: what both packages take if nothing else is said.
HIDDEN = (64, 64, 64)
# Degree of the harmonics and of the sums that MACE makes powers of, and how high these go.
EDGE_DEGREE, ORDER = 3, 3


class Model(NamedTuple):
    """A potential as all of them are timed.

    Attributes:
        name: what rows call it.
        weights: what is trained.
        predict: takes weights and graph to energies of structures and forces on nodes.
        graph: in the package's own form.
    """

    name: str
    weights: Any
    predict: Callable[[Any, Any], tuple[jax.Array, jax.Array]]
    graph: Any

    @property
    def parameters(self) -> int:
        """Return how many numbers are trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.weights))


def ours(
    config: Config, graph: Graph, changed: Callable[[Potential], Potential] = lambda made: made
) -> Model:
    """Return our potential, or what is made of it; what `fit` holds fixed is not trained."""
    potential = changed(Potential(config, key=jax.random.key(0)))
    chosen = jax.tree.map(eqx.is_inexact_array, potential)
    fixed = jax.tree.map(lambda _: False, potential.scale_shift)
    chosen = eqx.tree_at(lambda made: made.scale_shift, chosen, fixed)
    weights, rest = eqx.partition(potential, chosen)

    def predict(weights: Any, graph: Graph) -> tuple[jax.Array, jax.Array]:
        made = energy_forces_stress(eqx.combine(weights, rest), graph)
        return made.energy, made.forces

    return Model("ours", weights, predict, graph)


def mace(config: Config, graph: Graph, *, gaunt: bool = False) -> Model:
    """Return mlip's MACE of our config's sizes, which takes edges in the order of their senders."""
    from mlip import graph as theirs
    from mlip.data import DatasetInfo
    from mlip.models import ForceField, Mace

    info = DatasetInfo(
        atomic_energies_map=dict.fromkeys(config.species, 0.0),
        graph_cutoff_angstrom=config.cutoff,
        avg_num_neighbors=config.neighbours,
    )
    coupling = {"symmetric_contraction_backend": "gaunt_tp", "use_gaunt_tp_message_passing": True}
    settings = Mace.Config(
        num_layers=config.layers,
        num_channels=config.channels,
        l_max=EDGE_DEGREE,
        node_symmetry=config.degree,
        correlation=ORDER,
        num_rbf=config.functions,
        radial_mlp_hidden=list(HIDDEN),
        **(coupling if gaunt else {}),
    )
    field = ForceField.from_mlip_network(Mace(settings, info), seed=0)
    order = np.argsort(np.asarray(graph.senders), kind="stable")
    handed = theirs.Graph(
        nodes=theirs.GraphNodes(
            atomic_numbers=jnp.asarray(np.array(config.species)[np.asarray(graph.species)]),
            positions=graph.positions,
        ),
        # Theirs goes from sender to receiver and shifts the other end.
        edges=theirs.GraphEdges(shifts=-graph.shifts[order]),
        globals=theirs.GraphGlobals(
            cell=graph.cell, weight=jnp.ones(len(graph.real), graph.cell.dtype)
        ),
        n_node=_counts(graph, graph.structure),
        n_edge=_counts(graph, graph.structure[graph.receivers]),
        senders=graph.senders[order],
        receivers=graph.receivers[order],
        ordering=theirs.EdgeOrdering.SENDER,
    )

    def predict(weights: Any, graph: Any) -> tuple[jax.Array, jax.Array]:
        made = field.predictor.apply(weights, graph)
        return made.globals.energy, made.nodes.forces

    name = "mlip MACE, Gaunt" if gaunt else "mlip MACE, e3j"
    return Model(name, field.params, predict, handed)


def nequip(config: Config, graph: Graph) -> Model:
    """Return nequip-eqx's model of our config's sizes; it knows no cells.

    Raises:
        ValueError: edges across the borders of a cell.
    """
    import jraph

    # The import sets the precision of all products of the process.
    precision = jax.config.jax_default_matmul_precision
    try:
        from nequip_eqx.model import Nequip
    finally:
        jax.config.update("jax_default_matmul_precision", precision)

    if bool(jnp.any(graph.shifts != 0)):
        raise ValueError("graph: expected no edge to cross the border of a cell")
    model = Nequip(
        jax.random.key(0),
        n_species=len(config.species),
        lmax=config.degree,
        cutoff=config.cutoff,
        hidden_size=config.channels,
        n_layers=config.layers,
        radial_basis_size=config.functions,
        radial_mlp_size=HIDDEN[0],
        radial_mlp_layers=len(HIDDEN),
        avg_n_neighbors=config.neighbours,
    )
    chosen = eqx.tree_at(
        lambda made: made.atom_energies, jax.tree.map(eqx.is_inexact_array, model), replace=False
    )
    weights, rest = eqx.partition(model, chosen)
    handed = jraph.GraphsTuple(
        n_node=_counts(graph, graph.structure),
        n_edge=_counts(graph, graph.structure[graph.receivers]),
        nodes={"species": graph.species, "positions": graph.positions},
        edges=None,
        senders=graph.senders,
        receivers=graph.receivers,
        globals=None,
    )
    return Model(
        "nequip-eqx",
        weights,
        lambda weights, graph: eqx.combine(weights, rest)(graph),
        handed,
    )


# What makes each peer, and the package that it needs.
PEERS: dict[str, tuple[str, Callable[[Config, Graph], Model]]] = {
    "mlip MACE, e3j": ("mlip", mace),
    "mlip MACE, Gaunt": ("mlip", lambda config, graph: mace(config, graph, gaunt=True)),
    "nequip-eqx": ("nequip_eqx", nequip),
}


def installed(peer: str) -> bool:
    """Return whether a peer's package is there."""
    return importlib.util.find_spec(PEERS[peer][0]) is not None


def peer(name: str, config: Config, graph: Graph) -> Model:
    """Return a peer's model; what its package warns of on import is its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PEERS[name][1](config, graph)


def _counts(graph: Graph, structures: Any) -> jax.Array:
    return jnp.asarray(np.bincount(structures, minlength=len(graph.real)), jnp.int32)
