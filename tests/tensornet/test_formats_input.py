"""What the formats refuse, by the facts in the message, and how they print."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, TensorRing, TensorTrain, TTMatrix, Tucker


def ones(*shape):
    return np.ones(shape, np.float32)


def cp(*shape, rank=2):
    return CP(ones(rank), [ones(n, rank) for n in shape])


def tucker(*shape, rank=2):
    return Tucker(ones(*[rank] * len(shape)), [ones(n, rank) for n in shape])


def ring(*shape, rank=2):
    return TensorRing([ones(rank, n, rank) for n in shape])


def train(*shape, rank=2):
    ranks = [1, *[rank] * (len(shape) - 1), 1]
    return TensorTrain([ones(ranks[k], n, ranks[k + 1]) for k, n in enumerate(shape)])


def matrix(*shape, rank=2):
    ranks = [1, *[rank] * (len(shape) - 1), 1]
    return TTMatrix([ones(ranks[k], *n, ranks[k + 1]) for k, n in enumerate(shape)])


BAD_PARTS = {
    "columns": (
        lambda: CP(ones(3), [ones(4, 3), ones(5, 2)]),
        ValueError,
        r"factors\[1\]: expected 3 columns .*, got shape \(5, 2\)",
    ),
    "weights of two dimensions": (
        lambda: CP(ones(3, 1), [ones(4, 3)]),
        ValueError,
        r"weights: expected shape \(rank,\), got \(3, 1\)",
    ),
    "factor of three dimensions": (
        lambda: CP(ones(3), [ones(4, 3, 1)]),
        ValueError,
        r"factors\[0\]: expected shape \(size, rank\), got \(4, 3, 1\)",
    ),
    "no factors": (
        lambda: CP(ones(3), []),
        ValueError,
        "factors: expected at least one array, got none",
    ),
    "empty mode": (
        lambda: CP(ones(3), [ones(0, 3)]),
        ValueError,
        r"factors\[0\]: expected no empty dimension, got \(0, 3\)",
    ),
    "factors no list": (
        lambda: CP(ones(3), ones(2, 3)),
        TypeError,
        "factors: expected a list or tuple of arrays, got ndarray",
    ),
    "complex": (
        lambda: CP(ones(3).astype(complex), [ones(4, 3)]),
        TypeError,
        "weights: expected float32 or float64 .*, got complex",
    ),
    "core dimensions": (
        lambda: Tucker(ones(2, 2), [ones(4, 2)]),
        ValueError,
        r"core: expected 1 dimensions, .*, got shape \(2, 2\)",
    ),
    "core sizes": (
        lambda: Tucker(ones(2, 3), [ones(4, 2), ones(5, 2)]),
        ValueError,
        r"factors\[1\]: expected 3 columns .*shape \(2, 3\).*, got shape \(5, 2\)",
    ),
    "neighbouring ranks": (
        lambda: TensorTrain([ones(1, 4, 3), ones(2, 5, 1)]),
        ValueError,
        r"cores\[1\]: expected first dimension 3 .*\(1, 4, 3\).*, got shape \(2, 5, 1\)",
    ),
    "first rank": (
        lambda: TensorTrain([ones(2, 4, 1)]),
        ValueError,
        r"cores\[0\]: expected first dimension 1, got shape \(2, 4, 1\)",
    ),
    "last rank": (
        lambda: TTMatrix([ones(1, 4, 4, 2)]),
        ValueError,
        r"cores\[0\]: expected last dimension 1, got shape \(1, 4, 4, 2\)",
    ),
    "matrix cores": (
        lambda: TTMatrix([ones(1, 4, 1)]),
        ValueError,
        r"cores\[0\]: expected shape \(rank before, rows, columns, rank after\), got \(1, 4, 1\)",
    ),
    "open ring": (
        lambda: TensorRing([ones(2, 4, 3), ones(3, 4, 1)]),
        ValueError,
        r"cores\[1\]: expected last dimension 2 .*, got shape \(3, 4, 1\)",
    ),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_parts_that_do_not_fit(case):
    make, error, message = BAD_PARTS[case]
    with pytest.raises(error, match=message):
        make()


@pytest.mark.usefixtures("x64")
def test_mixed_dtypes():
    with pytest.raises(TypeError, match=r"factors\[1\]: expected dtype float32 .*, got float64"):
        CP(ones(2), [ones(3, 2), np.ones((3, 2))])
    with pytest.raises(TypeError, match=r"expected equal dtypes, got float32 and float64"):
        cp(3, 4) + CP(np.ones(2), [np.ones((3, 2)), np.ones((4, 2))])
    with pytest.raises(TypeError, match=r"matrix_or_vector: expected dtype float32 .* float64"):
        cp(3, 4).mode_dot(np.ones((2, 3)), 0)
    with pytest.raises(TypeError, match="expected equal dtypes, got float32 and float64"):
        matrix((3, 4)) @ np.ones(4)


COMBINED = [cp, tucker, train, ring]


@pytest.mark.parametrize("make", COMBINED)
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        (r"\+", lambda x, y: x + y),
        ("-", lambda x, y: x - y),
        (r"\*", lambda x, y: x * y),
        ("inner", lambda x, y: x.inner(y)),
    ],
)
def test_shapes_and_formats_that_do_not_combine(make, name, operation):
    x = make(3, 4)
    with pytest.raises(
        ValueError, match=rf"{name}: expected equal shapes, got \(3, 4\) and \(4, 3\)"
    ):
        operation(x, make(4, 3))
    other = matrix((3, 4))
    mine = re.escape(repr(x))
    with pytest.raises(TypeError, match=rf"{name}: expected a .* like {mine}, got TTMatrix\(shape"):
        operation(x, other)


def test_matrices_of_one_shape_split_differently_do_not_combine():
    with pytest.raises(ValueError, match=r"\(\(2, 6\), \(1, 1\)\) and \(\(3, 4\), \(1, 1\)\)"):
        matrix((2, 1), (6, 1)) + matrix((3, 1), (4, 1))


@pytest.mark.parametrize("value", ["2", 2j, None, True, np.ones(3, np.float32), [1.0]])
def test_scalars_that_are_none(value):
    message = r"expected a real number .* CP of shape \(3, 4\), got "
    with pytest.raises(TypeError, match=r"\*: " + message):
        cp(3, 4) * value
    with pytest.raises(TypeError, match="/: " + message):
        cp(3, 4) / value


def test_adding_a_number():
    with pytest.raises(TypeError, match=r"\+: expected a CP like CP\(shape.*, got 1.5 \(float\)"):
        cp(3, 4) + 1.5
    with pytest.raises(TypeError, match=r"-: .* got an array of shape \(3, 4\) and dtype float32"):
        cp(3, 4) - jnp.ones((3, 4), jnp.float32)


BAD_INDICES = [
    (3, IndexError, r"between -3 and 2 in mode 0 \(size 3\), got 3"),
    ((0, -5), IndexError, r"between -4 and 3 in mode 1 \(size 4\), got -5"),
    ((0, 0, 0), IndexError, r"at most 2 entries for shape \(3, 4\), got 3"),
    ((..., 0, ...), IndexError, r"at most one '...', got 2"),
    (
        (slice(2, 2),),
        ValueError,
        r"selects something of mode 0 \(size 3\), got slice\(2, 2, None\)",
    ),
    (1.0, TypeError, r"an integer, a slice or '...' for mode 0, got 1.0 \(float\)"),
    (True, TypeError, r"for mode 0, got True \(bool\)"),
    ((0, None), TypeError, r"for mode 1, got None \(NoneType\)"),
    ([0, 1], TypeError, r"for mode 0, got \[0, 1\] \(list\)"),
]


@pytest.mark.parametrize("make", COMBINED)
@pytest.mark.parametrize(("index", "error", "message"), BAD_INDICES)
def test_bad_indices(make, index, error, message):
    with pytest.raises(error, match="index: expected .*" + message):
        make(3, 4)[index]


def test_bad_indices_of_a_matrix():
    a = matrix((3, 4), (2, 2))
    with pytest.raises(IndexError, match=r"between -6 and 5 in mode 0 \(size 6\), got 6"):
        a[6, 0]
    with pytest.raises(TypeError, match="an integer or ':' for rows and columns"):
        a[1:3, 0]


@pytest.mark.parametrize("make", COMBINED)
def test_bad_mode_dot(make):
    x = make(3, 4)
    with pytest.raises(ValueError, match=r"mode: expected between -2 and 1 .*\(3, 4\), got 2"):
        x.mode_dot(ones(3), 2)
    with pytest.raises(TypeError, match=r"mode: expected an integer, got 1.0 \(float\)"):
        x.mode_dot(ones(4), 1.0)
    message = r"matrix_or_vector: expected shape \(n, 4\) or \(4,\) for mode 1, got \(4, 3\)"
    with pytest.raises(ValueError, match=message):
        x.mode_dot(ones(4, 3), 1)


def test_bad_products_of_matrices():
    a = matrix((3, 4), (2, 2))
    with pytest.raises(ValueError, match=r"@: expected \(4, 2\) to follow .*, got \(3, 2\) of TTM"):
        a @ a
    with pytest.raises(ValueError, match=r"@: expected \(4, 2\) .*, got \(2, 4\) of TensorTrain"):
        a @ train(2, 4)
    with pytest.raises(ValueError, match=r"@: expected 8 .*, got 7 of an array of shape \(7,\)"):
        a @ ones(7)
    with pytest.raises(ValueError, match=r"@: expected a vector .*, got shape \(8, 1, 1\)"):
        a @ ones(8, 1, 1)
    with pytest.raises(TypeError, match=r"@: expected a TTMatrix, .* got CP\(shape=\(4, 2\)"):
        a @ cp(4, 2)


@pytest.mark.parametrize("make", COMBINED)
def test_bad_rounding(make):
    x = make(3, 4)
    with pytest.raises(ValueError, match=r"rtol, max_rank: expected at least one.*, got neither"):
        x.round()
    with pytest.raises(ValueError, match=r"rtol: expected at least .* and below 1, got 1.5"):
        x.round(rtol=1.5)
    with pytest.raises(ValueError, match=r"rtol: .* least 3.8e-06, .*float32.*, got 1e-12"):
        x.round(rtol=1e-12)
    with pytest.raises(TypeError, match="rtol: expected a number, got '1e-3'"):
        x.round(rtol="1e-3")
    with pytest.raises(ValueError, match="max_rank: expected at least 1, got 0"):
        x.round(max_rank=0)
    with pytest.raises(TypeError, match=r"max_rank: expected an integer.*, got 2.5"):
        x.round(max_rank=2.5)
    with pytest.raises(ValueError, match=r"rtol: .* under jit, vmap or grad.*max_rank.*, got 0.1"):
        jax.jit(lambda x: x.round(rtol=0.1))(x)


def test_bad_rank_counts():
    with pytest.raises(ValueError, match=r"max_rank: expected 2 ranks, got 3: \(1, 2, 2\)"):
        tucker(3, 4).round(max_rank=(1, 2, 2))
    with pytest.raises(ValueError, match=r"max_rank: expected 3 ranks, got 2: \(2, 2\)"):
        train(3, 4).round(max_rank=(2, 2))
    with pytest.raises(TypeError, match=r"max_rank: expected an integer, got \(2, 2\)"):
        cp(3, 4).round(max_rank=(2, 2))
    with pytest.raises(ValueError, match=r"max_rank\[1\]: expected at least 1, got 0"):
        train(3, 4).round(max_rank=(1, 0, 1))


def test_repr():
    x = CP(ones(20), [ones(145, 20), ones(145, 20), ones(200, 20)])
    assert repr(x) == (
        "CP(shape=(145, 145, 200), rank=20, 9,820 parameters, 428x smaller than dense, float32)"
    )
    assert repr(train(3, 4, rank=5)) == (
        "TensorTrain(shape=(3, 4), rank=(1, 5, 1), 35 parameters, 2.92x larger than dense, float32)"
    )
    assert repr(ring(3, 4)).startswith("TensorRing(shape=(3, 4), rank=(2, 2), 28 parameters")
    assert repr(matrix((3, 4), (2, 2))).startswith("TTMatrix(shape=(6, 8), rank=(1, 2, 1), 32 par")
    assert repr(tucker(3, 4)).startswith("Tucker(shape=(3, 4), rank=(2, 2), 18 parameters")


def test_repr_of_a_tree_without_arrays():
    assert "None" in repr(jax.tree.map(lambda _: None, cp(3, 4)))
