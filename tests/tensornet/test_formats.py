"""The algebra of the formats against dense arrays."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, TensorRing, TensorTrain, TTMatrix, Tucker

FORMATS = [CP, Tucker, TensorTrain, TensorRing, TTMatrix]
KINDS = pytest.mark.parametrize("kind", FORMATS)
MODAL = pytest.mark.parametrize("kind", FORMATS[:4])


@jax.jit
def everything(x, y, scalar):
    return {
        "dense": x.to_dense(),
        "+": (x + y).to_dense(),
        "*": (x * y).to_dense(),
        "scaled": (scalar * x).to_dense(),
        "inner": x.inner(y),
        "norm": x.norm(),
        "log_norm": x.log_norm(),
    }


def check_algebra(formats, kind, case, seed, dtype):
    rng = np.random.default_rng(seed)
    x, y = formats.make(kind, case, rng, dtype), formats.make(kind, case, rng, dtype)
    scalar = float(np.float32(rng.standard_normal()))
    a, b = formats.dense(x), formats.dense(y)
    got = jax.tree.map(lambda v: np.asarray(v, np.float64), everything(x, y, scalar))
    eps = float(jnp.finfo(dtype).eps)
    unit = 64 * eps  # sums over a few ranks and modes
    of_x, of_y = formats.size(x), formats.size(y)

    for key, expected, scale in [
        ("dense", a, of_x),
        ("+", a + b, of_x + of_y),
        ("*", a * b, of_x * of_y),
        ("scaled", scalar * a, abs(scalar) * of_x),
        ("inner", np.sum(a * b), of_x * of_y),
        ("norm", np.linalg.norm(a), of_x),
    ]:
        assert got[key].shape == np.shape(expected), key
        np.testing.assert_allclose(got[key], expected, rtol=0, atol=unit * scale, err_msg=key)
    log_norm = math.log(np.linalg.norm(a))
    assert abs(got["log_norm"] - log_norm) < 4 * unit * of_x / np.linalg.norm(a)


@KINDS
@pytest.mark.usefixtures("x64")
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(case=st.integers(0, 2), seed=st.integers(0, 2**32 - 1))
def test_algebra(kind, case, seed, formats):
    check_algebra(formats, kind, formats.CASES[kind][case], seed, "float64")


@KINDS
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_algebra_in_single_precision(kind, seed, formats):
    with jax.enable_x64(False):
        check_algebra(formats, kind, formats.MAIN[kind], seed, "float32")


@KINDS
def test_operators_keep_dtype_and_take_scalars_of_any_kind(kind, dtype, formats):
    x = formats.make(kind, formats.MAIN[kind], np.random.default_rng(0), dtype)
    a = formats.dense(x)
    for scaled, expected in [
        (x * 2, 2 * a),
        (-x, -a),
        (x / 4, a / 4),
        (np.float64(0.5) * x, a / 2),
        (np.asarray(3.0) * x, 3 * a),
        (jnp.asarray(2, jnp.int32) * x, 2 * a),
        (x * jnp.asarray(0.25, jnp.float32), a / 4),
    ]:
        assert scaled.dtype == dtype
        assert type(scaled) is kind
        assert scaled.rank == x.rank
        eps = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(
            scaled.to_dense(), expected, rtol=0, atol=64 * eps * formats.size(x)
        )


INDICES = [
    1,
    (Ellipsis, 0),
    (0, Ellipsis, -1),
    (slice(None), 2),
    (slice(1, None), -1, slice(None)),
    (slice(None, None, -1), slice(1, 4, 2), 0),
    (2, 3, 1),
    (-1, -4, -2),
    (np.int64(2), slice(0, 1)),
    Ellipsis,
    (1, slice(None), 1),
    (1, 2, slice(None)),
]


@MODAL
@pytest.mark.usefixtures("x64")
def test_indexing_selects_what_it_does_in_an_array(kind, formats):
    x = formats.make(kind, formats.MAIN[kind], np.random.default_rng(3), "float64")
    a = formats.dense(x)
    for index in INDICES:
        got, expected = x[index], a[index]
        assert got.shape == expected.shape, index
        got = got.to_dense() if isinstance(got, kind) else got
        np.testing.assert_allclose(
            got, expected, rtol=0, atol=1e-13 * formats.size(x), err_msg=str(index)
        )


@MODAL
@pytest.mark.usefixtures("x64")
def test_traced_positions_pick_many_entries_at_once(kind, formats):
    x = formats.make(kind, formats.MAIN[kind], np.random.default_rng(4), "float64")
    positions = np.array([[0, 0, 0], [2, 3, 1], [-1, -2, -1]], np.int32)
    got = jax.vmap(lambda p: x[p[0], p[1], p[2]])(positions)
    np.testing.assert_allclose(
        got, formats.dense(x)[tuple(positions.T)], atol=1e-13 * formats.size(x)
    )


@MODAL
@pytest.mark.usefixtures("x64")
def test_mode_dot_multiplies_or_sums_a_mode(kind, formats):
    rng = np.random.default_rng(5)
    x = formats.make(kind, formats.MAIN[kind], rng, "float64")
    matrix, vector = rng.standard_normal((5, 4)), rng.standard_normal(2)
    a = formats.dense(x)
    got = x.mode_dot(matrix, 1)
    assert type(got) is kind
    np.testing.assert_allclose(
        got.to_dense(), np.einsum("anb,mn->amb", a, matrix), atol=1e-13 * formats.size(x) * 5
    )
    np.testing.assert_allclose(
        x.mode_dot(vector, -1).to_dense(), a @ vector, atol=1e-12 * formats.size(x)
    )
    single = formats.make(kind, formats.CASES[kind][0], rng, "float64")
    ones = np.ones(single.shape)
    np.testing.assert_allclose(single.mode_dot(ones, 0), formats.dense(single).sum(), atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_matrix_products(number, formats):
    case = formats.CASES[TTMatrix][number]
    rng = np.random.default_rng(6)
    a, b = (
        formats.make(TTMatrix, case, rng, "float64"),
        formats.make(TTMatrix, case, rng, "float64"),
    )
    x = formats.make(TensorTrain, (a.column_shape, case[1]), rng, "float64")
    dense_a, dense_x = formats.dense(a), formats.dense(x).reshape(-1)
    tolerance = 1e-13 * formats.size(a) * max(formats.size(b), formats.size(x))
    assert a.T.shape == dense_a.T.shape
    np.testing.assert_allclose(a.T.to_dense(), dense_a.T, atol=tolerance)
    product = a @ b.T
    assert isinstance(product, TTMatrix)
    assert product.shape == (a.shape[0], a.shape[0])
    np.testing.assert_allclose(product.to_dense(), dense_a @ formats.dense(b).T, atol=tolerance)
    image = a @ x
    assert isinstance(image, TensorTrain)
    assert image.shape == a.row_shape
    np.testing.assert_allclose(image.to_dense().reshape(-1), dense_a @ dense_x, atol=tolerance)
    many = rng.standard_normal((a.shape[1], 3))
    np.testing.assert_allclose(a @ dense_x, dense_a @ dense_x, atol=tolerance)
    np.testing.assert_allclose(a @ many, dense_a @ many, atol=10 * tolerance)
    left = rng.standard_normal((2, a.shape[0]))
    np.testing.assert_allclose(left @ a, left @ dense_a, atol=10 * tolerance)
    np.testing.assert_allclose(jnp.asarray(left[0]) @ a, left[0] @ dense_a, atol=10 * tolerance)


@pytest.mark.usefixtures("x64")
def test_matrix_entries_rows_and_columns(formats):
    a = formats.make(TTMatrix, formats.MAIN[TTMatrix], np.random.default_rng(7), "float64")
    expected = formats.dense(a)
    for i, j in [(0, 0), (3, 11), (-1, -2), (2, 7)]:
        np.testing.assert_allclose(a[i, j], expected[i, j], atol=1e-12)
    assert a[1].shape == a.column_shape
    np.testing.assert_allclose(a[1].to_dense().reshape(-1), expected[1], atol=1e-12)
    assert a[:, -3].shape == a.row_shape
    np.testing.assert_allclose(a[:, -3].to_dense().reshape(-1), expected[:, -3], atol=1e-12)
