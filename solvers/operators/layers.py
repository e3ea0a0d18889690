"""What a Fourier neural operator has beside its spectral layers: maps of channels, and norms."""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from tensornet.planner import contract

NORMS = (None, "instance", "group")
_EPS = 1e-5


@jax.checkpoint
def gelu(x: Array, bias: Array | None = None) -> Array:
    """The Gaussian error linear unit, by the exact error function, of x plus a channel's bias.

    Gradients keep the arguments alone.
    """
    if bias is not None:
        x = x + per_channel(bias, x)
    # jax.nn.gelu takes erfc, for the relative precision of its tail, at three times the seconds.
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def widened(x: Array) -> Array:
    """Return an array in single precision at least."""
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def per_channel(values: Array, x: Array) -> Array:
    """Shape a value of each channel so that it goes with `[batch, channels, *grid]`."""
    return values.astype(x.dtype).reshape(1, -1, *(1,) * (x.ndim - 2))


class ChannelLinear(eqx.Module):
    """A linear map of channels at every point, `[batch, in, *grid]` to `[batch, out, *grid]`."""

    weight: Array
    bias: Array | None

    def __init__(
        self, in_channels: int, out_channels: int, *, bias: bool, dtype: Any, key: PRNGKeyArray
    ):
        """Draw weight and bias, uniform up to 1 / sqrt(in)."""
        self.weight, offset = _uniform(key, in_channels, out_channels, dtype)
        self.bias = offset if bias else None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Apply the map, in the input's dtype."""
        y = self.product(x)
        return y if self.bias is None else y + per_channel(self.bias, y)

    def product(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Apply the map without its bias."""
        flat = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
        y = contract("oi,bin->bon", self.weight.astype(x.dtype), flat)
        return y.reshape(y.shape[0], y.shape[1], *x.shape[2:])


class ChannelMLP(eqx.Module):
    """Two linear maps of the channels with a GELU between them."""

    first: ChannelLinear
    second: ChannelLinear

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, *, dtype: Any, key: PRNGKeyArray
    ):
        """Draw both maps."""
        keys = jax.random.split(key)
        self.first = ChannelLinear(in_channels, hidden, bias=True, dtype=dtype, key=keys[0])
        self.second = ChannelLinear(hidden, out_channels, bias=True, dtype=dtype, key=keys[1])

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Apply both maps."""
        return self.second(gelu(self.first.product(x), self.first.bias))


class Norm(eqx.Module):
    """Mean zero and variance one over the grid, of each channel or of all, for each field.

    A constant field becomes zero. `"group"` has a learned scale and offset of each channel.
    """

    scale: Array | None
    offset: Array | None

    def __init__(self, kind: str, channels: int, *, dtype: Any):
        """Start from no scaling."""
        learned = kind == "group"
        self.scale = jnp.ones(channels, dtype) if learned else None
        self.offset = jnp.zeros(channels, dtype) if learned else None

    def __call__(self, x: Float[Array, "..."], *, shard: str | None = None) -> Float[Array, "..."]:
        """Normalize `[batch, channels, *grid]`; with `shard`, a slab of the grid."""
        wide = widened(x)
        axes = tuple(range(2 if self.scale is None else 1, x.ndim))

        def mean(z: Array) -> Array:
            own = jnp.mean(z, axes, keepdims=True)
            return own if shard is None else lax.pmean(own, shard)

        wide = wide - mean(wide)
        wide = wide * lax.rsqrt(mean(wide**2) + _EPS)
        if self.scale is not None and self.offset is not None:
            wide = wide * per_channel(self.scale, wide) + per_channel(self.offset, wide)
        return wide.astype(x.dtype)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _uniform(
    key: PRNGKeyArray, in_channels: int, out_channels: int, dtype: Any
) -> tuple[Array, Array]:
    bound = 1 / math.sqrt(in_channels)
    flat = jax.random.uniform(key, (out_channels, in_channels + 1), dtype, -bound, bound)
    return flat[:, 1:], flat[:, 0]
