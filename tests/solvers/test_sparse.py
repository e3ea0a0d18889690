"""Sparse matrices against scipy.sparse, in every layout."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.sparse as sp

from solvers.sparse import (
    DIA,
    ELL,
    Pattern,
    Stencil,
    as_matrix,
    from_pattern,
    from_scipy,
    product,
)
from solvers.sparse.ell import bin_lengths, has_diagonal, layout


def matrix(rows=30, columns=30, density=0.1, seed=0):
    a = sp.random_array((rows, columns), density=density, rng=np.random.default_rng(seed))
    return sp.csr_array(a)


def long_rows(n=60):
    """Rows from none to all entries: bins, an empty row, rows longer than are written out."""
    a = matrix(n, n, 0.05).tolil()
    a[3] = np.linspace(1, 2, n)
    a[7, :40] = np.linspace(-1, 3, 40)
    a[5] = 0
    a = sp.csr_array(a)
    a.eliminate_zeros()
    return a


CASES = {
    "square": matrix(),
    "wide": matrix(20, 35),
    "long rows": long_rows(),
    "long rows, diagonal": long_rows() + sp.eye_array(60),
    "empty": sp.csr_array((4, 5)),
    "tridiagonal": sp.csr_array(sp.diags_array([1.0, -2.0, 1.5], offsets=[-1, 0, 1], shape=(9, 9))),
}


@pytest.mark.parametrize("layout", ["ell", "dia"])
@pytest.mark.parametrize("case", CASES)
def test_products_are_scipys(case, layout, dtype):
    if case == "empty" and layout == "dia":
        pytest.skip("no diagonal at all")
    a = CASES[case].astype(dtype)
    ours = from_scipy(a, layout=layout)
    assert isinstance(ours, ELL if layout == "ell" else DIA)
    assert (ours.shape, ours.nnz, ours.dtype) == (a.shape, a.nnz, dtype)
    rng = np.random.default_rng(1)
    tol = 50 * float(jnp.finfo(dtype).eps) * (1 + abs(a).sum(axis=1).max(initial=0))
    for shape in ((a.shape[1],), (a.shape[1], 3)):
        x = rng.normal(size=shape).astype(dtype)
        np.testing.assert_allclose(ours @ x, a @ x, atol=float(tol))
    np.testing.assert_array_equal(ours.to_dense(), a.toarray())
    np.testing.assert_array_equal(ours.to_scipy().toarray(), a.toarray())
    np.testing.assert_array_equal(ours.T.to_dense(), a.T.toarray())
    np.testing.assert_array_equal(ours.diagonal(), a.diagonal())
    np.testing.assert_allclose(ours.row_norms(), abs(a).sum(axis=1), rtol=1e-5)


@hypothesis.given(st.integers(1, 40), st.integers(1, 40), st.floats(0.0, 1.0), st.integers(0, 99))
def test_any_layout_holds_every_entry_once(rows, columns, density, seed):
    pattern = Pattern.of(matrix(rows, columns, density, seed))
    blocks, order = layout(pattern)
    apart = pattern.diagonal if has_diagonal(pattern) else np.empty(0, np.int32)
    slots = np.concatenate([apart, *(slots.ravel() for _, slots in blocks)])
    assert sorted(slots[slots < pattern.nnz]) == list(range(pattern.nnz))
    for places, slots in blocks:
        held = slots < pattern.nnz
        np.testing.assert_array_equal(places[held], pattern.indices[slots[held]])
    assert sum(slots.shape[1] for _, slots in blocks) == rows
    assert order is None or sorted(order) == list(range(rows))
    assert bin_lengths(pattern.lengths)[-1] == pattern.lengths.max()


@pytest.mark.parametrize("whole", [True, False])
def test_a_full_diagonal_is_apart(whole, x64):  # noqa: ARG001
    a = sp.csr_array(CASES["long rows, diagonal"])
    if not whole:
        a = a.tolil()
        a[4, 4] = 0
        a = sp.csr_array(a)
        a.eliminate_zeros()
    ours = from_scipy(a, layout="ell")
    assert (ours.own is not None) == whole
    assert sum(int((block.slots < ours.nnz).sum()) for block in ours.blocks) == (
        a.nnz - whole * a.shape[0]
    )
    doubled = jax.jit(lambda values: ours.with_data(values))(2 * ours.data)
    np.testing.assert_array_equal(doubled.to_dense(), 2 * a.toarray())
    np.testing.assert_array_equal(doubled.diagonal(), 2 * a.diagonal())


def test_long_rows_are_binned():
    lengths = np.full(40_000, 5)
    lengths[:40] = 300
    edges = bin_lengths(lengths)
    assert edges == [5, 300]
    assert bin_lengths(np.full(40_000, 5)) == [5]


def test_bins_multiply_as_one(monkeypatch, x64):  # noqa: ARG001
    from solvers.sparse import ell

    monkeypatch.setattr(ell, "_BIN_LEAST", 0)
    ell.layout.cache_clear()
    a = long_rows(61)
    ours = from_scipy(a, layout="ell")
    assert len(ours.blocks) == 4
    assert sum(block.values.size for block in ours.blocks) < 1.6 * ours.nnz
    x = np.random.default_rng(0).normal(size=61)
    np.testing.assert_allclose(ours @ x, a @ x, atol=1e-12)
    np.testing.assert_allclose(ours.row_norms(), abs(a).sum(axis=1))
    np.testing.assert_array_equal(ours.T.to_dense(), a.T.toarray())


def test_explicit_zeros_stay_and_duplicates_are_summed():
    coo = sp.coo_array(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    ours = from_scipy(coo)
    assert ours.nnz == 2
    np.testing.assert_array_equal(ours.to_dense(), [[0, 3], [0, 0]])


def test_layout_is_chosen_by_the_diagonals():
    assert isinstance(from_scipy(CASES["tridiagonal"]), DIA)
    assert isinstance(from_scipy(CASES["square"]), ELL)


def test_stencil_is_its_matrix(dtype):
    offsets = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, -1))
    ours = Stencil(jnp.asarray([4, -1, -1.5, -2, -1, 0.5], dtype), offsets, (5, 6))
    d = dict(zip(offsets, np.asarray(ours.coefficients), strict=True))
    dense = np.zeros((30, 30))
    for i in range(5):
        for j in range(6):
            for (a, b), c in d.items():
                if 0 <= i + a < 5 and 0 <= j + b < 6:
                    dense[6 * i + j, 6 * (i + a) + j + b] = c
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(dtype)
    np.testing.assert_allclose(ours @ x, dense @ x, atol=100 * jnp.finfo(dtype).eps)
    np.testing.assert_allclose(ours @ x[:, 0], dense @ x[:, 0], atol=100 * jnp.finfo(dtype).eps)
    np.testing.assert_array_equal(ours.to_scipy().toarray(), dense)
    np.testing.assert_array_equal(ours.diagonal(), np.diag(dense))
    np.testing.assert_array_equal(ours.T.to_dense(), dense.T)
    other = ours.with_data(2 * ours.data)
    np.testing.assert_array_equal(other.to_dense(), 2 * dense)


def test_values_are_traced(x64):  # noqa: ARG001
    for kind, case in (("ell", "square"), ("dia", "tridiagonal")):
        a = CASES[case]
        ours = from_scipy(a, layout=kind)
        x = jnp.asarray(np.random.default_rng(0).normal(size=a.shape[1]))
        many = jnp.stack([ours.data, 2 * ours.data, ours.data**2])
        together = jax.jit(jax.vmap(lambda v, ours=ours, x=x: ours.with_data(v) @ x))(many)
        for v, y in zip(many, together, strict=True):
            np.testing.assert_allclose(y, ours.pattern.to_scipy(np.asarray(v)) @ x, atol=1e-12)
        # d/dv of w.(A(v) x) is w_i x_j at each entry, d/dx is A^T w.
        w = jnp.arange(1.0, a.shape[0] + 1)
        found = jax.jit(
            jax.grad(lambda v, x, o=ours, w=w: jnp.sum(w * (o.with_data(v) @ x)), (0, 1))
        )
        slope, back = found(ours.data, x)
        p = ours.pattern
        np.testing.assert_allclose(slope, np.asarray(w)[p.rows] * np.asarray(x)[p.indices])
        np.testing.assert_allclose(back, a.T @ np.asarray(w), atol=1e-12)


@hypothesis.given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
@hypothesis.settings(max_examples=6)
def test_products_of_patterns_are_scipys(rows, inner, columns, seed):
    a, b = matrix(rows, inner, 0.4, seed), matrix(inner, columns, 0.4, seed + 1)
    ours = product(Pattern.of(a), Pattern.of(b))
    values = ours(jnp.asarray(a.data, jnp.float32), jnp.asarray(b.data, jnp.float32))
    np.testing.assert_allclose(
        ours.pattern.to_scipy(np.asarray(values)).toarray(), (a @ b).toarray(), atol=1e-5
    )
    some = Pattern.of(matrix(rows, columns, 0.5, seed + 2))
    if some.nnz:
        values = product(Pattern.of(a), Pattern.of(b), within=some)(
            jnp.asarray(a.data, jnp.float32), jnp.asarray(b.data, jnp.float32)
        )
        wanted = (a @ b).toarray()[some.rows, some.indices]
        np.testing.assert_allclose(values, wanted, atol=1e-5)


def test_galerkin_product_has_gradients(x64):  # noqa: ARG001
    a, p = matrix(12, 12, 0.3), matrix(12, 5, 0.3, 3)
    ap = product(Pattern.of(a), Pattern.of(p))
    pap = product(Pattern.of(p).transposed[0], ap.pattern)
    pt = p.data[Pattern.of(p).transposed[1]]

    @jax.jit
    def coarse(values):
        return pap(jnp.asarray(pt), ap(values, jnp.asarray(p.data)))

    dense = pap.pattern.to_scipy(np.asarray(coarse(jnp.asarray(a.data)))).toarray()
    np.testing.assert_allclose(dense, (p.T @ a @ p).toarray(), atol=1e-14)
    w = np.random.default_rng(0).normal(size=pap.pattern.nnz)
    slope = jax.grad(lambda v: jnp.sum(w * coarse(v)))(jnp.asarray(a.data))
    weights = p.toarray() @ pap.pattern.to_scipy(w).toarray() @ p.toarray().T
    places = Pattern.of(a)
    np.testing.assert_allclose(slope, weights[places.rows, places.indices], atol=1e-12)


def test_patterns_are_compared_by_content():
    a, b = Pattern.of(matrix()), Pattern.of(2 * matrix())
    assert a == b
    assert hash(a) == hash(b)
    assert a != Pattern.of(matrix(seed=1))
    assert not a.is_symmetric
    assert Pattern.of(matrix() + matrix().T).is_symmetric
    with pytest.raises(ValueError, match=r"data: expected shape \(\d+,\).* got \(3,\)"):
        from_pattern(a, np.ones(3, np.float32))


def test_lineax_operators_with_entries(x64):  # noqa: ARG001
    dense = matrix(6, 6, 0.5).toarray()
    np.testing.assert_array_equal(as_matrix(lx.MatrixLinearOperator(dense)).to_dense(), dense)
    tagged = lx.TaggedLinearOperator(lx.DiagonalLinearOperator(jnp.arange(1.0, 4)), ())
    np.testing.assert_array_equal(as_matrix(tagged).to_dense(), np.diag([1.0, 2, 3]))
    tri = lx.TridiagonalLinearOperator(jnp.arange(4.0), jnp.array([5.0, 6, 7]), jnp.ones(3) * 9)
    np.testing.assert_array_equal(as_matrix(tri).to_dense(), tri.as_matrix())
    with pytest.raises(TypeError, match="got IdentityLinearOperator"):
        as_matrix(lx.IdentityLinearOperator(jax.ShapeDtypeStruct((3,), jnp.float64)))


BAD = [
    (lambda: from_scipy(np.eye(3)), TypeError, "A: expected a scipy sparse matrix, got ndarray"),
    (lambda: from_scipy(matrix() * 1j), TypeError, "A: expected real numbers, got complex128"),
    (lambda: from_scipy(matrix(), layout="csr"), ValueError, "layout: .* got 'csr'"),
    (lambda: from_scipy(matrix()) @ np.ones(3, np.float32), ValueError, r"x: .* got \(3,\)"),
    (
        lambda: product(Pattern.of(matrix(3, 4)), Pattern.of(matrix())),
        ValueError,
        "4 rows.* got 30",
    ),
    (lambda: Stencil(jnp.ones(2), ((0, 0),), (3, 3)), ValueError, r"coefficients: .* got \(2,\)"),
    (lambda: Stencil(jnp.ones(1), ((0,),), (3, 3)), ValueError, r"offsets\[0\]: expected 2 steps"),
    (lambda: Stencil(jnp.ones(2), ((0,), (0,)), (3,)), ValueError, "expected no offset twice"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
