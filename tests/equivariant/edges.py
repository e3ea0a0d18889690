"""How far an interaction of edges that are told by vectors is from equivariance, and may be."""

import jax
import jax.numpy as jnp

from equivariant import equivariance_error


def tolerance(dtype):
    return 1e-5 if dtype == jnp.float32 else 1e-11


def error_of(made, weights, dtype):
    """The largest error over nodes that each receive from themselves, along an edge of theirs."""
    end = jnp.zeros(1, int)

    @jax.jit
    def one(x, vectors):
        return jax.vmap(lambda a, b: made(a[None], None, weights, end, end, vectors=b[:1])[0])(
            x, vectors
        )

    return equivariance_error(
        one, (made.bilinear.irreps_in1, "1o"), made.irreps_out, key=jax.random.key(0),
        channels=made.channels, dtype=dtype,
    )  # fmt: skip
