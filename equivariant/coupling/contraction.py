"""The contraction of two inputs with one tensor [d1, d2, d_out] that is known, in every order."""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from tensornet.planner import Constant, Plan, Repeated, Work, plan

from ..method import Program, Use, times_table

# Tables of more nonzeros are not tried as programs written out: compiling would take seconds.
_MOST_TERMS = 160
# Compiling the gradient takes 20 ms for each of them. Spread over a thousand calls, that is as long
# as reading so many bytes: gradients of small batches are not worth it.
_COMPILED = 380e3
# Share of the planned speed that outer products, and many products with matrices of their own,
# reach beside large products with one table: measured over 162 products of degrees 1 to 6.
_EFFICIENCY = 2 / 3
# Numbers in a vector of the machine; the least components that are filled up to whole vectors.
_VECTOR, _PADDED = 4, 20


def batch_letters(use: Use) -> tuple[str, str, str]:
    """Return the letters of x's, y's and the result's axes b (batch) and c (channel).

    What has one channel for all lacks c; the result does where both inputs do.
    """
    x, y = ("b" if shared else "bc" for shared in use.shared)
    return x, y, "b" if all(use.shared) else "bc"


def head(use: Use, letters: str) -> tuple[int, ...]:
    """Return the sizes of such axes."""
    return (use.batch, use.channels)[: len(letters)]


def without_channels(x: Array, shared: bool) -> Array:
    """Return [batch, channels, d] without its axis of channels where all share one."""
    return x[:, 0] if shared else x


def contractions(tensor: Float64[np.ndarray, "d1 d2 d"], use: Use) -> dict[str, Program]:
    """Return programs, by name: x, then y; y, then x; their outer product; written out.

    Where both inputs have one channel for all, so has the result.
    """
    found = {
        "first input first": _one_first(tensor, use, 0),
        "second input first": _one_first(tensor, use, 1),
        "outer product": _outer(tensor, use),
    }
    if np.count_nonzero(tensor) <= _MOST_TERMS:
        program = _written_out(tensor, use)
        found |= {"written out": program} if program else {}
    return found


def _outer(tensor: np.ndarray, use: Use) -> Program:
    (d1, d2, d), (a, b, c) = tensor.shape, batch_letters(use)
    # Rows of the product that do not start at whole vectors cost it up to a third.
    spare = -d2 % _VECTOR if d2 >= _PADDED else 0
    outer = use.product(f"{a}i,{b}j->{c}ij", (*head(use, a), d1), (*head(use, b), d2 + spare))
    table = np.pad(tensor, ((0, 0), (0, spare), (0, 0))).reshape(-1, d)
    flat = times_table(table, 1 if c == "b" else use.channels, use)

    def run(x: Array, y: Array, _: Any) -> Array:
        x, y = (without_channels(z, s) for z, s in zip((x, y), use.shared, strict=True))
        if spare:
            y = jnp.pad(y, (*[(0, 0)] * (y.ndim - 1), (0, spare)))
        return flat.run(outer(x, y).reshape(len(x), -1, len(table)))

    return Program((Repeated((outer, *flat.cost), efficiency=_EFFICIENCY),), run)


def _one_first(tensor: np.ndarray, use: Use, at: int) -> Program:
    """Contract the input at position `at` with the tensor, then the other."""
    letters = batch_letters(use)
    own, other, shared = letters[at], letters[1 - at], use.shared[at]
    n, m, d = np.moveaxis(tensor, at, 0).shape
    table = np.moveaxis(tensor, at, 0).reshape(n, m * d)
    half = times_table(table, use.channels_of(at), use)
    join = use.product(
        f"{own}jk,{other}j->{letters[2]}k", (*head(use, own), m, d), (*head(use, other), m)
    )

    def run(x: Array, y: Array, _: Any) -> Array:
        mine, rest = (x, y) if at == 0 else (y, x)
        made = half.run(mine).reshape(*mine.shape[:2], m, d)
        made = made[:, 0] if shared else made
        return join(made, without_channels(rest, use.shared[1 - at])).reshape(len(x), -1, d)

    return Program((Repeated((*half.cost, join), efficiency=_EFFICIENCY),), run)


def _written_out(tensor: np.ndarray, use: Use) -> Program | None:
    """Return the program of one multiplication for each nonzero, where the planner has one."""
    (a, b, c), (d1, d2, d) = batch_letters(use), tensor.shape
    made = _with_constant(
        f"{a}i,{b}j,ijk->{c}k",
        ((*head(use, a), d1), (*head(use, b), d2)),
        Constant.of(tensor.astype(use.dtype)),
        use.device,
    )
    if all(step.how != "unroll" for step in made.steps):
        return None

    def run(x: Array, y: Array, _: Any) -> Array:
        z = made(without_channels(x, use.shared[0]), without_channels(y, use.shared[1]))
        return z.reshape(len(x), -1, d)

    # Taking components one by one costs about as much as what the planner counts, their products.
    if not use.gradients:
        return Program((Repeated(made, 2),), run)
    return Program((Repeated(made, 6), Work(0, _COMPILED * np.count_nonzero(tensor))), run)


@lru_cache(maxsize=1024)
def _with_constant(
    expression: str, shapes: tuple[tuple[int, ...], ...], last: Constant, device: str | None
) -> Plan:
    options: dict[str, Any] = {"batch": "b", "dtype": last.dtype, "device": device}
    return plan(expression, *shapes, constants={len(shapes): last.value}, **options)
