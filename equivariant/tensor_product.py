"""The front door: a tensor product of irreps, fixed by what it is, computed as is cheapest."""

from typing import Any

import e3nn_jax as e3nn
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from tensornet.planner import contract
from tensornet.validation import check_rank

from .auto import Auto
from .bilinear import BilinearMap
from .coupling.clebsch_gordan_product import ClebschGordan
from .coupling.cp_product import CPProduct
from .coupling.gaunt import GauntGrid
from .coupling.gaunt_fourier import GauntFourier
from .coupling.tables import clebsch_gordan
from .draw import normal
from .layouts import check_layout, from_channels, to_channels, with_channels
from .method import Method, Use, typical_batch

EXACT: tuple[type[Method], ...] = (ClebschGordan, GauntGrid, GauntFourier)
METHODS = ("auto", *(kind.name for kind in EXACT), CPProduct.name)


class TensorProduct(eqx.Module):
    """A bilinear equivariant map of irreps, channel by channel.

    What it computes is fixed by irreps, paths, coupling and weights (see `BilinearMap`); the method
    never changes it beyond rounding, but for `"cp"`, whose error is certified.

    Attributes:
        weights: learned, `[channels, *weight_shape]`; None where the map has none.
        bilinear: the map.
        implementation: what computes it.
        reason: how the alternatives compared, as a table.
    """

    weights: Array | None
    bilinear: BilinearMap = eqx.field(static=True)
    implementation: Method = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    reason: str = eqx.field(static=True)

    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        irreps_out: Any,
        *,
        paths: str = "all",
        coupling: str = "gaunt",
        weights: str | None = "per-degree",
        channels: int = 1,
        method: str = "auto",
        rank: int | None = None,
        rtol: float | None = None,
        key: PRNGKeyArray,
    ):
        """Fix the map and choose how to compute it.

        Args:
            irreps_in1: of the first input, multiplicity one, as text or `e3nn.Irreps`.
            irreps_in2: of the second.
            irreps_out: of the result; each must be reached by some path.
            paths: `"all"`, or `"even"`: those of even l1 + l2 + l3.
            coupling: `"gaunt"` or `"clebsch-gordan"`.
            weights: `None`, `"shared"`, `"per-degree"`, `"low-rank:R"` or `"per-path"`.
            channels: how many products there are side by side, each with weights of its own.
            method: `"auto"` takes, for the shapes of each call, the exact method that the planner
                expects to be fastest; with `rank` or `rtol` it considers `"cp"` too, for a batch
                of 1024, since an approximation may not change with the shape. Or one by name.
            rank: components of `"cp"`.
            rtol: relative error of `"cp"`.
            key: draws the weights, from a normal distribution.

        Raises:
            TypeError: a rank or tolerance of the wrong type.
            ValueError: what `BilinearMap` refuses; an unknown method, or one that cannot compute
                the map; `rank` or `rtol` for a method that has none.
        """
        if method not in METHODS:
            raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"channels: expected an integer of at least 1, got {channels!r}")
        approximate = rank is not None or rtol is not None
        if approximate and method not in ("auto", "cp"):
            raise ValueError(f"rank, rtol: expected None for method={method!r}, which is exact")
        self.bilinear = BilinearMap(irreps_in1, irreps_in2, irreps_out, paths, coupling, weights)
        self.channels = channels
        shape = self.bilinear.weight_shape
        self.weights = None if shape is None else normal(key, (channels, *shape))
        if method == "cp":
            self.implementation = CPProduct(self.bilinear, rank=rank, rtol=rtol)
            self.reason = "asked for by name"
        elif method != "auto":
            (kind,) = (kind for kind in EXACT if kind.name == method)
            self.implementation = kind(self.bilinear)
            self.reason = "asked for by name"
        else:
            cp = CPProduct(self.bilinear, rank=rank, rtol=rtol) if approximate else None
            self.implementation, self.reason = _fastest(self.bilinear, cp, channels)

    @property
    def irreps_in1(self) -> e3nn.Irreps:
        """Irreps of the first input."""
        return self.bilinear.irreps_in1

    @property
    def irreps_in2(self) -> e3nn.Irreps:
        """Irreps of the second input."""
        return self.bilinear.irreps_in2

    @property
    def irreps_out(self) -> e3nn.Irreps:
        """Irreps of the result."""
        return self.bilinear.irreps_out

    @property
    def weight_shape(self) -> tuple[int, ...] | None:
        """The shape of all weights, channels first; None where the map has none."""
        shape = self.bilinear.weight_shape
        return None if shape is None else (self.channels, *shape)

    @property
    def method(self) -> str:
        """The name of the method, of those that `"auto"` has the one for a batch of 1024."""
        return self.method_for(Use.batch)

    def method_for(self, batch: int, *, gradients: bool = True) -> str:
        """Return the name of the method that runs for a size of the batch.

        Args:
            batch: the size.
            gradients: of a call that is differentiated.

        Raises:
            TypeError: `batch` is not an integer.
            ValueError: it is below 1.
        """
        batch = check_rank(batch, "batch")
        use = Use(self.channels, typical_batch((batch,)), gradients=gradients)
        return self.implementation.method_for(use)

    @property
    def error_bound(self) -> float:
        """Bound of the error over |x| |y|, for weights of one; 0 for exact methods."""
        return self.implementation.error_bound

    def __call__(
        self, x: Any, y: Any, weights: Any = None, *, layout: str = "channels-first"
    ) -> Any:
        """Compute the product.

        Args:
            x: `[*batch, channels, irreps_in1.dim]`, or an `IrrepsArray` of those irreps; an
                `IrrepsArray` `[*batch, dim]` of as many of each irrep as there are channels is
                taken as well.
            y: the same of `irreps_in2`; either may have one channel for all.
            weights: `[*batch, channels, ...]` or what broadcasts to it, in place of the learned.
            layout: of arrays, and of the result: `"channels-first"`, `"channels-last"` (`[*batch,
                dim, channels]`) or e3nn's `"mul_ir"` (`[*batch, channels * dim]`).

        Returns:
            The product in this layout; an `IrrepsArray` if an input was one, of the channels'
            irreps if that was.

        Raises:
            ValueError: shapes or irreps that do not fit, or an unknown layout.
            TypeError: dtypes that differ or are not float32 or float64.
        """
        check_layout(layout)
        first, wide1 = self._operand(x, "x", self.irreps_in1, layout)
        second, wide2 = self._operand(y, "y", self.irreps_in2, layout)
        own = self.weights if weights is None else weights
        if weights is None and own is not None:
            own = own.astype(first.dtype)
        z = self.implementation(first, second, own)
        if wide1 or wide2:
            irreps = with_channels(self.irreps_out, self.channels)
            return e3nn.IrrepsArray(irreps, from_channels(z, self.irreps_out, "mul_ir"))
        if isinstance(x, e3nn.IrrepsArray) or isinstance(y, e3nn.IrrepsArray):
            return e3nn.IrrepsArray(self.irreps_out, z)
        return from_channels(z, self.irreps_out, layout)

    def _operand(self, x: Any, argument: str, irreps: e3nn.Irreps, layout: str):
        """Return `[*batch, channels, d]`, and whether it came as an `IrrepsArray` of channels."""
        if not isinstance(x, e3nn.IrrepsArray):
            return to_channels(jnp.asarray(x), irreps, layout, argument), False
        wide = with_channels(irreps, self.channels)
        if self.channels > 1 and x.irreps.simplify() == wide.simplify():
            return to_channels(x.array, irreps, "mul_ir", argument), True
        return plain(x, argument, irreps), False

    def __str__(self) -> str:
        return (
            f"TensorProduct({self.irreps_in1} x {self.irreps_in2} -> {self.irreps_out}, "
            f"paths={self.bilinear.paths!r}: {len(self.bilinear.triples)}, "
            f"coupling={self.bilinear.coupling!r}, weights={self.bilinear.weights!r}, "
            f"channels={self.channels}, method={self.method!r})\n{self.reason}"
        )


def plain(x: e3nn.IrrepsArray, argument: str, irreps: e3nn.Irreps) -> Array:
    """Return the array of an operand.

    Raises:
        ValueError: it has other irreps.
    """
    if x.irreps.simplify() != irreps.simplify():
        raise ValueError(
            f"{argument}: expected irreps {irreps} of dimension {irreps.dim}, got {x.irreps} of "
            f"dimension {x.irreps.dim}"
        )
    return x.array


def _fastest(bilinear: BilinearMap, cp: CPProduct | None, channels: int) -> tuple[Method, str]:
    found, refused = [], []
    for kind in EXACT:
        try:
            found.append(kind(bilinear))
        except ValueError as error:
            refused.append(f"  {kind.name} cannot: {error}")
    exact = Auto(bilinear, methods=tuple(found))
    use = Use(channels)
    table = exact.choose(use)[2]
    if cp is not None:
        both = Auto(bilinear, methods=(*found, cp))
        table = both.choose(use)[2]
        if both.method_for(use) == cp.name:
            return cp, "\n".join([table, *refused])
    note = (
        f"  for a batch of {use.batch} and its gradients; compared anew for each call's shapes "
        "and where no gradients are taken"
    )
    return exact, "\n".join([table, *refused, note])


def tensor_product(x: Any, y: Any, *, irreps_out: Any = None) -> e3nn.IrrepsArray:
    """Return all paths of two inputs of any multiplicities: `e3nn_jax.tensor_product`.

    Args:
        x: the first input, an `IrrepsArray` `[*batch, dim]`.
        y: the second; batch axes are broadcast.
        irreps_out: keep these irreps only.

    Returns:
        The paths side by side, sorted and regrouped as e3nn-jax does.

    Raises:
        TypeError: an input is no `IrrepsArray`.
    """
    first, second = irreps_array(x, "x").regroup(), irreps_array(y, "y").regroup()
    wanted = None if irreps_out is None else {ir for _, ir in e3nn.Irreps(irreps_out)}
    batch = np.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    dtype = jnp.result_type(first.dtype, second.dtype)
    irreps: list[Any] = []
    chunks: list[Any] = []
    for (mul1, ir1), x1 in zip(first.irreps, first.chunks, strict=True):
        for (mul2, ir2), x2 in zip(second.irreps, second.chunks, strict=True):
            outs = [ir for ir in ir1 * ir2 if wanted is None or ir in wanted]
            if not outs:
                continue
            irreps += [(mul1 * mul2, ir) for ir in outs]
            if x1 is None or x2 is None:
                chunks += [None] * len(outs)
                continue
            # All paths of a pair in one contraction.
            tables = [clebsch_gordan(ir1.l, ir2.l, ir.l) * np.sqrt(ir.dim) for ir in outs]
            table = jnp.asarray(np.concatenate(tables, axis=2), dtype)
            x1, x2 = (jnp.broadcast_to(z, (*batch, *z.shape[-2:])) for z in (x1, x2))
            both = contract("...ui,...vj,ijk->...uvk", x1.astype(dtype), x2.astype(dtype), table)
            both = both.reshape(*batch, mul1 * mul2, -1)
            ends = np.cumsum([ir.dim for ir in outs])[:-1]
            chunks += jnp.split(both, ends, axis=-1)
    return e3nn.from_chunks(irreps, chunks, batch, dtype).sort().regroup()


def irreps_array(x: Any, argument: str) -> e3nn.IrrepsArray:
    """Require an `IrrepsArray`.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(x, e3nn.IrrepsArray):
        raise TypeError(f"{argument}: expected an IrrepsArray, got {type(x).__name__}")
    return x
