"""Where batches come from: rows of arrays in memory, or a function of the step."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray


class Traced(eqx.Module):
    """Marks `batch(step, key)` as pure JAX: it is compiled into the loop, not called per step.

    For problems drawn at random on the device. `step` is then a traced integer.
    """

    batch: Callable[[Any, Any], Any]


class Rows(eqx.Module):
    """Rows of arrays in memory, taken in an order that is drawn anew for every epoch.

    The order is a function of the key and the epoch alone, so that a resumed run needs no
    iterator's state. Rows left over when the batch size does not divide their number sit out
    that epoch.
    """

    arrays: Any
    size: int = eqx.field(static=True)  # of a batch
    _shardings: tuple[Any, ...] = eqx.field(static=True)

    def __init__(self, arrays: Any, size: int | None, argument: str = "data"):
        """Check the arrays; `size` None takes all rows at once, in their order."""
        arrays, n = as_rows(arrays, argument)
        name = "batch_size" if argument == "data" else f"{argument}_batch_size"
        if size is None:
            size = n
        elif isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"{name}: expected an integer, got {size!r} ({type(size).__name__})")
        elif not 1 <= size <= n:
            raise ValueError(f"{name}: expected between 1 and {n} (the rows), got {size}")
        self.arrays = arrays
        self.size = int(size)
        self._shardings = tuple(_row_sharding(x, self.size) for x in jax.tree.leaves(arrays))

    @property
    def n(self) -> int:
        """Number of rows."""
        return jax.tree.leaves(self.arrays)[0].shape[0]

    @property
    def per_epoch(self) -> int:
        """Whole batches in the rows."""
        return self.n // self.size

    def order(self, epoch: Int[Array, ""], key: PRNGKeyArray) -> Int[Array, " n"] | None:
        """Return the order of an epoch, None where all rows are taken at once."""
        if self.size == self.n:
            return None
        return jax.random.permutation(jax.random.fold_in(key, epoch), self.n)

    def shuffled(self, step: Int[Array, ""], order: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        """Return the batch of a step, and the order of its epoch given that of the step before."""
        if order is None:
            return self.arrays, None
        epoch, position = jnp.divmod(step, self.per_epoch)
        order = jax.lax.cond(position == 0, lambda: self.order(epoch, key), lambda: order)
        rows = jax.lax.dynamic_slice(order, (position * self.size,), (self.size,))
        return self.take(rows), order

    def take(self, rows: Int[Array, " size"]) -> Any:
        """Return some rows of every array, spread over devices as the arrays are."""
        leaves, treedef = jax.tree.flatten(self.arrays)
        return treedef.unflatten(
            x[rows] if sharding is None else _take_sharded(x, rows, sharding)
            for x, sharding in zip(leaves, self._shardings, strict=True)
        )


def as_rows(arrays: Any, argument: str) -> tuple[Any, int]:
    """Return a tree as jax arrays of one common leading size, and that size.

    Raises:
        TypeError: a leaf is not an array of numbers.
        ValueError: no leaves, no rows, or leading sizes that differ.
    """
    leaves = jax.tree_util.tree_flatten_with_path(arrays)[0]
    if not leaves:
        raise ValueError(f"{argument}: expected at least one array, got none")
    first_path, n = "", None
    for key_path, leaf in leaves:
        path = argument + jax.tree_util.keystr(key_path)
        if not isinstance(leaf, (jax.Array, np.ndarray)) or (
            isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufcV"
        ):
            raise TypeError(f"{path}: expected an array of numbers, got {type(leaf).__name__}")
        if leaf.ndim == 0:
            raise ValueError(f"{path}: expected at least one mode (the rows), got a scalar")
        if n is None:
            first_path, n = path, leaf.shape[0]
        if leaf.shape[0] != n:
            raise ValueError(
                f"{path}: expected {n} rows (as {first_path}), got {leaf.shape[0]} "
                f"(shape {tuple(leaf.shape)})"
            )
    if not n:
        raise ValueError(f"{first_path}: expected at least one row, got 0")
    return jax.tree.map(jnp.asarray, arrays), n


def _row_sharding(x: Array, size: int) -> Any:
    """Return how a batch of `size` rows should lie, where `x` is spread over devices by rows."""
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, jax.sharding.NamedSharding) or len(sharding.device_set) == 1:
        return None
    try:
        sharding.shard_shape((size, *x.shape[1:]))
    except ValueError as error:
        raise ValueError(
            f"batch_size: expected a multiple of the devices that the rows are spread over "
            f"({sharding.spec}, mesh {dict(sharding.mesh.shape)}), got {size}"
        ) from error
    return sharding


def _take_sharded(x: Array, rows: Int[Array, " size"], sharding: Any) -> Array:
    explicit = jax.sharding.AxisType.Explicit in sharding.mesh.axis_types
    if explicit:
        return x.at[rows].get(out_sharding=sharding)
    return jax.lax.with_sharding_constraint(x[rows], sharding)
