"""One block of a Fourier neural operator."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .layers import ChannelLinear, ChannelMLP, Norm, gelu, per_channel, widened
from .spectral import SpectralConv


class Block(eqx.Module):
    """A spectral layer and an MLP of the channels, each with a skip beside it.

    In turn: the spectral layer, norm, plus a linear map of the input, GELU; the MLP, plus the input
    times a learned gate for each channel, norm, GELU. The last block leaves both GELUs out. With
    preactivation, GELU and norm come before the spectral layer and before the skips, and the
    second norm before the MLP.

    Source: Kossaifi et al., Multi-grid tensorized Fourier neural operator, arXiv 2310.00120 (2023).
    """

    spectral: SpectralConv
    skip: ChannelLinear
    gate: Array
    mlp: ChannelMLP
    norms: tuple[Norm, Norm] | None
    preactivation: bool = eqx.field(static=True)
    last: bool = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        modes: tuple[int, ...],
        *,
        hidden: int,
        norm: str | None,
        preactivation: bool,
        last: bool,
        dtype: Any,
        key: PRNGKeyArray,
        **options: Any,
    ):
        """Draw the weights; `options` are those of `SpectralConv`."""
        keys = jax.random.split(key, 3)
        self.spectral = SpectralConv(width, width, modes, dtype=dtype, key=keys[0], **options)
        self.skip = ChannelLinear(width, width, bias=False, dtype=dtype, key=keys[1])
        self.gate = jnp.ones(width, dtype)
        self.mlp = ChannelMLP(width, hidden, width, dtype=dtype, key=keys[2])
        self.norms = None
        if norm is not None:
            self.norms = (Norm(norm, width, dtype=dtype), Norm(norm, width, dtype=dtype))
        self.preactivation, self.last = preactivation, last

    def __call__(self, x: Float[Array, "..."], *, shard: str | None = None) -> Float[Array, "..."]:
        """Apply the block to `[batch, width, *grid]`."""

        def norm(which: int, z: Array) -> Array:
            return z if self.norms is None else self.norms[which](z, shard=shard)

        def activation(z: Array) -> Array:
            return z if self.last else gelu(z)

        if self.preactivation:
            x = norm(0, gelu(x))
        gate = per_channel(self.gate, x)
        y = self.spectral(widened(x), shard=shard).astype(x.dtype)
        if not self.preactivation:
            y = norm(0, y)
        y = activation(y + self.skip(x))
        if self.preactivation:
            return self.mlp(norm(1, y)) + gate * x
        return activation(norm(1, self.mlp(y) + gate * x))
