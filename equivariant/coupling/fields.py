"""Which products of functions on the sphere make up a bilinear map.

The product of two functions holds the paths of even l1 + l2 + l3, the bracket
r . (grad f x grad g) = f_u g_v - f_v g_u those of odd sums. Parity is one more rule: for both there
are signs of irreps that multiply along their paths, p and (-1)^l (for odd sums, up to one sign).
Functions are split by signs where sums of products would reach irreps that no path does.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import e3nn_jax as e3nn
import numpy as np
from jaxtyping import Float64

from ..bilinear import BilinearMap
from .separable_terms import separable_terms

Irreps = tuple[e3nn.Irreps, e3nn.Irreps, e3nn.Irreps]


@dataclass(frozen=True, eq=False)
class Field:
    """A function made of some irreps of an input, or what some irreps of the result are made of.

    Attributes:
        component: 0, values; 1 and 2, the components u and v of the scaled gradient.
        members: positions of the irreps.
        scale: for each of R terms a factor of each member.
    """

    component: int
    members: tuple[int, ...]
    scale: Float64[np.ndarray, "R n"]

    def scale_of_all(self, number: int) -> Float64[np.ndarray, "R {number}"]:
        """Return the factors of all irreps, zero for those that are no members."""
        whole = np.zeros((len(self.scale), number))
        whole[:, self.members] = self.scale
        return whole


@dataclass(frozen=True)
class Product:
    """The product of two fields, added with a sign to one of the result; term by term."""

    first: int
    second: int
    out: int
    sign: int


@dataclass(frozen=True, eq=False)
class Fields:
    """A map as products of fields.

    Attributes:
        irreps: of both inputs and of the result.
        first, second: fields of the inputs.
        out: fields of the result. Their members are the same or disjoint.
        products: at least one for each field of the result.
    """

    irreps: Irreps
    first: tuple[Field, ...]
    second: tuple[Field, ...]
    out: tuple[Field, ...]
    products: tuple[Product, ...]


@lru_cache(maxsize=256)
def fields_of(bilinear: BilinearMap, *, antipodal: bool = False) -> Fields:
    """Return the products that make up a map with weights of one.

    Args:
        bilinear: the map.
        antipodal: split into functions that are the same at opposite points and functions that
            are opposite there, so that half of the sphere says all.

    Raises:
        ValueError: the coupling is Clebsch-Gordan's and too many terms are needed; names the paths.
    """
    gaunt = bilinear.coupling == "gaunt"
    irreps = (bilinear.irreps_in1, bilinear.irreps_in2, bilinear.irreps_out)
    signs = _signs(irreps, antipodal)
    degrees = [[ir.l for _, ir in each] for each in irreps]
    sets: tuple[dict[Any, Field], ...] = ({}, {}, {})
    products: list[Product] = []

    def field(side: int, sign: Any, component: int, kind: int, factors: np.ndarray) -> int:
        """Return the position of a field, which is made where there is none yet."""
        known, key = sets[side], (sign, component, None if gaunt else kind)
        if key not in known:
            members = [n for n, own in enumerate(signs[side]) if own == sign]
            known[key] = Field(component, tuple(members), factors[:, members])
        return list(known).index(key)

    for kind in (0, 1):  # even and odd sums
        paths = [path for path in bilinear.triples if sum(bilinear.degrees(path)) % 2 == kind]
        if not paths:
            continue
        factors = [np.ones((1, n)) for n in bilinear.sizes]
        if not gaunt:
            found = separable_terms([bilinear.degrees(path) for path in paths])
            if found is None:
                raise ValueError(
                    "method: expected one for the Clebsch-Gordan coupling of "
                    f"{bilinear.listed(paths)}, got one that would need too many Gaunt products"
                )
            # Degrees beyond the table's occur in no path.
            wide = [np.pad(f, [(0, 0), (0, max(itertools.chain(*degrees)))]) for f in found]
            factors = [f[:, n] for f, n in zip(wide, degrees, strict=True)]
        triples = {tuple(signs[k][path[k]] for k in range(3)) for path in paths}
        parts = [(0, 0, 1)] if kind == 0 else [(1, 2, 1), (2, 1, -1)]
        for (s, t, o), (u, v, sign) in itertools.product(sorted(triples), parts):
            first = field(0, s, u, kind, factors[0])
            second = field(1, t, v, kind, factors[1])
            products.append(Product(first, second, field(2, o, 0, kind, factors[2]), sign))
    first, second, out = (tuple(known.values()) for known in sets)
    return Fields(irreps, first, second, out, tuple(products))


def _signs(irreps: Irreps, antipodal: bool) -> list[list[tuple[int, ...]]]:
    """Return the signs by which functions are split, for each irrep.

    Either p or (-1)^l p alone tells the paths from all others: whichever splits the inputs less.
    """
    both = [[(ir.p, (-1) ** ir.l) for _, ir in each] for each in irreps]
    if antipodal:
        return both
    options = [[[(p * q**k,) for p, q in each] for each in both] for k in (0, 1)]
    return min(options[::-1], key=lambda signs: len(set(signs[0])) * len(set(signs[1])))
