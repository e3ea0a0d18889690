"""Plans as values: identity, text, files, and what they say about bad input."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.planner import contract, plan

CORE = "ni,nj,ir,jr,rk->nk"
SHAPES = [(64, 4), (64, 5), (4, 6), (5, 6), (6, 3)]


def test_equal_in_every_process():
    made = plan(CORE, *SHAPES)
    code = (
        "from tensornet.planner import plan\n"
        f"p = plan({CORE!r}, *{SHAPES!r})\n"
        "print(hash(p)); print(p)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert out.stdout.rstrip("\n") == f"{hash(made)}\n{made}"


def test_identity_is_the_content():
    made = plan(CORE, *SHAPES)
    assert made == plan(CORE, *[jax.ShapeDtypeStruct(s, jnp.float32) for s in SHAPES])
    assert len({made, plan(CORE, *SHAPES)}) == 1
    assert made != plan(CORE, *SHAPES, precision="default")
    assert made != plan(CORE, *SHAPES, search=[(0, 1), (0, 1), (0, 1), (0, 1)])
    assert made != plan(CORE, *SHAPES, dtype="bfloat16")
    assert made != "a plan"


def test_attributes_and_table():
    # (n i)(i r) twice, one product, (n r)(r k): 2 n r (i + j) + n r + 2 n r k operations.
    n, r, i, j, k = 4096, 48, 16, 15, 14
    shapes = [(n, i), (n, j), (i, r), (j, r), (r, k)]
    made = plan(CORE, *shapes)
    assert made.flops == 2 * n * r * (i + j) + n * r + 2 * n * r * k
    assert made.copied_bytes == 0
    assert made.seconds > 0
    assert made.bytes >= 4 * sum(int(np.prod(s)) for s in shapes)
    # Two intermediates of n x r and their product are alive at once.
    assert made.peak_bytes == 3 * n * r * 4
    text = str(made)
    for word in ("ni,ir->nr", "nr,rk->nk", "4096 x 14 x 48 x 1", "flops", "copied", "%"):
        assert word in text
    assert made.order[-1] == (0, 1)


def test_explain_names_the_slow_step():
    # Contracting the middle index first leaves the big tensor to be moved or spread.
    made = plan("ijk,jr->ikr", (100, 100, 100), (100, 8))
    text = made.explain([(0, 1)])
    assert "1.00x" in text
    made = plan(CORE, (4096, 16), (4096, 16), (16, 48), (16, 48), (48, 16))
    text = made.explain([(0, 1), (0, 1), (0, 1), (0, 1)])
    assert "ni,nj->n" in text
    assert float(text.split("predicted ")[1].split("x the time")[0]) > 2
    with pytest.raises(ValueError, match=r"order: step \(0, 7\) does not fit 5 operands"):
        made.explain([(0, 7)])
    with pytest.raises(ValueError, match="expected one result, 4 operands are left"):
        made.explain([(0, 1)])


def test_given_orders_and_objectives():
    assert plan("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5), search=[(1, 2), (0, 1)]).order == (
        (1, 2),
        (0, 1),
    )
    shapes = [(30, 4), (4, 30), (30, 30)]
    for objective, what in (("flops", "flops"), ("bytes", "bytes"), ("memory", "peak_bytes")):
        least = min(
            getattr(plan("ab,bc,cd->ad", *shapes, search=order), what)
            for order in ([(0, 1), (0, 1)], [(1, 2), (0, 1)], [(0, 2), (0, 1)])
        )
        assert getattr(plan("ab,bc,cd->ad", *shapes, objective=objective), what) <= least


def test_any_batch_size(dtype):
    made = plan(CORE, *SHAPES, batch="n", dtype=dtype)
    rng = np.random.default_rng(0)
    for n in (1, 2, 64, 65):
        arrays = [jnp.asarray(rng.normal(size=(n, *s[1:])), dtype) for s in SHAPES[:2]]
        arrays += [jnp.asarray(rng.normal(size=s), dtype) for s in SHAPES[2:]]
        expected = np.einsum(CORE, *(np.asarray(a, np.float64) for a in arrays))
        tolerance = 200 * jnp.finfo(dtype).eps * np.abs(expected).max()
        np.testing.assert_allclose(made(*arrays), expected, rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match=r"index 'n' has sizes \[2, 3\]"):
        made(jnp.ones((2, 4), dtype), jnp.ones((3, 5), dtype), *arrays[2:])


@pytest.mark.parametrize(
    ("expression", "shapes", "message"),
    [
        (
            "ij,jk->ik",
            [(2, 3), (4, 5)],
            r"operand 1: index 'j' has size 4, but size 3 in operand 0",
        ),
        ("ii->i", [(2, 3)], r"operand 0: index 'i' has size 3, but size 2 in operand 0"),
        ("ij,jk->ik", [(2, 3)], "the expression has 2, got 1"),
        ("ij->ij", [(2, 3), (3, 4)], "the expression has 1, got 2"),
        ("ij->iz", [(2, 3)], "index 'z' is in no operand of 'ij'"),
        ("ij->ii", [(2, 3)], "each index once, got 'i' twice in 'ii'"),
        ("ijk->i", [(2, 3)], r"operand 0: 'ijk' has 3 indices, got shape \(2, 3\) of 2 axes"),
        ("i->i", [(2, 3)], r"operand 0: 'i' has 1 indices, got shape \(2, 3\) of 2 axes"),
        ("...i...->i", [(2, 3)], "operand 0: expected one ellipsis"),
        ("i.j->i", [(2, 3)], "expected einsum subscripts, got 'i.j->i'"),
        ("ij->i->j", [(2, 3)], "expected einsum subscripts"),
        ("ij->i,j", [(2, 3)], "expected one output, got 'i,j'"),
        ("...i,...i->...", [(2, 3), (4, 3)], r"operand 1: index 'A' has size 4, but size 2"),
    ],
)
def test_bad_expressions(expression, shapes, message):
    with pytest.raises(ValueError, match=message):
        plan(expression, *shapes)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"objective: expected one of .*, got 'speed'"):
        plan("i->i", (2,), objective="speed")
    with pytest.raises(ValueError, match=r"precision: expected one of .*, got 'most'"):
        plan("i->i", (2,), precision="most")
    with pytest.raises(ValueError, match=r"search: expected .*, got 'luck'"):
        plan("i,i,i->i", (2,), (2,), (2,), search="luck")
    with pytest.raises(ValueError, match=r"device: expected one of .*, got 'abacus'"):
        plan("i->i", (2,), device="abacus")
    with pytest.raises(ValueError, match="batch: expected a label of 'i->i', got 'n'"):
        plan("i->i", (2,), batch="n")
    with pytest.raises(TypeError, match="operand 0: expected numbers, got dtype bool"):
        plan("i->i", jnp.ones(2, bool))


def test_other_operands_than_planned():
    made = plan("ij,jk->ik", (2, 3), (3, 4))
    good = jnp.ones((2, 3)), jnp.ones((3, 4))
    with pytest.raises(ValueError, match=r"operand 1: planned for shape \(3, 4\), got \(4, 3\)"):
        made(good[0], jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="planned for 2, got 1"):
        made(good[0])
    with pytest.raises(TypeError, match="operand 0: planned for float32, got int32"):
        made(jnp.ones((2, 3), jnp.int32), good[1])


def test_result_is_not_a_nan_maker(dtype):
    """A NaN goes where the product takes it and nowhere else; zeros keep their exponent."""
    x = jnp.ones((3, 4), dtype).at[1, 2].set(jnp.nan)
    got = contract("ij,jk->ik", x, jnp.ones((4, 2), dtype))
    np.testing.assert_array_equal(np.isnan(got), [[False] * 2, [True] * 2, [False] * 2])
    mantissa, log = contract(
        "ij,jk->ik", 0 * jnp.ones_like(x), jnp.ones((4, 2), dtype), strip_exponent=True
    )
    assert mantissa.dtype == log.dtype == dtype
    np.testing.assert_array_equal(mantissa * jnp.exp(log), np.zeros((3, 2)))


def test_outer_products_multiply_forward_and_have_matrix_products_as_gradients():
    made = plan("bci,bcj->bcij", (6, 4, 5), (6, 4, 3), batch="b", dtype="float32")
    rng = np.random.default_rng(0)
    x, y, z = (jnp.asarray(rng.normal(size=(6, 4, *n)), "float32") for n in ((5,), (3,), (5, 3)))

    def pulled_back(x, y, z):
        return jax.vjp(made, x, y)[1](z)

    forward = jax.jit(made).lower(x, y).compile().as_text()
    backward = jax.jit(pulled_back).lower(x, y, z).compile().as_text()
    assert " dot(" not in forward
    assert " multiply(" in forward
    assert backward.count(" dot(") == 2
    assert " reduce(" not in backward
    np.testing.assert_allclose(made(x, y), np.einsum("bci,bcj->bcij", x, y), rtol=1e-6)
    dx, dy = pulled_back(x, y, z)
    np.testing.assert_allclose(dx, np.einsum("bcij,bcj->bci", z, y), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dy, np.einsum("bcij,bci->bcj", z, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("expression", "shapes", "sums"),
    [
        ("brxy,rxy->brxy", [(3, 4, 70, 70), (4, 70, 70)], 0),
        ("rxy,brxy->brxy", [(4, 70, 70), (3, 4, 70, 70)], 0),
        ("brxy,brxy->rxy", [(3, 4, 70, 70), (3, 4, 70, 70)], 0),
        ("brx,bx->brx", [(3, 4, 5000), (3, 5000)], 1),  # no leading axis: XLA sums rows
    ],
)
def test_long_rows_are_added_by_products_with_ones(expression, shapes, sums):
    made = plan(expression, *shapes, dtype="float32")
    rng = np.random.default_rng(0)
    first, second, output = expression.replace("->", ",").split(",")
    sizes = made.network.sizes
    x, y, z = (
        jnp.asarray(rng.normal(size=s), "float32") for s in (*shapes, [sizes[n] for n in output])
    )

    def value_and_gradients(x, y, z):
        value, pull = jax.vjp(made, x, y)
        return value, pull(z)

    text = str(jax.make_jaxpr(value_and_gradients)(x, y, z))
    assert text.count("reduce_sum") == sums
    value, gradients = value_and_gradients(x, y, z)
    np.testing.assert_allclose(value, np.einsum(expression, x, y), rtol=1e-5, atol=1e-5)
    dx, dy = gradients
    expected = np.einsum(f"{output},{second}->{first}", z, y)
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-5)
    expected = np.einsum(f"{output},{first}->{second}", z, x)
    np.testing.assert_allclose(dy, expected, rtol=1e-5, atol=1e-5)
    tangent = jax.jvp(lambda x: made(x, y), (x,), (x,))[1]
    np.testing.assert_allclose(tangent, value, rtol=1e-6)
