"""Coupling coefficients of real irreps, from exact integers.

A 3j symbol is a positive square root times an alternating sum of products of binomials. The sum,
where floating point cancels, is taken in Python integers; what follows it are a few products of
positive numbers. So entries hold to some 1e-15 relative at any degree.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float64

from tensornet.cache import cached

# Beyond it binomials leave the range of float64; a table would have some 10^8 entries.
_LARGEST_SUM = 500
# Products of integers in a table's sums: below, it is built in some milliseconds, and reading it
# would save little.
_WORTH_KEEPING = 50_000


def clebsch_gordan(l1: Any, l2: Any, l3: Any) -> Float64[np.ndarray, "{2*l1+1} {2*l2+1} {2*l3+1}"]:
    """Return the coefficients C that couple the real irreps l1 and l2 to l3.

    Basis, signs and scale are those of `e3nn_jax.clebsch_gordan`: the sum over i, j of
    C[i, j, k] C[i, j, k'] is 1/(2 l3 + 1) for k = k', else 0. Exchanging two degrees (and axes)
    changes the sign where l1 + l2 + l3 is odd. Entries are exact to a few units in the last place.
    The array is shared between calls, and read-only.

    Raises:
        ValueError: a degree is not an integer or is negative, the degrees break the triangle
            rule |l1 - l2| <= l3 <= l1 + l2, or their sum is above 500.
    """
    return _real_table(*_checked(l1, l2, l3))


def gaunt_coefficient(l1: Any, l2: Any, l3: Any) -> float:
    """Return the factor between the Gaunt coupling and the Clebsch-Gordan coupling, rounded once.

    It is sqrt((2 l1 + 1)(2 l2 + 1)) times |3j(l1 l2 l3; 0 0 0)| for even l1 + l2 + l3, the product
    of two functions on the sphere, and times |3j(l1 l2 l3; 1 -1 0)| for odd sums, the product
    r . (grad f x grad g) of their gradients, each scaled by 1/sqrt(l(l + 1)).

    Raises:
        ValueError: as for `clebsch_gordan`.
    """
    return _gaunt_coefficient(*_checked(l1, l2, l3))


@lru_cache(maxsize=4096)
def _gaunt_coefficient(l1: int, l2: int, l3: int) -> float:
    a, b, d = l1 + l2 - l3, l1 - l2 + l3, -l1 + l2 + l3
    m = (l1 + l2 + l3) % 2
    p, q = l1 - m, l2 - m
    total = sum(
        (-1) ** k * math.comb(a, k) * math.comb(b, p - k) * math.comb(d, q - k)
        for k in range(min(p, q) + 1)
    )
    binomials = math.comb(2 * l1, p) * math.comb(2 * l2, q) * math.comb(2 * l3, l3)
    square = _common_factor(l1, l2, l3) * total**2 / binomials
    return _rounded_sqrt((2 * l1 + 1) * (2 * l2 + 1) * square)


@lru_cache(maxsize=512)
def _real_table(l1: int, l2: int, l3: int) -> np.ndarray:
    """Turn a 3j symbol to the real basis, in which each entry is one of its entries.

    e3nn's basis is (|-m> + (-1)^m |m>)/sqrt(2) and -i (|-m> - (-1)^m |m>)/sqrt(2), at index m and
    -m, times a power of i. Of the eight products only two mirror images, m1 + m2 + m3 = 0 and all
    signs reversed, have a symbol; they are equal or opposite by the parity of l1 + l2 + l3, and
    so they add where the product of the signs of the real indices is that parity, else cancel.
    """
    symbol = _wigner_3j(l1, l2, l3)
    parity = _alternating(l1 + l2 + l3)
    m1, m2 = np.nonzero(np.abs(np.add.outer(np.arange(l1 + 1), np.arange(-l2, l2 + 1))) <= l3)
    m = np.stack([m1, m2 - l2, l2 - m1 - m2])
    size, entry = np.abs(m), np.arange(m.shape[1])
    largest = size.argmax(0)  # which of the three is the sum of the others
    values = symbol[m1, m2] * np.where(m[largest, entry] < 0, parity, 1)  # turned to be positive
    values *= _alternating(size[largest, entry] + (l1 + l2 + l3) // 2)
    values *= np.where((m == 0).any(0), 1.0, math.sqrt(0.5))
    signs = np.array([(s, t, parity * s * t) for s in (1, -1) for t in (1, -1)])[:, :, None]
    values = values * signs[:, largest, 0] * np.where((signs < 0).sum(1) > 1, -1, 1)
    once = ((signs > 0) | (size > 0)).all(1)  # index 0 has no negative
    index = np.array([[l1], [l2], [l3]]) + signs * size
    table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    table[tuple(index.swapaxes(0, 1)[:, once])] = values[once]
    table.flags.writeable = False
    return table


def _wigner_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return 3j(l1 l2 l3; m1 m2 -m1-m2) for m1 >= 0, at [m1, l2 + m2], from disk where it pays."""
    work = (l1 + l2 - l3 + 1) * (l1 - l2 + l3 + 1) * (-l1 + l2 + l3 + 1)
    if work < _WORTH_KEEPING:
        return _build_wigner_3j(l1, l2, l3)
    return cached(
        "wigner-3j",
        {"degrees": (l1, l2, l3), "version": 1},
        lambda: {"symbol": _build_wigner_3j(l1, l2, l3)},
        kind="npz",
    )["symbol"]


def _build_wigner_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """Evaluate Racah's formula, its sum as a product of polynomials with integer coefficients.

    The sum over k of (-1)^k C(a, k) C(b, p - k) C(d, q - k) is the coefficient of x^p y^q in
    (1 - xy)^a (1 + x)^b (1 + y)^d; p = l1 - m1 and q = l2 + m2. (Johansson and Forssen, "Fast and
    accurate evaluation of Wigner 3j, 6j, and 9j symbols", 2016, have the formula in binomials.)
    """
    a, b, d = l1 + l2 - l3, l1 - l2 + l3, -l1 + l2 + l3
    rows = l1 + 1  # p up to l1, which is m1 = 0
    outer = np.multiply.outer(_binomials(b, object)[:rows], _binomials(d, object))
    sums = np.zeros((rows, 2 * l2 + 1), object)
    for k, binomial in enumerate(_binomials(a, object)[:rows]):
        part = outer[: rows - k]
        sums[k : k + len(part), k : k + d + 1] += (-1) ** k * binomial * part
    m1, m2 = np.arange(l1 + 1)[:, None], np.arange(-l2, l2 + 1)[None, :]
    m3 = np.abs(m1 + m2)
    inside = m3 <= l3
    binomials = _binomials(2 * l1)[l1 + m1] * _binomials(2 * l2)[l2 + m2]
    binomials = binomials * _binomials(2 * l3)[np.where(inside, l3 + m3, 0)]
    sign = _alternating(l1 - l2 + m1 + m2)
    size = np.sqrt(float(_common_factor(l1, l2, l3)) / binomials)
    return np.where(inside, sign * size * sums[::-1].astype(np.float64), 0.0)


def _alternating(n: Any) -> Any:
    """Return (-1)^n for integers n."""
    return 1 - 2 * (n % 2)


def _binomials(n: int, dtype: Any = np.float64) -> np.ndarray:
    return np.array([math.comb(n, k) for k in range(n + 1)], dtype)


def _common_factor(l1: int, l2: int, l3: int) -> Fraction:
    """Return the part of a squared 3j symbol that its projections do not change."""
    f = math.factorial
    a, b, d = l1 + l2 - l3, l1 - l2 + l3, -l1 + l2 + l3
    return Fraction(f(2 * l1) * f(2 * l2) * f(2 * l3), f(a) * f(b) * f(d) * f(l1 + l2 + l3 + 1))


def _rounded_sqrt(x: Fraction) -> float:
    """Return the float next to the square root of `x`."""
    shift = max(0, 64 - (x.numerator.bit_length() - x.denominator.bit_length()) // 2)
    square, rest = divmod(x.numerator << (2 * shift), x.denominator)
    root = math.isqrt(square)  # 64 bits or more
    inexact = rest > 0 or root * root < square
    return math.ldexp(float(2 * root + inexact), -shift - 1)  # the last bit breaks ties rightly


def _checked(l1: Any, l2: Any, l3: Any) -> tuple[int, int, int]:
    for name, degree in (("l1", l1), ("l2", l2), ("l3", l3)):
        if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)) or degree < 0:
            raise ValueError(
                f"{name}: expected an integer of at least 0, got {degree!r} "
                f"({type(degree).__name__})"
            )
    l1, l2, l3 = int(l1), int(l2), int(l3)
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(
            f"l3: expected between |l1 - l2| = {abs(l1 - l2)} and l1 + l2 = {l1 + l2}, got {l3}"
        )
    if l1 + l2 + l3 > _LARGEST_SUM:
        raise ValueError(
            f"l1, l2, l3: expected a sum of at most {_LARGEST_SUM}, got {l1 + l2 + l3}"
        )
    return l1, l2, l3
