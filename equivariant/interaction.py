"""The interaction of a message-passing network: gather, couple with the edge, sum, mix channels."""

import math
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from tensornet.planner import contract
from tensornet.planner.slicing import limit_bytes
from tensornet.validation import as_real

from .bilinear import BilinearMap
from .draw import normal
from .edge_frame import are_harmonics
from .messages import METHODS, Edges, block_size, chosen, places_of, summed
from .method import Use, typical_batch

WEIGHTS = ("per-path", "per-degree")


class Interaction(eqx.Module):
    """What each node receives: the sum over edges of x[sender] (x) Y(edge), channels mixed.

    For every path p = (i, j -> o) a message is w_p (x_i (x) Y_j)_p with a weight of each edge and
    channel; the sums of all paths to o are mixed, path by path and channel by channel, into
    `channels_out`. Couplings are those of `BilinearMap`. With weights per degree w_p is that of j
    alone, and the sum of all paths to o is mixed channel by channel.

    Attributes:
        mixing: for each irrep of the result, `[its paths or 1, channels, channels_out]`.
        radial: `[features, n_weights, channels]`, which makes radial weights of features; None
            where the weights themselves are given.
        bilinear: the coupling.
        channels, channels_out: of the input and the result.
        method: how messages are computed.
        memory_limit: bytes for temporaries, or None.
    """

    mixing: tuple[Array, ...]
    radial: Array | None
    bilinear: BilinearMap = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    channels_out: int = eqx.field(static=True)
    method: str = eqx.field(static=True)
    memory_limit: int | None = eqx.field(static=True)

    def __init__(
        self,
        irreps_in: Any,
        irreps_edge: Any,
        irreps_out: Any,
        *,
        channels: int,
        channels_out: int | None = None,
        features: int | None = None,
        paths: str = "all",
        coupling: str = "clebsch-gordan",
        weights: str = "per-path",
        method: str = "auto",
        memory_limit: int | str | None = None,
        key: PRNGKeyArray,
    ):
        """Fix the map and draw its weights.

        Args:
            irreps_in: of the nodes, multiplicity one.
            irreps_edge: of the harmonics of an edge.
            irreps_out: of the result.
            channels: of the nodes.
            channels_out: of the result, `channels` by default.
            features: the radial weights are a learned linear function, without a constant, of so
                many numbers per edge; they are then never held for all edges where a memory limit
                is set. By default the call is given the weights.
            paths: `"all"` or `"even"`.
            coupling: `"clebsch-gordan"` or `"gaunt"`, which scales the paths.
            weights: `"per-path"`, or `"per-degree"`: one for each irrep of the edge, which makes
                one product of all paths.
            method: `"direct"`, a matrix of each edge and path; `"so2"`, in a frame whose axis is
                the edge, for calls with vectors; with weights per degree also `"gaunt-grid"`,
                functions at points of the sphere, and `"cp"`, the exact CP tables, where these
                hold the map; or `"auto"`, what the planner expects to be fastest for a call.
            memory_limit: bytes, or text such as `"100MB"`, for temporaries of a call and its
                gradient: edges are then taken in blocks, recomputed for the gradient. Without a
                limit a CPU takes many edges in blocks that stay in its caches. Blocks are
                differentiated in reverse mode first (then in either).
            key: draws the weights.

        Raises:
            ValueError: what `BilinearMap` refuses, an unknown method or kind of weights, sizes
                below 1, `"so2"` for edge irreps that harmonics of a vector do not have, or
                `"gaunt-grid"` or `"cp"` for a map that it cannot compute.
        """
        if method not in METHODS:
            raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
        channels_out = channels if channels_out is None else channels_out
        for name, size in (("channels", channels), ("channels_out", channels_out)):
            if isinstance(size, bool) or size < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
        if features is not None and features < 1:
            raise ValueError(f"features: expected an integer of at least 1, got {features!r}")
        if weights not in WEIGHTS:
            raise ValueError(f"weights: expected one of {WEIGHTS}, got {weights!r}")
        self.bilinear = BilinearMap(
            irreps_in, irreps_edge, irreps_out, paths, coupling, weights=weights
        )
        if method == "so2":
            self._check_harmonics()
        if method in ("gaunt-grid", "cp") and places_of(self.bilinear, method) is None:
            raise ValueError(
                f"method: expected one that computes {coupling!r} with weights {weights!r} for "
                f"{self.bilinear.listed(self.bilinear.triples)}, got {method!r}"
            )
        self.channels, self.channels_out, self.method = channels, channels_out, method
        self.memory_limit = None if memory_limit is None else limit_bytes(memory_limit)
        first, *keys = jax.random.split(key, 1 + len(self.irreps_out))
        self.radial = None
        if features is not None:
            shape = (features, self.n_weights, channels)
            self.radial = normal(first, shape) / math.sqrt(features)
        apart = weights == "per-path"
        counts = [len(self.paths_to(o)) if apart else 1 for o in range(len(self.irreps_out))]
        self.mixing = tuple(
            normal(k, (n, channels, channels_out)) / math.sqrt(n * channels)
            for k, n in zip(keys, counts, strict=True)
        )

    @property
    def irreps_out(self) -> e3nn.Irreps:
        """Irreps of the result."""
        return self.bilinear.irreps_out

    @property
    def n_paths(self) -> int:
        """Number of paths, in the order of `bilinear.triples`."""
        return len(self.bilinear.triples)

    @property
    def n_weights(self) -> int:
        """Number of radial weights of an edge and channel: of its paths, or of its irreps."""
        apart = self.bilinear.weights == "per-path"
        return self.n_paths if apart else len(self.bilinear.irreps_in2)

    def paths_to(self, out: int) -> list[int]:
        """Return the positions of the paths that lead to one irrep of the result."""
        return [n for n, path in enumerate(self.bilinear.triples) if path.out == out]

    def explain(self, edges: int, dtype: Any = "float32") -> str:
        """Return how the methods compare for a number of edges, told by vectors if these can be."""
        use = Use(self.channels, typical_batch((edges,)), str(jnp.dtype(dtype)))
        vectors = are_harmonics(self.bilinear.irreps_in2)
        return chosen(self.bilinear, self.method, use, vectors=vectors)[2]

    def __call__(
        self,
        x: Any,
        harmonics: Any,
        radial: Any,
        senders: Array,
        receivers: Array,
        *,
        vectors: Any = None,
    ) -> Array:
        """Compute what the nodes receive.

        An edge whose radial weights, or features, are zero adds exactly nothing.

        Args:
            x: `[nodes, channels, irreps_in.dim]`.
            harmonics: `[edges, irreps_edge.dim]`, or None where vectors are given.
            radial: `[edges, features]`, or `[edges, n_weights, channels]` where `features` is None.
            senders: `[edges]`, positions of nodes.
            receivers: `[edges]`.
            vectors: `[edges, 3]`, of any length: the harmonics are those of their directions in
                component normalization, which at length zero vanish but for the scalar.

        Returns:
            `[nodes, channels_out, irreps_out.dim]`.

        Raises:
            ValueError: shapes that do not fit, harmonics and vectors both or neither, or harmonics
                for `"so2"`.
            TypeError: dtypes that differ or are not float32 or float64, positions that are no
                integers.
        """
        x, edges = self._checked(x, harmonics, vectors, radial, senders, receivers)
        number = edges.senders.shape[0]
        use = Use(self.channels, typical_batch((number,)), str(x.dtype))
        told = vectors is not None
        name, messages, _ = chosen(self.bilinear, self.method, use, vectors=told)
        if told and name != "so2":
            edges = edges._replace(geometry=self._harmonics(edges.geometry))
        x = x.swapaxes(1, 2)
        x = x if messages.places is None else messages.places.enter(x)
        table = None if self.radial is None else self.radial.astype(x.dtype)
        entries = 0 if table is None else table.size
        size = block_size(messages, entries, x.shape, number, use, self.memory_limit)
        sums = summed(messages, x, edges, table, size)
        if messages.places is not None:
            whole = messages.places.leave(sums)
            sums = [whole[:, part] for part in self.irreps_out.slices()]
        parts: list[list[Array]] = [[] for _ in self.mixing]
        for (o, paths), total in zip(messages.results, sums, strict=True):
            own = self.mixing[o].astype(x.dtype)[paths].reshape(-1, self.channels_out)
            parts[o].append(contract("nkc,cd->ndk", total, own))
        return jnp.concatenate([sum(part[1:], part[0]) for part in parts], axis=-1)

    def _check_harmonics(self) -> None:
        if not are_harmonics(self.bilinear.irreps_in2):
            raise ValueError(
                "irreps_edge: expected parities (-1)^l where edges are told by vectors, got "
                f"{self.bilinear.irreps_in2}"
            )

    def _harmonics(self, vectors: Array) -> Array:
        edge = self.bilinear.irreps_in2
        return e3nn.spherical_harmonics(edge, vectors, True, normalization="component").array

    def _checked(
        self, x: Any, harmonics: Any, vectors: Any, radial: Any, senders: Any, receivers: Any
    ) -> tuple[Array, Edges]:
        name, given, size = "harmonics", harmonics, self.bilinear.irreps_in2.dim
        if vectors is not None:
            self._check_harmonics()
            name, given, size = "vectors", vectors, 3
        if (harmonics is None) == (vectors is None):
            got = "both" if vectors is not None else "neither"
            raise ValueError(f"harmonics, vectors: expected one of the two, got {got}")
        if self.method == "so2" and vectors is None:
            raise ValueError("vectors: expected for method 'so2', got harmonics alone")
        x, geometry, radial = (
            as_real(z, argument) for z, argument in ((x, "x"), (given, name), (radial, "radial"))
        )
        senders, receivers = jnp.asarray(senders), jnp.asarray(receivers)
        irreps = self.bilinear.irreps_in1
        number = senders.shape[0] if senders.ndim == 1 else -1
        last = (self.n_weights, self.channels) if self.radial is None else (self.radial.shape[0],)
        expected = {
            "x": (x, (x.shape[0] if x.ndim else 0, self.channels, irreps.dim)),
            "senders": (senders, (max(number, 0),)),
            "receivers": (receivers, (number,)),
            name: (geometry, (number, size)),
            "radial": (radial, (number, *last)),
        }
        for argument, (array, shape) in expected.items():
            if array.shape != shape:
                raise ValueError(f"{argument}: expected shape {shape}, got {array.shape}")
        for argument, array in ((name, geometry), ("radial", radial)):
            if array.dtype != x.dtype:
                raise TypeError(f"{argument}: expected {x.dtype} like x, got {array.dtype}")
        for argument, array in (("senders", senders), ("receivers", receivers)):
            if not jnp.issubdtype(array.dtype, jnp.integer):
                raise TypeError(f"{argument}: expected integers, got {array.dtype}")
        return x, Edges(senders, receivers, geometry, radial)
