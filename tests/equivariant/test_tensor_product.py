"""The front door: every method against the coupling tensor, e3nn-jax, and under transformations."""

import contextlib

import e3nn_jax as e3nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from equivariant import (
    TensorProduct,
    cp_tensor_product,
    equivariance_error,
    gaunt_tensor_product,
    tensor_product,
)
from equivariant.bilinear import BilinearMap
from equivariant.coupling.gaunt import GauntGrid
from equivariant.method import Method, Program

EXACT = ("clebsch-gordan", "gaunt-grid", "gaunt-fourier")
METHODS = (*EXACT, "cp")
KEY = jax.random.key(0)


def natural(degree):
    return "+".join(f"{n}{'eo'[n % 2]}" for n in range(degree + 1))


def product(method, degree=1, channels=2, **options):
    options = {"coupling": "clebsch-gordan", "weights": None, "paths": "even"} | options
    if method == "cp":
        options["rtol"] = 1e-8
    irreps = [natural(degree)] * 3
    return TensorProduct(*irreps, channels=channels, method=method, key=KEY, **options)


def inputs(tp, dtype, batch=(3,), seed=0):
    rng = np.random.default_rng(seed)
    dims = tp.irreps_in1.dim, tp.irreps_in2.dim
    return [jnp.asarray(rng.normal(size=(*batch, tp.channels, d)), dtype) for d in dims]


def by_tensor(tp, x, y):
    """The sum over the dense coupling tensor, weighted path by path, in float64."""
    weights = tp.weights
    table = np.asarray(tp.bilinear.path_weights(weights), np.float64)
    table = np.broadcast_to(table, (tp.channels, table.shape[-1]))
    tensors = np.stack([tp.bilinear.tensor(w) for w in table])
    arrays = [np.asarray(z, np.float64) for z in (x, y)]
    return np.einsum("...ci,...cj,cijk->...ck", *arrays, tensors, optimize=True)


@contextlib.contextmanager
def loose():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def together(products, x, y):
    """Results of several products, compiled as one program."""
    return jax.jit(lambda x, y: [tp(x, y) for tp in products])(x, y)


@pytest.mark.parametrize("coupling", ["gaunt", "clebsch-gordan"])
@pytest.mark.parametrize("weights", [None, "shared", "per-degree", "low-rank:2"])
def test_methods_agree_with_the_coupling_tensor(weights, coupling, dtype):
    products = [product(name, 2, coupling=coupling, weights=weights) for name in EXACT]
    x, y = inputs(products[0], dtype)
    expected = by_tensor(products[0], x, y)
    tolerance = 256 * jnp.finfo(dtype).eps * abs(expected).max()
    for got in together(products, x, y):
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("degree", "coupling", "paths"),
    [
        (2, "gaunt", "all"),
        (8, "gaunt", "all"),
        (5, "gaunt", "even"),
        (3, "clebsch-gordan", "all"),
        (4, "clebsch-gordan", "even"),
        (8, "clebsch-gordan", "all"),
    ],
)
def test_exact_methods_agree_up_to_degree_8(degree, coupling, paths, dtype):
    # Odd paths too: natural parity in, both parities out.
    every = natural(degree) + "".join(f"+{n}{'oe'[n % 2]}" for n in range(1, degree + 1))
    out = every if paths == "all" else natural(degree)
    weights = "per-degree" if coupling == "gaunt" else None
    options = {"paths": paths, "coupling": coupling, "weights": weights, "channels": 2, "key": KEY}
    products = [
        TensorProduct(natural(degree), natural(degree), out, method=name, **options)
        for name in EXACT
    ]
    x, y = inputs(products[0], dtype, (2,))
    by_coefficients, *others = together(products, x, y)
    expected = by_tensor(products[0], x, y)
    tolerance = (1e-5 if dtype == jnp.float32 else 1e-11) * abs(expected).max()
    np.testing.assert_allclose(by_coefficients, expected, rtol=0, atol=tolerance)
    for got in others:
        np.testing.assert_allclose(got, by_coefficients, rtol=0, atol=tolerance)


def test_weights_per_path_and_at_the_call(x64):  # noqa: ARG001
    tp = product("clebsch-gordan", 2, weights="per-path")
    x, y = inputs(tp, "float64")
    np.testing.assert_allclose(tp(x, y), by_tensor(tp, x, y), rtol=1e-12, atol=1e-12)
    assert tp.weights is not None
    each = jax.random.normal(KEY, (3, *tp.weight_shape), jnp.float64)
    got = tp(x, y, each)
    for n in range(3):
        np.testing.assert_allclose(got[n], tp(x[n], y[n], each[n]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_transformations(method, x64):  # noqa: ARG001
    tp = product(method)
    x, y = inputs(tp, "float64", (4,))
    expected = by_tensor(tp, x, y)
    atol = 1e-7 if method == "cp" else 1e-12
    np.testing.assert_allclose(tp(x, y), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(jax.jit(tp)(x, y), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(jax.jit(jax.vmap(tp))(x, y), expected, rtol=0, atol=atol)

    def value(x):
        return jnp.sum(jnp.sin(tp(x, y[0])))

    # The map is linear in each input: derivatives by central differences are exact to h^2.
    direction = jax.random.normal(KEY, x[0].shape, x.dtype)
    h = 1e-4
    difference = (value(x[0] + h * direction) - value(x[0] - h * direction)) / (2 * h)
    value = jax.jit(value)
    slope = jnp.vdot(jax.jit(jax.grad(value))(x[0]), direction)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
    curved = jnp.einsum("ai,aibj,bj->", direction, jax.jit(jax.hessian(value))(x[0]), direction)
    second = (value(x[0] + h * direction) - 2 * value(x[0]) + value(x[0] - h * direction)) / h**2
    np.testing.assert_allclose(curved, second, rtol=1e-4, atol=1e-5)

    exported = export.export(jax.jit(tp))(x, y)
    np.testing.assert_allclose(exported.call(x, y), expected, rtol=0, atol=atol)

    mesh = Mesh(np.asarray(jax.devices("cpu")[:4]), ("b",))
    spread = NamedSharding(mesh, PartitionSpec("b"))
    got = jax.jit(tp)(jax.device_put(x, spread), jax.device_put(y, spread))
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("method", METHODS)
def test_equivariance(method, dtype):
    degree = 1 if method == "cp" else 8
    tp = product(method, degree, coupling="clebsch-gordan" if method == "cp" else "gaunt")
    irreps = (tp.irreps_in1, tp.irreps_in2)
    error = equivariance_error(jax.jit(tp), irreps, tp.irreps_out, key=KEY, samples=2, channels=2)
    assert error < (1e-6 if dtype == jnp.float32 else 1e-12)
    assert tp.error_bound < 1e-7


def test_auto_says_why_and_takes_exact_methods_only():
    tp = product("auto")
    assert tp.method in METHODS[:3]
    assert tp.error_bound == 0
    assert "* " in str(tp)
    assert tp.method in str(tp)
    assert "gaunt-grid cannot" in str(product("auto", weights="per-path"))  # why the grids cannot
    assert product("auto", rtol=1e-6).bilinear == tp.bilinear


def test_auto_compares_for_the_batch_it_is_called_with(monkeypatch):
    tp = product("auto", 4, coupling="gaunt", weights="per-degree", channels=8)
    assert "compared anew" in str(tp)
    uses = []
    chosen = Method.choose
    monkeypatch.setattr(Method, "choose", lambda *a: uses.append(a[1].batch) or chosen(*a))
    for batch, planned in (((1,), 16), ((5, 40), 256), ((), 1024), ((10**6,), 16384)):
        x, y = (jax.ShapeDtypeStruct((*batch, 8, 25), jnp.float32) for _ in range(2))
        assert jax.eval_shape(lambda x, y: tp(x, y), x, y).shape == (*batch, 8, 25)
        assert set(uses) == {planned}
        uses.clear()


def test_calls_that_are_not_differentiated_run_what_is_best_without_gradients(monkeypatch):
    def choose(_, use):
        # Told apart by a factor, which no two programs of one map would differ by.
        run = (
            (lambda x, y, w: 2 * x * y * w[..., None])
            if use.gradients
            else (lambda x, y, w: x * y * w[..., None])
        )
        return f"gradients: {use.gradients}", Program((), run), ""

    monkeypatch.setattr(GauntGrid, "choose", choose)
    scalars = BilinearMap("0e", "0e", "0e", weights="shared")
    x, y, w = (jnp.full(shape, v) for shape, v in (((3, 2, 1), 3.0), ((3, 2, 1), 5.0), ((2,), 7.0)))
    both, forward = GauntGrid(scalars), GauntGrid(scalars, gradients=False)

    def total(method):
        return lambda *a: method(*a).sum()

    assert float(jax.jit(both)(x, y, w)[0, 0, 0]) == 105
    for n, want in enumerate((70.0, 42.0)):
        got = jax.jit(jax.grad(total(both), argnums=n))(x, y, w)
        np.testing.assert_array_equal(got, jnp.full((3, 2, 1), want))
    assert float(jax.value_and_grad(total(both))(x, y, w)[0]) == 210 * 6
    assert float(jax.grad(total(forward))(x, y, w)[0, 0, 0]) == 35
    tangent = jax.vmap(lambda a, b: jax.jvp(lambda z: both(z, b, w), (a,), (a,))[1])
    np.testing.assert_array_equal(tangent(x[None], y[None]), jnp.full((1, 3, 2, 1), 210.0))
    mixed = jax.jacfwd(jax.grad(total(both)), argnums=1)(x, y, w)
    assert float(mixed.max()) == 14


def test_irreps_arrays_come_back_as_they_came(x64):  # noqa: ARG001
    tp = product("clebsch-gordan")
    x, y = inputs(tp, "float64")
    z = tp(e3nn.IrrepsArray(tp.irreps_in1, x), y)
    assert isinstance(z, e3nn.IrrepsArray)
    assert z.irreps == tp.irreps_out
    np.testing.assert_array_equal(z.array, tp(x, y))


IRREPS = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 2), st.sampled_from("eo")), min_size=1, max_size=3
).map(lambda parts: e3nn.Irreps("+".join(f"{n}x{degree}{p}" for n, degree, p in parts)))


@settings(max_examples=6)
@given(first=IRREPS, second=IRREPS, seed=st.integers(0, 9))
def test_tensor_product_is_that_of_e3nn_jax(first, second, seed):
    rng = np.random.default_rng(seed)
    for kind, tolerance in (("float32", 1e-6), ("float64", 1e-12)):
        with jax.enable_x64(kind == "float64"):
            x, y = (
                e3nn.IrrepsArray(irreps, jnp.asarray(rng.normal(size=(2, irreps.dim)), kind))
                for irreps in (first, second)
            )
            with loose():
                expected = jax.jit(e3nn.tensor_product)(x, y)
            got = jax.jit(tensor_product)(x, y)
            assert got.irreps == expected.irreps
            scale = max(1.0, float(abs(expected.array).max()))
            np.testing.assert_allclose(got.array, expected.array, rtol=0, atol=tolerance * scale)


def test_functional_forms_sum_the_paths_of_e3nn_jax(x64):  # noqa: ARG001
    rng = np.random.default_rng(0)
    irreps = e3nn.Irreps(natural(2))
    x, y = (e3nn.IrrepsArray(irreps, jnp.asarray(rng.normal(size=(3, 9)))) for _ in range(2))
    every = tensor_product(x, y, irreps_out=irreps)
    total = [chunk.sum(-2) for chunk in every.chunks]
    got = cp_tensor_product(x, y, irreps_out=irreps, rtol=1e-9)
    for (_, ir), part in zip(every.irreps, total, strict=True):
        np.testing.assert_allclose(got.filter(ir).array, part, rtol=0, atol=1e-7)
    # The pointwise product of functions is that of their values.
    grid, fourier = (gaunt_tensor_product(x, y, basis=basis) for basis in ("grid", "fourier"))
    np.testing.assert_allclose(grid.array, fourier.array, rtol=0, atol=1e-12)
    points = jnp.asarray(rng.normal(size=(5, 3)))

    def values(z):
        with loose():
            harmonics = e3nn.spherical_harmonics(z.irreps, points, True, "component")
        return z.array @ harmonics.array.T

    np.testing.assert_allclose(values(grid), values(x) * values(y), rtol=0, atol=1e-11)


def test_bad_input():
    def refuses(text, *irreps, **options):
        with pytest.raises(ValueError, match=text):
            TensorProduct(*irreps, key=KEY, **options)

    one = natural(1)
    refuses("method: expected one of .*got 'magic'", one, one, one, method="magic")
    refuses("channels: expected an integer of at least 1, got 0", one, one, one, channels=0)
    refuses("irreps_in1", "2x0e", one, one)
    refuses("irreps_out.*reaches, got 2o", one, one, "2o")
    refuses("irreps_in1", "", one, one)
    refuses("rank, rtol", one, one, one, method="gaunt-grid", rank=4)
    refuses("keeps paths apart", one, one, one, method="gaunt-grid", weights="per-path")
    refuses("per-path", one, one, one, method="cp", weights="per-path", rank=4)
    refuses("at least one of them", one, one, one, method="cp")
    refuses("rank.*got 0", one, one, one, method="cp", rank=0)
    tp = product("clebsch-gordan")
    x, y = inputs(tp, "float32")
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        tp.method_for(0)
    with pytest.raises(ValueError, match=r"x: .*4.*3"):
        tp(x[..., :3], y)
    with pytest.raises(ValueError, match=r"expected irreps 1x0e.1x1o of dimension 4, got 1x1o"):
        tp(e3nn.IrrepsArray("1o", x[..., :3]), y)
    with pytest.raises(TypeError, match="x: expected an IrrepsArray"):
        tensor_product(x, y)
    with pytest.raises(ValueError, match="basis: expected one of"):
        gaunt_tensor_product(
            e3nn.IrrepsArray("0e", x[..., :1]), e3nn.IrrepsArray("0e", y[..., :1]), basis="wavelet"
        )
