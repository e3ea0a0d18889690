"""The gate: a nonlinearity of scalars, by which all else is scaled."""

from collections.abc import Callable
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .linear import Linear, rows


class Gate(eqx.Module):
    """Even scalars go through `activation`; each other irrep is scaled by a gate.

    The gates of a channel are the sigmoid of a learned linear map of the even scalars of all
    channels: invariant numbers, so the layer is equivariant.

    Attributes:
        gates: the linear map; None where there is nothing to gate.
        irreps: of input and result.
        activation: of the even scalars.
    """

    gates: Linear | None
    irreps: Any = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        irreps: Any,
        *,
        channels: int,
        activation: Callable[[Array], Array] = jax.nn.silu,
        key: PRNGKeyArray,
    ):
        """Draw the weights of the gates.

        Raises:
            ValueError: no even scalar among the irreps, or multiplicities other than one.
        """
        self.irreps, self.channels, self.activation = e3nn.Irreps(irreps), channels, activation
        scalars = [ir for _, ir in self.irreps if (ir.l, ir.p) == (0, 1)]
        if not scalars:
            raise ValueError(f"irreps: expected a 0e, by which to gate the others, got {irreps}")
        gated = len(self.irreps) - len(scalars)
        kinds = e3nn.Irreps([(1, ir) for ir in scalars])
        out = e3nn.Irreps("+".join(["0e"] * gated))
        self.gates = Linear(kinds, out, channels=channels, key=key) if gated else None

    def __call__(self, x: Any) -> Array:
        """Apply to `[*batch, channels, irreps.dim]`.

        Raises:
            ValueError: a shape that does not fit.
        """
        x = rows(x, self.channels, self.irreps)
        scalar = np.concatenate([np.full(ir.dim, ir == "0e") for _, ir in self.irreps])
        scalars = x[..., np.flatnonzero(scalar)]
        active = self.activation(scalars)
        if self.gates is None:
            return active
        rest = x[..., np.flatnonzero(~scalar)]
        others = e3nn.Irreps([(1, ir) for _, ir in self.irreps if ir != "0e"])
        spread = np.repeat(np.arange(len(others)), [ir.dim for _, ir in others])
        gated = rest * jax.nn.sigmoid(self.gates(scalars))[..., spread]
        order = np.argsort(np.concatenate([np.flatnonzero(scalar), np.flatnonzero(~scalar)]))
        return jnp.concatenate([active, gated], axis=-1)[..., order]
