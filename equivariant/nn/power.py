"""Many-body features: powers of a function on the sphere, taken point by point."""

import math
from functools import lru_cache
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from tensornet.planner import contract

from ..coupling.quadrature import grid
from ..coupling.sphere import analysis, degrees_of, synthesis
from ..draw import normal
from .linear import rows


class ManyBody(eqx.Module):
    """The sum over n up to `order` of w_n,l (f^n)_l, where f is the function with coefficients x.

    f^n correlates n neighbours with each other. On a grid of points that is exact for the degrees
    at hand, a power costs one product a point. Weights belong to a species, a channel, a power and
    a degree of the result.

    Attributes:
        weights: `[species, order, channels, irreps of the result]`.
        irreps_in, irreps_out: natural parity (0e, 1o, 2e, ...), multiplicity one.
        order: the largest power.
    """

    weights: Array
    irreps_in: Any = eqx.field(static=True)
    irreps_out: Any = eqx.field(static=True)
    order: int = eqx.field(static=True)

    def __init__(
        self,
        irreps_in: Any,
        irreps_out: Any = None,
        *,
        order: int,
        channels: int,
        species: int = 1,
        key: PRNGKeyArray,
    ):
        """Draw the weights.

        Args:
            irreps_in: of the input.
            irreps_out: of the result, those of the input by default.
            order: 1 to 4.
            channels: of input and result.
            species: how many sets of weights there are.
            key: draws the weights.

        Raises:
            ValueError: an order out of range, or irreps of other parity or multiplicity.
        """
        if not 1 <= order <= 4:
            raise ValueError(f"order: expected 1 to 4, got {order!r}")
        self.irreps_in = e3nn.Irreps(irreps_in)
        self.irreps_out = self.irreps_in if irreps_out is None else e3nn.Irreps(irreps_out)
        for name in ("irreps_in", "irreps_out"):
            irreps = getattr(self, name)
            degrees_of(irreps, name)
            for position, (_, irrep) in enumerate(irreps):
                if irrep.p != (-1) ** irrep.l:
                    raise ValueError(
                        f"{name}[{position}]: expected a function on the sphere, of parity "
                        f"(-1)^l, got {irrep}"
                    )
        self.order = order
        shape = (species, order, channels, len(self.irreps_out))
        self.weights = normal(key, shape) / math.sqrt(order)

    def __call__(self, x: Any, species: Any = None) -> Array:
        """Apply to `[nodes, channels, irreps_in.dim]`.

        Args:
            x: coefficients, in e3nn-jax's component normalisation.
            species: `[nodes]`, which weights to take; the first by default.

        Raises:
            ValueError: a shape that does not fit, or several species and none given.
        """
        x = rows(x, self.weights.shape[2], self.irreps_in)
        weights = self.weights.astype(x.dtype)
        if species is None:
            if len(weights) > 1:
                raise ValueError(f"species: expected one of {len(weights)} per node, got None")
            weights = weights[0]
        else:
            weights = weights[jnp.asarray(species)]
        into, back = (jnp.asarray(t, x.dtype) for t in _tables(self))
        spread = np.repeat(np.arange(len(self.irreps_out)), [ir.dim for _, ir in self.irreps_out])
        flat = x.reshape(-1, x.shape[-1])
        values = contract("bi,qi->bq", flat, into)
        power, total = jnp.ones_like(values), jnp.zeros((), x.dtype)
        for n in range(self.order):
            power = power * values
            part = contract("bq,kq->bk", power, back).reshape(*x.shape[:-1], -1)
            factors = weights[..., n, :, :][..., spread]
            factors = jnp.expand_dims(factors, tuple(range(part.ndim - factors.ndim)))
            total = total + part * factors
        return total


@lru_cache(maxsize=64)
def _exact(
    irreps_in: e3nn.Irreps, irreps_out: e3nn.Irreps, order: int
) -> tuple[np.ndarray, np.ndarray]:
    points = grid(order * max(degrees_of(irreps_in)) + max(degrees_of(irreps_out)))
    return synthesis(irreps_in, points), analysis(irreps_out, points)


def _tables(layer: ManyBody) -> tuple[np.ndarray, np.ndarray]:
    return _exact(layer.irreps_in, layer.irreps_out, layer.order)
