"""What the roundings of all formats share: their arguments, and the error still to be spent."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..linalg import rank_for
from ..validation import check_ranks, check_truncation, is_traced


def read_arguments(
    x: Any, rtol: Any, max_rank: Any, ranks: tuple[int, ...]
) -> tuple[float | None, tuple[int, ...]]:
    """Return `rtol` and the largest ranks allowed, at most the present `ranks`.

    Raises:
        TypeError: arguments of a wrong type.
        ValueError: neither of them, one out of its range, or `rtol` inside a trace.
    """
    if rtol is None and max_rank is None:
        raise ValueError("rtol, max_rank: expected at least one of them, got neither")
    if rtol is not None:
        rtol = check_truncation(rtol, x.dtype)
        if is_traced(x):
            raise ValueError(
                "rtol: expected None under jit, vmap or grad, where ranks cannot depend on data; "
                f"give max_rank instead, got {rtol}"
            )
    if max_rank is None:
        return rtol, ranks
    most = check_ranks(max_rank, [None] * len(ranks), "max_rank")
    return rtol, tuple(min(pair) for pair in zip(most, ranks, strict=True))


class Budget:
    """The error that truncations may still make, kept on the host.

    Truncations by orthonormal bases make errors orthogonal to each other, so their squares add.
    Each takes at most an equal share of what is left.
    """

    def __init__(self, norm: float, rtol: float, dtype: Any, steps: int) -> None:
        eps = float(jnp.finfo(dtype).eps)
        # Rounding takes its part, which grows along a chain.
        rounding = min(4 * eps * steps**0.5, rtol / 2)
        self.left = ((rtol * (1 - eps**0.5) - rounding) * norm) ** 2
        self.steps = steps

    def rank(self, s: Any, most: int) -> int:
        """Return how many of the singular values to keep, at most `most`."""
        s = np.asarray(s, np.float64)
        rank = rank_for(s, (max(self.left, 0.0) / self.steps) ** 0.5)
        self.steps -= 1
        if rank > most:  # what the cap adds is not taken from the budget
            return most
        self.left -= float(np.sum(s[rank:] ** 2))
        return rank
