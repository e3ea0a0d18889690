"""Linear maps between irreps: those of one kind are mixed, over channels, and no others."""

import math
from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from tensornet.planner import contract
from tensornet.validation import as_real

from ..coupling.sphere import degrees_of
from ..draw import normal


class Linear(eqx.Module):
    """The general equivariant linear map of `channels` copies of irreps, without constants.

    Attributes:
        weights: for each irrep of the result, `[irreps like it, channels, channels_out]`; normal,
            so that components keep their variance.
        irreps_in, irreps_out: of multiplicity one; an irrep may stand several times.
    """

    weights: tuple[Array, ...]
    irreps_in: Any = eqx.field(static=True)
    irreps_out: Any = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    channels_out: int = eqx.field(static=True)

    def __init__(
        self,
        irreps_in: Any,
        irreps_out: Any = None,
        *,
        channels: int,
        channels_out: int | None = None,
        key: PRNGKeyArray,
    ):
        """Draw the weights.

        Args:
            irreps_in: of the input.
            irreps_out: of the result, those of the input by default.
            channels: of the input.
            channels_out: of the result, `channels` by default.
            key: draws the weights.

        Raises:
            ValueError: multiplicities other than one, or an irrep of the result that the input
                has not.
        """
        self.irreps_in = e3nn.Irreps(irreps_in)
        self.irreps_out = self.irreps_in if irreps_out is None else e3nn.Irreps(irreps_out)
        degrees_of(self.irreps_in, "irreps_in")
        degrees_of(self.irreps_out, "irreps_out")
        self.channels = channels
        self.channels_out = channels if channels_out is None else channels_out
        for name, size in (("channels", self.channels), ("channels_out", self.channels_out)):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size!r}")
        weights = []
        keys = jax.random.split(key, len(self.irreps_out))
        for o, (_, irrep) in enumerate(self.irreps_out):
            like = len(self._like(irrep))
            if not like:
                raise ValueError(
                    f"irreps_out[{o}]: expected an irrep of irreps_in = {self.irreps_in}, got "
                    f"{irrep}"
                )
            shape = (like, self.channels, self.channels_out)
            weights.append(normal(keys[o], shape) / math.sqrt(like * self.channels))
        self.weights = tuple(weights)

    def __call__(self, x: Any) -> Array:
        """Map `[*batch, channels, irreps_in.dim]` to `[*batch, channels_out, irreps_out.dim]`.

        Raises:
            ValueError: a shape that does not fit.
        """
        x = rows(x, self.channels, self.irreps_in)
        flat = x.reshape(-1, *x.shape[-2:])
        parts = []
        for (_, irrep), weights in zip(self.irreps_out, self.weights, strict=True):
            own = weights.astype(x.dtype)
            like = [flat[:, :, s] for s in self._like(irrep)]
            mixed = [contract("bck,cd->bdk", z, own[n]) for n, z in enumerate(like)]
            parts.append(sum(mixed[1:], mixed[0]))
        z = jnp.concatenate(parts, axis=-1)
        return z.reshape(*x.shape[:-2], *z.shape[1:])

    def _like(self, irrep: e3nn.Irrep) -> list[slice]:
        slices = self.irreps_in.slices()
        return [s for (_, own), s in zip(self.irreps_in, slices, strict=True) if own == irrep]


def rows(x: Any, channels: int, irreps: e3nn.Irreps) -> Array:
    """Return `x` as an array `[..., channels, irreps.dim]`.

    Raises:
        ValueError: it has another shape.
        TypeError: it is not float32 or float64.
    """
    x = as_real(x, "x")
    if x.shape[-2:] != (channels, irreps.dim) or x.ndim < 2:
        raise ValueError(
            f"x: expected shape [..., {channels}, {irreps.dim}] for {channels} channels of "
            f"{irreps}, got {x.shape}"
        )
    return x
