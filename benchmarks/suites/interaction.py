"""The interaction, with gradients, against e3nn-jax and one plain einsum a path."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equivariant import Interaction

from ..case import Case, Context, Peer, Speed
from ..measure import Program, compiled_cost
from ..rows import Row, ratio

SUITE = "interaction"
HIGHEST = jax.lax.Precision.HIGHEST
# Least ratios of e3nn-jax's seconds to ours, by degree, and most of our temporary bytes to its.
TARGETS = {1: 3.2, 2: 2.6, 3: 2.4}
BYTES = 0.65
# Most seconds in a quarter of the bytes, over those in all.
LIMITED = 1.5


@dataclasses.dataclass(frozen=True)
class Problem:
    """A graph with weights for each edge, path and channel, and the gradient by all operands.

    Attributes:
        degree: of nodes, harmonics and result, of natural parity.
        edges: sorted by receiver, 20 a node.
        channels: of nodes and result.
        forces: the gradient of the squares of forces, those of the value's square, by all else.
        vectors: ours is given vectors instead of their harmonics.
        weights, coupling: of the map; the peers know the defaults alone.
        method: of ours.
        memory_limit: of ours.
    """

    degree: int
    edges: int
    channels: int = 128
    forces: bool = False
    vectors: bool = False
    weights: str = "per-path"
    coupling: str = "clebsch-gordan"
    method: str = "auto"
    memory_limit: int | None = None

    @property
    def name(self) -> str:
        what = "gradient of forces" if self.forces else "gradient"
        return f"L={self.degree}, {self.edges} edges x {self.channels}, {what}"

    @property
    def irreps(self) -> e3nn.Irreps:
        return e3nn.Irreps.spherical_harmonics(self.degree)

    def layer(self) -> Interaction:
        return Interaction(
            *[self.irreps] * 3,
            channels=self.channels,
            weights=self.weights,
            coupling=self.coupling,
            method=self.method,
            memory_limit=self.memory_limit,
            key=jax.random.key(0),
        )

    def operands(self) -> tuple[Any, ...]:
        """Return x, vectors, radial weights and what mixes channels; senders and receivers."""
        rng, layer = np.random.default_rng(0), self.layer()
        nodes = max(self.edges // 20, 1)
        shapes = [
            (nodes, self.channels, self.irreps.dim),
            (self.edges, 3),
            (self.edges, layer.n_weights, self.channels),
        ]
        arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
        senders = jnp.asarray(rng.integers(0, nodes, self.edges))
        receivers = jnp.asarray(np.sort(rng.integers(0, nodes, self.edges)))
        return (*arrays, layer.mixing), (senders, receivers)

    def harmonics(self, vectors: Any) -> jax.Array:
        return e3nn.spherical_harmonics(self.irreps, vectors, True, normalization="component").array

    def timed(self, function: Callable[..., jax.Array]) -> tuple[Callable[..., Any], Any]:
        """Return value and gradient of a function of x, harmonics, weights, mixing and ends."""
        operands, ends = self.operands()

        def energy(x: Any, y: Any, w: Any, mixing: Any) -> jax.Array:
            return 0.5 * jnp.sum(function(x, y, w, mixing, *ends) ** 2) / self.edges

        if self.forces:

            def squares(operands: Any) -> jax.Array:
                x, vectors, w, mixing = operands
                forces = jax.grad(lambda v: energy(x, self.harmonics(v), w, mixing))(vectors)
                return jnp.sum(forces**2)

            return jax.value_and_grad(squares), operands
        if self.vectors:
            return jax.value_and_grad(lambda operands: energy(*operands)), operands
        x, vectors, *rest = operands
        harmonics = jax.jit(self.harmonics)(vectors)
        return jax.value_and_grad(lambda operands: energy(*operands)), (x, harmonics, *rest)

    def program(self, name: str, function: Callable[..., jax.Array]) -> Program:
        timed, operands = self.timed(function)
        run = jax.jit(timed)

        def judge(result: Any) -> dict[str, float]:
            # Below 1e-5 one sum in float32 is as good as another.
            return {"error": max(abs(float(result[0]) / self.reference() - 1), 1e-5)}

        return Program(name, lambda: run(operands), None if self.forces else judge)

    def temp_bytes(self, function: Callable[..., jax.Array]) -> float:
        timed, operands = self.timed(function)
        return compiled_cost(timed, operands)["temp_bytes"]

    def reference(self) -> float:
        """Return the value in numpy's float64, path by path."""
        (x, vectors, radial, mixing), (senders, receivers) = self.operands()
        harmonics = np.asarray(self.harmonics(vectors), np.float64)
        x, radial, mixing = jax.tree.map(lambda z: np.asarray(z, np.float64), (x, radial, mixing))
        layer, slices = self.layer(), self.irreps.slices()
        made = layer.bilinear
        totals: list[Any] = [0.0] * len(slices)
        for n, path in enumerate(made.triples):
            i, j, o = path
            matrices = np.tensordot(harmonics[:, slices[j]], made.path_tensor(path), (1, 1))
            message = np.matmul(x[np.asarray(senders)][:, :, slices[i]], matrices)
            total = np.zeros((len(x), *message.shape[1:]))
            apart = self.weights == "per-path"
            own = radial[:, n if apart else j]
            np.add.at(total, np.asarray(receivers), message * own[:, :, None])
            mix = mixing[o][layer.paths_to(o).index(n) if apart else 0]
            totals[o] = totals[o] + np.tensordot(total, mix, (1, 0))
        return 0.5 * sum(float(np.sum(z**2)) for z in totals) / self.edges

    # Functions of x, harmonics, weights, mixing, senders, receivers ---------------------------

    def ours(self) -> Callable[..., jax.Array]:
        layer = self.layer()

        def run(x: Any, y: Any, w: Any, mixing: Any, senders: Any, receivers: Any) -> jax.Array:
            own = eqx.tree_at(lambda made: made.mixing, layer, mixing)
            if self.vectors:
                return own(x, None, w, senders, receivers, vectors=y)
            return own(x, y, w, senders, receivers)

        return run

    def einsum(self) -> Callable[..., jax.Array]:
        """Channels last, the table contracted with the harmonics first, path by path."""
        layer, slices = self.layer(), self.irreps.slices()
        made = layer.bilinear

        def run(x: Any, y: Any, w: Any, mixing: Any, senders: Any, receivers: Any) -> jax.Array:
            sent = x.swapaxes(1, 2)[senders]
            parts: list[Any] = [0.0] * len(slices)
            for n, path in enumerate(made.triples):
                i, j, o = path
                table = jnp.asarray(made.path_tensor(path), jnp.float32)
                matrices = jnp.einsum("ej,ijk->eik", y[:, slices[j]], table, precision=HIGHEST)
                z = jnp.einsum("eic,eik->ekc", sent[:, slices[i]], matrices, precision=HIGHEST)
                z = jax.ops.segment_sum(
                    z * w[:, n, None], receivers, len(x), indices_are_sorted=True
                )
                mix = mixing[o][layer.paths_to(o).index(n)]
                parts[o] += jnp.einsum("nkc,cd->ndk", z, mix, precision=HIGHEST)
            return jnp.concatenate(parts, -1)

        return run

    def e3nn(self) -> Callable[..., jax.Array]:
        """The flat layout of `e3nn_jax.tensor_product`, as its message-passing models use it."""
        wanted = [ir for _, ir in self.irreps]
        flat = e3nn.Irreps([(self.channels, ir) for ir in wanted])
        # Paths to an irrep come in our order: by the first irrep, then the second.
        order = [np.array(self.layer().paths_to(o)) for o in range(len(wanted))]

        def run(x: Any, y: Any, w: Any, mixing: Any, senders: Any, receivers: Any) -> jax.Array:
            chunks = [x[:, :, s] for s in self.irreps.slices()]
            sent = e3nn.from_chunks(flat, chunks, x.shape[:1], x.dtype)[senders]
            z = e3nn.tensor_product(sent, e3nn.IrrepsArray(self.irreps, y), filter_ir_out=wanted)
            z = z * jnp.concatenate([w[:, paths].reshape(len(w), -1) for paths in order], -1)
            sums = jax.ops.segment_sum(z.array, receivers, len(x), indices_are_sorted=True)
            parts = []
            for o, chunk in enumerate(e3nn.IrrepsArray(z.irreps, sums).chunks):
                table = mixing[o].reshape(-1, self.channels)
                parts.append(jnp.einsum("nck,cd->ndk", chunk, table, precision=HIGHEST))
            return jnp.concatenate(parts, -1)

        return run


@dataclasses.dataclass(frozen=True, init=False)
class Compared(Speed):
    """Seconds and temporary bytes beside those of others, each with the least ratio to ours."""

    problem: Problem
    others: tuple[tuple[str, Callable[[], Any], float | None, float | None], ...]

    def __init__(self, problem: Problem, *others: Any, note: str = ""):
        def program(name: str, make: Callable[[], Any]) -> Callable[[], Program]:
            return lambda: problem.program(name, make())

        peers = [Peer(program(name, make), target=seconds) for name, make, seconds, _ in others]
        super().__init__(program("ours", problem.ours), peers, within=1.0, note=note)
        object.__setattr__(self, "problem", problem)
        object.__setattr__(self, "others", others)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure, seconds first."""
        yield from super().rows(case, context)
        ours = self.problem.temp_bytes(self.problem.ours())
        for name, make, _, target in self.others:
            theirs = self.problem.temp_bytes(make())
            reached = ratio(theirs, ours)
            yield case.row(
                context,
                quantity="temp_bytes",
                unit="bytes",
                ours=ours,
                peer_name=name,
                peer=theirs,
                ratio=reached,
                target=target,
                target_is="" if target is None else "ratio at least",
                met=None if target is None or reached is None else reached >= target,
                note="XLA's temporary buffers, of both",
            )


@dataclasses.dataclass(frozen=True, init=False)
class Limited(Compared):
    """A memory limit of a quarter of the bytes that all edges at once take."""

    def __init__(self, problem: Problem):
        super().__init__(problem)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure what the whole takes, then the limit."""
        whole = dataclasses.replace(self.problem, memory_limit=10**12)
        limit = int(whole.temp_bytes(whole.ours()) / 4)
        limited = dataclasses.replace(self.problem, memory_limit=limit)
        others = (
            ("all edges at once", whole.ours, 1 / LIMITED, 4.0),
            ("without a limit", self.problem.ours, 1 / LIMITED, None),
        )
        note = f"limit: {limit / 1e6:.0f} MB"
        yield from Compared(limited, *others, note=note).rows(case, context)


def cases(quick: bool) -> list[Case]:
    """Return the cases; the quick ones are small and promise nothing."""
    sizes = {"edges": 200, "channels": 8} if quick else {}
    found = []
    for degree, edges in ((1, 10_000), (2, 10_000), (3, 2_000))[: 1 if quick else None]:
        for forces in (False, True):
            fields: dict[str, Any] = {"edges": 2_000 if forces else edges, **sizes}
            problem = Problem(degree, forces=forces, **fields)
            target = None if quick or forces else TARGETS[degree]
            plain = None if quick else 1.0
            theirs = ("e3nn-jax", problem.e3nn, target, None if quick else 1 / BYTES)
            measure = Compared(problem, theirs, ("plain einsum", problem.einsum, plain, None))
            found.append(Case(SUITE, problem.name, "float32", measure))
        if not quick:
            problem = Problem(degree, edges)
            found.append(Case(SUITE, f"limit: {problem.name}", "float32", Limited(problem)))
    for degree in (1,) if quick else range(1, 7):
        problem = Problem(degree, vectors=True, **({"edges": 500} | sizes))
        found.append(_ways(problem, "so2", ("direct", "auto")))
        problem = dataclasses.replace(problem, weights="per-degree", coupling="gaunt")
        found.append(_ways(problem, "gaunt-grid", ("direct", "so2", "auto")))
        if degree <= 3:
            problem = dataclasses.replace(problem, coupling="clebsch-gordan")
            found.append(_ways(problem, "cp", ("direct", "so2", "auto")))
    return found


def _ways(problem: Problem, method: str, others: tuple[str, ...]) -> Case:
    """Return a case that compares one of our methods with others of ours."""
    own, *rest = (dataclasses.replace(problem, method=name) for name in (method, *others))
    peers = [(name, made.ours, None, None) for name, made in zip(others, rest, strict=True)]
    name = f"{method} for ours: {problem.name}, {problem.weights}"
    return Case(SUITE, name, "float32", Compared(own, *peers))
