"""In which order an array holds channels and components, and to and from ours.

Ours is `"channels-first"`, `[*batch, channels, d]`: components of one channel side by side, which
is what a product with a table takes. `"channels-last"` is `[*batch, d, channels]`. `"mul_ir"` is
e3nn's: `[*batch, channels * d]`, one irrep after the other, and in each one channel after the
other.
"""

from typing import Any

import e3nn_jax as e3nn
import jax.numpy as jnp
from jaxtyping import Array

LAYOUTS = ("channels-first", "channels-last", "mul_ir")


def check_layout(layout: Any) -> None:
    """Require the name of a layout.

    Raises:
        ValueError: it is none.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {LAYOUTS}, got {layout!r}")


def to_channels(x: Array, irreps: e3nn.Irreps, layout: str, argument: str) -> Array:
    """Return `[*batch, channels, d]` from an array in some layout.

    Args:
        x: the array.
        irreps: of one channel, of multiplicity one.
        layout: one of `LAYOUTS`.
        argument: what errors call it.

    Raises:
        ValueError: a shape that does not fit the irreps.
    """
    if layout == "channels-first":
        return x  # whose shape the product itself checks
    if layout == "channels-last":
        if x.ndim < 2 or x.shape[-2] != irreps.dim:
            raise ValueError(
                f"{argument}: expected shape [..., {irreps.dim}, channels] for {irreps}, got "
                f"{x.shape}"
            )
        return x.swapaxes(-1, -2)
    if not x.ndim or not x.shape[-1] or x.shape[-1] % irreps.dim:
        raise ValueError(
            f"{argument}: expected shape [..., channels * {irreps.dim}] for {irreps}, got {x.shape}"
        )
    channels = x.shape[-1] // irreps.dim
    parts = [
        x[..., channels * own.start : channels * own.stop].reshape(*x.shape[:-1], channels, ir.dim)
        for (_, ir), own in zip(irreps, irreps.slices(), strict=True)
    ]
    return jnp.concatenate(parts, axis=-1)


def from_channels(z: Array, irreps: e3nn.Irreps, layout: str) -> Array:
    """Return an array in some layout from `[*batch, channels, d]`; see `to_channels`."""
    if layout == "channels-first":
        return z
    if layout == "channels-last":
        return z.swapaxes(-1, -2)
    parts = [z[..., own].reshape(*z.shape[:-2], -1) for own in irreps.slices()]
    return jnp.concatenate(parts, axis=-1)


def with_channels(irreps: e3nn.Irreps, channels: int) -> e3nn.Irreps:
    """Return the irreps of so many channels side by side, as `"mul_ir"` orders them."""
    return e3nn.Irreps([(channels, ir) for _, ir in irreps])
