"""A trial of a preconditioner that promises nothing, against Jacobi."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..status import Status
from .iteration import RUNNING, code, dot, iterate

STEPS = 8  # of the trial: so many more products with the matrix, twice


def loses(
    matvec: Callable[[Array], Array],
    apply: Callable[[Array, Array], Array],
    jacobi: Callable[[Array, Array], Array],
    b: Array,
) -> Bool[Array, ""]:
    """Tell whether a preconditioner is worse than Jacobi after a few steps for `b`.

    Worse is: not positive, not finite, or with more left of the residual or of the error in the
    energy norm, which is b.x* - b.x at every step x of conjugate gradient.
    """
    b = b if b.ndim == 1 else b[:, 0]
    both = jnp.stack([b, b], axis=1)

    def pair(r: Array, norm: Array) -> Array:
        return jnp.stack([apply(r[:, 0], norm[0]), jacobi(r[:, 1], norm[1])], axis=1)

    many = jnp.zeros(2, b.dtype)
    found = iterate(matvec, pair, both, jnp.zeros_like(both), many, max_iterations=STEPS)
    energy = dot(both, found.x)
    good = (found.code[0] == code(Status.max_iterations)) | (found.code[0] == RUNNING)
    good = good | (found.code[0] == code(Status.converged))
    rest = dot(found.r, found.r)
    return ~(good & (energy[0] >= energy[1]) & (rest[0] <= rest[1]))
