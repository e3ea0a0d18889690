"""Between a field and its kept frequencies: FFT, or truncated Fourier sums as matrix products."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from tensornet.planner import Plan, Work, plan

from .modes import forward_tables, frequencies, inverse_tables, kept

GRID = "mnl"  # labels of the axes of a field, b and i (or o) being batch and channel
MODES = "xyz"  # and of those of its spectrum; c is the pair
_TURNS = "cuv"  # the pair after the first axis, the second, the third
# Of the rate of a large matrix product; measured for batches of two-dimensional transforms.
_FFT = 0.04


class Transform(NamedTuple):
    """One way between field and spectrum.

    Attributes:
        cost: what `cheapest` compares, `Plan`s and `Work`.
        run: takes the array; with the name of an axis of devices, a slab of the field.
    """

    cost: tuple[Any, ...]
    run: Callable[..., Array]


class Field(NamedTuple):
    """A batch of fields.

    Attributes:
        batch: how many.
        channels: of each.
        grid: points of each axis.
        modes: kept of each axis.
        dtype: its name.
        gradients: whether those count in costs.
        device: kind of device.
    """

    batch: int
    channels: int
    grid: tuple[int, ...]
    modes: tuple[int, ...]
    dtype: str
    gradients: bool
    device: str

    @property
    def passes(self) -> int:
        """How often a linear transform runs: its gradient is the transposed one."""
        return 2 if self.gradients else 1

    def product(self, expression: str, *shapes: Sequence[int]) -> Plan:
        """Plan a contraction; index b is the batch."""
        shapes = tuple(tuple(map(int, shape)) for shape in shapes)
        return plan(expression, *shapes, batch="b", dtype=self.dtype, device=self.device)


def by_matrices(field: Field, layout: str) -> tuple[Transform, Transform]:
    """Truncated Fourier sums as products with matrices, there and back.

    Args:
        field: what is transformed.
        layout: the axes of the spectrum, such as `"xycbi"`.
    """
    d = len(field.grid)
    axes, modes = GRID[:d], MODES[:d]
    sizes = dict(zip(modes, kept(field.modes), strict=True))
    sizes |= {"c": 2, "b": field.batch, "i": field.channels}
    spectrum = [sizes[x] for x in layout]
    there, back = [], []
    for k in range(d - 1):
        a, b = _TURNS[k], _TURNS[k + 1]
        there.append(f"{axes[k]}{b}{modes[k]}{a}")
        back.append(f"{modes[k]}{a}{axes[k]}{b}")
    last = _TURNS[d - 1]
    there.append(f"{axes[-1]}{modes[-1]}{last}")
    back.append(f"{modes[-1]}{last}{axes[-1]}")
    forward, inverse = (
        forward_tables(field.modes, field.grid),
        inverse_tables(field.modes, field.grid),
    )
    shape = (field.batch, field.channels, *field.grid)
    to = field.product(f"bi{axes},{','.join(there)}->{layout}", shape, *(t.shape for t in forward))
    of = field.product(
        f"{layout},{','.join(back)}->bi{axes}", spectrum, *(t.shape for t in inverse)
    )

    def analyse(x: Array, shard: str | None = None) -> Array:
        tables = [jnp.asarray(t, x.dtype) for t in forward]
        if shard is None:
            return to(x, *tables)
        tables[0] = _slab(tables[0], 0, x.shape[2], shard)
        # Each device sums over its slab; the sums add up in one all-reduce.
        local = field._replace(grid=x.shape[2:], batch=x.shape[0])
        made = local.product(to.network.expression, x.shape, *(t.shape for t in tables))
        return lax.psum(made(x, *tables), shard)

    def synthesise(y: Array, shard: str | None = None) -> Array:
        tables = [jnp.asarray(t, y.dtype) for t in inverse]
        if shard is None:
            return of(y, *tables)
        tables[0] = _slab(tables[0], 2, field.grid[0] // lax.axis_size(shard), shard)
        made = field.product(of.network.expression, y.shape, *(t.shape for t in tables))
        return made(y, *tables)

    return (
        Transform((to,) * field.passes, analyse),
        Transform((of,) * field.passes, synthesise),
    )


def by_fft(field: Field, layout: str) -> tuple[Transform, Transform]:
    """Fast Fourier transforms, of which few frequencies are kept, there and back."""
    d = len(field.grid)
    home = f"bi{MODES[:d]}c"
    order = [home.index(x) for x in layout]
    undo = [layout.index(x) for x in home]
    # Along each leading axis the kept frequencies k lie at k modulo n.
    picks = [k % n for k, n in zip(frequencies(field.modes)[:-1], field.grid, strict=False)]
    half = field.grid[-1] // 2 + 1

    def analyse(x: Array) -> Array:
        z = jnp.fft.rfft(x, axis=-1, norm="forward")[..., : kept(field.modes)[-1]]
        for axis, pick in enumerate(picks, 2):
            z = jnp.fft.fft(z, axis=axis, norm="forward")
            z = jnp.take(z, jnp.asarray(pick), axis=axis)
        return jnp.stack([z.real, z.imag], axis=-1).transpose(order)

    def synthesise(y: Array) -> Array:
        y = y.transpose(undo)
        z = lax.complex(y[..., 0], y[..., 1])
        # Axis by axis: a transform of all axes at once may take conjugate symmetry for granted,
        # which a learned spectrum of frequency zero has not.
        for axis, pick in enumerate(picks, 2):
            shape = (*z.shape[:axis], field.grid[axis - 2], *z.shape[axis + 1 :])
            at = (slice(None),) * axis + (jnp.asarray(pick),)
            z = jnp.zeros(shape, z.dtype).at[at].set(z)
            z = jnp.fft.ifft(z, axis=axis, norm="forward")
        z = jnp.pad(z, [(0, 0)] * (d + 1) + [(0, half - z.shape[-1])])
        return jnp.fft.irfft(z, n=field.grid[-1], axis=-1, norm="forward")

    points = float(np.prod(field.grid)) * field.batch * field.channels
    flops = 2.5 * points * np.log2(max(2.0, float(np.prod(field.grid))))
    work = Work(flops, 4 * np.dtype(field.dtype).itemsize * points, efficiency=_FFT)
    return (
        Transform((work,) * field.passes, analyse),
        Transform((work,) * field.passes, synthesise),
    )


def _slab(table: Array, axis: int, size: int, shard: str) -> Array:
    """The part of a table that belongs to this device's slab of the first axis."""
    start = lax.axis_index(shard) * size
    return lax.dynamic_slice_in_dim(table, start, size, axis)
