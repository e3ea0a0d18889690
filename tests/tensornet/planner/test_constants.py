"""Operands known while planning: dense, sparse, and copy tensors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.planner import Plan, contract, plan
from tensornet.planner.cost import shipped_rates


def sparse_tensor(shape, nonzeros, seed=0):
    rng = np.random.default_rng(seed)
    flat = np.zeros(int(np.prod(shape)))
    flat[rng.choice(flat.size, nonzeros, replace=False)] = rng.choice(
        [-1.5, -0.5, 0.5, 2.0], nonzeros
    )
    return flat.reshape(shape)


def draws(shapes):
    rng = np.random.default_rng(1)
    return [jnp.asarray(rng.normal(size=s)) for s in shapes]


@pytest.mark.parametrize(
    ("expression", "position", "shapes"),
    [
        ("ni,nj,ijk->nk", 2, [(200, 6), (200, 5)]),
        ("in,ijk,jn->kn", 1, [(6, 200), (5, 200)]),
        ("nci,nj,ijk,cd->ndk", 2, [(40, 3, 6), (40, 5), (3, 2)]),
        ("ni,ijk->njk", 1, [(300, 6)]),
        ("ni,nj,nk,ijk->n", 3, [(200, 6), (200, 5), (200, 4)]),
    ],
)
@pytest.mark.usefixtures("x64")
def test_sparse_constants_are_written_out(expression, position, shapes):
    coefficients = sparse_tensor((6, 5, 4), 12)
    arrays = draws(shapes)
    made = plan(expression, *shapes, constants={position: coefficients}, dtype="float64")
    assert any(step.how == "unroll" for step in made.steps)
    full = [*arrays]
    full.insert(position, coefficients)
    np.testing.assert_allclose(made(*arrays), np.einsum(expression, *full), atol=1e-13)
    assert Plan.from_json(made.to_json()) == made
    got = jax.grad(lambda xs: jnp.sum(jnp.sin(made(*xs))))(arrays)
    dense = plan(expression, *map(jnp.shape, full), dtype="float64")
    expected = jax.grad(
        lambda xs: jnp.sum(
            jnp.sin(dense(*xs[:position], jnp.asarray(coefficients), *xs[position:]))
        )
    )(arrays)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    ("expression", "position", "shapes"),
    [
        ("ni,nj,ijk->nk", 2, [(30, 9), (30, 8)]),
        ("in,ijk,jmn->kmn", 1, [(9, 20), (8, 3, 20)]),
        ("ni,ijk->njk", 1, [(60, 9)]),
        ("ni,nj,nk,ijk->n", 3, [(20, 9), (20, 8), (20, 7)]),
    ],
)
@pytest.mark.usefixtures("x64")
def test_many_coefficients_are_summed_in_groups(expression, position, shapes):
    coefficients = sparse_tensor((9, 8, 7), 170)
    arrays = draws(shapes)
    rates = dataclasses.replace(shipped_rates("cpu"), vector=1e15)  # whatever it costs
    constants = {position: coefficients}
    made = plan(expression, *shapes, constants=constants, dtype="float64", rates=rates)
    assert any(step.how == "unroll" for step in made.steps)

    def dense(*xs):
        full = [*xs[:position], jnp.asarray(coefficients), *xs[position:]]
        return jnp.einsum(expression, *full, precision="highest")

    np.testing.assert_allclose(made(*arrays), dense(*arrays), atol=1e-12)
    text = str(jax.make_jaxpr(made)(*arrays))
    assert "sum_of_row_products" in text
    assert len(text) < 40_000
    tangents = draws([s[::-1] for s in shapes])
    tangents = [t.reshape(s) for t, s in zip(tangents, shapes, strict=True)]
    got, expected = (jax.jvp(f, arrays, tangents)[1] for f in (made, dense))
    np.testing.assert_allclose(got, expected, atol=1e-12)

    def pulled(f):  # its derivative holds the sum's derivatives of second order
        def slope(*xs):
            return jnp.sum(jax.grad(lambda *ys: jnp.sum(jnp.sin(f(*ys))))(*xs) ** 2)

        return jax.grad(slope, tuple(range(len(arrays))))(*arrays)

    for a, b in zip(pulled(made), pulled(dense), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-9)
    many = [jnp.stack([x, 2 * x]) for x in arrays[:1]]
    got, expected = (
        jax.vmap(f, (0, *[None] * (len(arrays) - 1)))(*many, *arrays[1:]) for f in (made, dense)
    )
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_sums_in_groups_leave_shards_where_they_are():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("d",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d", None))
    coefficients = sparse_tensor((9, 8, 7), 170).astype("float32")
    rates = dataclasses.replace(shipped_rates("cpu"), vector=1e15)
    made = plan("ni,nj,ijk->nk", (64, 9), (64, 8), constants={2: coefficients}, rates=rates)
    x, y = (jax.device_put(v.astype(jnp.float32), place) for v in draws([(64, 9), (64, 8)]))
    text = jax.jit(made).lower(x, y).compile().as_text()
    assert "all-gather" not in text
    expected = np.einsum("ni,nj,ijk->nk", x, y, coefficients)
    np.testing.assert_allclose(made(x, y), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5, 4), (6, 1, 4), (6, 5, 1)])
@pytest.mark.usefixtures("x64")
def test_sparse_constants_may_have_an_axis_of_length_one(shape):
    coefficients = sparse_tensor(shape, 4)
    x, y = draws([(200, shape[0]), (200, shape[1])])
    made = plan("ni,nj,ijk->nk", x, y, constants={2: coefficients})
    assert any(step.how == "unroll" for step in made.steps)
    expected = np.einsum("ni,nj,ijk->nk", x, y, coefficients)
    np.testing.assert_allclose(made(x, y), expected, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_dense_constants_stay_products():
    constant = np.random.default_rng(0).normal(size=(6, 5, 4))
    made = plan("ni,nj,ijk->nk", (50, 6), (50, 5), constants={2: constant}, dtype="float64")
    assert all(step.how != "unroll" for step in made.steps)
    x, y = draws([(50, 6), (50, 5)])
    expected = np.einsum("ni,nj,ijk->nk", x, y, constant)
    np.testing.assert_allclose(made(x, y), expected, atol=1e-12)
    other = plan("ni,nj,ijk->nk", (50, 6), (50, 5), constants={2: 2 * constant}, dtype="float64")
    assert other != made
    np.testing.assert_allclose(
        contract("ni,nj,ijk->nk", x, y, constants={2: constant}), expected, atol=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_copy_tensors():
    x, y = draws([(3, 4), (5, 4)])
    # One index where the copy tensor ties three together.
    got = contract("ia,jb,abr->ijr", x, y, constants={2: "copy"})
    np.testing.assert_allclose(got, np.einsum("ir,jr->ijr", x, y), rtol=1e-14)
    # Two of its indices in the output: the diagonal must be built.
    got = contract("ia,ab->iab", x, constants={1: "copy"})
    np.testing.assert_allclose(got, np.einsum("ia,ab->iab", x, np.eye(4)), rtol=1e-14)
    got = contract("ia,ab,bc,jc->ij", x, y, constants={1: "copy", 2: "copy"})
    np.testing.assert_allclose(got, x @ y.T, rtol=1e-14)
    with pytest.raises(ValueError, match=r"operand 1: a copy tensor needs one size.*\[4, 5\]"):
        plan("ia,ab,bj->ij", (3, 4), (5, 2), constants={1: "copy"})
    with pytest.raises(
        ValueError, match=r'constants\[1\]: expected an array or "copy", got "?.diag'
    ):
        plan("ia,ab->ib", (3, 4), constants={1: "diag"})
    with pytest.raises(ValueError, match="has 2 operands, got position 2"):
        plan("ia,ab->ib", (3, 4), constants={2: "copy"})
