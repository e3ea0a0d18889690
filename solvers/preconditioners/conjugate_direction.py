"""Search directions from a convolutional network, for flexible conjugate gradient on grids."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from tensornet import contract
from tensornet.training import Fit
from tensornet.training import fit as train
from tensornet.validation import check_rank, is_traced

from .depthwise import coarser, depthwise, finer
from .graph_network import numbers
from .ritz import left, ritz_samples

COARSEST = 4  # points along an axis, all of which the convolutions reach


class Convolution(eqx.Module):
    """Three points wide: each channel by itself, then a mixture of the channels."""

    places: Float[Array, "channels places"]
    mixture: Float[Array, "channels channels"]

    def __call__(self, h: Float[Array, "channels many *grid"]) -> Array:
        """Convolve."""
        moved = depthwise(self.places.astype(h.dtype), h).reshape(len(h), -1)
        return contract("oc,cn->on", self.mixture.astype(h.dtype), moved).reshape(h.shape)


class Block(eqx.Module):
    """What two convolutions with a ReLU between them add."""

    first: Convolution
    second: Convolution

    def __call__(self, h: Array, mask: Array) -> Array:
        """Add it where there are unknowns."""
        return h + mask * self.second(jax.nn.relu(mask * self.first(h)))


class ConjugateDirection(eqx.Module):
    """Directions d = f(r) for `flexible_cg`, after Kaneda et al. 2022.

    A U-shaped network of convolutions and ReLUs without biases, so that f(c r) = c f(r) for
    c > 0. It halves the grid as often as it can and has the same weights on every resolution, as
    a multigrid cycle for -Laplace has the same smoother (the published network has weights of
    its own on each of two resolutions): trained on a small grid, on a larger one it goes deeper.
    Where there are no unknowns all channels are zero. Neither linear nor symmetric: only
    `flexible_cg` may use it, which makes each direction A-orthogonal to the last two.

    Attributes:
        first: from the residual to the channels.
        down: before a coarser grid is asked.
        up: after its answer is added.
        last: from the channels to the direction.
        free: 1 where there is an unknown, 0 in obstacles, whose rows of A are the identity's; its
            shape is the grid's. None before `on`.
    """

    first: Float[Array, "channels places"]
    down: tuple[Block, ...]
    up: tuple[Block, ...]
    last: Float[Array, "channels places"]
    free: Float[Array, "..."] | None
    dimensions: int = eqx.field(static=True)

    def __init__(
        self,
        free: Any = None,
        *,
        dimensions: int = 3,
        channels: int = 8,
        blocks: int = 1,
        key: PRNGKeyArray | None = None,
    ):
        """Draw the weights.

        Args:
            free: see above.
            dimensions: of the grid, 2 or 3.
            channels: on every resolution.
            blocks: on the way down, and as many up.
            key: of the weights.

        Raises:
            ValueError: an argument out of its range, or a grid of another dimension.
        """
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions: expected 2 or 3, got {dimensions}")
        self.dimensions = dimensions
        channels, blocks = check_rank(channels, "channels"), check_rank(blocks, "blocks")
        keys = iter(jax.random.split(numbers(key), 2 + 8 * blocks))
        places = 3**dimensions

        def block() -> Block:
            scales = (1.4, 0.3)  # ReLUs halve the square; a block changes little at first
            return Block(
                *(
                    Convolution(
                        jax.random.normal(next(keys), (channels, places)) / places**0.5,
                        scale * jax.random.normal(next(keys), (channels,) * 2) / channels**0.5,
                    )
                    for scale in scales
                )
            )

        self.first = jax.random.normal(next(keys), (channels, places)) / places**0.5
        self.last = jax.random.normal(next(keys), (channels, places)) / (channels * places) ** 0.5
        self.down = tuple(block() for _ in range(blocks))
        self.up = tuple(block() for _ in range(blocks))
        self.free = None if free is None else self._checked(free)

    def _checked(self, free: Any) -> Array:
        free = jnp.asarray(free)
        if free.ndim != self.dimensions or 0 in free.shape:
            raise ValueError(
                f"free: expected a grid of {self.dimensions} axes, got shape {free.shape}"
            )
        if not is_traced(free) and not bool(((free == 0) | (free == 1)).all()):
            raise ValueError(
                "free: expected 1 where there is an unknown and 0 elsewhere, got others"
            )
        return free.astype(self.first.dtype)

    def on(self, free: Any) -> "ConjugateDirection":
        """Return the same network on another grid, with other obstacles.

        Raises:
            ValueError: a grid of another dimension, or other numbers than 0 and 1.
        """
        return eqx.tree_at(lambda m: m.free, self, self._checked(free), is_leaf=lambda x: x is None)

    @property
    def dtype(self) -> Any:
        """The precision of the weights, which it is applied in."""
        return self.first.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrices it is for."""
        return self._grid().size, self._grid().size

    def _grid(self) -> Array:
        if self.free is None:
            raise ValueError("ConjugateDirection: expected a grid (on), got none")
        return self.free

    def apply(self, r: Float[Array, "n *many"]) -> Float[Array, "n *many"]:
        """Return the direction for a residual, or for each column.

        Raises:
            ValueError: before `on`, or a residual of another length.
        """
        free = self._grid()
        if r.shape[0] != free.size:
            raise ValueError(f"r: expected {free.size} rows, got shape {r.shape}")
        fields = jnp.moveaxis(r.reshape(*free.shape, -1), -1, 0)
        found = self.directions(fields, free[None])
        return jnp.moveaxis(found, 0, -1).reshape(r.shape)

    def directions(
        self, fields: Float[Array, "many *grid"], free: Float[Array, "masks *grid"]
    ) -> Float[Array, "many *grid"]:
        """Return the direction for each residual, with a mask each or one for all."""
        mask = free.astype(fields.dtype)[None]
        h = jnp.broadcast_to(mask * fields[None], (len(self.first), *fields.shape))
        h = mask * depthwise(self.first.astype(fields.dtype), h)
        h = self._visit(h, mask)
        # Added by a product with ones: XLA's sum of rows as long takes ten times longer on a CPU.
        h = depthwise(self.last.astype(fields.dtype), h)
        ones = jnp.ones((len(h),), h.dtype)
        d = jax.lax.dot(ones, h.reshape(len(h), -1), precision=jax.lax.Precision.HIGHEST)
        d = d.reshape(fields.shape)
        # Rows of obstacles are solved by the residual itself.
        return mask[0] * d + (1 - mask[0]) * fields

    def _visit(self, h: Array, mask: Array) -> Array:
        grid = h.shape[2:]
        for block in self.down:
            h = block(h, mask)
        if max(grid) > COARSEST:
            # With twice the step -Laplace's inverse is four times as large.
            h = h + 4 * mask * finer(self._visit(coarser(h), coarser(mask)), grid)
        for block in self.up:
            h = block(h, mask)
        return h

    def fit(
        self,
        matvec: Callable[[Array, Array], Array],
        frees: Sequence[Any],
        *,
        key: PRNGKeyArray,
        steps: int = 1000,
        batch_size: int = 4,
        samples: int = 100,
        vectors: int = 100,
        learning_rate: float = 5e-3,
        **options: Any,
    ) -> Fit:
        """Train on grids of one size, on combinations of Ritz vectors of their matrices.

        The loss is `|b - alpha A f(b)|^2 / |b|^2` with the step alpha that is best in A's norm; the
        lower half of the Ritz vectors weighs nine times as much in b.

        Args:
            matvec: the product A x of a mask `[*grid]` and a vector `[n]`, traceable.
            frees: the mask of each matrix.
            key: of all randomness.
            steps: of Adam, its rate falling to zero by a cosine.
            batch_size: right-hand sides a step.
            samples: right-hand sides for each matrix.
            vectors: Ritz vectors for each matrix.
            learning_rate: the first one.
            options: of `tensornet.training.fit` (checkpoints, validation, progress).

        Raises:
            ValueError: no masks, or masks of different shapes; numbers out of their range.
        """
        for name, count in (("steps", steps), ("samples", samples), ("vectors", vectors)):
            check_rank(count, name)
        if not learning_rate > 0:
            raise ValueError(f"learning_rate: expected above 0, got {learning_rate}")
        masks = [self._checked(free) for free in frees]
        if not masks or len({mask.shape for mask in masks}) > 1:
            shapes = [mask.shape for mask in masks]
            raise ValueError(f"frees: expected masks of one shape, at least one, got {shapes}")
        stack = jnp.stack(masks)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        product = jax.jit(lambda which, x: matvec(stack[which], x))
        sides = []
        for which, mask in enumerate(masks):
            noise = rng.normal(size=mask.size).astype(np.float32) * np.asarray(mask).ravel()

            def multiply(x: np.ndarray, which: int = which) -> np.ndarray:
                return np.asarray(product(which, jnp.asarray(x)))

            sides.append(ritz_samples(multiply, multiply(noise), vectors, samples, rng))
        data = {
            "b": np.concatenate(sides).reshape(-1, *stack.shape[1:]),
            "matrix": np.repeat(np.arange(len(masks), dtype=np.int32), samples),
        }

        def measure(model: Any, batch: Any, key: PRNGKeyArray) -> Array:
            del key
            free, b = stack[batch["matrix"]], batch["b"]
            d = model.directions(b, free).reshape(len(b), -1)
            b = b.reshape(d.shape)
            return jnp.mean(left(b, d, jax.vmap(matvec)(free, d)))

        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(optax.cosine_decay_schedule(learning_rate, steps)),
        )
        start = eqx.tree_at(lambda m: m.free, self, None, is_leaf=lambda x: x is None)
        return train(
            start, measure, data, key=key, optimizer=optimizer, steps=steps,
            batch_size=batch_size, **options,
        )  # fmt: skip
