"""A tensor product as a module of flax's nnx."""

from typing import Any

import equinox as eqx
from flax import nnx  # pyright: ignore[reportMissingImports]

from ..tensor_product import TensorProduct


class NNXTensorProduct(nnx.Module):
    """`TensorProduct` with its weights as an `nnx.Param`.

    Attributes:
        weights: learned; None where the map has none.
        product: the same without weights.
    """

    def __init__(self, *irreps: Any, rngs: nnx.Rngs, **options: Any):
        """Make the product.

        Args:
            irreps: of both inputs and the result.
            rngs: whose stream `params` draws the weights.
            options: of `TensorProduct`, without its key.
        """
        made = TensorProduct(*irreps, key=rngs.params(), **options)
        self.weights = None if made.weights is None else nnx.Param(made.weights)
        self.product = nnx.static(eqx.tree_at(_weights, made, None, is_leaf=lambda x: x is None))

    def __call__(self, x: Any, y: Any, weights: Any = None, *, layout: str = "channels-first"):
        """Compute the product; arguments are those of `TensorProduct`."""
        if weights is None and self.weights is not None:
            weights = self.weights[...].astype(x.dtype)
        return self.product(x, y, weights, layout=layout)


def _weights(product: TensorProduct) -> Any:
    return product.weights
