"""Formats as operands: contracted as the networks they are, and equal to their dense form."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensornet import CP, TensorRing, TensorTrain, TTMatrix, Tucker
from tensornet.planner import Pieces, Plan, contract, network, plan, plan_stages, tune

MODAL = [CP, Tucker, TensorTrain, TensorRing]
LETTERS = "abcdefghijkl"
by_modal_kind = pytest.mark.parametrize("kind", MODAL)


def main(formats, kind, dtype=np.float64, seed=0):
    return formats.make(kind, formats.MAIN[kind], np.random.default_rng(seed), dtype)


def draw(*shape, dtype=np.float64, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("kind", [*MODAL, TTMatrix])
@pytest.mark.usefixtures("x64")
def test_a_format_is_its_dense_form(formats, kind):
    for case in formats.CASES[kind]:
        x = formats.make(kind, case, np.random.default_rng(0), np.float64)
        names = LETTERS[: x.ndim]
        with jax.disable_jit():
            got = contract(f"{names}->{names[::-1]}", x)
        expected = formats.dense(x).transpose()
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * formats.size(x))


@by_modal_kind
def test_plans_run_on_formats(formats, kind, dtype):
    x, y = main(formats, kind, dtype), draw(4, 5, dtype=dtype)
    made = plan("ijk,jr->ikr", x, y)
    again = Plan.from_json(made.to_json())
    assert again == made
    assert hash(again) == hash(made)
    assert str(again) == str(made)
    assert str(made).startswith(f"ijk,jr->ikr of {kind.__name__}, array:")
    described = eqx.filter_eval_shape(lambda: x)
    assert plan("ijk,jr->ikr", described, (4, 5), dtype=dtype) == made
    expected = np.einsum("ijk,jr->ikr", formats.dense(x), np.asarray(y, np.float64))
    close = {"rtol": 0, "atol": 50 * jnp.finfo(dtype).eps * formats.size(x)}
    np.testing.assert_allclose(again(x, y), expected, **close)
    np.testing.assert_allclose(contract("ijk,jr->ikr", x, y), expected, **close)
    mantissa, log = made(x, y, strip_exponent=True)
    np.testing.assert_allclose(mantissa * jnp.exp(log), expected, **close)


@by_modal_kind
@pytest.mark.usefixtures("x64")
def test_under_jit_vmap_and_grad(formats, kind):
    xs = [main(formats, kind, seed=seed) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *xs)
    y = draw(4, 5)

    def by_plan(x, y):
        return jnp.sum(jnp.sin(contract("ijk,jr->ikr", x, y)))

    def by_dense(x, y):
        return jnp.sum(jnp.sin(jnp.einsum("ijk,jr->ikr", x.to_dense(), y)))

    got = jax.jit(jax.vmap(jax.value_and_grad(by_plan, argnums=(0, 1)), in_axes=(0, None)))
    expected = jax.jit(jax.vmap(jax.value_and_grad(by_dense, argnums=(0, 1)), in_axes=(0, None)))
    for a, b in zip(*(jax.tree.leaves(f(batch, y)) for f in (got, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match=r"operand 0: array \d of a .*batch that vmap made"):
        plan("ijk,jr->ikr", batch, y)


@pytest.mark.parametrize("other", MODAL)
@by_modal_kind
def test_the_order_goes_through_both_formats(kind, other, formats):
    """Inner products of tensors that would have 1e15 entries, which nothing may come near."""

    def large(kind):
        shape = (1000,) * 5
        rank = {CP: 4, Tucker: (4,) * 5, TensorTrain: (1, 4, 4, 4, 4, 1), TensorRing: (3,) * 6}
        return eqx.filter_eval_shape(
            lambda: formats.make(kind, (shape, rank[kind]), np.random.default_rng(0), np.float32)
        )

    made = plan("abcde,abcde->", large(kind), large(other), search="opt_einsum")
    assert made.flops < 5e7
    assert made.peak_bytes < 1e7


@pytest.mark.usefixtures("x64")
def test_chains_of_thirty_modes(formats):
    shape, rank = (3,) * 30, (1, *(4,) * 29, 1)
    x, y = (formats.make(TensorTrain, (shape, rank), np.random.default_rng(k), "d") for k in (0, 1))
    names = "".join(chr(97 + k) if k < 26 else chr(39 + k) for k in range(30))
    mantissa, log = contract(f"{names},{names}->", x, y, strip_exponent=True)
    # From the left by numpy, one transfer matrix at a time.
    carried = np.ones((1, 1))
    for a, b in zip(x.cores, y.cores, strict=True):
        carried = np.einsum("ab,anc,bnd->cd", carried, np.asarray(a), np.asarray(b))
    np.testing.assert_allclose(mantissa * np.exp(log), carried[0, 0], rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_a_matrix_has_two_indices_or_one_for_each_mode(formats):
    a = main(formats, TTMatrix)  # rows 2 x 2 x 1, columns 3 x 2 x 2
    dense = formats.dense(a)
    modes = dense.reshape(2, 2, 1, 3, 2, 2)
    close = {"rtol": 0, "atol": 1e-12}
    x, row, column = draw(12, 5), draw(4), draw(12)
    cp = formats.make(CP, ((5, 12), 2), np.random.default_rng(3), np.float64)
    square = formats.make(TTMatrix, (((2, 3), (2, 2), (1, 2)), (1, 2, 2, 1)), np.random, "d")
    for expression, operands, expected in (
        ("ij,jn->in", (a, x), dense @ x),
        ("...j,jn->...n", (a, x), dense @ x),
        ("i,ij,j->", (row, a, column), row @ dense @ column),
        ("ij,nj->ni", (a, cp), formats.dense(cp) @ dense.T),
        ("ij,kj->ik", (a, square), dense @ formats.dense(square).T),
        ("ij,jj->i", (a, x @ x.T), dense @ np.diag(x @ x.T)),
        ("abcdef,def->abc", (a, x[:, 0].reshape(3, 2, 2)), (dense @ x[:, 0]).reshape(2, 2, 1)),
        ("abcdef->fdabce", (a,), np.einsum("abcdef->fdabce", modes)),
    ):
        got = contract(expression, *operands)
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, **close)
        made = plan(expression, *operands)
        assert Plan.from_json(made.to_json()) == made
        np.testing.assert_allclose(made(*operands), got, **close)
    other = formats.make(TTMatrix, (((4, 2), (1, 6)), (1, 2, 1)), np.random, "d")
    with pytest.raises(
        ValueError, match=r"operand 1: index 'j' is divided into \(2, 6\), but into \(3, 2, 2\) in"
    ):
        contract("ij,kj->ik", a, other)
    with pytest.raises(ValueError, match=r"batch: index 'j' is divided into \(3, 2, 2\)"):
        plan("ij,jn->in", a, x, batch="j")
    with pytest.raises(ValueError, match=r"'ijk' has 3 indices, got shape \(4, 12\) of 2 axes"):
        plan("ijk->i", a)


class Kronecker(eqx.Module):
    """A format of someone else: two matrices and the scale of their Kronecker product."""

    scale: jax.Array
    left: jax.Array
    right: jax.Array

    def pieces(self):
        """Its arrays: rows and columns consist of those of both matrices."""
        return Pieces(
            (self.scale, self.left, self.right),
            ((), ("i", "p"), ("j", "q")),
            (("i", "j"), ("p", "q")),
        )


@pytest.mark.usefixtures("x64")
def test_a_format_of_someone_else():
    k = Kronecker(jnp.asarray(2.5), draw(2, 3), draw(4, 5, seed=2))
    dense = 2.5 * np.kron(k.left, k.right)
    x = draw(7, 15, seed=3)
    np.testing.assert_allclose(contract("ab,nb->na", k, x), x @ dense.T, rtol=1e-12)
    # As a constant it is kept with the plan.
    made = plan("nb,ab->na", x.shape, constants={1: k}, dtype="float64", batch="n")
    again = Plan.from_json(made.to_json())
    assert again == made
    other = jax.tree.map(jnp.negative, k)
    assert made != plan("nb,ab->na", x.shape, constants={1: other}, dtype="float64", batch="n")
    for n in (7, 1, 9):
        np.testing.assert_allclose(again(x[:n]), x[:n] @ dense.T, rtol=1e-12)
    assert made.network.given.kinds == ("array", "Kronecker")
    for constant in (k, other):
        got = contract("nb,ab->na", x, constants={1: constant})
        np.testing.assert_allclose(got, x @ dense.T * (1 if constant is k else -1) ** 3, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_options_of_a_plan(formats):
    cp, y = main(formats, CP), draw(4, 5)
    dense = formats.dense(cp)
    expected = np.einsum("ijk,jr->ikr", dense, y)
    # Any size of a mode declared as batch; the factor of the format has it.
    made = plan("ijk,jr->ikr", cp, y, batch="i")
    longer = CP(cp.weights, (jnp.tile(cp.factors[0], (3, 1)), *cp.factors[1:]))
    np.testing.assert_allclose(made(longer, y), np.tile(expected, (3, 1, 1)), rtol=1e-12)
    sliced = plan("ijk,jr->ikr", cp, y, slices={"i": 3, "j": 2})
    assert sliced.n_slices == 6
    np.testing.assert_allclose(sliced(cp, y), expected, rtol=1e-12)
    tied = contract("ijk,ja,jb->ikab", cp, y, constants={2: "copy"})
    np.testing.assert_allclose(tied, np.einsum("ijk,jb->ikjb", dense, y).swapaxes(2, 3), rtol=1e-12)
    order = [(2, 4), (0, 1), (0, 2), (0, 1)]
    np.testing.assert_allclose(
        plan("ijk,jr->ikr", cp, y, search=order)(cp, y), expected, rtol=1e-12
    )
    best, told = tune(made, cp, y, gradients=True, most=2, rounds=1)
    np.testing.assert_allclose(best(cp, y), expected, rtol=1e-12)
    assert "predicted" in told
    assert made.explain(order).count("array") == 1
    described = network("ijk,jr->ikr", [cp, y.shape], [None, "float64"], batch="i")
    assert described == made.network
    # Both use one diagonal: labels may repeat within a format and between formats.
    square = formats.make(Tucker, ((3, 3, 2), (2, 2, 2)), np.random.default_rng(0), np.float64)
    got = contract("iik,ijk,ijk->ij", square, cp, cp)
    expected = np.einsum("iik,ijk,ijk->ij", formats.dense(square), dense, dense)
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_planning_many_pieces_of_one_index_ends(formats):
    """Of a CP tensor any factors may come first: their orders are too many to try."""
    cp = formats.make(CP, ((2,) * 12, 3), np.random.default_rng(0), np.float32)
    names = LETTERS
    got = contract(f"{names}->{names}", cp)
    np.testing.assert_allclose(got, formats.dense(cp), rtol=0, atol=1e-5 * formats.size(cp))


def test_bad_operands(formats):
    cp, tucker = (main(formats, kind, np.float32) for kind in (CP, Tucker))
    y = draw(4, 5, dtype=np.float32)
    with pytest.raises(ValueError, match=r"operand 0: 'ij' has 2 indices, got shape .* of 3 axes"):
        contract("ij,jr->ir", cp, y)
    with pytest.raises(ValueError, match="operand 1: index 'i' has size 4, but size 3 in operand"):
        contract("ijk,ir->kr", cp, y)
    with pytest.raises(ValueError, match="operands: the expression has 2, got 1"):
        plan("ijk,jr->ikr", cp)
    with pytest.raises(TypeError, match=r"operand 'x': expected an array or a shape, got CP\("):
        plan_stages(["x:ijk->i"], {"x": cp})
    made = plan("ijk,jr->ikr", cp, y)
    with pytest.raises(TypeError, match="operand 0: planned for a CP, got a Tucker"):
        made(tucker, y)
    with pytest.raises(TypeError, match="operand 0: planned for a CP, got an array"):
        made(cp.to_dense(), y)
    with pytest.raises(TypeError, match="operand 1: planned for an array, got a CP"):
        made(cp, cp)
    with pytest.raises(ValueError, match="operands: planned for 2, got 1"):
        made(cp)
    with pytest.raises(TypeError, match="operand 0: planned for an array, got a CP"):
        plan("ijk->i", cp.shape)(cp)
    wider = CP(cp.weights, (cp.factors[0], *[jnp.ones((7, 2), np.float32)] * 2))
    with pytest.raises(ValueError, match=r"operand 0.2: planned for shape \(4, 2\), got \(7, 2\)"):
        made(wider, y)
    with pytest.raises(ValueError, match="operand 0: planned for a CP of 4 arrays, got one of 3"):
        made(CP(cp.weights, cp.factors[:2]), y)


@st.composite
def expressions(draw):
    sizes = dict(zip("abcd", (2, 3, 1, 4), strict=True))
    terms = draw(st.lists(st.text("abcd", min_size=1, max_size=3), min_size=1, max_size=2))
    kinds = [draw(st.sampled_from([*MODAL, None])) for _ in terms]
    used = sorted(set("".join(terms)))
    output = draw(st.lists(st.sampled_from(used), unique=True, max_size=3))
    shapes = [tuple(sizes[x] for x in term) for term in terms]
    return ",".join(terms) + "->" + "".join(output), shapes, kinds


@given(expressions(), st.integers(0, 100))
@settings(max_examples=20)
def test_equals_numpy_on_the_dense_forms(formats, drawn, seed):
    expression, shapes, kinds = drawn
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True), jax.disable_jit():
        operands = []
        for shape, kind in zip(shapes, kinds, strict=True):
            d = len(shape)
            ranks = {CP: 2, Tucker: (2,) * d, TensorRing: (2,) * (d + 1)}
            ranks[TensorTrain] = (1, *(2,) * (d - 1), 1)
            x = rng.normal(size=shape)
            operands.append(formats.make(kind, (shape, ranks[kind]), rng, "d") if kind else x)
        # No signs that cancel, so that the error is that of the entries.
        operands = [jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1, x) for x in operands]
        made = plan(expression, *operands, search=rng.choice(["auto", "opt_einsum"]))
        got = made(*operands)
    dense = [formats.dense(x) if kind else x for x, kind in zip(operands, kinds, strict=True)]
    expected = np.einsum(expression, *dense)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert Plan.from_json(made.to_json()) == made
    assert math.prod(got.shape) == expected.size
