"""Chains of cores: the algebra that tensor trains and tensor rings share.

A train is a ring whose closing rank is 1.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..linalg import qr
from ..planner import Pieces, contract
from .indexing import Action, apply_to_axis, drops
from .pieces import check_pieces
from .scaling import norm_of_overlaps, rescale

Cores = Sequence[Array]

_LONG = 6  # a run this long is worth a loop


def check_chain(cores: Cores, ndim: int, axes: str, *, ring: bool = False) -> None:
    """Require cores whose neighbouring ranks agree, and ends of 1 (or, in a ring, equal ends).

    Raises:
        ValueError: a core of another number of dimensions, or ranks that differ.
        TypeError: dtypes that differ.
    """
    check_pieces(cores, "cores", ndim, axes)
    for k in range(1, len(cores)):
        if cores[k].shape[0] != cores[k - 1].shape[-1]:
            raise ValueError(
                f"cores[{k}]: expected first dimension {cores[k - 1].shape[-1]} (the last of "
                f"cores[{k - 1}], of shape {cores[k - 1].shape}), got shape {cores[k].shape}"
            )
    last = len(cores) - 1
    first_rank, last_rank = cores[0].shape[0], cores[last].shape[-1]
    if ring and first_rank != last_rank:
        raise ValueError(
            f"cores[{last}]: expected last dimension {first_rank} (the first of cores[0], of "
            f"shape {cores[0].shape}, closes the ring), got shape {cores[last].shape}"
        )
    if not ring and first_rank != 1:
        raise ValueError(f"cores[0]: expected first dimension 1, got shape {cores[0].shape}")
    if not ring and last_rank != 1:
        raise ValueError(f"cores[{last}]: expected last dimension 1, got shape {cores[last].shape}")


def pieces(cores: Sequence[Any], *, ring: bool = False) -> Pieces:
    """Return the cores, each tied to the next by one index; those of a ring are closed by one."""
    d = len(cores)
    bonds = [("rank", k % d if ring else k) for k in range(d + 1)]
    return Pieces(
        tuple(cores),
        tuple((bonds[k], k, bonds[k + 1]) for k in range(d)),
        tuple((k,) for k in range(d)),
    )


def dense(cores: Cores) -> Array:
    """Return the tensor that a ring of cores stands for."""
    closing = cores[0].shape[0]
    if len(cores) == 1:
        return contract("ana->n", cores[0])
    product = cores[0]
    for core in cores[1:-1]:
        product = contract("zia,anb->zinb", product, core)
        product = product.reshape(closing, -1, core.shape[2])
    product = contract("zia,anz->in", product, cores[-1])
    return product.reshape(tuple(core.shape[1] for core in cores))


def add(x: Cores, y: Cores, *, ring: bool = False) -> list[Array]:
    """Return the cores of the sum: block diagonal, in a train joined at the ends."""
    last = len(x) - 1
    cores = []
    for k, (a, b) in enumerate(zip(x, y, strict=True)):
        join_left = k == 0 and not ring
        join_right = k == last and not ring
        pad_a = ((0, 0 if join_left else b.shape[0]), (0, 0), (0, 0 if join_right else b.shape[2]))
        pad_b = ((0 if join_left else a.shape[0], 0), (0, 0), (0 if join_right else a.shape[2], 0))
        cores.append(jnp.pad(a, pad_a) + jnp.pad(b, pad_b))
    return cores


def hadamard(x: Cores, y: Cores) -> list[Array]:
    """Return the cores of the entrywise product."""
    return [_merge_ranks(contract("anb,cnd->acnbd", a, b)) for a, b in zip(x, y, strict=True)]


def _merge_ranks(core: Array) -> Array:
    a, c, n, b, d = core.shape
    return core.reshape(a * c, n, b * d)


def inner(x: Cores, y: Cores) -> tuple[Array, Array]:
    """Return the inner product as mantissa and exponent of two."""
    overlaps, exponent = _overlaps(x, y)
    return jnp.sum(overlaps), exponent


def _overlaps(x: Cores, y: Cores) -> tuple[Array, Array]:
    # The transfer matrix, with the ranks that close the rings carried along.
    p, q = x[0].shape[0], y[0].shape[0]
    eye_x, eye_y = jnp.eye(p, dtype=x[0].dtype), jnp.eye(q, dtype=x[0].dtype)
    start = eye_x[:, None, :, None] * eye_y[None, :, None, :], jnp.zeros((), jnp.int32)

    def step(state: Any, pair: tuple[Array, Array], _: Any) -> tuple[Any, None]:
        carried, exponent = state
        a, a_exponent = rescale(pair[0])
        b, b_exponent = rescale(pair[1])
        carried, shift = rescale(contract("pqab,anc,bnd->pqcd", carried, a, b))
        return (carried, exponent + a_exponent + b_exponent + shift), None

    (carried, exponent), _ = fold(step, start, list(zip(x[:-1], y[:-1], strict=True)))
    a, a_exponent = rescale(x[-1])
    b, b_exponent = rescale(y[-1])
    overlaps, shift = rescale(contract("pqab,anp,bnq->pq", carried, a, b))
    return overlaps, exponent + a_exponent + b_exponent + shift


def norm(cores: Cores) -> tuple[Array, Array]:
    """Return the norm as mantissa and exponent of two, by QR along the chain."""
    closing = cores[0].shape[0]
    start = jnp.eye(closing, dtype=cores[0].dtype)[None, :, :], jnp.zeros((), jnp.int32)

    def step(state: Any, core: Array, _: Any) -> tuple[Any, None]:
        carried, exponent = state
        core, shift = rescale(core)
        exponent = exponent + shift
        width = core.shape[2]
        carried = contract("pza,anb->pnzb", carried, core).reshape(-1, closing * width)
        if carried.shape[0] > carried.shape[1]:
            _, carried = qr(carried)
        carried, shift = rescale(carried.reshape(-1, closing, width))
        return (carried, exponent + shift), None

    (carried, exponent), _ = fold(step, start, cores[:-1])
    last, last_exponent = rescale(cores[-1])
    rest, shift = rescale(contract("pza,anz->pn", carried, last))
    return jnp.sqrt(jnp.sum(rest**2)), exponent + last_exponent + shift


def fast_norm(cores: Cores) -> tuple[Array, Array]:
    """Return the norm as `norm` does, by transfer matrices where these do not cancel at the end."""
    return norm_of_overlaps(*_overlaps(cores, cores), lambda: norm(cores))


def fold(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    state: Any,
    items: Sequence[Any],
    options: Sequence[Any] | None = None,
) -> tuple[Any, list[Any]]:
    """Take `step(state, item, option) -> (state, output)` along a chain.

    Runs of items of equal shapes and options that leave the shape of the state alone are one
    `lax.scan`, so that the time to compile does not grow with the length of a chain.

    Returns:
        The last state and the outputs.
    """
    options = [None] * len(items) if options is None else options
    kinds = [(_shapes(item), option) for item, option in zip(items, options, strict=True)]
    outputs: list[Any] = []
    at = 0
    while at < len(items):
        run = 1
        while at + run < len(items) and kinds[at + run] == kinds[at]:
            run += 1
        advance = functools.partial(_advance, step, options[at])
        if run >= _LONG:
            after, _ = jax.eval_shape(advance, state, items[at])
            if _shapes(after) == _shapes(state):
                stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *items[at : at + run])
                state, batch = lax.scan(advance, state, stacked)
                outputs += [jax.tree.map(lambda leaf, k=k: leaf[k], batch) for k in range(run)]
                at += run
                continue
        state, output = advance(state, items[at])
        outputs.append(output)
        at += 1
    return state, outputs


def _advance(step: Any, option: Any, state: Any, item: Any) -> tuple[Any, Any]:
    return step(state, item, option)


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]


def transform(cores: Cores, actions: Sequence[Action]) -> list[Array] | Array:
    """Apply one action to each mode; the result is a scalar where no mode is left."""
    kept: list[Array] = []
    carried = None  # the product of the matrices of dropped modes since the last kept one
    for core, action in zip(cores, actions, strict=True):
        new = apply_to_axis(core, 1, action)
        if drops(action):
            carried = new if carried is None else contract("ab,bc->ac", carried, new)
        elif carried is None:
            kept.append(new)
        elif kept:
            kept[-1] = contract("anb,bc->anc", kept[-1], carried)
            kept.append(new)
            carried = None
        else:
            kept.append(contract("ab,bnc->anc", carried, new))
            carried = None
    if not kept:
        assert carried is not None
        return jnp.trace(carried)
    if carried is not None:
        kept[-1] = contract("anb,bc->anc", kept[-1], carried)
    return kept
