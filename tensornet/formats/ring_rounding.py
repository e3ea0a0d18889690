"""Rounding of tensor rings: cut open at one bond, rounded as a train, closed again."""

import jax.numpy as jnp
from jaxtyping import Array

from .chain_rounding import round_chain
from .decomposition import Decomposition
from .measure import direct
from .tensor_ring import TensorRing, turned

_TRIALS = 12  # of the tolerance of the open chain


def round_ring(x: TensorRing, rtol: float | None, most: tuple[int, ...]) -> Decomposition:
    """Return a ring of lower ranks near `x`; see `TensorRing.round`."""
    whole = direct(x, x)
    if len(x.cores) == 1:
        return whole
    if rtol is None:
        return direct(x, _rounded(x, None, most))
    # Closing sums over one rank, so that errors of the open chain may grow or, more often, cancel.
    # The tolerance of the open chain is searched from the one asked for, by what is measured.
    least = 32 * float(jnp.finfo(x.dtype).eps)
    tolerance, best = max(rtol / 2**0.5, least), None
    for _ in range(_TRIALS):
        found = direct(x, _rounded(x, tolerance, most))
        met = float(found.relative_error) <= rtol
        if met and (best is None or found.tensor.n_parameters < best.tensor.n_parameters):
            best = found
            tolerance = min(2 * tolerance, 0.5)
        elif best is not None or tolerance == least:
            break
        else:
            tolerance = max(tolerance / 4, least)
    if best is None and x.rank != most:
        return direct(x, _rounded(x, least, most))
    return best or whole


def _rounded(x: TensorRing, rtol: float | None, most: tuple[int, ...]) -> TensorRing:
    # Two openings: the bond that is cut open is not rounded.
    d = len(x.cores)
    ranks = x.rank
    first = ranks.index(min(ranks))
    cores, caps = turned(x.cores, first), most[first:] + most[:first]
    cores = turned(tuple(_open(cores, rtol, caps)), 1)
    cores = turned(tuple(_open(cores, rtol, caps[1:] + caps[:1])), d - 1)
    return TensorRing(turned(cores, (d - first) % d))


def _open(cores: tuple[Array, ...], rtol: float | None, caps: tuple[int, ...]) -> list[Array]:
    """Round all ranks but the first of a ring."""
    z = cores[0].shape[0]
    first, last = cores[0], cores[-1]
    train = list(cores)
    train[0] = first.reshape(1, -1, first.shape[2])
    train[-1] = train[-1].reshape(last.shape[0], -1, 1)
    rounded = round_chain(train, rtol, (1, *caps[1:], 1))
    rounded[0] = rounded[0].reshape(z, first.shape[1], -1)
    rounded[-1] = rounded[-1].reshape(-1, last.shape[1], z)
    return rounded
