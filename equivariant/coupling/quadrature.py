"""Quadrature on the sphere, with as few points as are known to do for a degree."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.integrate import lebedev_rule
from scipy.special import eval_legendre, roots_jacobi


@dataclass(frozen=True, eq=False)
class Grid:
    """Points and weights that integrate polynomials on the unit sphere. Compared by identity.

    Attributes:
        points: Cartesian. The second half are the antipodes of the first, in the same order:
            there harmonics of even degree have the same values and those of odd degree the
            opposite ones.
        weights: positive, of sum 1, so that sums over the grid are means over the sphere.
        degree: polynomials up to this degree are integrated exactly.
    """

    points: Float64[np.ndarray, "G 3"]
    weights: Float64[np.ndarray, " G"]
    degree: int


@lru_cache(maxsize=256)
def grid(degree: int) -> Grid:
    """Return the smallest grid known here that is exact to `degree`.

    A product of harmonics of degrees l1, l2 and l3 has degree l1 + l2 + l3. The grids are all
    antipodal, so odd polynomials cost nothing, and their weights positive: rings about the polar
    axis (Gauss-Lobatto), octahedral (Lebedev) or pyritohedral. The arrays are read-only.

    Raises:
        ValueError: `degree` is not an integer or is negative.
    """
    even = check_degree(degree) // 2 * 2
    rules = [_rings(even), *_octahedral(even), *_pyritohedral(even)]
    points, weights = min(rules, key=lambda rule: len(rule[1]))
    # The order of representatives: by the first coordinate that is not zero.
    first = np.take_along_axis(points, np.argmax(np.abs(points) > 1e-9, axis=1)[:, None], 1)
    half = first[:, 0] > 0
    points = np.concatenate([points[half], -points[half]])
    weights = np.tile(weights[half], 2)
    return Grid(read_only(points), read_only(weights / weights.sum()), even + 1)


def check_degree(degree: Any, argument: str = "degree") -> int:
    """Return `degree` as an int.

    Raises:
        ValueError: it is not an integer or is negative.
    """
    if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)) or degree < 0:
        raise ValueError(f"{argument}: expected an integer of at least 0, got {degree!r}")
    return int(degree)


def read_only(array: np.ndarray) -> np.ndarray:
    """Return `array` after locking it."""
    array.flags.writeable = False
    return array


Rule = tuple[np.ndarray, np.ndarray]


def _rings(degree: int) -> Rule:
    """Gauss-Lobatto in the polar direction: the poles, and rings of degree + 1 points.

    On a ring, exp(i m alpha) of m up to `degree` is integrated exactly. That number is odd, so
    opposite rings are turned by half a step to be antipodal, and the equator has one point more.
    """
    x = roots_jacobi(degree // 2, 1, 1)[0] if degree else np.empty(0)
    x = (x - x[::-1]) / 2
    n = len(x) + 2
    points = [np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])]
    weights = [np.full(2, 1 / (n * (n - 1)))]
    for cosine in x:
        size = degree + 1 if cosine else degree + 2
        alpha = 2 * np.pi * np.arange(size) / size + (np.pi if cosine < 0 else 0)
        sine = np.sqrt((1 - cosine) * (1 + cosine))
        ring = [sine * np.sin(alpha), np.full(size, cosine), sine * np.cos(alpha)]
        points.append(np.transpose(ring))
        weight = 1 / (n * (n - 1) * eval_legendre(n - 1, cosine) ** 2)
        weights.append(np.full(size, weight / size))
    return np.concatenate(points), np.concatenate(weights)


def _octahedral(degree: int) -> Iterator[Rule]:
    """Lebedev's rules of this degree or a little above, where there are any."""
    for order in range(degree + 1, degree + 7, 2):
        try:
            points, weights = lebedev_rule(order)
        except NotImplementedError:
            continue
        if weights.min() > 0:
            yield points.T, weights


_GOLDEN = (1 + np.sqrt(5)) / 2
# By degree, a weight (up to a common factor) and a point for each orbit of the pyritohedral group:
# changes of sign and cyclic exchanges of the coordinates. Degree 8 has the vertices of icosahedron
# and dodecahedron. The others solve the moment equations (as many as there are unknowns) with
# weights that are positive; found from random starts, and refined to all digits.
_PYRITOHEDRAL = {
    8: [
        (25, (0, 1, _GOLDEN)),
        (27, (1, 1, 1)),
        (27, (0, _GOLDEN, 1 / _GOLDEN)),
    ],
    12: [
        (0.9889231029780405, (0, 0.6301253871478784, 0.7764933975712456)),
        (1.1317458054780318, (0, 0.22526175484952535, 0.9742982817403059)),
        (1.0014648969380207, (0.1974789137878435, 0.8846675102030153, 0.4223333695084624)),
        (0.9382006488339433, (0.37706564219684485, 0.5707363799745351, 0.729439158565157)),
    ],
    18: [
        (1.0530822785328975, (0, 0, 1)),
        (1.0214454444523662, (0, 0.30069084541581037, 0.953721665625315)),
        (0.9556709158696499, (0, 0.8053515602634028, 0.5927974901948411)),
        (1.0695926264326558, (0, 0.9505788266155466, 0.31048332385203964)),
        (1.0019068447270052, (0.296229682869404, 0.3018336390756248, 0.9061701988641305)),
        (1.0054474082580327, (0.4435329661316982, 0.5488762013611967, 0.7085290562381481)),
        (1.0276599475487802, (0.1492904947248474, 0.5766225752438914, 0.8032550988969277)),
        (0.9283607364556216, (0.2726697267736816, 0.7788886721198962, 0.5647863813376439)),
    ],
    20: [
        (1.0237527325029814, (0, 0, 1)),
        (0.9498454834899358, (0, 0.757852249582383, 0.652426216366971)),
        (0.9861246206581132, (0, 0.9554559101966718, 0.29513387414908754)),
        (1.1293974838584317, (0, 0.5171098256769596, 0.8559190546940432)),
        (0.91280525183348, (0.3186516578243097, 0.43766050385422517, 0.8407820195103395)),
        (0.9502037932903858, (0.24596530859563917, 0.6516892122701481, 0.7174972038817754)),
        (1.0345532675434064, (0.1508731369810225, 0.2599460995706728, 0.9537637662731268)),
        (1.052900312112951, (0.19192457413080327, 0.8595599508574413, 0.47362606423914516)),
        (1.010915398090791, (0.4561355881800847, 0.6967952603108524, 0.553549176138796)),
    ],
    24: [
        (1.0768281041514804, (0, 0.47198609334771724, 0.8816059934496588)),
        (1.0619409556209554, (0, 0.6791318928412364, 0.7340162614859969)),
        (1.01442397754879, (0, 0.8396104775275985, 0.5431889597790791)),
        (0.8503031521407408, (0, 0.9441836808845016, 0.32941945411798884)),
        (0.9859865151191937, (0, 0.9932565201168674, 0.11593741952161526)),
        (1.0331821038833537, (0.22699064727542848, 0.7814102459853741, 0.5812686758449651)),
        (0.8845561113991588, (0.22954522336194436, 0.4238860106619979, 0.8761447599550953)),
        (1.0167103783653983, (0.11636469704722445, 0.23449095758626398, 0.9651286173828775)),
        (1.017292736613533, (0.21131340475389393, 0.9084476576625299, 0.3606514914134974)),
        (1.001020578786253, (0.4293336772723758, 0.7876643981370735, 0.4418793833922796)),
        (1.0609598422413034, (0.44704995351278287, 0.6276867956262148, 0.6373034015762925)),
        (0.9915368964204195, (0.22931162482341688, 0.6130998936134604, 0.7559925258704666)),
    ],
}


def _pyritohedral(degree: int) -> Iterator[Rule]:
    """Rules with the symmetries that cube, icosahedron and inversion have in common."""
    orbits, weights = [], []
    for weight, point in _PYRITOHEDRAL.get(degree, []):
        cycles = [np.roll(point, k) for k in range(3)]
        signs = list(itertools.product((1, -1), repeat=3))
        orbit = np.unique([np.multiply(s, c) + 0.0 for s in signs for c in cycles], axis=0)
        orbits.append(orbit / np.linalg.norm(orbit, axis=1)[:, None])
        weights.append(np.full(len(orbit), weight))
    if orbits:
        yield np.concatenate(orbits), np.concatenate(weights)
