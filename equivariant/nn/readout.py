"""From features to one invariant number a node."""

import math
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from tensornet.planner import contract

from ..draw import normal
from .linear import rows


class Readout(eqx.Module):
    """A function of the even scalars of all channels: linear, or with one hidden layer.

    Attributes:
        first: `[scalars, width]`, or `[scalars, 1]` where the readout is linear.
        second: `[width, 1]`, or None.
        irreps: of the input.
    """

    first: Array
    second: Array | None
    irreps: Any = eqx.field(static=True)
    channels: int = eqx.field(static=True)

    def __init__(self, irreps: Any, *, channels: int, width: int | None = None, key: PRNGKeyArray):
        """Draw the weights.

        Args:
            irreps: of the input; all but its even scalars are ignored.
            channels: of the input.
            width: of the hidden layer (SiLU); none by default.
            key: draws the weights.

        Raises:
            ValueError: no even scalar among the irreps, or a width below 1.
        """
        self.irreps, self.channels = e3nn.Irreps(irreps), channels
        scalars = channels * len(self._scalars())
        if not scalars:
            raise ValueError(f"irreps: expected a 0e to read, got {self.irreps}")
        if width is not None and width < 1:
            raise ValueError(f"width: expected at least 1, got {width!r}")
        one, two = jax.random.split(key)
        shape = (scalars, 1 if width is None else width)
        self.first = normal(one, shape) / math.sqrt(scalars)
        self.second = None if width is None else normal(two, (width, 1)) / math.sqrt(width)

    def _scalars(self) -> np.ndarray:
        places = [s.start for s in self.irreps.slices()]
        return np.array([p for p, (_, ir) in zip(places, self.irreps, strict=True) if ir == "0e"])

    def __call__(self, x: Any) -> Array:
        """Return `[*batch]` of `[*batch, channels, irreps.dim]`.

        Raises:
            ValueError: a shape that does not fit.
        """
        x = rows(x, self.channels, self.irreps)
        z = x[..., self._scalars()].reshape(-1, len(self.first))
        z = contract("bs,sw->bw", z, self.first.astype(x.dtype))
        if self.second is not None:
            z = contract("bw,wo->bo", jax.nn.silu(z), self.second.astype(x.dtype))
        return z.reshape(x.shape[:-2])
