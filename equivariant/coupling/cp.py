"""The coupling tensor of a bilinear map in the CP format: products in O(rank x dimension).

A bilinear map z[k] = sum T[i, j, k] x[i] y[j] whose tensor is a sum of R products becomes
z = C^T ((A x) * (B y)): three matrix products (tensor decomposition networks). Exact where R
reaches the rank of the tensor, else near, with a bound on what is missing.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, PRNGKeyArray

from tensornet import CP, cp_als
from tensornet.cache import cached
from tensornet.validation import check_rank, check_truncation, is_traced

from .cp_error import certified_error
from .cp_fit import RIDGES, Factors, Fit, amplification, fitted, on_the_host, refine
from .cp_tables import exact_factors

_SWEEPS = 20  # of alternating least squares: enough to leave a random start behind
_STARTS = 4
# Errors below this ask for the exact tensor: no lower rank reaches one and not the other.
_AS_EXACT = 1e-6
# A tensor without structure is exact at the rank where unknowns outnumber entries. Ranks up to so
# much more are tried.
_MORE = 1.3
# The search ends where the ranks it lies between differ by this part.
_FINE = 32
_EXACT = 1e-12
# A rank is given up where the first start misses the target, or this error where the target is
# less, by this factor: starts differ little in error, but near zero some are exact and others not.
_HOPELESS, _LOOSE = 2.0, 0.02
_RANK_STEP = 16
_SMALL = 1000
_CACHE_VERSION = 1


@dataclasses.dataclass(frozen=True)
class CPCoupling:
    """A bilinear map z = C^T ((A x) * (B y)), and how far it is from the one it stands for.

    Attributes:
        factors: A `[rank, d1]`, B `[rank, d2]` and C `[rank, d_out]`, float64.
        relative_error: of the tensor, in the Frobenius norm.
        error_bound: certified: |z_cp(x, y) - z(x, y)| <= error_bound |x| |y| for all x and y.
        amplification: the sum of the norms of the components over that of the tensor; what
            rounding is multiplied by when the product is evaluated.
    """

    factors: tuple[
        Float64[np.ndarray, "rank m"], Float64[np.ndarray, "rank n"], Float64[np.ndarray, "rank k"]
    ]
    relative_error: float
    error_bound: float
    amplification: float

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.factors[0])

    @property
    def equivariance_bound(self) -> float:
        """Bound of |z_cp(Dx, Dy) - D z_cp(x, y)| / (|x| |y|) over all orthogonal D.

        That of an equivariant map's approximation, by the triangle inequality: an orthogonal D
        changes the norm of no input and no output.
        """
        return 2 * self.error_bound

    def to_dense(self) -> Float64[np.ndarray, "m n k"]:
        """Return the tensor of the map."""
        return fitted(self.factors)

    def __repr__(self) -> str:
        shape = tuple(f.shape[1] for f in self.factors)
        return (
            f"CPCoupling(shape={shape}, rank={self.rank}, "
            f"relative_error={self.relative_error:.1e}, error_bound={self.error_bound:.1e})"
        )


def decompose_coupling(
    tensor: Any,
    *,
    rank: Any = None,
    rtol: Any = None,
    key: PRNGKeyArray | None = None,
) -> CPCoupling:
    """Decompose the tensor of a bilinear map as a sum of products.

    Alternating least squares (`tensornet.cp_als`) from several random starts, then damped
    Gauss-Newton steps. Runs on the host in float64, also inside a trace, and is kept in the
    user's cache: the same tensor and arguments give the same factors. The Clebsch-Gordan couplings
    of degrees 0 to 1, 2 or 3, of all paths or the even ones, come with the package, exact.

    Args:
        tensor: concrete, `[d1, d2, d_out]`.
        rank: number of components; fewer where an exact tensor of fewer is known.
        rtol: take the least rank found whose relative error in the Frobenius norm is at most this.
            With `rank`, at most that many components.
        key: for other random starts than the usual ones.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: neither `rank` nor `rtol`; a rank below 1 or above what any tensor of this
            shape needs; a tensor without three modes, with NaN or only zeros; an `rtol` out of
            range, or not reached: the message holds the least error that was, and its rank.
    """
    dense = _checked(tensor)
    most = math.prod(dense.shape) // max(dense.shape)
    if rank is None and rtol is None:
        raise ValueError("rank, rtol: expected at least one of them, got neither")
    if rank is not None:
        why = f"the product of all mode sizes of {dense.shape} but the largest"
        rank = check_rank(rank, most=most, why=why)
    if rtol is not None:
        rtol = check_truncation(rtol, np.float64)
    seed = [0] if key is None else np.asarray(jax.random.key_data(key)).ravel().tolist()

    exact = exact_factors(dense)
    enough = exact is not None and (rank is None or len(exact[0]) <= rank)
    if exact is not None and enough and (rtol is None or rtol <= _AS_EXACT):
        factors = exact
    else:
        facts = {
            "tensor": hashlib.sha256(dense.tobytes()).hexdigest(),
            "shape": dense.shape,
            "rank": rank,
            "rtol": rtol,
            "seed": seed,
            "version": _CACHE_VERSION,
        }

        def build() -> dict[str, np.ndarray]:
            if rtol is None:
                assert rank is not None
                found = _Fitting(dense, rank, seed).fit(rank).factors
            else:
                found = _least(dense, rtol, rank, exact, seed).factors
            return dict(zip("abc", found, strict=True))

        kept = cached("cp-coupling", facts, build, kind="npz")
        factors = kept["a"], kept["b"], kept["c"]
    error, bound = certified_error(dense, factors)
    return CPCoupling(
        factors,
        relative_error=error / float(np.linalg.norm(dense)),
        error_bound=bound,
        amplification=amplification(dense, factors),
    )


class _Fitting:
    """Fits of one tensor at several ranks, from sweeps compiled once at the largest of them."""

    def __init__(self, tensor: np.ndarray, capacity: int, seed: Sequence[int]):
        self.tensor = tensor
        self.capacity = capacity
        self.seed = seed
        self.fits: dict[int, Fit] = {}

    def fit(self, rank: int, target: float | None = None) -> Fit:
        """Return the best of several starts; with a target the first to reach it, or none near."""
        enough = _EXACT if target is None else target
        hopeless = math.inf if target is None else _HOPELESS * max(target, _LOOSE)
        starts = [self._swept(start) for start in self._starts(rank)]
        # Compiled for few ranks: zeros fill up to the next of these.
        capacity = min(self.capacity, -(-rank // _RANK_STEP) * _RANK_STEP)
        improve = functools.partial(refine, self.tensor, target=enough, capacity=capacity)
        best = Fit(starts[0], math.inf)
        for start in starts:
            best = min(best, improve(start, ridges=RIDGES[:1]), key=lambda fit: fit.error)
            if best.error <= enough or best.error > hopeless:
                break
        if enough < best.error <= hopeless:
            best = min(best, improve(best.factors, ridges=RIDGES[1:]), key=lambda fit: fit.error)
        if enough < best.error <= hopeless and self.tensor.size <= _SMALL:
            # Some small tensors are near only where components cancel, which a high ridge at the
            # start keeps away for good.
            best = min(best, improve(starts[0], ridges=RIDGES[-1:]), key=lambda fit: fit.error)
        self.fits[rank] = best
        return best

    def _starts(self, rank: int) -> list[Factors]:
        rng = np.random.default_rng([*self.seed, rank])
        scale = np.cbrt(np.linalg.norm(self.tensor) / math.sqrt(self.tensor.size * rank))

        def normal(rank: int) -> Factors:
            a, b, c = (scale * rng.standard_normal((rank, n)) for n in self.tensor.shape)
            return a, b, c

        starts = [normal(rank) for _ in range(_STARTS)]
        if self.fits:  # the nearest rank that was fitted, with components dropped or added
            near = self.fits[min(self.fits, key=lambda known: abs(known - rank))].factors
            order = np.argsort(-np.prod([np.linalg.norm(f, axis=1) for f in near], axis=0))
            more = normal(max(rank - len(order), 0))
            pairs = zip(near, more, strict=True)
            a, b, c = (np.concatenate([f[order[:rank]], 0.1 * m]) for f, m in pairs)
            starts[-1] = a, b, c
        return starts

    def _swept(self, start: Factors) -> Factors:
        """Improve a start by alternating least squares; components up to the capacity stay zero."""
        rank = len(start[0])
        missing = self.capacity - rank
        with on_the_host():
            padded = [jnp.asarray(np.pad(f, ((0, missing), (0, 0))).T) for f in start]
            found = cp_als(
                jnp.asarray(self.tensor),
                self.capacity,
                init=CP(jnp.ones(self.capacity), padded),
                rtol=0,
                max_sweeps=_SWEEPS,
            ).tensor
            weights = np.asarray(found.weights)
            a, b, c = (np.asarray(f).T[:rank] for f in found.factors)  # the vanished come last
        return weights[:rank, None] * a, b, c


def _least(
    tensor: np.ndarray,
    rtol: float,
    rank: int | None,
    exact: Factors | None,
    seed: Sequence[int],
) -> Fit:
    """Return a fit of the least rank that reaches `rtol`, by doubling and bisection."""
    most = math.prod(tensor.shape) // max(tensor.shape)
    too_few = _unreachable_rank(tensor, rtol)
    usual = max(math.ceil(tensor.size / (sum(tensor.shape) - 2)), too_few + 1)
    limit = min(most, math.ceil(_MORE * usual)) if rank is None else rank
    fitting = _Fitting(tensor, limit, seed)
    enough, best = limit + 1, None
    if exact is not None and len(exact[0]) <= limit:
        enough, best = len(exact[0]), Fit(exact, 0.0)
    at = too_few + 1
    while best is None or enough - too_few > max(1, enough // _FINE):
        if best is not None:
            at = (enough + too_few) // 2
        at = min(at, limit)
        fit = fitting.fit(at, rtol)
        if fit.error <= rtol:
            enough, best = at, fit
        elif at == limit:
            least = min(fitting.fits, key=lambda known: fitting.fits[known].error)
            raise ValueError(
                f"rtol: expected a relative error of {rtol:g} to be reached with at most {limit} "
                f"components, got {fitting.fits[least].error:.1e} at rank {least}"
            )
        else:
            too_few, at = at, 2 * at
    better = refine(tensor, best.factors, ridges=RIDGES[1:])
    return better if better.error < best.error else best


def _unreachable_rank(tensor: np.ndarray, rtol: float) -> int:
    """Return a rank that no error of `rtol` can have: one that some unfolding needs more than."""
    most = 0
    for mode, size in enumerate(tensor.shape):
        values = np.linalg.svd(np.moveaxis(tensor, mode, 0).reshape(size, -1), compute_uv=False)
        left = np.sqrt(np.cumsum(values[::-1] ** 2))[::-1]  # what is left without the first ones
        most = max(most, int(np.sum(left > rtol * left[0])))
    return most - 1


def _checked(tensor: Any) -> np.ndarray:
    if is_traced(tensor):
        raise TypeError("tensor: expected a concrete array, got a traced one")
    dense = np.asarray(tensor)
    if dense.dtype.kind not in "fiu":
        raise TypeError(f"tensor: expected real numbers, got {dense.dtype}")
    if dense.ndim != 3 or 0 in dense.shape:
        raise ValueError(f"tensor: expected three modes, none empty, got shape {dense.shape}")
    dense = np.ascontiguousarray(dense, np.float64)
    if not np.isfinite(dense).all():
        raise ValueError("tensor: expected finite entries, got NaN or infinity")
    if not dense.any():
        raise ValueError(f"tensor: expected a nonzero tensor, got only zeros in {dense.shape}")
    return dense
