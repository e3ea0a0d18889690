"""Functions on the sphere as Fourier series on the torus, and their products there.

Beyond beta = pi a harmonic goes on as its formula does; both angles then have period 2 pi, and a
function is a finite sum of F[v, u] exp(i (v alpha + u beta)). It takes each value on the sphere
twice, at (alpha, beta) and (alpha + pi, -beta): F[v, -u] = (-1)^v F[v, u]. The components of
`sphere.tangent` are finite sums too, since a harmonic of order other than 0 is divisible by
sin(beta); they change sign there, F[v, -u] = -(-1)^v F[v, u]. With them r . (grad f x grad g) is
f_u g_v - f_v g_u, again the values of a function.

So u, v >= 0 say all: "planes" are arrays [2, M, U], real and imaginary part for v = 0 ... M-1 and
u = 0 ... U-1. All F are times i^v, which turns the sphere by a quarter about its axis and leaves
products as they are; then a coefficient of order m meets the plane of one part alone, and all
tables are real. (Luo, Chen and Krishnapriyan, "Enabling efficient equivariant operations in the
Fourier basis via Gaunt tensor products", 2024, keep all of F, complex.)
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64
from scipy.fft import next_fast_len

from .legendre import legendre
from .orders import Orders, orders_of
from .quadrature import check_degree, read_only
from .sphere import degrees_of


@dataclass(frozen=True, eq=False)
class ToTorus:
    """Tables from coefficients to planes, for irreps of largest degree M - 1 = U - 1.

    With coefficients X sorted by order, [..., s, m, n] (see `Orders`), planes are
    "...smn,smnu->...smu": matrix products in a batch over (s, m). For `slopes` X is taken with
    its signs exchanged, X[..., ::-1, :, :]. The same as one matrix of mostly zeros:
    x [..., d] times `dense[k]`, k = 0, 1, 2 for values, u and v.

    Attributes:
        orders: how coefficients are sorted.
        values: the function.
        slopes: its component u of `sphere.tangent`.
        over_sine: its component v.
        dense: all three for unsorted coefficients.
    """

    orders: Orders
    values: Float64[np.ndarray, "2 M n U"]
    slopes: Float64[np.ndarray, "2 M n U"]
    over_sine: Float64[np.ndarray, "2 M n U"]
    dense: Float64[np.ndarray, "3 d 2*M*U"]


@dataclass(frozen=True, eq=False)
class FromTorus:
    """Tables from planes of the values of a function to its coefficients.

    Sorted by order, coefficients are "...smu,smnu->...smn" with `values`; planes with their axes
    flattened, times `dense`, are the coefficients themselves.

    Attributes:
        orders: how coefficients are sorted.
        values: in a batch over (s, m).
        dense: the same as one matrix.
    """

    orders: Orders
    values: Float64[np.ndarray, "2 M n U"]
    dense: Float64[np.ndarray, "2*M*U d"]


def to_torus(irreps: e3nn.Irreps | str) -> ToTorus:
    """Return the tables that take coefficients of `irreps` to the torus, exact to rounding.

    Raises:
        ValueError: `irreps` are none or have a multiplicity other than one.
    """
    return _to_torus(degrees_of(irreps))


def from_torus(irreps: e3nn.Irreps | str, degree: int) -> FromTorus:
    """Return the tables that take planes [2, M, degree + 1] to coefficients, exact to rounding.

    M - 1 is the largest degree of `irreps`; `degree` is that of the function, for a product the sum
    of the largest degrees of its factors.

    Raises:
        ValueError: as for `to_torus`, or `degree` is not an integer or is negative.
    """
    return _from_torus(degrees_of(irreps), check_degree(degree))


@lru_cache(maxsize=256)
def _to_torus(degrees: tuple[int, ...]) -> ToTorus:
    orders, l_max = orders_of(degrees), max(degrees)
    theta = 2 * np.pi * np.arange(2 * l_max + 2) / (2 * l_max + 2)
    scale = np.sqrt(np.maximum([n * (n + 1) for n in degrees], 1))
    functions = legendre(l_max, np.cos(theta), np.sin(theta))
    half = np.where(np.arange(l_max + 1) > 0, 0.5, 1.0)  # cos(m alpha) is half of two exponentials
    power = half * np.array([1, 1j, -1, -1j])[np.arange(l_max + 1) % 4]
    tables = []
    for k, function in enumerate(functions):
        series = np.fft.rfft(function[list(degrees)], norm="forward")[..., : l_max + 1]
        if k:  # the derivatives are imaginary here: by alpha for its factor, by beta left so
            series = 1j * series / scale[:, None, None]
        tables.append((power[:, None] * series).real.transpose(1, 0, 2))
    sign = np.array([1.0, -1.0])[:, None, None, None]
    values, slopes, over_sine = sign * tables[0], -np.stack([tables[1]] * 2), sign * tables[2]
    dense = [_scattered(orders, t) for t in (values, slopes[::-1], over_sine)]
    dense[1] = dense[1][:, ::-1]
    size = (3, len(orders.position), -1)
    locked = [read_only(t) for t in (values, slopes, over_sine, np.reshape(dense, size))]
    return ToTorus(orders, *locked)


@lru_cache(maxsize=256)
def _from_torus(degrees: tuple[int, ...], degree: int) -> FromTorus:
    """Integrate by Gauss and Legendre: what meets is a polynomial of the cosine."""
    orders, l_max = orders_of(degrees), max(degrees)
    cosine, weights = np.polynomial.legendre.leggauss((degree + l_max) // 2 + 1)
    functions = legendre(l_max, cosine, np.sqrt((1 - cosine) * (1 + cosine))).values
    u = np.arange(degree + 1)
    angles = np.multiply.outer(u, np.arccos(cosine))
    m = np.arange(l_max + 1)
    sign = np.where(m // 2 % 2, -0.5, 0.5)[:, None, None]
    waves = np.where(m[:, None, None] % 2, np.sin(angles), np.cos(angles))
    waves = sign * np.where(u > 0, 2, 1)[:, None] * waves * weights
    table = np.einsum("mup,nmp->mnu", waves, functions[list(degrees)])
    values = np.stack([table, -table])
    dense = _scattered(orders, values).reshape(len(orders.position), -1).T
    return FromTorus(orders, read_only(values), read_only(dense))


def _scattered(orders: Orders, table: np.ndarray) -> np.ndarray:
    """Return the rows [d, 2, M, U] of a matrix that is the table [2, M, n, U] on sorted input."""
    signs, m, irrep = np.unravel_index(orders.position, orders.gather.shape)
    rows = np.zeros((len(m), *table.shape[:2], table.shape[3]))
    rows[np.arange(len(m)), signs, m] = table[signs, m, irrep]
    return rows


def sample_shape(degree1: int, degree2: int, degree3: int) -> tuple[int, int]:
    """Return how many samples in alpha and beta give a product's coefficients to `degree3`.

    Orders above `degree3` may alias among themselves; in beta all of the product is kept.
    """
    in_alpha = max(degree1 + degree2 + degree3, 2 * degree1, 2 * degree2) + 1
    in_beta = 2 * (degree1 + degree2) + 1
    return _fast_size(in_alpha), _fast_size(in_beta)


def _fast_size(least: int) -> int:
    return cast(int, next_fast_len(least, real=True))


def samples(
    planes: Float[Array, "*batch 2 M U"], shape: tuple[int, int], *, tangent: bool = False
) -> Float[Array, "*batch A B"]:
    """Return values at multiples of 2 pi / A in alpha and of 2 pi / B in beta, by FFT.

    The alphas are a quarter turn ahead, by the factor i^v.

    Args:
        planes: of values, or of a tangent component.
        shape: the numbers (A, B), at least 2 M - 1 and 2 U - 1.
        tangent: whether `planes` are of a tangent component.

    Raises:
        ValueError: too few samples to hold the planes.
    """
    *batch, _, m, u = planes.shape
    if shape[0] < 2 * m - 1 or shape[1] < 2 * u - 1:
        raise ValueError(f"shape: expected at least {(2 * m - 1, 2 * u - 1)}, got {shape}")
    gap = jnp.zeros((*batch, 2, shape[0] - 2 * m + 1, u), planes.dtype)
    half = jnp.concatenate([planes, gap, _negative_orders(planes, tangent)], axis=-2)
    return jnp.fft.irfft2(_complex(half), s=shape, norm="forward")


def coefficients(
    values: Float[Array, "*batch A B"], orders: int, degree: int
) -> Float[Array, "*batch 2 {orders+1} {degree+1}"]:
    """Return planes, of orders to `orders`, from samples of a function of this degree, by FFT."""
    found = jnp.fft.rfft2(values, norm="forward")[..., : orders + 1, : degree + 1]
    return jnp.stack([found.real, found.imag], axis=-3)


def convolve(
    f: Float[Array, "*batch 2 M1 U1"],
    g: Float[Array, "*batch 2 M2 U2"],
    orders: int,
    *,
    tangent: bool = False,
) -> Float[Array, "*batch 2 {orders+1} U"]:
    """Return planes of a product, with orders to `orders` and U = U1 + U2 - 1, by convolution.

    It is what `coefficients` gives for the product of `samples`.

    Args:
        f: planes of values, or of a tangent component.
        g: planes of the same kind.
        orders: the largest order to return.
        tangent: whether `f` and `g` are of tangent components.
    """
    a, b = _whole(f, tangent), _whole(g, tangent)
    outer = a[..., :, None, :, None] * b[..., None, :, None, :]
    top, zero = f.shape[-2] + g.shape[-2] - 2, f.shape[-1] + g.shape[-1] - 2
    kept = min(orders, top)
    sums = _shear(_shear(outer, -4), -2)[..., top : top + kept + 1, :, zero:].sum((-4, -2))
    planes = jnp.stack([sums.real, sums.imag], axis=-3)
    return jnp.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(0, orders - kept), (0, 0)])


def _complex(planes: Array) -> Array:
    return jax.lax.complex(planes[..., 0, :, :], planes[..., 1, :, :])


def _reflected(planes: Array, orders: np.ndarray, tangent: bool, imaginary: int) -> Array:
    """Return F[v, -u] at the place of F[v, u], its imaginary part times `imaginary`."""
    signs = np.where(orders % 2 == tangent, 1, -1)
    factors = np.stack([signs, imaginary * signs])[..., None]
    shape = (1,) * (planes.ndim - 3) + factors.shape
    return planes * jnp.asarray(factors.reshape(shape), planes.dtype)


def _negative_orders(planes: Array, tangent: bool) -> Array:
    """Return F of v = 1 - M ... -1: of a real function, F[-v, u] is the conjugate of F[v, -u]."""
    conjugate = _reflected(planes, np.arange(planes.shape[-2]), tangent, -1)
    return jnp.flip(conjugate[..., 1:, :], -2)


def _whole(planes: Array, tangent: bool) -> Array:
    """Return F of all v and u, from the least to the largest."""
    orders = np.arange(1 - planes.shape[-2], planes.shape[-2])
    right = jnp.concatenate([_negative_orders(planes, tangent), planes], axis=-2)
    left = jnp.flip(_reflected(right, orders, tangent, 1)[..., 1:], -1)
    return _complex(jnp.concatenate([left, right], axis=-1))


def _shear(x: Array, axis: int) -> Array:
    """Move row i of the two axes from `axis` by i, so that sums over rows are a convolution's."""
    axis += x.ndim
    rows, columns = x.shape[axis : axis + 2]
    before, after = x.shape[:axis], x.shape[axis + 2 :]
    width = rows + columns
    x = jnp.pad(x, [(0, rows) if k == axis + 1 else (0, 0) for k in range(x.ndim)])
    x = x.reshape(*before, rows * width, *after)
    x = jax.lax.slice_in_dim(x, 0, rows * (width - 1), axis=axis)
    return x.reshape(*before, rows, width - 1, *after)
