"""Gaunt and CP products as functions of `IrrepsArray`s."""

from typing import Any

import e3nn_jax as e3nn

from .bilinear import BilinearMap
from .coupling.cp_product import CPProduct
from .coupling.gaunt import GauntGrid
from .coupling.gaunt_fourier import GauntFourier
from .method import Method
from .tensor_product import irreps_array

BASES = {"grid": GauntGrid, "fourier": GauntFourier}


def gaunt_tensor_product(
    x: Any, y: Any, *, irreps_out: Any = None, basis: str = "grid", paths: str = "even"
) -> e3nn.IrrepsArray:
    """Multiply functions on the sphere: the Gaunt tensor product, unweighted.

    Args:
        x: the first input, an `IrrepsArray` `[*batch, dim]` of irreps of multiplicity one.
        y: the second.
        irreps_out: of the result, multiplicity one; all that are reached by default.
        basis: `"grid"`, points of the sphere, or `"fourier"`, the torus.
        paths: `"even"`, the pointwise product, or `"all"`, with the products of gradients.

    Raises:
        TypeError: an input is no `IrrepsArray`.
        ValueError: an unknown basis, or what `BilinearMap` refuses.
    """
    if basis not in BASES:
        raise ValueError(f"basis: expected one of {tuple(BASES)}, got {basis!r}")
    bilinear = _map(x, y, irreps_out, paths, "gaunt")
    return _applied(BASES[basis](bilinear), x, y)


def cp_tensor_product(
    x: Any, y: Any, *, irreps_out: Any = None, rank: int | None = None, rtol: float | None = None
) -> e3nn.IrrepsArray:
    """Sum all Clebsch-Gordan paths, unweighted, through a CP decomposition of the coupling.

    Args:
        x: the first input, an `IrrepsArray` `[*batch, dim]` of irreps of multiplicity one.
        y: the second.
        irreps_out: of the result, multiplicity one; all that are reached by default.
        rank: number of components.
        rtol: relative error of the coupling tensor, in the Frobenius norm.

    Raises:
        TypeError: an input is no `IrrepsArray`, or a rank or tolerance of the wrong type.
        ValueError: neither rank nor rtol, a rank below 1, or an rtol that is not reached.
    """
    bilinear = _map(x, y, irreps_out, "all", "clebsch-gordan")
    return _applied(CPProduct(bilinear, rank=rank, rtol=rtol), x, y)


def _map(x: Any, y: Any, irreps_out: Any, paths: str, coupling: str) -> BilinearMap:
    first, second = irreps_array(x, "x").irreps, irreps_array(y, "y").irreps
    if irreps_out is None:
        irreps_out = _reached(first, second, paths)
    return BilinearMap(first, second, irreps_out, paths, coupling)


def _reached(first: e3nn.Irreps, second: e3nn.Irreps, paths: str) -> e3nn.Irreps:
    found = {
        ir
        for _, a in first
        for _, b in second
        for ir in a * b
        if paths == "all" or (a.l + b.l + ir.l) % 2 == 0
    }
    return e3nn.Irreps([(1, ir) for ir in sorted(found)])


def _applied(method: Method, x: e3nn.IrrepsArray, y: e3nn.IrrepsArray) -> e3nn.IrrepsArray:
    z = method(x.array[..., None, :], y.array[..., None, :])
    return e3nn.IrrepsArray(method.map.irreps_out, z[..., 0, :])
