"""The order in which a factor takes the unknowns."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Array, Float, Int

from ..sparse import Pattern

ORDERS = ("natural", "rcm")


class Ordering(eqx.Module):
    """How a matrix, and vectors, go into another order and back; None where nothing moves.

    Attributes:
        entries: which value of the matrix each entry of the renumbered one is.
        rows: which row each row was.
        places: where each row went.
    """

    entries: Int[Array, " entries"] | None
    rows: Int[Array, " n"] | None
    places: Int[Array, " n"] | None

    def values(self, values: Float[Array, " entries"]) -> Float[Array, " entries"]:
        """Return the values of the renumbered matrix."""
        return values if self.entries is None else values[self.entries]

    def into(self, x: Float[Array, "n *many"]) -> Float[Array, "n *many"]:
        """Return a vector, or each column, in the new order."""
        return x if self.rows is None else x[self.rows]

    def back(self, x: Float[Array, "n *many"]) -> Float[Array, "n *many"]:
        """Return it in the matrix's own order again."""
        return x if self.places is None else x[self.places]


def check_order(order: str) -> str:
    """Return the name of an order.

    Raises:
        ValueError: an unknown one.
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
    return order


def ordered(pattern: Pattern, order: str) -> tuple[Pattern, Ordering]:
    """Return the pattern in an order, and how to get there.

    "rcm" is reverse Cuthill-McKee (George 1971): neighbours stand close, as along a front that
    crosses the mesh, so that a factor carries what it learns of one side to the other. Refined
    meshes number theirs far apart, which takes fewer levels and more iterations.
    """
    if order == "natural":
        return pattern, Ordering(None, None, None)
    numbered = pattern.to_scipy(np.arange(pattern.nnz))
    rows = scipy.sparse.csgraph.reverse_cuthill_mckee(numbered, symmetric_mode=True)
    moved = numbered[rows][:, rows]
    moved.sort_indices()
    places = np.empty_like(rows)
    places[rows] = np.arange(len(rows), dtype=rows.dtype)
    arrays = (jnp.asarray(x.astype(np.int32)) for x in (moved.data, rows, places))
    return Pattern(moved.shape, moved.indptr, moved.indices), Ordering(*arrays)
