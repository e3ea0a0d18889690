"""The bilinear map that a tensor product of irreps is, apart from how it is computed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .coupling.sphere import degrees_of
from .coupling.tables import clebsch_gordan, gaunt_coefficient

PATHS = ("even", "all")
COUPLINGS = ("clebsch-gordan", "gaunt")
WEIGHTS = (None, "shared", "per-degree", "low-rank:R", "per-path")


class Path(NamedTuple):
    """Positions in `irreps_in1`, `irreps_in2` and `irreps_out` of three irreps that couple."""

    first: int
    second: int
    out: int


@dataclass(frozen=True)
class BilinearMap:
    """z[o] = sum over paths p = (i, j -> o) of w_p c_p (x (x) y)_p.

    (x (x) y)_p is e3nn-jax's product in component normalisation: sqrt(2 l_o + 1) times the
    Clebsch-Gordan coefficients. A path needs |l_i - l_j| <= l_o <= l_i + l_j and parity
    p_o = p_i p_j. Components are in the order of the irreps, and of e3nn within one.

    Attributes:
        irreps_in1, irreps_in2, irreps_out: of multiplicity one; an irrep may stand several times.
        paths: `"even"`, those of even l_i + l_j + l_o, or `"all"`.
        coupling: `"clebsch-gordan"`, c_p = 1, or `"gaunt"`, c_p = `gaunt_coefficient`: products of
            functions on the sphere and, for odd sums, of their gradients.
        weights: what w_p are. `None`: ones. `"shared"`: one number. `"per-degree"`: a_i b_j c_o.
            `"low-rank:R"`: a sum of R such. `"per-path"`: one number each.
    """

    irreps_in1: Any  # given as e3nn.Irreps or as text, held as e3nn.Irreps
    irreps_in2: Any
    irreps_out: Any
    paths: str = "all"
    coupling: str = "gaunt"
    weights: str | None = None

    def __post_init__(self):
        """Read the irreps, and check.

        Raises:
            ValueError: unknown options, no irreps, a multiplicity other than one, or an irrep of
                `irreps_out` that no path reaches.
        """
        for name in ("irreps_in1", "irreps_in2", "irreps_out"):
            irreps = e3nn.Irreps(getattr(self, name))
            degrees_of(irreps, name)
            object.__setattr__(self, name, irreps)
        _check_option("paths", self.paths, PATHS)
        _check_option("coupling", self.coupling, COUPLINGS)
        if self.weights not in WEIGHTS[:3] and self.weights != "per-path":
            if not re.fullmatch(r"low-rank:\d+", str(self.weights)):
                _check_option("weights", self.weights, WEIGHTS)
            if self.n_terms < 1:
                raise ValueError(f"weights: expected a rank of at least 1, got {self.weights!r}")
        reached = {path.out for path in self.triples}
        for o, (_, irrep) in enumerate(self.irreps_out):
            if o not in reached:
                kind = "path" if self.paths == "all" else "even path"
                raise ValueError(
                    f"irreps_out[{o}]: expected an irrep that some {kind} from {self.irreps_in1} "
                    f"and {self.irreps_in2} reaches, got {irrep}"
                )

    @cached_property
    def triples(self) -> tuple[Path, ...]:
        """All paths, sorted."""
        odd = self.paths == "all"
        return tuple(
            Path(i, j, o)
            for i, (_, a) in enumerate(self.irreps_in1)
            for j, (_, b) in enumerate(self.irreps_in2)
            for o, (_, c) in enumerate(self.irreps_out)
            if abs(a.l - b.l) <= c.l <= a.l + b.l
            and c.p == a.p * b.p
            and (odd or (a.l + b.l + c.l) % 2 == 0)
        )

    @cached_property
    def coefficients(self) -> Float64[np.ndarray, " n_paths"]:
        """c_p, in the order of `triples`."""
        if self.coupling == "clebsch-gordan":
            return np.ones(len(self.triples))
        return np.array([gaunt_coefficient(*self.degrees(path)) for path in self.triples])

    def degrees(self, path: Path) -> tuple[int, int, int]:
        """Return l_i, l_j and l_o of a path."""
        three = (self.irreps_in1, self.irreps_in2, self.irreps_out)
        i, j, o = (irreps[k].ir.l for irreps, k in zip(three, path, strict=True))
        return i, j, o

    def name(self, path: Path) -> str:
        """Name a path by its irreps."""
        i, j, o = path
        first, second = self.irreps_in1[i].ir, self.irreps_in2[j].ir
        return f"{first} x {second} -> {self.irreps_out[o].ir}"

    def listed(self, paths: Sequence[Path]) -> str:
        """Name some paths, the first few of many, and say how many there are."""
        shown = ", ".join(map(self.name, paths[:4]))
        return f"{len(paths)} paths ({shown}{', ...' if len(paths) > 4 else ''})"

    # Weights ------------------------------------------------------------------------------

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many irreps there are in each of the three."""
        return len(self.irreps_in1), len(self.irreps_in2), len(self.irreps_out)

    @property
    def n_terms(self) -> int:
        """R of low-rank weights, else 1."""
        return int(str(self.weights).split(":")[1]) if "low-rank" in str(self.weights) else 1

    @property
    def weight_shape(self) -> tuple[int, ...] | None:
        """The shape of the weights of one channel; None where the map has none.

        Weights per degree are those of the first input's irreps, then the second's, then the
        result's.
        """
        shapes = {
            None: None,
            "shared": (),
            "per-degree": (sum(self.sizes),),
            "per-path": (len(self.triples),),
        }
        return shapes.get(self.weights, (self.n_terms, sum(self.sizes)))

    def path_weights(self, weights: Any = None) -> Float[Array, "*batch n_paths"]:
        """Return w_p from weights `[*batch, *weight_shape]` (None where the map has none).

        Raises:
            ValueError: weights of another shape, or where there are none, or none where there
                are some.
        """
        weights = self.check_weights(weights)
        if weights is None:
            return jnp.ones(len(self.triples))
        if self.weights == "per-path":
            return weights
        if self.weights == "shared":
            return jnp.repeat(weights[..., None], len(self.triples), -1)
        n1, n2, _ = self.sizes
        index = np.array(self.triples).T + np.array([[0], [n1], [n1 + n2]])
        product = weights[..., index[0]] * weights[..., index[1]] * weights[..., index[2]]
        return product if self.weights == "per-degree" else product.sum(-2)

    def check_weights(self, weights: Any) -> Array | None:
        """Return `weights` as an array whose last axes are `weight_shape`.

        Raises:
            ValueError: as for `path_weights`.
        """
        shape = self.weight_shape
        if shape is None:
            if weights is not None:
                got = np.shape(weights)
                raise ValueError(f"weights: expected None, since the map has none, got shape {got}")
            return None
        if weights is None:
            raise ValueError(f"weights: expected an array [..., {shape}], got None")
        weights = jnp.asarray(weights)
        if weights.shape[weights.ndim - len(shape) :] != shape or weights.ndim < len(shape):
            raise ValueError(
                f"weights: expected a shape that ends in {shape} ({self.weights}), got "
                f"{weights.shape}"
            )
        return weights

    # The map as a tensor ------------------------------------------------------------------

    def tensor(
        self, path_weights: Float64[np.ndarray, " n_paths"] | None = None
    ) -> Float64[np.ndarray, "d1 d2 do"]:
        """Return the map as a dense tensor, z_k = sum_ij x_i y_j T[i, j, k].

        Args:
            path_weights: w_p, on the host; ones by default.
        """
        weights = np.ones(len(self.triples)) if path_weights is None else path_weights
        dense = np.zeros((self.irreps_in1.dim, self.irreps_in2.dim, self.irreps_out.dim))
        for path, weight in zip(self.triples, weights, strict=True):
            dense[self.block(path)] = weight * self.path_tensor(path)
        return dense

    def path_tensor(self, path: Path) -> Float64[np.ndarray, "d1 d2 do"]:
        """Return the part of `tensor` that one path is."""
        l1, l2, l3 = self.degrees(path)
        scale = 1.0 if self.coupling == "clebsch-gordan" else gaunt_coefficient(l1, l2, l3)
        return scale * np.sqrt(2 * l3 + 1) * clebsch_gordan(l1, l2, l3)

    def block(self, path: Path) -> tuple[slice, slice, slice]:
        """Return where a path stands in `tensor`; no two paths overlap."""
        i, j, o = (own[k] for own, k in zip(self._slices, path, strict=True))
        return i, j, o

    @cached_property
    def _slices(self) -> tuple[list[slice], ...]:
        three = (self.irreps_in1, self.irreps_in2, self.irreps_out)
        return tuple(irreps.slices() for irreps in three)


def _check_option(argument: str, got: Any, expected: Sequence[Any]) -> None:
    if got not in expected:
        raise ValueError(f"{argument}: expected one of {tuple(expected)}, got {got!r}")
