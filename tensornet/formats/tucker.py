"""Tucker format: a small core multiplied by a matrix in each mode."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..planner import contract
from ..validation import as_real
from .base import FactoredTensor, as_arrays, check_dtype, check_pieces
from .letters import letters


class Tucker(FactoredTensor):
    """`x[i, j, ...] = sum of core[a, b, ...] * factors[0][i, a] * factors[1][j, b] ...`.

    Args:
        core: shape (rank of mode 0, rank of mode 1, ...).
        factors: one matrix for each mode, shape (size of the mode, rank of the mode). They need
            not be orthogonal.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: not real arrays, or of different dtypes.
    """

    core: Float[Array, "..."] = eqx.field(converter=lambda c: as_real(c, "core"))
    factors: tuple[Float[Array, "..."], ...] = eqx.field(
        converter=lambda f: as_arrays(f, "factors")
    )

    def __check_init__(self) -> None:
        check_pieces(self.factors, "factors", 2, "(size, rank)")
        if self.core.ndim != len(self.factors):
            raise ValueError(
                f"core: expected {len(self.factors)} dimensions, one for each factor, "
                f"got shape {self.core.shape}"
            )
        for k, factor in enumerate(self.factors):
            if factor.shape[1] != self.core.shape[k]:
                raise ValueError(
                    f"factors[{k}]: expected {self.core.shape[k]} columns (dimension {k} of the "
                    f"core of shape {self.core.shape}), got shape {factor.shape}"
                )
        check_dtype(self.factors[0], self.core, "factors[0]")

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(f.shape[-2] for f in self.factors)

    @property
    def rank(self) -> tuple[int, ...]:
        """Shape of the core."""
        return tuple(f.shape[-1] for f in self.factors)

    @property
    def n_parameters(self) -> int:
        """How many numbers core and factors hold."""
        pairs = zip(self.shape, self.rank, strict=True)
        return math.prod(self.rank) + sum(n * r for n, r in pairs)

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return self.core.dtype

    def to_dense(self) -> Float[Array, "..."]:
        """Return the tensor as an array of shape `shape`."""
        return multiply_modes(self.core, self.factors)


def multiply_modes(core: Array, matrices: tuple[Array, ...]) -> Array:
    """Multiply mode k of `core` by `matrices[k]`, of shape (new size, old size), for every k."""
    d = len(matrices)
    inside, outside = letters(2 * d)[:d], letters(2 * d)[d:]
    pairs = ",".join(o + i for o, i in zip(outside, inside, strict=True))
    return contract(f"{inside},{pairs}->{outside}", core, *matrices)
