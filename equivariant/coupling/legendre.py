"""Associated Legendre functions, scaled for real harmonics, with what their gradients need."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64


class Legendre(NamedTuple):
    """Functions P(n, m) of the polar angle beta, of degree n and order m; zero for m > n.

    P(n, m)(beta) cos(m alpha) and P(n, m)(beta) sin(m alpha) are component-normalised harmonics.

    Attributes:
        values: P at [n, m, point].
        slopes: dP/dbeta.
        over_sine: m P / sin(beta), finite at the poles too.
    """

    values: Float64[np.ndarray, "L L p"]
    slopes: Float64[np.ndarray, "L L p"]
    over_sine: Float64[np.ndarray, "L L p"]


def legendre(
    l_max: int, cosine: Float64[np.ndarray, " p"], sine: Float64[np.ndarray, " p"]
) -> Legendre:
    """Evaluate the functions of degrees 0 to `l_max` at angles of this cosine and sine.

    A negative sine continues them beyond the sphere, to the whole circle of beta. The sign
    (-1)^m of Condon and Shortley is left out.
    """
    orders = np.arange(l_max + 1)
    n, m = orders[:, None, None], orders[:, None]
    scale = np.array([[_value_at_pole(n, m) for m in orders.tolist()] for n in orders.tolist()])
    sign = np.where(cosine < 0, (-1.0) ** (n + m), 1.0)
    # P / sin^m, a polynomial in the cosine: nothing here is divided by a sine.
    q = sign * scale[..., None] * _gegenbauer(l_max, np.abs(cosine), sine)
    powers = sine**m
    values = q * powers
    over_sine = m * q * np.roll(powers, 1, axis=0)  # times 0 where it wraps round
    fall = np.sqrt(np.maximum((n + m + 1) * (n - m), 0) / np.where(m > 0, 1, 2))
    slopes = cosine * over_sine - fall * np.roll(values, -1, axis=1)  # the same
    return Legendre(values, slopes, over_sine)


def _value_at_pole(n: int, m: int) -> float:
    """Return P(n, m) / sin^m at beta = 0."""
    if m > n:
        return 0.0
    f = math.factorial
    square = (1 if m == 0 else 2) * (2 * n + 1) * f(n + m)
    return math.sqrt(square / (f(n - m) * 4**m * f(m) ** 2))


def _gegenbauer(l_max: int, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Return the polynomials P(n, m) / sin^m over their values at the pole, for cosine >= 0.

    By recursion upwards in n. Nearer to the pole than to the equator the recursion runs over
    differences and takes 1 - cosine from the sine (Reinsch), which holds the last digits where the
    three-term recursion loses them.
    """
    to_pole = sine**2 / (1 + cosine)
    polar = cosine > np.abs(sine)
    q = np.ones((l_max + 1, l_max + 1, len(cosine)))
    step = np.zeros((l_max, len(cosine)))
    for n in range(l_max):
        m = np.arange(n + 1)[:, None]
        last, before, difference = q[n, : n + 1], q[n - 1, : n + 1], step[: n + 1]
        difference[:] = ((n - m) * difference - (2 * n + 1) * to_pole * last) / (n + m + 1)
        three_terms = ((2 * n + 1) * cosine * last - (n - m) * before) / (n + m + 1)
        q[n + 1, : n + 1] = np.where(polar, last + difference, three_terms)
    return q
