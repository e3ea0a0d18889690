"""Our product in a model that is not ours: a network written with e3nn-jax alone.

    python examples/product_in_e3nn.py

The network sends messages between the cubes of eight Tetris pieces and tells which piece it sees,
however turned. Where it multiplies with `e3nn_jax.tensor_product`, one of our products is put: the
network does not change for it. Two pieces are mirror images, which takes pseudoscalars to tell
apart: the pointwise product of functions, the Gaunt product, makes none. With the products of
gradients besides (`paths="all"`) it does.
"""

import functools
from collections.abc import Callable
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from equivariant import gaunt_tensor_product

PIECES = np.array([
    [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]],  # one hand
    [[1, 1, 1], [1, 1, 2], [2, 1, 1], [2, 0, 1]],  # the other
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]],  # square
    [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]],  # line
    [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]],  # corner
    [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]],  # L
    [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 1]],  # T
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 1, 0]],  # zigzag
], float)  # fmt: skip
CHANNELS, DEGREE = 8, 2
PRODUCTS: dict[str, Callable[..., Any]] = {
    "e3nn-jax": e3nn.tensor_product,
    "Gaunt": gaunt_tensor_product,
    "Gaunt, all paths": functools.partial(gaunt_tensor_product, paths="all"),
}


def edges() -> tuple[np.ndarray, np.ndarray]:
    """Return senders and receivers: cubes that touch, of all pieces in one graph."""
    places = (PIECES + 100 * np.arange(8)[:, None, None]).reshape(-1, 3)
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    return np.nonzero((distances > 0) & (distances < 1.1))


def network(product: Callable[..., Any], places: Any, linear: Callable[..., Any]) -> Any:
    """Return eight numbers a piece; `linear` makes its own weights at every call."""
    senders, receivers = edges()
    harmonics = e3nn.spherical_harmonics(
        range(DEGREE + 1), e3nn.IrrepsArray("1o", places[senders] - places[receivers]), True
    )
    x = e3nn.IrrepsArray("0e", jnp.ones((len(places), CHANNELS, 1), places.dtype))
    for _ in range(2):
        messages = product(x[senders], harmonics[:, None])  # <- whichever product
        received = e3nn.scatter_sum(
            messages.filter(lmax=DEGREE), dst=receivers, output_size=len(places)
        )
        x = linear(received, [str(ir) for _, ir in received.irreps.regroup()])
        squares = product(x, x).filter(lmax=DEGREE)
        x = linear(e3nn.concatenate([x, squares]), [str(ir) for _, ir in x.irreps])
    x = linear(e3nn.concatenate([x, product(x, x).filter(lmax=0)]), ["0e", "0o"])
    whole = e3nn.mean(e3nn.IrrepsArray(x.irreps, x.array.reshape(8, 4, CHANNELS, -1)), axis=1)
    even = whole.filter("0e").array[:, :, 0]
    hand = whole.filter("0o").array.sum((1, 2))
    # The first two differ by their hand alone.
    return jnp.stack([even[:, 0] + hand, even[:, 0] - hand, *even[:, 1:7].T], axis=1)


class Linears:
    """Linear maps of e3nn-jax between channels, made at first, then given their weights."""

    def __init__(self, weights: list[Any] | None = None, key: Any = None):
        self.weights, self.key, self.used = weights, key, 0
        self.made: list[Any] = []

    def __call__(self, x: e3nn.IrrepsArray, kinds: list[str]) -> e3nn.IrrepsArray:
        known = {str(ir) for _, ir in x.irreps}
        out = e3nn.Irreps("+".join(f"{CHANNELS}x{kind}" for kind in kinds if kind in known))
        flat = x.axis_to_mul().regroup()
        layer = e3nn.FunctionalLinear(flat.irreps, out)
        if self.weights is None:
            self.key, *keys = jax.random.split(self.key, 1 + len(layer.instructions))
            self.made.append([
                i.weight_std * jax.random.normal(k, i.path_shape)
                for i, k in zip(layer.instructions, keys, strict=True)
            ])  # fmt: skip
        weights = self.made[-1] if self.weights is None else self.weights[self.used]
        self.used += 1
        return jax.vmap(layer, (None, 0))(weights, flat).mul_to_axis(CHANNELS)


def train(product: Callable[..., Any], steps: int) -> tuple[float, float]:
    """Train, and return the share of pieces told right and the change under turns."""
    places = jnp.asarray(PIECES.reshape(-1, 3), jnp.float32)
    weights = jax.jit(lambda: _made(product, places))()
    optimizer = optax.adam(0.02)

    def loss(weights: Any) -> Any:
        told = network(product, places, Linears(weights))
        return optax.softmax_cross_entropy_with_integer_labels(told, jnp.arange(8)).mean()

    def step(state: Any, _: Any) -> Any:
        weights, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(weights), moments)
        return (optax.apply_updates(weights, updates), moments), None

    state = (weights, optimizer.init(weights))
    weights, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=steps)[0])(state)
    turn = e3nn.rand_matrix(jax.random.key(1), ())
    tell = jax.jit(lambda p: network(product, p, Linears(weights)))
    told, turned = tell(places), tell(places @ turn.T)
    right = float(jnp.mean(jnp.argmax(turned, axis=1) == jnp.arange(8)))
    return right, float(jnp.abs(turned - told).max() / jnp.abs(told).max())


def _made(product: Callable[..., Any], places: Any) -> list[Any]:
    linears = Linears(key=jax.random.key(0))
    network(product, places, linears)
    return linears.made


def main(*, steps: int = 200, names: tuple[str, ...] = tuple(PRODUCTS)) -> dict[str, Any]:
    """Train the network with every product, and say what it tells apart."""
    found = {}
    for name in names:
        right, change = train(PRODUCTS[name], steps)
        print(f"{name:17} {right:.0%} of pieces told, {change:.0e} relative change when turned")
        found[name] = right, change
    return found


if __name__ == "__main__":
    main()
