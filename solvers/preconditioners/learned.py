"""What learned preconditioners share: the guard's other choice, and training on many matrices."""

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse.linalg
from jaxtyping import Array, Float, PRNGKeyArray

from tensornet.training import Fit
from tensornet.training import fit as train

from ..sparse import Pattern, as_matrix
from ..sparse.matrix import spread
from .base import Preconditioner
from .graph_network import Graph

LOSSES = ("noise", "solutions", "error")

_dot = functools.partial(jnp.vdot, precision=jax.lax.Precision.HIGHEST)


class Learned(Preconditioner):
    """A preconditioner with a network; `pcg` tries it before it relies on it.

    Trained at any size: what it sees of a matrix are its entries, scaled to ones on the diagonal,
    and how many a row has. `fit` returns a `tensornet.training.Fit` whose `best_model` is the
    trained preconditioner, to be analysed, set up, saved (`tensornet.save`) and loaded.
    """

    guarded: ClassVar[bool] = True
    steps_of_error: ClassVar[int] = 15  # of conjugate gradient, in the loss "error"
    network: Any

    @property
    @abc.abstractmethod
    def root(self) -> Float[Array, " n"]:
        """One over the root of the diagonal, after `setup`."""

    def fallback(self, r: Float[Array, "n *many"]) -> Float[Array, "n *many"]:
        """Apply Jacobi, which takes the place of a network that is not worth its cost."""
        return spread(self.root**2, r) * r

    @abc.abstractmethod
    def misfit(self, graph: Graph, extra: Any, x: Array, b: Array) -> Float[Array, ""]:
        """Return the loss on a scaled matrix and a pair b = A x."""

    @abc.abstractmethod
    def product(self, graph: Graph, extra: Any) -> Callable[[Array], Array]:
        """Return the preconditioner of a scaled matrix as a function, for training."""

    def error(self, graph: Graph, extra: Any, x: Array) -> Float[Array, ""]:
        """Return the logarithm of the share of x's energy that `steps_of_error` steps leave."""
        apply = self.product(graph, extra)
        r = graph.mv(graph.values, x)
        whole, z = _dot(x, r), apply(r)

        def step(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
            e, r, p, rho = carry
            q = graph.mv(graph.values, p)
            alpha = rho / _dot(p, q)
            e, r = e - alpha * p, r - alpha * q
            z = apply(r)
            new = _dot(r, z)
            return (e, r, z + new / rho * p, new), None

        start = (x, r, z, _dot(r, z))
        (e, *_), _ = jax.lax.scan(step, start, None, length=self.steps_of_error)
        return jnp.log(_dot(e, graph.mv(graph.values, e)) / whole)

    def numbered(self, matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
        """Return a scaled matrix with its unknowns in the order that the network sees."""
        return matrix

    def extras(self, matrix: scipy.sparse.csr_array) -> np.ndarray | None:
        """Return what `misfit` needs for each entry of a scaled matrix beside it."""
        del matrix

    def fit(
        self,
        problems: Sequence[Any],
        *,
        key: PRNGKeyArray,
        steps: int = 1000,
        batch_size: int = 4,
        learning_rate: float = 2e-3,
        loss: str = "noise",
        **options: Any,
    ) -> Fit:
        """Train on matrices of any patterns.

        Args:
            problems: matrices (scipy or ours), or problems with a `matrix`.
            key: of all randomness.
            steps: of Adam, its rate falling to zero by a cosine.
            batch_size: matrices a step.
            learning_rate: the first one.
            loss: "noise" (b = A x for random x, which weighs all frequencies alike), "solutions"
                (x solves A x = b for random b, which weighs the low ones), or "error" (what the
                first steps of conjugate gradient leave of the error for random b).
            options: of `tensornet.training.fit` (checkpoints, validation, progress).

        Raises:
            ValueError: no problems, or an unknown loss.
        """
        check_training(problems, loss, LOSSES)
        sides = None if loss == "noise" else _white
        data = collect(self, problems, key, sides=sides)
        return self.trained(
            data, loss, key=key, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
            **options,
        )  # fmt: skip

    def trained(
        self,
        data: dict[str, np.ndarray],
        loss: str,
        *,
        key: PRNGKeyArray,
        steps: int,
        batch_size: int,
        learning_rate: float | int,
        **options: Any,
    ) -> Fit:
        """Train on what `collect` returned; the rest as for `fit`."""
        nodes = data["x"].shape[-1]

        def measure(model: Any, batch: Any, key: PRNGKeyArray) -> Array:
            keys = jax.random.split(key, batch["rows"].shape[0])

            def one(row: Any, key: PRNGKeyArray) -> Array:
                graph = Graph(row["rows"], row["columns"], row["values"], nodes)
                if loss == "noise":
                    x = jax.random.normal(key, (nodes,), row["x"].dtype)
                else:
                    x = row["x"][jax.random.randint(key, (), 0, row["x"].shape[0])]
                x = jnp.where(row["real"], x, 0)
                if loss == "error":
                    return model.error(graph, row["extra"], x)
                return model.misfit(graph, row["extra"], x, graph.mv(row["values"], x))

            return jnp.mean(jax.vmap(one)(batch, keys))

        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(optax.cosine_decay_schedule(learning_rate, steps)),
        )
        return train(
            self,
            measure,
            data,
            key=key,
            optimizer=optimizer,
            steps=steps,
            batch_size=min(batch_size, len(data["x"])),
            trainable=_only_network(self),
            **options,
        )


def check_training(problems: Sequence[Any], loss: str, losses: Sequence[str]) -> None:
    """Check what every `fit` is given.

    Raises:
        ValueError: no problems, or an unknown loss.
    """
    if loss not in losses:
        raise ValueError(f"loss: expected one of {', '.join(losses)}, got {loss!r}")
    if not problems:
        raise ValueError("problems: expected at least one matrix, got none")


def _only_network(model: Learned) -> Any:
    return eqx.tree_at(
        lambda m: m.network,
        jax.tree.map(lambda _: False, model),
        jax.tree.map(lambda _: True, model.network),
    )


def _white(matrix: Any, rng: Any) -> np.ndarray:
    return rng.normal(size=(8, matrix.shape[0]))


def collect(
    model: Learned,
    problems: Sequence[Any],
    key: PRNGKeyArray,
    *,
    sides: Callable[[Any, Any], np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """Return scaled matrices padded to one size, as rows to train on, in float32.

    Args:
        model: gives the numbering and the extras.
        problems: matrices, or problems with one.
        key: of the right-hand sides.
        sides: right-hand sides (samples, n) of a scaled matrix, from a generator, whose solutions
            `x` are trained on; None where none are wanted.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, 7))).ravel())
    graphs = []
    for problem in problems:
        csr: Any = as_host(problem)
        root = scipy.sparse.diags_array(csr.diagonal() ** -0.5)
        scaled: Any = (root @ csr @ root).tocsr()
        scaled.sort_indices()
        scaled = model.numbered(scaled)
        pattern = Pattern(scaled.shape, scaled.indptr, scaled.indices)
        samples = np.zeros((1, scaled.shape[0]))
        if sides is not None:
            solve = scipy.sparse.linalg.factorized(scaled.tocsc())
            samples = np.stack([solve(side) for side in sides(scaled, rng)])
            samples /= np.linalg.norm(samples, axis=1, keepdims=True) / scaled.shape[0] ** 0.5
        extra = model.extras(scaled)
        graphs.append((pattern, scaled.data, samples, extra))
    nodes = max(pattern.shape[0] for pattern, *_ in graphs)
    entries = max(pattern.nnz for pattern, *_ in graphs)

    def padded(x: np.ndarray, size: int, fill: Any) -> np.ndarray:
        room = [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])]
        return np.pad(x, room, constant_values=fill)

    rows = []
    for pattern, values, samples, extra in graphs:
        rows.append(
            {
                "rows": padded(pattern.rows, entries, nodes),
                "columns": padded(pattern.indices, entries, nodes + 1),
                "values": padded(values.astype(np.float32), entries, 0),
                "x": padded(samples.astype(np.float32), nodes, 0),
                "real": padded(np.ones(pattern.shape[0], bool), nodes, False),
                "extra": padded(
                    (np.zeros(pattern.nnz) if extra is None else extra).astype(np.float32),
                    entries,
                    0,
                ),
            }
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def as_host(problem: Any) -> scipy.sparse.csr_array:
    """Return the matrix of a problem, or a matrix itself, on the host."""
    csr: Any = as_matrix(getattr(problem, "matrix", problem)).to_scipy().astype(np.float64)
    return csr
