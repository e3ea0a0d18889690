"""What a tensor product can express, and how far a function is from equivariance.

Expressivity and interactability are those of "The Price of Freedom" (arXiv 2506.13523), for the
weights of a map. They are properties of the map, and so the same for every method.
"""

from collections.abc import Callable, Sequence
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float64, PRNGKeyArray

from .bilinear import BilinearMap
from .coupling.quadrature import grid
from .coupling.sphere import harmonics

# Vectors that each element of O(3) is tried on: no result is small by chance.
_VECTORS = 16


def equivariance_error(
    f: Callable[..., Any],
    irreps_in: Sequence[e3nn.Irreps | str],
    irreps_out: e3nn.Irreps | str,
    *,
    key: PRNGKeyArray,
    samples: int = 8,
    channels: int = 1,
    dtype: Any = None,
) -> float:
    """Return the largest relative Frobenius error of f(D x, D y) against D f(x, y).

    D runs over random elements of O(3), every other one with an inversion; it is float64, and so
    are the norms. Each is tried on 16 random arguments.

    Args:
        f: takes an array `[batch, channels, irreps.dim]` for each of `irreps_in`, of any
            multiplicities, and returns one for `irreps_out`, row by row.
        irreps_in: of the arguments.
        irreps_out: of the result.
        key: for the elements and the arguments.
        samples: number of elements.
        channels: of the arguments.
        dtype: of the arguments, default: jax's default float.

    Raises:
        ValueError: `samples` or `channels` below 1, no `irreps_in`, float64 where jax's 64-bit
            types are off, or a result of another shape than `[batch, ..., irreps_out.dim]`.
    """
    for name, value in (("samples", samples), ("channels", channels), ("irreps_in", irreps_in)):
        least = len(value) if isinstance(value, Sequence) else value
        if least < 1:
            raise ValueError(f"{name}: expected at least one, got {value!r}")
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"dtype: expected 64-bit types to be turned on in jax for {dtype}")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    elements = [_orthogonal(rng, inverted=bool(n % 2)) for n in range(samples)]
    plain, turned = [], []
    for irreps in map(e3nn.Irreps, irreps_in):
        x = rng.standard_normal((samples, _VECTORS, channels, irreps.dim)).astype(dtype)
        plain.append(x)
        turned.append(_applied(elements, irreps, x))
    irreps = e3nn.Irreps(irreps_out)
    z, turned_z = (_called(f, arguments, irreps, dtype) for arguments in (plain, turned))
    expected = _applied(elements, irreps, z)
    axes = tuple(range(1, z.ndim))
    error = np.sqrt(np.sum((turned_z - expected) ** 2, axes))
    size = np.sqrt(np.sum(z**2, axes))
    return float(np.max(np.where(error == 0, 0.0, error / np.where(size == 0, 1e-300, size))))


def representation(
    irreps: e3nn.Irreps | str, element: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "d d"]:
    """Return the matrix D by which an element of O(3) acts on irreps, exact to rounding.

    Rotated harmonics are projected on harmonics: Y(R r) = D Y(r), integrated on a grid.
    """
    irreps = e3nn.Irreps(irreps)
    sign = np.sign(np.linalg.det(element))
    blocks: dict[int, np.ndarray] = {}
    for degree in {ir.l for _, ir in irreps}:
        points = grid(2 * degree)
        turned = points.points @ (sign * element).T
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        left, right = harmonics(degree, turned), harmonics(degree, points.points)
        blocks[degree] = left.T @ (points.weights[:, None] * right)
    parts = [(ir.p if sign < 0 else 1) * blocks[ir.l] for n, ir in irreps for _ in range(n)]
    return np.asarray(scipy.linalg.block_diag(*parts))


def expressivity(product: Any) -> int:
    """Return the dimension of the set of maps that the weights of a product reach.

    That is the rank of the derivative of the map with respect to the weights of one channel, at
    generic weights: 3 (L + 1) - 2 for weights per degree of degrees 0 to L; 0 without weights.

    Args:
        product: a `BilinearMap`, or what holds one as `bilinear` or `map`.
    """
    bilinear = _map_of(product)
    if bilinear.weight_shape is None:
        return 0
    at = _generic(bilinear, 1)
    # The map is affine in each weight alone, so that steps of one are its derivatives.
    steps = np.eye(at.size).reshape(-1, *at.shape[1:])
    reached = _path_weights(bilinear, np.concatenate([at, at + steps]))
    return _rank(bilinear, reached[1:] - reached[:1])


def span(product: Any) -> int:
    """Return the dimension of the least linear space with all maps that the weights reach.

    As `expressivity` for sums of arbitrarily many such products; 1 without weights.

    Args:
        product: as for `expressivity`.
    """
    bilinear = _map_of(product)
    if bilinear.weight_shape is None:
        return 1
    weights = _generic(bilinear, 2 * len(bilinear.triples))
    return _rank(bilinear, _path_weights(bilinear, weights))


def interactability(product: Any) -> tuple[tuple[e3nn.Irrep, e3nn.Irrep, e3nn.Irrep], ...]:
    """Return which irreps of the inputs reach which of the result, each triple once.

    Args:
        product: as for `expressivity`.
    """
    bilinear = _map_of(product)
    three = (bilinear.irreps_in1, bilinear.irreps_in2, bilinear.irreps_out)
    found = {}
    for path in bilinear.triples:
        first, second, out = (irreps[k].ir for irreps, k in zip(three, path, strict=True))
        found[first, second, out] = None
    return tuple(found)


def _map_of(product: Any) -> BilinearMap:
    found = getattr(product, "bilinear", getattr(product, "map", product))
    if not isinstance(found, BilinearMap):
        raise TypeError(
            f"product: expected a BilinearMap or a tensor product, got {type(product).__name__}"
        )
    return found


def _generic(bilinear: BilinearMap, number: int) -> Float64[np.ndarray, "number ..."]:
    """Return weights of both signs, away from zero."""
    rng = np.random.default_rng(0)
    shape = (number, *(bilinear.weight_shape or ()))
    return rng.uniform(0.5, 1.5, shape) * rng.choice((-1.0, 1.0), shape)


def _path_weights(bilinear: BilinearMap, weights: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(bilinear.path_weights(jnp.asarray(weights)))


def _rank(bilinear: BilinearMap, path_weights: np.ndarray) -> int:
    # No two paths overlap in the tensor of a map, and its part of a path is not zero: the map's
    # rank is that of the weights of the paths.
    norms = [np.linalg.norm(bilinear.path_tensor(path)) for path in bilinear.triples]
    columns = path_weights * np.asarray(norms)
    # Generic rows of very different sizes: nearly dependent columns are no rank lost.
    columns = columns / np.linalg.norm(columns, axis=0)
    return int(np.linalg.matrix_rank(columns, tol=1e-9 * max(columns.shape)))


def _orthogonal(rng: np.random.Generator, *, inverted: bool) -> Float64[np.ndarray, "3 3"]:
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))  # uniform over O(3)
    return q * np.linalg.det(q) * (-1.0 if inverted else 1.0)


def _applied(elements: Sequence[np.ndarray], irreps: e3nn.Irreps, x: np.ndarray) -> np.ndarray:
    matrices = np.stack([representation(irreps, element) for element in elements])
    matrices = matrices.reshape(len(elements), *(1,) * (x.ndim - 3), *matrices.shape[1:])
    return x.astype(np.float64) @ matrices.swapaxes(-1, -2)


def _called(
    f: Callable[..., Array], arguments: Sequence[np.ndarray], irreps: e3nn.Irreps, dtype: Any
) -> Float64[np.ndarray, "samples vectors ... d"]:
    rows = [jnp.asarray(x.reshape(-1, *x.shape[2:]).astype(dtype)) for x in arguments]
    z = np.asarray(f(*rows), np.float64)
    if z.ndim < 2 or z.shape[0] != rows[0].shape[0] or z.shape[-1] != irreps.dim:
        raise ValueError(
            f"f: expected a result [{rows[0].shape[0]}, ..., {irreps.dim}] for irreps_out = "
            f"{irreps}, got {z.shape}"
        )
    return z.reshape(arguments[0].shape[0], -1, *z.shape[1:])
