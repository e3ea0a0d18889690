"""Relative errors of fields in L2 and H1, and figures of a model at several resolutions."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from tensornet.validation import as_real, check_finite

BOUNDARIES = ("periodic", "one-sided")


def relative_l2(
    prediction: Float[ArrayLike, "..."], truth: Float[ArrayLike, "..."]
) -> Float[Array, ""]:
    """Return `|prediction - truth| / |truth|`, the mean over the batch.

    Args:
        prediction: `[batch, channels, *grid]`.
        truth: the same.

    Raises:
        ValueError: shapes that differ.
    """
    p, t = _checked(prediction, truth)
    return jnp.mean(_ratio(_squares(p - t), _squares(t)))


def relative_h1(
    prediction: Float[ArrayLike, "..."],
    truth: Float[ArrayLike, "..."],
    *,
    boundary: str = "periodic",
    length: float | int = 1.0,
) -> Float[Array, ""]:
    """Return the same of the H1 norm, in which the squares of all first differences are added.

    Args:
        prediction: `[batch, channels, *grid]`.
        truth: the same.
        boundary: differences are central inside; at the ends `"periodic"` ones reach over to the
            other side, `"one-sided"` ones take the nearest neighbour inside.
        length: of every axis; the spacing is the length over the number of points.

    Raises:
        ValueError: shapes that differ, another boundary, an axis of one point.
    """
    p, t = _checked(prediction, truth)
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary: expected one of {BOUNDARIES}, got {boundary!r}")

    def squares(x: Array) -> Array:
        parts = [x, *(differences(x, k, boundary, length) for k in range(2, x.ndim))]
        return sum(map(_squares, parts), jnp.zeros(len(x), x.dtype))

    return jnp.mean(_ratio(squares(p - t), squares(t)))


def differences(x: Array, axis: int, boundary: str, length: float | int = 1.0) -> Array:
    """Return the first differences along an axis, over the spacing.

    Raises:
        ValueError: an axis of one point.
    """
    n = x.shape[axis]
    if n < 2:
        raise ValueError(f"truth: expected at least 2 points along axis {axis}, got {n}")
    ahead, behind = jnp.roll(x, -1, axis), jnp.roll(x, 1, axis)
    per = jnp.asarray(n / length, x.dtype)
    central = (ahead - behind) * (per / 2)
    if boundary == "periodic":
        return central
    at = jnp.arange(n).reshape(-1, *(1,) * (x.ndim - axis - 1))
    at = jnp.broadcast_to(at, x.shape)
    edges = jnp.where(at == 0, (ahead - x) * per, (x - behind) * per)
    return jnp.where((at == 0) | (at == n - 1), edges, central)


@lru_cache(maxsize=64)
def loss_of(name: Any, boundary: str) -> Callable[..., Any]:
    """Return a loss by its name, or a function as it is.

    Raises:
        ValueError: an unknown name.
    """
    if callable(name):
        return name
    known = {"l2": relative_l2, "h1": partial(relative_h1, boundary=boundary)}
    if name not in known:
        raise ValueError(f"loss: expected a function or one of {tuple(known)}, got {name!r}")
    return known[name]


def evaluate(
    model: Any,
    data: Mapping[str, tuple[Any, Any]],
    *,
    boundary: str = "periodic",
    batch_size: int = 50,
) -> dict[str, dict[str, float]]:
    """Return the relative errors of a model on data of several resolutions.

    Args:
        model: maps `[batch, channels, *grid]`.
        data: pairs of inputs and truths by name.
        boundary: of the differences in H1.
        batch_size: fields at a time.

    Returns:
        For each name the errors "l2" and "h1", means over the fields.

    Raises:
        ValueError: NaN in the data, counts that differ.
    """
    figures = {}
    for name, (x, y) in data.items():
        x, y = as_real(x, f"data[{name!r}][0]"), as_real(y, f"data[{name!r}][1]")
        check_finite(x, f"data[{name!r}][0]")
        check_finite(y, f"data[{name!r}][1]")
        if len(x) != len(y) or not len(x):
            raise ValueError(f"data[{name!r}]: expected as many truths, got {len(x)} and {len(y)}")
        sums = np.zeros(2)
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            sums += len(x[part]) * np.asarray(_errors(model, x[part], y[part], boundary))
        figures[name] = dict(zip(("l2", "h1"), (sums / len(x)).tolist(), strict=True))
    return figures


@eqx.filter_jit
def _errors(model: Any, x: Array, y: Array, boundary: str) -> Array:
    got = model(x)
    return jnp.stack([relative_l2(got, y), relative_h1(got, y, boundary=boundary)])


def _squares(x: Array) -> Array:
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)))


def _ratio(error: Array, truth: Array) -> Array:
    """The root of a quotient of squares.

    A truth of zeros has no relative error: this one is large, and finite. Where there is no error
    the gradient is zero.
    """
    tiny = float(jnp.finfo(truth.dtype).tiny) ** 0.5
    root = jnp.sqrt(jnp.where(error > 0, error, jnp.ones_like(error)))
    return jnp.where(error > 0, root, jnp.zeros_like(root)) / (jnp.sqrt(truth) + tiny)


def _checked(prediction: Any, truth: Any) -> tuple[Array, Array]:
    p, t = as_real(prediction, "prediction"), as_real(truth, "truth")
    if p.shape != t.shape:
        raise ValueError(f"prediction: expected the shape {t.shape} of truth, got {p.shape}")
    if t.ndim < 3:
        raise ValueError(f"truth: expected [batch, channels, *grid], got shape {t.shape}")
    return p, t
