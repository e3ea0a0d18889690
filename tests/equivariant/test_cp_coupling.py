"""CP couplings: tables against e3nn-jax, bounds against rotations and worst inputs, the search."""

import math

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equivariant.coupling import cp, cp_tables
from equivariant.coupling.cp import decompose_coupling
from tensornet.cache import cache_directory

pytestmark = pytest.mark.slow

EPS = np.finfo(np.float64).eps


def coupling(degree, paths="all"):
    """e3nn-jax's coefficients, component-normalized, of all triangles or those of even sums."""
    tensor = np.zeros(((degree + 1) ** 2,) * 3)
    for a, b in np.ndindex(degree + 1, degree + 1):
        for c in range(abs(a - b), min(degree, a + b) + 1):
            if paths == "all" or (a + b + c) % 2 == 0:
                block = tuple(slice(n * n, (n + 1) ** 2) for n in (a, b, c))
                tensor[block] = math.sqrt(2 * c + 1) * e3nn.clebsch_gordan(a, b, c)
    return tensor


def rebuilt(found):
    """Sum the components one by one."""
    return sum(np.multiply.outer(np.outer(a, b), c) for a, b, c in zip(*found.factors, strict=True))


def relative(tensor, found):
    return np.linalg.norm(tensor - rebuilt(found)) / np.linalg.norm(tensor)


def largest_value(tensor, rng, starts=10, steps=60):
    """Maximize |T(x, y)| over unit x and y by alternation, which climbs."""
    best = 0.0
    for _ in range(starts):
        y, z = rng.standard_normal(tensor.shape[1]), rng.standard_normal(tensor.shape[2])
        for _ in range(steps):
            x = np.einsum("ijk,j,k->i", tensor, y, z)
            x /= np.linalg.norm(x)
            y = np.einsum("ijk,i,k->j", tensor, x, z)
            y /= np.linalg.norm(y)
            z = np.einsum("ijk,i,j->k", tensor, x, y)
            best = max(best, np.linalg.norm(z))
            z /= np.linalg.norm(z)
    return best


def rotation(degree, rng):
    """Matrices of a random rotation, in float64: least squares on harmonics at many points."""
    points = rng.standard_normal((4 * (degree + 1) ** 2, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    turned = points @ Rotation.random(random_state=rng).as_matrix().T
    irreps = e3nn.Irreps.spherical_harmonics(degree)

    def harmonics(points):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            array = e3nn.spherical_harmonics(irreps, jnp.asarray(points), normalize=False)
        return np.asarray(array.array)

    matrix = np.linalg.lstsq(harmonics(points), harmonics(turned), rcond=None)[0].T
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-10)
    return matrix


@pytest.mark.parametrize(
    ("paths", "degree", "rank"),
    [
        ("all", 1, 8),
        ("all", 2, 30),
        ("all", 3, 90),
        ("even", 1, 6),
        ("even", 2, 18),
        ("even", 3, 52),
    ],
)
def test_shipped_tables_are_exact(paths, degree, rank):
    tensor = coupling(degree, paths)
    found = decompose_coupling(tensor, rtol=1e-9)
    assert found.rank == rank
    assert relative(tensor, found) < 1e-13
    assert found.relative_error < 1e-13
    assert found.error_bound < 1e-12
    assert found.amplification < 20
    assert list(cache_directory().rglob("cp-coupling/*")) == []  # none was computed
    assert decompose_coupling(tensor, rank=rank + 1).rank == rank


@pytest.mark.parametrize("paths", ["all", "even"])
def test_tables_can_be_computed_anew(paths):
    table = cp_tables.compute(paths, 1)
    factors = cp_tables._unpacked(table, 1, paths)
    fitted = np.einsum("ri,rj,rk->ijk", *factors)
    np.testing.assert_allclose(fitted, coupling(1, paths), atol=1e-13)
    assert table.shape[0] == {"all": 8, "even": 6}[paths]


@pytest.mark.parametrize(("degree", "rank", "most"), [(1, 7, 1.7e-2), (2, 28, 5e-2)])
@pytest.mark.usefixtures("x64")
def test_bounds_hold_and_are_not_vacuous(degree, rank, most):
    tensor = coupling(degree)
    found = decompose_coupling(tensor, rank=rank)
    residual = rebuilt(found) - tensor
    assert found.relative_error == pytest.approx(relative(tensor, found), rel=1e-9)
    assert found.relative_error <= most
    assert found.amplification < 100

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 200, len(tensor)))
    missing = np.linalg.norm(np.einsum("ijk,ni,nj->nk", residual, x, y), axis=1)
    scale = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    assert (missing <= found.error_bound * scale).all()
    worst = largest_value(residual, rng)
    assert worst <= found.error_bound <= 20 * worst

    turned = []
    for _ in range(4):
        d = rotation(degree, rng)
        after = np.einsum("ijk,lk->ijl", residual, d)
        turned.append(largest_value(after - np.einsum("ijk,il,jm->lmk", residual, d, d), rng))
    assert max(turned) <= found.equivariance_bound <= 20 * max(turned)
    assert found.equivariance_bound == 2 * found.error_bound


def test_any_tensor_is_fitted_exactly_at_its_rank():
    rng = np.random.default_rng(1)
    tensor = np.einsum("ri,rj,rk->ijk", *(rng.standard_normal((5, n)) for n in (4, 4, 4)))
    found = decompose_coupling(tensor, rank=7, rtol=1e-9)
    assert found.rank == 5
    assert relative(tensor, found) < 1e-12


def test_the_search_takes_the_least_rank_it_finds():
    tensor = coupling(1)
    loose, tight = (decompose_coupling(tensor, rank=7, rtol=rtol) for rtol in (0.6, 0.4))
    assert relative(tensor, loose) <= 0.6
    assert relative(tensor, tight) <= 0.4
    assert loose.rank < tight.rank < 7


def test_a_matrix_is_cut_as_its_singular_values_say():
    matrix = np.random.default_rng(2).standard_normal((4, 3))
    values = np.linalg.svd(matrix, compute_uv=False)
    best = np.linalg.norm(values[2:]) / np.linalg.norm(values)
    found = decompose_coupling(matrix[:, :, None], rank=2)
    assert found.relative_error == pytest.approx(best, rel=1e-3)
    assert values[2] * (1 - 1e-9) <= found.error_bound <= np.linalg.norm(values[2:]) * (1 + 1e-9)


def test_same_arguments_give_the_same_factors_and_are_kept(monkeypatch):
    tensor = coupling(1)
    first = decompose_coupling(tensor, rank=7)
    entries = [path for path in cache_directory().rglob("cp-coupling/*") if path.is_file()]
    assert len(entries) == 1
    with monkeypatch.context() as patch:
        patch.setattr(cp, "refine", lambda *_, **__: pytest.fail("computed again"))
        kept = decompose_coupling(tensor, rank=7)
    entries[0].unlink()
    again = decompose_coupling(tensor, rank=7)
    other = decompose_coupling(tensor, rank=7, key=jax.random.key(1))
    for a, b, c in zip(first.factors, kept.factors, again.factors, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert not np.array_equal(first.factors[0], other.factors[0])


def test_works_inside_a_trace_and_without_64_bit_types():
    tensor = coupling(1)

    @jax.jit
    def product(x, y):
        found = decompose_coupling(tensor, rank=7)
        a, b, c = (jnp.asarray(f, x.dtype) for f in found.factors)
        high = jax.lax.Precision.HIGHEST
        first, second = jnp.matmul(a, x, precision=high), jnp.matmul(b, y, precision=high)
        return jnp.matmul(first * second, c, precision=high)

    x, y = np.random.default_rng(3).standard_normal((2, 4)).astype(np.float32)
    found = decompose_coupling(tensor, rank=7)
    expected = np.einsum("ijk,i,j->k", rebuilt(found), x, y)
    result = product(x, y)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "rank, rtol: expected at least one of them, got neither"),
        ({"rank": 0}, ValueError, r"rank: expected between 1 and 16 .*got 0"),
        ({"rank": 17}, ValueError, r"rank: expected between 1 and 16 .*got 17"),
        ({"rank": 2.5}, TypeError, r"rank: expected an integer, got 2\.5"),
        ({"rtol": -1.0}, ValueError, r"rtol: expected .*got -1\.0"),
        ({"rtol": "small"}, TypeError, "rtol: expected a number, got 'small'"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        decompose_coupling(coupling(1), **arguments)


def test_an_error_out_of_reach_is_told_with_the_best_that_was():
    tensor = coupling(1)
    with pytest.raises(ValueError, match=r"rtol: .*1e-05 .*at most 7 .*got \d.* at rank 7") as told:
        decompose_coupling(tensor, rank=7, rtol=1e-5)
    best = decompose_coupling(tensor, rank=7).relative_error
    assert float(str(told.value).split("got ")[1].split(" ")[0]) >= 0.95 * best


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.ones((4, 4)), r"tensor: expected three modes.*\(4, 4\)"),
        (np.ones((4, 0, 4)), r"tensor: expected three modes, none empty.*\(4, 0, 4\)"),
        (np.full((2, 2, 2), np.nan), "tensor: expected finite entries"),
        (np.zeros((2, 2, 2)), "tensor: expected a nonzero tensor"),
    ],
)
def test_tensors_are_checked(tensor, message):
    with pytest.raises(ValueError, match=message):
        decompose_coupling(tensor, rank=1)
