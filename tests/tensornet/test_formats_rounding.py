"""Rounding: errors kept, ranks found, derivatives."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, TensorRing, TensorTrain, TTMatrix, Tucker

pytestmark = pytest.mark.slow

GUARANTEED = pytest.mark.parametrize("kind", [Tucker, TensorTrain, TTMatrix])
FORMATS = [CP, Tucker, TensorTrain, TTMatrix, TensorRing]
ALL = pytest.mark.parametrize("kind", FORMATS)
# Compiling takes most of the time: each format in one of the precisions.
EITHER = pytest.mark.parametrize(
    ("kind", "dtype"),
    list(zip(FORMATS, ["float32", "float64"] * 2 + ["float32"], strict=True)),
    indirect=["dtype"],
)

# Ranks small enough that sums can be rounded.
LOW = {
    CP: ((4, 5, 6), 2),
    Tucker: ((6, 5, 7), (2, 1, 2)),
    TensorTrain: ((5, 6, 4, 5), (1, 2, 1, 2, 1)),
    TTMatrix: (((3, 3), (2, 4), (4, 2)), (1, 2, 2, 1)),
    TensorRing: ((4, 5, 6), (2, 1, 2, 2)),
}


def tensor(rounded):
    return getattr(rounded, "tensor", rounded)


def decaying(formats, kind, seed, dtype, steps=(1.0, 1e-2, 1e-5)):
    """A sum of tensors of very different sizes, so that ranks depend on the tolerance."""
    rng = np.random.default_rng(seed)
    parts = [formats.make(kind, LOW[kind], rng, dtype) for _ in steps]
    parts = [part / float(part.norm()) * step for part, step in zip(parts, steps, strict=True)]
    return functools.reduce(lambda a, b: a + b, parts)


@GUARANTEED
@hypothesis.settings(
    max_examples=4, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    rtol=st.sampled_from([0.5, 0.1, 1e-3, 1e-4, 1e-6, 1e-9, 1e-12, 0.0]),
)
def test_error_is_at_most_rtol(kind, dtype, seed, rtol, formats):
    x = decaying(formats, kind, seed, dtype)
    rtol = max(rtol, 32 * float(jnp.finfo(dtype).eps))  # the least that is accepted
    rounded = x.round(rtol=rtol)
    assert type(rounded) is kind
    assert rounded.shape == x.shape
    assert rounded.dtype == dtype
    whole = formats.dense(x)
    error = np.linalg.norm(formats.dense(rounded) - whole) / np.linalg.norm(whole)
    assert error <= rtol


@GUARANTEED
@pytest.mark.parametrize(("rtol", "parts"), [(1e-1, 1), (1e-3, 2)])
def test_ranks_are_those_of_the_parts_that_count(kind, dtype, rtol, parts, formats):
    x = decaying(formats, kind, 0, dtype)
    rounded = x.round(rtol=rtol)
    shape, rank = LOW[kind]
    assert rounded.n_parameters < x.n_parameters
    if kind is Tucker:
        assert rounded.rank == tuple(min(parts * r, n) for r, n in zip(rank, shape, strict=True))
    else:
        assert rounded.rank == (1, *(parts * r for r in rank[1:-1]), 1)


@EITHER
def test_rounding_undoes_adding_a_tensor_to_itself(kind, dtype, formats):
    x = formats.make(kind, LOW[kind], np.random.default_rng(1), dtype)
    eps = float(jnp.finfo(dtype).eps)
    rounded = (x + x).round(rtol=100 * eps)
    if kind is not TensorRing:  # cutting a ring open does not see that its terms are equal
        assert tensor(rounded).rank == x.rank
    whole = 2 * formats.dense(x)
    error = np.linalg.norm(formats.dense(tensor(rounded)) - whole) / np.linalg.norm(whole)
    assert error <= 100 * eps


@EITHER
def test_max_rank_caps_and_the_cap_wins_over_rtol(kind, dtype, formats):
    x = decaying(formats, kind, 2, dtype, (1.0, 1e-3))
    both = {"max_rank": 2, "rtol": 1e-5}
    for arguments in ({"max_rank": 2}, *([] if kind is TensorRing else [both])):
        rounded = x.round(**arguments)
        ranks = tensor(rounded).rank
        assert max(ranks if isinstance(ranks, tuple) else (ranks,)) <= 2
        error = np.linalg.norm(formats.dense(tensor(rounded)) - formats.dense(x))
        # What is beyond the largest part is small; a ring loses more, and says so.
        assert error < (3e-3 if kind is not TensorRing else 0.9) * np.linalg.norm(formats.dense(x))


@pytest.mark.parametrize(
    ("kind", "dtype"), [(CP, "float64"), (TensorRing, "float64")], indirect=["dtype"]
)
def test_the_error_told_is_the_error_made(kind, dtype, formats):
    x = decaying(formats, kind, 3, dtype, (1.0, 1e-2))
    whole = formats.dense(x)
    rounded = x.round(rtol=0.05)
    made = np.linalg.norm(formats.dense(rounded.tensor) - whole) / np.linalg.norm(whole)
    assert made <= 0.05
    assert abs(float(rounded.relative_error) - made) < 64 * float(jnp.finfo(dtype).eps)
    assert rounded.tensor.n_parameters < x.n_parameters


@pytest.mark.usefixtures("x64")
def test_cp_merges_terms_that_differ_in_one_mode(formats):
    rng = np.random.default_rng(4)
    x = formats.make(CP, ((4, 5, 6), 2), rng, "float64")
    other = CP(x.weights, (x.factors[0], -2 * x.factors[1], x.factors[2][:, ::-1] + 1))
    y = x + other
    rounded = y.round(max_rank=2)
    assert rounded.tensor.rank == 2
    np.testing.assert_allclose(
        rounded.tensor.to_dense(), formats.dense(y), rtol=0, atol=1e-14 * formats.size(y)
    )
    assert (x - x).round(rtol=0.1).tensor.rank == 1
    assert float((x - x).round(rtol=0.1).tensor.norm()) == 0


@pytest.mark.usefixtures("x64")
def test_cp_finds_the_rank_hidden_in_more_terms(formats):
    # A rank-2 tensor written as the product of sums: (a + b)(c + d) has four terms.
    rng = np.random.default_rng(5)
    x = formats.make(CP, ((6, 5, 4), 2), rng, "float64")
    a, b, c = x.factors
    u, v = rng.standard_normal(b.shape), rng.standard_normal(c.shape)
    bs, cs = (u, b - u), (v, c - v)
    pieces = [CP(x.weights, (a, p, q)) for p in bs for q in cs]
    y = functools.reduce(lambda p, q: p + q, pieces)
    assert y.rank == 8
    rounded = y.round(rtol=1e-6)
    assert rounded.tensor.rank == 2
    assert float(rounded.relative_error) <= 1e-6


def superdiagonal(kind):
    n = 3
    eye = np.eye(n)
    if kind is CP:
        return CP(np.ones(n), [eye] * 3)
    cube = np.einsum("ia,ib,ic->abc", eye, eye, eye)
    if kind is Tucker:
        return Tucker(cube, [eye] * 3)
    if kind is TensorTrain:
        return TensorTrain([eye[None], cube, eye[:, :, None]])
    if kind is TTMatrix:
        return TTMatrix([eye[None, :, None], cube[:, :, None], eye[:, :, None, None]])
    return TensorRing([eye[None], cube, eye[:, :, None]])


@ALL
@pytest.mark.usefixtures("x64")
def test_gradient_is_that_of_finite_differences_and_finite_at_repeated_values(kind):
    rng = np.random.default_rng(6)
    equal = superdiagonal(kind)

    def noise(size):
        return jax.tree.map(lambda p: jnp.asarray(size * rng.standard_normal(p.shape)), equal)

    @jax.jit
    @jax.value_and_grad
    def loss(z):
        rounded = tensor(z.round(max_rank=2))
        return rounded.inner(target) + rounded.norm()

    def moved(t):
        return jax.tree.map(lambda p, q: p + t * q, x, d)

    target, d = noise(1.0), noise(1.0)
    x = jax.tree.map(jnp.add, equal, noise(0.2))
    if kind is CP:  # one small term, so that a best approximation exists
        x = CP(jnp.array([1.0, 0.8, 0.05]), x.factors)
    # CP stops where the error no longer falls: its minimiser is known to about 1e-5.
    h, tolerance = (1e-3, 1e-2) if kind is CP else (1e-5, 1e-6)
    numeric = (loss(moved(h))[0] - loss(moved(-h))[0]) / (2 * h)
    pairs = zip(jax.tree.leaves(loss(x)[1]), jax.tree.leaves(d), strict=True)
    along = sum(jnp.sum(p * q) for p, q in pairs)
    np.testing.assert_allclose(along, numeric, rtol=tolerance)

    for z in (equal, 0 * equal):
        leaves = jax.tree.leaves(loss(z)[1])
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)


@pytest.mark.parametrize("kind", [Tucker, TensorTrain])
@pytest.mark.usefixtures("x64")
def test_derivative_where_ranks_are_larger_than_need_be(kind, formats):
    # The sum has twice the ranks it needs; a change of its parts needs them all.
    rng = np.random.default_rng(10)
    x = formats.make(kind, formats.MAIN[kind], rng, "float64").round(max_rank=2)
    twice = x + x
    d = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), twice)
    y = formats.make(kind, formats.MAIN[kind], rng, "float64")

    @jax.jit
    def along(t):
        moved = jax.tree.map(lambda p, q: p + t * q, twice, d)
        return moved.round(max_rank=2).inner(y)

    h = 1e-5
    numeric = (along(h) - along(-h)) / (2 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), numeric, rtol=1e-5)


@ALL
@pytest.mark.usefixtures("x64")
def test_vmap_is_a_loop(kind, formats):
    members = [decaying(formats, kind, seed, "float64", (1.0, 1e-2)) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    rounded = jax.jit(jax.vmap(lambda z: tensor(z.round(max_rank=2))))(batch)
    for k, member in enumerate(members):
        eager = formats.dense(tensor(member.round(max_rank=2)))
        one = formats.dense(jax.tree.map(lambda leaf, k=k: leaf[k], rounded))
        # Merging, which only eager rounding does, may take CP along another path.
        np.testing.assert_allclose(one, eager, rtol=0, atol=1e-4 if kind is CP else 1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_long_chain_whose_norm_leaves_the_range(scale):
    rng = np.random.default_rng(9)
    cores = [scale * rng.standard_normal((1, 4, 1)).astype(np.float32) for _ in range(60)]
    x = TensorTrain(cores)
    rounded = (x + x).round(max_rank=1)
    assert rounded.rank == x.rank
    expected = float(x.log_norm()) + np.log(2)
    assert abs(expected) > 90
    assert abs(float(rounded.log_norm()) - expected) < 1e-6 * abs(expected)
