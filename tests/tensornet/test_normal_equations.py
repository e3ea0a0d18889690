import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.linalg import solve_gram

pytestmark = pytest.mark.slow


def _system(rank, rows, dtype, seed=0, batched=False):
    rng = np.random.default_rng(seed)
    lead = (rows,) if batched else ()
    root = rng.normal(size=(*lead, 4 * rank, rank))
    gram = np.swapaxes(root, -1, -2) @ root
    rhs = rng.normal(size=(rows, rank))
    return [jnp.asarray(v, dtype) for v in (gram, rhs, np.zeros((rows, rank)))]


@pytest.mark.parametrize("rank", [1, 3, 6, 9, 97])  # written out, in a loop, and by LAPACK
@pytest.mark.parametrize("batched", [False, True])
def test_solves_regular_systems(rank, batched, dtype):
    gram, rhs, previous = _system(rank, 5, dtype, batched=batched)
    got = np.asarray(solve_gram(gram, rhs, previous), np.float64)
    g, m = np.asarray(gram, np.float64), np.asarray(rhs, np.float64)
    want = np.stack([np.linalg.solve(g[n] if batched else g, m[n]) for n in range(5)])
    condition = np.linalg.cond(g).max()
    np.testing.assert_allclose(
        got, want, rtol=0, atol=64 * rank * condition * jnp.finfo(dtype).eps * abs(want).max()
    )


@pytest.mark.parametrize("rank", [3, 8])
@pytest.mark.parametrize("batched", [False, True])
def test_singular_systems_are_met_and_stay_near_previous(rank, batched, dtype):
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(rank, rank - 1))
    gram = seen @ seen.T
    unseen = np.linalg.svd(gram)[0][:, -1]
    previous = rng.normal(size=(4, rank))
    rhs = rng.normal(size=(4, rank)) @ gram  # consistent
    g = np.broadcast_to(gram, (4, rank, rank)) if batched else gram
    got = np.asarray(solve_gram(*(jnp.asarray(v, dtype) for v in (g, rhs, previous))), np.float64)
    tolerance = 64 * rank * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got @ gram, rhs, rtol=0, atol=tolerance * np.trace(gram))
    # rounding of the data over a ridge of a few roundings: of order one, where an unguarded
    # solve goes off to infinity
    assert abs((got - previous) @ unseen).max() < 1 + abs(previous).max()


def test_fixed_point_is_unbiased(dtype):
    gram, solution, _ = _system(4, 6, dtype)
    rhs = jnp.matmul(solution, gram, precision="highest")
    moved = solve_gram(gram, rhs, solution) - solution
    assert float(jnp.abs(moved).max()) < 64 * float(jnp.finfo(dtype).eps)


def test_zero_gram_returns_previous(dtype):
    previous = jnp.arange(6.0, dtype=dtype).reshape(2, 3)
    got = solve_gram(jnp.zeros((3, 3), dtype), jnp.zeros((2, 3), dtype), previous)
    np.testing.assert_array_equal(got, previous)


@pytest.mark.parametrize("rank", [3, 8])
def test_vmap_is_loop(rank, x64):
    del x64
    systems = [_system(rank, 5, jnp.float64, seed) for seed in range(4)]
    together = jax.vmap(solve_gram)(*map(jnp.stack, zip(*systems, strict=True)))
    for n, system in enumerate(systems):
        np.testing.assert_allclose(together[n], solve_gram(*system), rtol=1e-11, atol=1e-12)
