"""Tensor-train decomposition of dense tensors and matrices, by a sweep of truncated SVDs."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..formats import Decomposition, TensorTrain, TTMatrix
from ..linalg import left_singular
from ..planner import contract
from ..validation import check_rank, check_ranks, check_truncation
from .border import check_data, check_eager
from .truncation import Budget, direct, projection_error, squares

Cores = tuple[Array, ...]


def tt_svd(
    x: ArrayLike, *, rtol: float | None = None, max_rank: Any = None
) -> Decomposition[TensorTrain]:
    """Decompose `x` as a tensor train.

    All cores but the last are left-orthogonal. Oseledets, "Tensor-train decomposition", 2011: at
    given ranks the error is at most sqrt(d - 1) times the best.

    Args:
        x: the tensor of d modes, float32 or float64.
        rtol: choose ranks such that the relative error is at most this (unless `max_rank` stops
            it). Not inside a trace, where ranks cannot depend on data.
        max_rank: without `rtol`, the ranks, cut to what the shape allows: an integer, or one for
            each of the d - 1 bonds. Works under jit, vmap and grad. With `rtol`, a cap.

    Raises:
        TypeError: arguments of a wrong type.
        ValueError: neither `rtol` nor `max_rank`, one of them out of its range, or data that is
            empty, all zeros or not finite.
    """
    x = check_data(x, "x")
    caps, rtol = _checked(x, x.shape, rtol, max_rank)
    if rtol is None:
        return _fixed(x, x.shape, tuple(caps))
    cores, dropped = _sweep_to_error(x, x.shape, rtol, caps)
    return _finish(x, cores, dropped)


def tt_matrix_svd(
    matrix: ArrayLike,
    row_modes: Any,
    column_modes: Any,
    *,
    rtol: float | None = None,
    max_rank: Any = None,
) -> Decomposition[TTMatrix]:
    """Decompose a matrix in tensor-train matrix format.

    Args:
        matrix: shape (product of `row_modes`, product of `column_modes`).
        row_modes: the sizes that the row index splits in, the last running fastest.
        column_modes: as many sizes that the column index splits in.
        rtol: as for `tt_svd`.
        max_rank: as for `tt_svd`.

    Raises:
        TypeError: arguments of a wrong type.
        ValueError: modes that do not fit the matrix, or what `tt_svd` raises.
    """
    matrix = check_data(matrix, "matrix")
    if matrix.ndim != 2:
        raise ValueError(f"matrix: expected 2 dimensions, got shape {matrix.shape}")
    rows = _checked_modes(row_modes, "row_modes", matrix.shape[0], "rows")
    columns = _checked_modes(column_modes, "column_modes", matrix.shape[1], "columns")
    if len(rows) != len(columns):
        raise ValueError(
            f"column_modes: expected {len(rows)} sizes like row_modes, got {len(columns)}: "
            f"{columns}"
        )
    d = len(rows)
    pairs = tuple(m * n for m, n in zip(rows, columns, strict=True))
    x = matrix.reshape(*rows, *columns)
    x = x.transpose([axis for k in range(d) for axis in (k, d + k)]).reshape(pairs)
    caps, rtol = _checked(x, pairs, rtol, max_rank)
    if rtol is None:
        train = _fixed(x, pairs, tuple(caps))
    else:
        found, dropped = _sweep_to_error(x, pairs, rtol, caps)
        train = _finish(x, found, dropped)
    cores = tuple(
        core.reshape(core.shape[0], m, n, core.shape[2])
        for core, m, n in zip(train.tensor.cores, rows, columns, strict=True)
    )
    return Decomposition(
        TTMatrix(cores), train.relative_error, train.status, train.history, train.sweeps
    )


def _checked_modes(modes: Any, argument: str, size: int, what: str) -> tuple[int, ...]:
    if isinstance(modes, str) or not isinstance(modes, Sequence):
        raise TypeError(f"{argument}: expected a sequence of integers, got {modes!r}")
    sizes = tuple(check_rank(m, f"{argument}[{k}]") for k, m in enumerate(modes))
    if math.prod(sizes) != size:
        raise ValueError(
            f"{argument}: expected a product of {size}, the number of {what} of the matrix, got "
            f"{math.prod(sizes)} from {sizes}"
        )
    return sizes


def _checked(
    x: Array, shape: tuple[int, ...], rtol: Any, max_rank: Any
) -> tuple[list[int | None], float | None]:
    """Return the caps of the ranks of the bonds, and `rtol`."""
    if rtol is None and max_rank is None:
        raise ValueError("rtol, max_rank: expected at least one of them, got neither")
    bonds = len(shape) - 1
    caps: list[int | None] = [None] * bonds
    if max_rank is not None:
        caps = list(check_ranks(max_rank, caps, "max_rank"))
    if rtol is None:
        return caps, None
    rtol = check_truncation(rtol, x.dtype)
    check_eager(x, "rtol", "max_rank")
    return caps, rtol


def _sweep_to_error(
    x: Array, shape: tuple[int, ...], rtol: float, caps: list[int | None]
) -> tuple[Cores, Float[Array, ""]]:
    """Return what `left_sweep` does, with ranks chosen on the host."""
    budget = Budget(x, rtol, max(len(shape) - 1, 1))
    cores, rest, rank = [], x, 1
    for n, cap in zip(shape, caps, strict=False):
        u, rest = budget.truncate(rest, rank * n, cap)
        cores.append(u.reshape(rank, n, -1))
        rank = u.shape[1]
    return (*cores, rest.reshape(rank, shape[-1], 1)), jnp.asarray(budget.dropped, x.dtype)


def left_sweep(
    x: Array, shape: tuple[int, ...], caps: Sequence[int | None]
) -> tuple[Cores, Float[Array, ""]]:
    """Decompose `x` with ranks `caps`, cut to what the shape allows.

    Returns:
        The cores, and the squared norm of what was dropped.
    """
    cores, rest, rank = [], x, 1
    dropped = jnp.zeros((), x.dtype)
    for n, cap in zip(shape, caps, strict=False):
        a = rest.reshape(rank * n, -1)
        new = min(a.shape) if cap is None else min(cap, *a.shape)
        u, s = left_singular(a, rank=new)
        u = u[:, :new]
        dropped = dropped + squares(s, new)
        rest = contract("nr,np->rp", u, a)
        cores.append(u.reshape(rank, n, new))
        rank = new
    return (*cores, rest.reshape(rank, shape[-1], 1)), dropped


@eqx.filter_jit
def _fixed(
    x: Array, shape: tuple[int, ...], caps: tuple[int | None, ...]
) -> Decomposition[TensorTrain]:
    cores, dropped = left_sweep(x, shape, caps)
    return _finish(x, cores, dropped)


@eqx.filter_jit
def _finish(x: Array, cores: Cores, dropped: Array) -> Decomposition[TensorTrain]:
    tensor = TensorTrain(cores)
    return direct(tensor, projection_error(x, dropped, tensor.to_dense))
