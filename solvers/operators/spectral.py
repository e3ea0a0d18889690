"""The spectral layer: a learned multiplication of the lowest frequencies, channels mixed."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from tensornet.validation import as_real

from .modes import check_grid, check_modes, kept
from .program import METHODS, Layer, Program, choose
from .weight import Weight, check_factorization, random_weight

PRECISIONS = ("full", "mixed", "half")


class SpectralConv(eqx.Module):
    """A convolution with a learned periodic kernel of few frequencies.

    The field's lowest frequencies are multiplied by a complex matrix each, from the input's to the
    output's channels, and all others dropped; then a bias is added. What is computed depends on
    the modes alone; how (Fourier transforms or matrices, factorized or rebuilt weight, in which
    order) is chosen for the shapes at hand.

    Attributes:
        weight: an array or a format, [modes, in, out] or [modes, channels]; see `weight.py`.
        bias: [out], or None.
        modes: kept now, of each axis.
        most_modes: the weight's own; fewer are kept while modes are added step by step.
        separable: whether each channel is convolved by itself.
        precision: `"full"`, or `"mixed"`: frequencies are multiplied in bfloat16, whose range is
            that of float32. `"half"` is the same here; a model computes all else in it, too.
        method: `"auto"`, or one of `program.METHODS`.
    """

    weight: Weight
    bias: Array | None
    modes: tuple[int, ...] = eqx.field(static=True)
    most_modes: tuple[int, ...] = eqx.field(static=True)
    separable: bool = eqx.field(static=True)
    precision: str = eqx.field(static=True)
    method: str = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Any,
        *,
        factorization: str | None = None,
        rank: Any = None,
        separable: bool = False,
        bias: bool = True,
        precision: str = "full",
        method: str = "auto",
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """Draw the weight.

        Args:
            in_channels: of the field.
            out_channels: of the result.
            modes: of each of one to three axes. Of the last one `modes // 2 + 1` are kept: those
                of negative frequency follow from them.
            factorization: `None`, `"tucker"`, `"cp"`, `"tt"` or `"tr"`.
            rank: a share of the dense parameters, or ranks, see `ranks_of`.
            separable: convolve each channel by itself.
            bias: add one.
            precision: see above.
            method: see above.
            dtype: of the weights; the default float when left out.
            key: draws them. The entries of the weight, multiplied out, have variance
                2 / (in + out).

        Raises:
            TypeError, ValueError: an argument is not what it must be; the message says which.
        """
        self.modes = self.most_modes = check_modes(modes)
        check_factorization(factorization, rank)
        for name, value in {"in_channels": in_channels, "out_channels": out_channels}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
        if separable and in_channels != out_channels:
            raise ValueError(
                f"out_channels: expected {in_channels} (in_channels) where separable, "
                f"got {out_channels}"
            )
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")
        if method not in ("auto", *METHODS):
            raise ValueError(f"method: expected one of {('auto', *METHODS)}, got {method!r}")
        self.separable, self.precision, self.method = separable, precision, method
        *others, last = kept(self.modes)
        channels = (in_channels,) if separable else (in_channels, out_channels)
        dtype = jax.dtypes.canonicalize_dtype(float) if dtype is None else dtype
        self.weight = random_weight(
            factorization,
            (*others, 2 * last, *channels),
            rank,
            # A complex entry has twice the variance of its parts.
            deviation=1 / math.sqrt(in_channels + out_channels),
            key=key,
            dtype=dtype,
        )
        self.bias = jnp.zeros(out_channels, dtype) if bias else None

    @property
    def channels(self) -> tuple[int, int]:
        """Of the input and of the output."""
        shape = self.weight.shape
        return shape[len(self.modes)], shape[-1]

    def with_modes(self, modes: Any) -> "SpectralConv":
        """Return the layer with other modes kept, at most the weight's own.

        Raises:
            ValueError: more than there are weights for.
        """
        chosen = check_modes(modes)
        if len(chosen) != len(self.modes):
            raise ValueError(f"modes: expected {len(self.modes)} axes, got {len(chosen)}")
        for k, (m, most) in enumerate(zip(chosen, self.most_modes, strict=True)):
            if m > most:
                raise ValueError(f"modes[{k}]: expected at most {most} (the weight's), got {m}")
        return replaced(self, modes=chosen)

    def active_weight(self) -> Weight:
        """The weight of the modes that are kept now: its middle, along the last axis its start."""
        if self.modes == self.most_modes:
            return self.weight
        pairs = zip(self.modes[:-1], self.most_modes[:-1], strict=True)
        middle = [slice(most // 2 - m // 2, most // 2 - m // 2 + m) for m, most in pairs]
        weight: Any = self.weight
        return weight[(*middle, slice(2 * kept(self.modes)[-1]), ...)]

    def __call__(
        self, x: Float[ArrayLike, "..."], *, shard: str | None = None
    ) -> Float[Array, "..."]:
        """Convolve.

        Args:
            x: `[*batch, in, *grid]`.
            shard: inside `jax.shard_map`, the name of the axis of devices along which the first
                axis of the grid is split: `x` is one slab.

        Raises:
            ValueError: another number of channels or axes, more modes than points.
        """
        d = len(self.modes)
        x = as_real(x, "x")
        self._check(x)
        grid = _whole_grid(x.shape[-d:], shard)
        check_grid(self.modes, grid)
        batch, fields = x.shape[: -d - 1], x.reshape(-1, *x.shape[-d - 1 :])
        program = self._program(fields.shape[0], grid, x.dtype, sharded=shard is not None)[1]
        low = jnp.bfloat16 if self.precision != "full" else x.dtype
        weight = jax.tree.map(lambda w: w.astype(low), self.active_weight())
        y = program.run(fields, weight, shard)
        if self.bias is not None:
            y = y + self.bias.astype(y.dtype).reshape(1, -1, *(1,) * d)
        return y.reshape(*batch, *y.shape[1:])

    def choice(
        self, shape: Sequence[int], *, dtype: Any = None, gradients: bool = True
    ) -> tuple[str, str]:
        """Name the method for fields of a shape `[*batch, in, *grid]`, and tabulate all."""
        d = len(self.modes)
        dtype = np.dtype(self.weight.dtype if dtype is None else dtype)
        made = self._program(math.prod(shape[: -d - 1]), tuple(shape[-d:]), dtype, gradients)
        return made[0], made[2]

    def _program(
        self,
        batch: int,
        grid: tuple[int, ...],
        dtype: Any,
        gradients: bool = True,
        *,
        sharded: bool = False,
    ) -> tuple[str, Program, str]:
        layer = Layer.of(
            self.active_weight(),
            batch=batch,
            modes=self.modes,
            grid=grid,
            channels=self.channels,
            separable=self.separable,
            dtype=str(dtype),
            low="bfloat16" if self.precision != "full" else str(dtype),
            gradients=gradients,
            device=jax.default_backend(),
        )
        return choose(layer, self.method, sharded)

    def _check(self, x: Array) -> None:
        d = len(self.modes)
        wanted = self.channels[0]
        if x.ndim < d + 1:
            raise ValueError(f"x: expected [*batch, {wanted} channels, {d} axes], got {x.shape}")
        if x.shape[-d - 1] != wanted:
            raise ValueError(f"x: expected {wanted} channels, got {x.shape[-d - 1]} ({x.shape})")


def replaced(module: Any, **fields: Any) -> Any:
    """Return a copy of a module with other values of some fields, static ones included."""
    new = object.__new__(type(module))
    for field in dataclasses.fields(module):
        value = fields.get(field.name, getattr(module, field.name))
        object.__setattr__(new, field.name, value)
    return new


def _whole_grid(grid: tuple[int, ...], shard: str | None) -> tuple[int, ...]:
    return grid if shard is None else (grid[0] * jax.lax.axis_size(shard), *grid[1:])
