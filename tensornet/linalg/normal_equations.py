"""Least-squares updates of alternating methods, from their normal equations."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to here elimination is written out: LAPACK's overhead per call, paid by every tensor of a
# batch, is more than the arithmetic (measured: 1000 systems under vmap).
_LARGEST_UNROLLED = 6
# Up to here elimination is a loop of XLA's. The threads of the BLAS behind LAPACK's triangular
# solves go on spinning after each call and take the cores from the products that follow (measured
# on two cores: sweeps took 1.8 times as long).
_LARGEST_LOOPED = 96


def solve_gram(
    gram: Float[Array, "*n rank rank"],
    rhs: Float[Array, "n rank"],
    previous: Float[Array, "n rank"],
) -> Float[Array, "n rank"]:
    """Solve `A gram = rhs` for `A` close to `previous`, also where `gram` is singular.

    One proximal step: `A = p + (rhs - p gram) (gram + mu)^-1`, with `p` the multiple of
    `previous` that fits best and `mu` a few roundings of the diagonal of `gram`. A fixed point
    solves the equations exactly, with no bias from `mu`; along directions that `gram` cannot see
    the rows stay near `p`, to within what rounding of `rhs` does there; and since the correction
    is computed from the residual, repeated sweeps refine the solution.

    Args:
        gram: symmetric positive semidefinite, one for all rows or one a row.
        rhs: right-hand sides, one a row.
        previous: where the iteration stands.

    Returns:
        The new rows.
    """
    high = jax.lax.Precision.HIGHEST
    rank = gram.shape[-1]
    diagonal = jnp.diagonal(gram, axis1=-2, axis2=-1)
    # A ridge on each component's own scale: what is done does not change with their scaling.
    ridge = 4 * rank * float(jnp.finfo(gram.dtype).eps) * diagonal
    ridge = jnp.where(diagonal > 0, ridge, 1.0)
    identity = jnp.eye(rank, dtype=gram.dtype).reshape((1,) * (gram.ndim - 2) + (rank, rank))
    shifted = gram + ridge[..., None, :] * identity
    if gram.ndim == 2:
        image = jnp.matmul(previous, gram, precision=high)
    else:
        image = jnp.matmul(gram, previous[..., None], precision=high)[..., 0]
    # The scale of `previous` that fits best: a start far off scale would show through the ridge.
    energy = jnp.sum(image * previous)
    scale = jnp.where(energy > 0, jnp.sum(rhs * previous) / jnp.where(energy > 0, energy, 1.0), 1.0)
    previous = scale * previous
    residual = rhs - scale * image
    if gram.ndim == 2:
        residual = residual.T
    if rank <= _LARGEST_UNROLLED:
        # Rows of the solution first: [rank, n] against one matrix, or [n] vectors against [n].
        entries = shifted if gram.ndim == 2 else jnp.moveaxis(shifted, 0, -1)
        columns = residual if gram.ndim == 2 else residual.T
        return previous + _eliminate(entries, columns).T
    if gram.ndim == 2 and rank <= _LARGEST_LOOPED:
        return previous + _eliminate_in_loop(shifted, residual).T
    if gram.ndim == 2:
        factor = jax.lax.linalg.cholesky(shifted)
        return previous + jax.scipy.linalg.cho_solve((factor, True), residual).T
    factor = jax.lax.linalg.cholesky(shifted)
    return previous + jax.scipy.linalg.cho_solve((factor, True), residual[..., None])[..., 0]


def _eliminate(matrix: Array, rhs: Array) -> Array:
    """Solve by written-out L D L^T: `matrix` is [rank, rank, ...], `rhs` [rank, n]."""
    rank = matrix.shape[0]
    a = [[matrix[i, j] for j in range(i + 1)] for i in range(rank)]
    b = [rhs[i] for i in range(rank)]
    factors: dict[tuple[int, int], Array] = {}
    for k in range(rank):
        for i in range(k + 1, rank):
            factors[i, k] = a[i][k] / a[k][k]
        for i in range(k + 1, rank):
            for j in range(k + 1, i + 1):
                a[i][j] = a[i][j] - factors[i, k] * a[j][k]
            b[i] = b[i] - factors[i, k] * b[k]
    for k in reversed(range(rank)):
        b[k] = b[k] / a[k][k]
        for i in range(k + 1, rank):
            b[k] = b[k] - factors[i, k] * b[i]
    return jnp.stack(b)


def _eliminate_in_loop(
    matrix: Float[Array, "rank rank"], rhs: Float[Array, "rank n"]
) -> Float[Array, "rank n"]:
    """Solve a positive definite system by elimination above and below each pivot."""
    rank = matrix.shape[0]
    rows = jnp.arange(rank)

    def eliminate(k: Array, both: Array) -> Array:
        pivot = both[k] / both[k, k]
        others = jnp.where(rows == k, 0.0, both[:, k])
        return (both - others[:, None] * pivot[None, :]).at[k].set(pivot)

    both = jnp.concatenate([matrix, rhs], axis=1)
    return jax.lax.fori_loop(0, rank, eliminate, both)[:, rank:]
