"""Rounding of chains of cores to smaller ranks (Oseledets 2011, algorithm 2)."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..linalg import left_singular, qr, svd
from ..planner import contract
from .chain import Cores, fold
from .rounding import Budget
from .scaling import rescale, times_power


def round_chain(cores: Cores, rtol: float | None, most: tuple[int, ...]) -> list[Array]:
    """Return the cores of a train near that of `cores`, all but the last left-orthogonal.

    Args:
        cores: of a train, so with ranks 1 at the ends.
        rtol: the relative error allowed, or None to cut to `most` alone.
        most: the largest ranks allowed, with those at the ends.
    """
    if rtol is None:
        return _round_to_ranks(tuple(cores), most)
    swept, exponent = _right_orthogonal(tuple(cores))
    norm = float(np.linalg.norm(np.asarray(swept[0], np.float64)))
    budget = Budget(norm, rtol, swept[0].dtype, max(len(swept) - 1, 1))
    carried, rounded = jnp.ones((1, 1), swept[0].dtype), []
    for k, core in enumerate(swept[:-1]):
        u, s, vt = _split(carried, core)
        rank = budget.rank(s, most[k + 1])
        rounded.append(u[:, :rank].reshape(carried.shape[0], core.shape[1], rank))
        carried = s[:rank, None] * vt[:rank]
    return _finish(rounded, carried, swept[-1], exponent)


@eqx.filter_jit
def _round_to_ranks(cores: Cores, most: tuple[int, ...]) -> list[Array]:
    # Bases are found from the left and applied to the cores as they are: of what is right of a
    # bond only its triangular factor counts. So derivatives hold also where ranks are larger than
    # they need be, as after a sum, and the orthonormal factor has directions that are arbitrary.
    def step(state: Any, item: tuple[Array, Array], largest: int) -> tuple[Any, Array]:
        carried, exponent = state
        core, shift = rescale(item[0])
        product = contract("pa,anb->pnb", carried, core)
        seen = contract("pnb,bc->pnc", product, item[1])
        basis, _ = left_singular(seen.reshape(-1, seen.shape[2]))
        basis = basis[:, :largest].reshape(*product.shape[:2], -1)
        carried, carried_shift = rescale(contract("pnr,pnb->rb", basis, product))
        return (carried, exponent + shift + carried_shift), basis

    start = jnp.ones((1, 1), cores[0].dtype), jnp.zeros((), jnp.int32)
    items = list(zip(cores[:-1], _triangles(cores), strict=True))
    (carried, exponent), rounded = fold(step, start, items, most[1:-1])
    last, shift = rescale(cores[-1])
    return _finish(rounded, carried, last, exponent + shift)


def _triangles(cores: Cores) -> list[Array]:
    """Return for each bond what a QR of all that is right of it leaves, up to a scale."""

    def step(carried: Array, core: Array, _: Any) -> tuple[Array, Array]:
        product = contract("anb,bc->nca", rescale(core)[0], carried)
        _, r = qr(product.reshape(-1, product.shape[2]))
        r, _ = rescale(r.T)
        return r, r

    _, triangles = fold(step, jnp.ones((1, 1), cores[0].dtype), cores[:0:-1])
    return triangles[::-1]


@eqx.filter_jit
def _right_orthogonal(cores: Cores) -> tuple[list[Array], Int[Array, ""]]:
    """Return the cores, all but the first right-orthogonal, and an exponent of two left out."""

    def step(state: Any, core: Array, _: Any) -> tuple[Any, Array]:
        carried, exponent = state
        core, core_exponent = rescale(core)
        product = contract("anb,bc->nca", core, carried)
        q, r = qr(product.reshape(-1, product.shape[2]))
        r, shift = rescale(r)
        orthogonal = jnp.moveaxis(q.reshape(*product.shape[:2], -1), 2, 0)
        return (r.T, exponent + core_exponent + shift), orthogonal

    start = jnp.ones((1, 1), cores[0].dtype), jnp.zeros((), jnp.int32)
    (carried, exponent), swept = fold(step, start, cores[:0:-1])
    first, core_exponent = rescale(cores[0])
    first, shift = rescale(contract("anb,bc->anc", first, carried))
    return [first, *swept[::-1]], exponent + core_exponent + shift


@eqx.filter_jit
def _split(carried: Array, core: Array) -> tuple[Array, Array, Array]:
    product = contract("ab,bnc->anc", carried, core)
    return svd(product.reshape(-1, core.shape[2]))


@eqx.filter_jit
def _finish(rounded: list[Array], carried: Array, last: Array, exponent: Array) -> list[Array]:
    cores = [*rounded, contract("ab,bnc->anc", carried, last)]
    # The last core takes the scale, unless that comes near overflow: then all share it.
    limit = int(jnp.finfo(last.dtype).maxexp) // 2
    share = jnp.where(jnp.abs(exponent) > limit, exponent // len(cores), 0)
    factor = times_power(jnp.ones((), last.dtype), share)
    (_, cores) = fold(lambda factor, core, _: (factor, core * factor), factor, cores)
    cores[-1] = times_power(cores[-1], exponent - share * len(cores))
    return cores
