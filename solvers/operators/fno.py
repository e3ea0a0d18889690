"""Fourier neural operators, dense and tensorized."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from tensornet.validation import as_real

from .block import Block
from .layers import NORMS, ChannelMLP
from .modes import check_modes
from .spectral import replaced


class FNO(eqx.Module):
    """A Fourier neural operator: it maps fields to fields on whatever grid they are given.

    The coordinates are appended as channels; an MLP lifts the channels to the width; blocks of
    spectral layers follow; an MLP projects to the channels of the result.

    Attributes:
        lifting, blocks, projection: the parts.
        modes: kept of each axis.
        in_channels: of the input, coordinates not counted.
        padding: of zeros on either side of every axis, as a share of its points.
        coordinates: whether they are appended.
        precision: `"full"`, `"mixed"` or `"half"`.
    """

    lifting: ChannelMLP
    blocks: tuple[Block, ...]
    projection: ChannelMLP
    in_channels: int = eqx.field(static=True)
    padding: float = eqx.field(static=True)
    coordinates: bool = eqx.field(static=True)
    precision: str = eqx.field(static=True)

    def __init__(
        self,
        *,
        modes: Any,
        in_channels: int,
        out_channels: int,
        width: int,
        layers: int = 4,
        padding: float | int = 0.0,
        norm: str | None = None,
        preactivation: bool = False,
        coordinates: bool = True,
        factorization: str | None = None,
        rank: Any = None,
        separable: bool = False,
        lifting_ratio: float | int = 2,
        projection_ratio: float | int = 2,
        mlp_ratio: float | int = 0.5,
        precision: str = "full",
        method: str = "auto",
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """Draw the weights.

        Args:
            modes: kept of each of one to three axes. Fewer than the training grid's points keep
                the function the same on finer grids: at half the sampling rate a grid cannot tell
                the phase.
            in_channels: of the input.
            out_channels: of the result.
            width: channels in between.
            layers: how many blocks.
            padding: for functions that are not periodic: a share of every axis's points, added as
                zeros on either side between lifting and projection.
            norm: `None`, `"instance"` (of each channel) or `"group"` (of all, and a learned scale).
            preactivation: see `Block`.
            coordinates: append those of the grid, from 0 up to 1 without it.
            factorization: of the spectral weights, see `SpectralConv`.
            rank: of the same.
            separable: of the same.
            lifting_ratio: hidden channels of the lifting over the width.
            projection_ratio: hidden channels of the projection over the width.
            mlp_ratio: hidden channels of the blocks' MLPs over the width.
            precision: `"full"`; `"mixed"` multiplies frequencies in bfloat16; `"half"` computes the
                blocks in it, too. Weights and Fourier sums stay in single precision.
            method: of the spectral layers.
            dtype: of the weights; the default float when left out.
            key: draws them.

        Raises:
            TypeError, ValueError: an argument is not what it must be; the message says which.
        """
        modes = check_modes(modes)
        counts = {"in_channels": in_channels, "out_channels": out_channels}
        for name, value in (counts | {"width": width, "layers": layers}).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
        if norm not in NORMS:
            raise ValueError(f"norm: expected one of {NORMS}, got {norm!r}")
        if not 0 <= padding < 1:
            raise ValueError(f"padding: expected a share of at least 0 and below 1, got {padding}")
        ratios = {
            "lifting_ratio": lifting_ratio,
            "projection_ratio": projection_ratio,
            "mlp_ratio": mlp_ratio,
        }
        hidden = {name: round(ratio * width) for name, ratio in ratios.items()}
        for name, ratio in ratios.items():
            if hidden[name] < 1:
                raise ValueError(f"{name}: expected at least one channel of {width}, got {ratio}")
        dtype = jax.dtypes.canonicalize_dtype(float) if dtype is None else dtype
        keys = jax.random.split(key, layers + 2)
        self.in_channels, self.padding = in_channels, float(padding)
        self.coordinates, self.precision = coordinates, precision
        given = in_channels + (len(modes) if coordinates else 0)
        self.lifting = ChannelMLP(given, hidden["lifting_ratio"], width, dtype=dtype, key=keys[0])
        self.projection = ChannelMLP(
            width, hidden["projection_ratio"], out_channels, dtype=dtype, key=keys[1]
        )
        self.blocks = tuple(
            Block(
                width,
                modes,
                hidden=hidden["mlp_ratio"],
                norm=norm,
                preactivation=preactivation,
                last=k == layers - 1,
                dtype=dtype,
                key=keys[2 + k],
                factorization=factorization,
                rank=rank,
                separable=separable,
                precision=precision,
                method=method,
            )
            for k in range(layers)
        )

    @property
    def modes(self) -> tuple[int, ...]:
        """Kept of each axis."""
        return self.blocks[0].spectral.modes

    @property
    def out_channels(self) -> int:
        """Of the result."""
        return self.projection.second.weight.shape[0]

    @property
    def n_parameters(self) -> int:
        """How many real numbers are learned."""
        leaves = jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array))
        return sum(leaf.size for leaf in leaves)

    def with_modes(self, modes: Any) -> "FNO":
        """Return the model with other modes kept in every layer, at most those it was made with.

        Raises:
            ValueError: more than there are weights for.
        """
        changed = [replaced(b, spectral=b.spectral.with_modes(modes)) for b in self.blocks]
        return replaced(self, blocks=tuple(changed))

    def __call__(
        self, x: Float[ArrayLike, "..."], *, shard: str | None = None
    ) -> Float[Array, "..."]:
        """Map fields.

        Args:
            x: `[*batch, in_channels, *grid]`.
            shard: see `split_domain`.

        Returns:
            `[*batch, out_channels, *grid]`.

        Raises:
            ValueError: another number of channels or axes, more modes than points.
        """
        d = len(self.modes)
        x = as_real(x, "x")
        if x.ndim < d + 1 or x.shape[-d - 1] != self.in_channels:
            raise ValueError(
                f"x: expected [*batch, {self.in_channels} channels, {d} axes], got {x.shape}"
            )
        if shard is not None and self.padding:
            raise ValueError(f"padding: expected none for a split field, got {self.padding}")
        batch, grid = x.shape[: -d - 1], x.shape[-d:]
        x = x.reshape(math.prod(batch), *x.shape[-d - 1 :])
        if self.coordinates:
            here = _coordinates(grid, x.dtype, shard)
            x = jnp.concatenate([x, jnp.broadcast_to(here, (len(x), *here.shape))], axis=1)
        y = self.lifting(x)
        margins = [round(self.padding * n) for n in grid]
        y = jnp.pad(y, [(0, 0), (0, 0), *((m, m) for m in margins)])
        if self.precision == "half":
            y = y.astype(jnp.bfloat16)
        for block in self.blocks:
            y = block(y, shard=shard)
        y = y[(..., *(slice(m, m + n) for m, n in zip(margins, grid, strict=True)))]
        y = self.projection(y.astype(x.dtype))
        return y.reshape(*batch, *y.shape[1:])


class TFNO(FNO):
    """A Fourier neural operator whose spectral weights are tensors in factored form.

    Source: Kossaifi et al., Multi-grid tensorized Fourier neural operator, arXiv 2310.00120 (2023).
    """

    def __init__(self, *, factorization: str = "tucker", rank: Any = 0.1, **options: Any):
        """Draw the weights.

        Args:
            factorization: `"tucker"`, `"cp"`, `"tt"` or `"tr"`.
            rank: a share of the dense parameters, or ranks, see `ranks_of`.
            options: those of `FNO`.

        Raises:
            TypeError, ValueError: an argument is not what it must be; the message says which.
        """
        super().__init__(factorization=factorization, rank=rank, **options)


def split_domain(model: FNO, mesh: jax.sharding.Mesh, axis: str) -> Any:
    """Return the model as a function of fields whose first axis lies split over devices.

    Each spectral layer sums its truncated spectrum over the devices, in one all-reduce; nothing
    else is sent. The result is that of the whole field.

    Args:
        model: without padding.
        mesh: of devices.
        axis: its axis that the first axis of the grid is split over, in equal parts.

    Raises:
        ValueError: no such axis of the mesh, or padding.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"axis: expected one of {mesh.axis_names}, got {axis!r}")
    if model.padding:
        raise ValueError(f"padding: expected none for a split field, got {model.padding}")
    spec = jax.sharding.PartitionSpec(None, None, axis)
    weights, rest = eqx.partition(model, eqx.is_array)

    def local(weights: Any, x: Array) -> Array:
        return eqx.combine(weights, rest)(x, shard=axis)

    split = jax.shard_map(
        local, mesh=mesh, in_specs=(jax.sharding.PartitionSpec(), spec), out_specs=spec
    )
    return lambda x: split(weights, x)


def _coordinates(grid: tuple[int, ...], dtype: Any, shard: str | None) -> Array:
    axes = [jnp.asarray(np.arange(n) / n, dtype) for n in grid]
    if shard is not None:
        count = jax.lax.axis_size(shard)
        start = jax.lax.axis_index(shard).astype(dtype)
        axes[0] = (axes[0] + start) / count
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"))
