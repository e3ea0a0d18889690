"""Search directions from a network on a matrix's graph, for flexible conjugate gradient."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from tensornet.training import Fit
from tensornet.validation import check_rank

from ..sparse import from_pattern
from ..sparse.matrix import spread, take_or_zero
from .base import pattern_of
from .chebyshev import coefficients
from .graph_network import Graph, GraphNetwork, numbers, scaled
from .learned import Learned, check_training, collect
from .ritz import left, ritz_samples

LOSSES = ("error", "step")
RATIO = 60.0  # of the ends of the interval that an untrained network's polynomial is smallest on


class DirectionNetwork(eqx.Module):
    """Messages along the entries of a matrix S with ones on its diagonal.

    Each of the steps k, from x = 0, sends two messages and adds d to x: M r along entries that
    another network gives, d = a_k d + b_k M r, and S d, which is taken from r.

    Attributes:
        messages: gives what is added to the identity in M.
        scalars: a and b of each step, for matrices whose largest eigenvalue is at most 1.
    """

    messages: GraphNetwork
    scalars: Float[Array, "steps 2"]

    def __call__(
        self,
        product: Callable[[Array], Array],
        learned: Callable[[Array], Array],
        largest: Float[Array, ""],
        r: Float[Array, "n *many"],
    ) -> Float[Array, "n *many"]:
        """Return x for a residual, or for each column.

        Args:
            product: of S.
            learned: of M.
            largest: what bounds S's eigenvalues.
            r: the residual, of the scaled system.
        """
        ones = jnp.ones_like(largest)
        scalars = self.scalars.astype(r.dtype) * jnp.stack([ones, 1 / largest])[None]
        d = scalars[0, 1] * learned(r)

        def step(carry: tuple[Array, ...], scalars: Array) -> tuple[tuple[Array, ...], None]:
            d, x, r = carry
            r = r - product(d)
            d = scalars[0] * d + scalars[1] * learned(r)
            return (d, x + d, r), None

        return jax.lax.scan(step, (d, d, r), scalars[1:])[0][1]


class GraphDirection(Learned):
    """Directions d = f(r) for `flexible_cg`, on the graph of any matrix: no grid is needed.

    The form on graphs of the deep conjugate direction method (Kaneda et al. 2022, there a
    convolutional network), with what Lan et al. (ICML 2024) changed: f is linear in r, so
    f(c r) = c f(r) for every c, and the network's ReLUs are in what makes its coefficients of the
    matrix, once in `setup`. Renumbering the unknowns renumbers the answer. Before training M is
    the identity and f the Chebyshev iteration with Jacobi. On one level: it reaches as far as
    `2 * degree - 1` entries, and hardly further than a polynomial of S that does.

    Symmetric in exact arithmetic, but definite only as far as training made it so: for
    `flexible_cg`, which tries it beside Jacobi first, as `pcg` does with all of `Learned`.

    Attributes:
        network: see `DirectionNetwork`.
    """

    steps_of_error: ClassVar[int] = 4
    network: DirectionNetwork

    def __init__(
        self,
        A: Any = None,
        *,
        network: DirectionNetwork | None = None,
        degree: int = 4,
        width: int = 8,
        rounds: int = 2,
        key: PRNGKeyArray | None = None,
    ):
        """Draw the weights, and take a matrix if there is one.

        Args:
            A: a matrix to analyse and set up.
            network: weights; drawn when left out.
            degree: steps of the iteration: so many products with M, one fewer with S.
            width: of the states from which M's entries are made.
            rounds: of messages that make them.
            key: of the weights.

        Raises:
            ValueError: an argument out of its range.
        """
        degree = check_rank(degree, "degree")
        width, rounds = check_rank(width, "width"), check_rank(rounds, "rounds")
        if network is None:
            messages = GraphNetwork.build(width, rounds, numbers(key), sides=False)
            scalars = jnp.asarray(coefficients(RATIO, degree), messages.decoder[1].bias.dtype)
            network = DirectionNetwork(messages, scalars)
        self.network = network
        self._begin(A)

    @property
    def root(self) -> Float[Array, " n"]:  # noqa: D102
        return self.state[0]

    def _analyse(self, matrix: Any) -> Any:
        pattern = pattern_of(matrix)
        across = pattern.find(pattern.indices, pattern.rows)
        places = (pattern.rows, pattern.indices, pattern.diagonal, across)
        layout = from_pattern(pattern, np.zeros(pattern.nnz, np.float32))
        return tuple(jnp.asarray(x) for x in places), layout

    def _setup(self, values: Array) -> Any:
        (rows, columns, diagonal, across), layout = self.analysis
        graph, root = scaled(rows, columns, values, take_or_zero(values, diagonal))
        entries = self.entries(graph)
        learned = layout.with_data((entries + take_or_zero(entries, across)) / 2)
        largest = bound(layout.with_data(jnp.abs(graph.values)).mv, jnp.ones_like(root))
        return root, largest, layout.with_data(graph.values), learned

    def _apply(self, r: Array) -> Array:
        root, largest, matrix, learned = self.state
        inner = self.network(matrix.mv, learned.mv, largest, spread(root, r) * r)
        return spread(root, r) * inner

    def entries(self, graph: Graph) -> Float[Array, " entries"]:
        """Return entries whose symmetric part is M."""
        return graph.diagonal.astype(graph.values.dtype) + self.network.messages(graph)

    def product(self, graph: Graph, extra: Any) -> Callable[[Array], Array]:
        """Return f of a scaled matrix."""
        del extra
        entries, size = self.entries(graph), jnp.abs(graph.values)

        def learned(x: Array) -> Array:
            return (graph.mv(entries, x) + graph.transposed_mv(entries, x)) / 2

        ones = jnp.ones(graph.nodes, graph.values.dtype)
        largest = bound(lambda x: graph.mv(size, x), ones)
        return lambda r: self.network(lambda x: graph.mv(graph.values, x), learned, largest, r)

    def misfit(self, graph: Graph, extra: Any, x: Array, b: Array) -> Float[Array, ""]:
        """Return the share of `|b|^2` that one step along f(b) leaves."""
        del x
        d = self.product(graph, extra)(b)
        return left(b, d, graph.mv(graph.values, d))

    def fit(
        self,
        problems: Sequence[Any],
        *,
        key: PRNGKeyArray,
        steps: int = 600,
        batch_size: int = 4,
        learning_rate: float | int = 1e-2,
        loss: str = "error",
        samples: int = 50,
        vectors: int = 100,
        **options: Any,
    ) -> Fit:
        """Train on matrices of any patterns, on combinations of their Ritz vectors.

        The lower half of the Ritz vectors weighs nine times as much in a right-hand side b.

        Args:
            problems: matrices (scipy or ours), or problems with a `matrix`.
            key: of all randomness.
            steps: of Adam, its rate falling to zero by a cosine.
            batch_size: matrices a step.
            learning_rate: the first one.
            loss: "error", what `steps_of_error` steps of conjugate gradient leave of the error;
                or "step", the published one, `|b - alpha A f(b)|^2 / |b|^2` with the step alpha
                that is best in A's norm, as of `ConjugateDirection`: a tenth more iterations.
            samples: right-hand sides for each matrix.
            vectors: Ritz vectors for each matrix.
            options: of `tensornet.training.fit` (checkpoints, validation, progress).

        Raises:
            ValueError: no problems, an unknown loss, or numbers out of their range.
        """
        check_training(problems, loss, LOSSES)
        counts = {"steps": steps, "batch_size": batch_size, "samples": samples, "vectors": vectors}
        for name, count in counts.items():
            check_rank(count, name)
        if not learning_rate > 0:
            raise ValueError(f"learning_rate: expected above 0, got {learning_rate}")

        def sides(matrix: Any, rng: Any) -> np.ndarray:
            begin = matrix @ rng.normal(size=matrix.shape[0])
            return ritz_samples(lambda x: matrix @ x, begin, vectors, samples, rng)

        return self.trained(
            collect(self, problems, key, sides=sides), loss, key=key, steps=steps,
            batch_size=batch_size, learning_rate=learning_rate, **options,
        )  # fmt: skip


def bound(
    product: Callable[[Array], Array], start: Float[Array, " n"], steps: int = 8
) -> Float[Array, ""]:
    """Return an upper bound of a matrix's eigenvalues from products with its entries' sizes |S|.

    It is the largest of (|S| v)_i / v_i, which bounds them for any v > 0 (Collatz and Wielandt),
    here after steps of the power method; the same in every numbering, unlike a Ritz value from
    a random start. Rows that have no entries are left out.
    """

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        v, _largest = carry
        w = product(v)
        largest = jnp.max(jnp.where(v > 0, w / jnp.where(v > 0, v, 1), 0))
        return (w / largest, largest), None

    return jax.lax.scan(step, (start, start[0]), None, length=steps)[0][1]
