"""Contractions of random networks against numpy's einsum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensornet.planner import Plan, contract, plan


@st.composite
def networks(draw, most=7):
    labels = "abcdefgh"[: draw(st.integers(1, 8))]
    sizes = {x: draw(st.integers(1, 3)) for x in labels}
    n = draw(st.integers(1, most))
    terms = [draw(st.text(labels, min_size=0, max_size=4)) for _ in range(n)]
    used = sorted(set("".join(terms)))
    output = draw(st.lists(st.sampled_from(used), unique=True, max_size=4)) if used else []
    expression = ",".join(terms) + "->" + "".join(output)
    return expression, [tuple(sizes[x] for x in term) for term in terms]


def draws(shapes, seed, dtype=np.float64):
    # Entries around one, so that sums over many terms cannot cancel and errors are relative.
    rng = np.random.default_rng(seed)
    return [rng.uniform(0.5, 1.5, shape).astype(dtype) for shape in shapes]


@given(networks(), st.integers(0, 100), st.sampled_from(["seconds", "flops", "memory"]))
@settings(max_examples=60)
def test_equals_numpy(network, seed, objective):
    expression, shapes = network
    with jax.enable_x64(True):
        arrays = draws(shapes, seed)
        made = plan(expression, *shapes, dtype="float64", objective=objective)
        with jax.disable_jit():
            got = made(*arrays)
    expected = np.einsum(expression, *arrays, optimize="greedy")
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    assert made == Plan.from_json(made.to_json())
    assert hash(made) == hash(Plan.from_json(made.to_json()))


@given(networks(most=5), st.integers(0, 100))
@settings(max_examples=8)
def test_gradients_equal_those_of_einsum(network, seed):
    expression, shapes = network
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a) for a in draws(shapes, seed)]
        got = jax.grad(lambda xs: jnp.sum(jnp.sin(contract(expression, *xs))))(arrays)
        expected = jax.grad(lambda xs: jnp.sum(jnp.sin(jnp.einsum(expression, *xs))))(arrays)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * np.abs(b).max(initial=1))


def test_ellipsis_broadcasts():
    with jax.enable_x64(True):
        x, y = draws([(5, 1, 2, 3), (4, 3, 6)], 0)
        for expression in (
            "...ij,...jk->...ik",
            "...ij,...jk",
            "...ij,...jk->i...k",
            "ab...,...c->c...",
        ):
            shapes = [x, y] if "i" in expression else [x, y[..., :3]]
            if expression.startswith("ab"):
                shapes = [x, draws([(2, 3, 4)], 1)[0]]
            np.testing.assert_allclose(
                contract(expression, *shapes), np.einsum(expression, *shapes), rtol=1e-13
            )


def test_empty_axes_give_zeros(dtype):
    got = contract("ij,jk->ik", jnp.ones((3, 0), dtype), jnp.ones((0, 2), dtype))
    np.testing.assert_array_equal(got, np.zeros((3, 2)))
    assert contract("ij,jk->ik", jnp.ones((0, 3), dtype), jnp.ones((3, 2), dtype)).shape == (0, 2)


def test_large_networks_use_outside_orders():
    n = 20
    letters = "abcdefghijklmnopqrstuvwxyz"
    terms = [letters[i] + letters[i + 1] for i in range(n)]
    expression = ",".join(terms) + "->" + letters[0] + letters[n]
    with jax.enable_x64(True):
        arrays = draws([(3, 3)] * n, 0)
        np.testing.assert_allclose(
            contract(expression, *arrays), np.linalg.multi_dot(arrays), rtol=1e-12
        )


def test_under_jit_vmap_and_int():
    x = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(contract("ij,kj->ik", x, x), x @ x.T)
    with jax.enable_x64(True):
        a, b = draws([(5, 3, 4), (5, 4, 2)], 0)
        got = jax.jit(jax.vmap(lambda a, b: contract("ij,jk->ik", a, b)))(a, b)
        np.testing.assert_allclose(got, a @ b, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_cotengra_orders_give_the_same():
    cotengra = pytest.importorskip("cotengra", reason="the optional package is not installed")
    inputs, output, shapes, _ = cotengra.utils.lattice_equation([3, 4], d_min=2, d_max=3, seed=0)
    expression = ",".join("".join(term) for term in inputs) + "->" + "".join(output)
    arrays = draws(shapes, 0)
    made = plan(expression, *shapes, dtype="float64", search="cotengra")
    assert made == plan(expression, *shapes, dtype="float64", search="cotengra")
    expected = contract(expression, *arrays)
    np.testing.assert_allclose(made(*arrays), expected, rtol=1e-11)
