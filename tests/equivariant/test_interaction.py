"""The interaction against e3nn-jax edge by edge, its methods and blocks against each other."""

import e3nn_jax as e3nn
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equivariant import Interaction, equivariance_error
from equivariant.messages import Edges, chosen, summed
from equivariant.method import Use

KEY = jax.random.key(0)
ALL = "0e+1o+1e+2e"


def interaction(degree=1, **options):
    natural = "+".join(f"{n}{'eo'[n % 2]}" for n in range(degree + 1))
    options = {"channels": 3, "channels_out": 2, "features": 4, "key": KEY} | options
    return Interaction(natural, natural, options.pop("out", natural), **options)


def inputs(made, dtype, nodes=5, edges=12, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(nodes, made.channels, made.bilinear.irreps_in1.dim))
    vectors = rng.normal(size=(edges, 3))
    harmonics = e3nn.spherical_harmonics(
        made.bilinear.irreps_in2, jnp.asarray(vectors, dtype), True, normalization="component"
    ).array
    last = (made.n_paths, made.channels) if made.radial is None else (made.radial.shape[0],)
    radial = rng.normal(size=(edges, *last))
    senders, receivers = rng.integers(0, nodes, (2, edges))
    return (
        jnp.asarray(x, dtype), harmonics, jnp.asarray(radial, dtype),
        jnp.asarray(senders), jnp.asarray(receivers),
    )  # fmt: skip


def by_e3nn(made, x, harmonics, radial, senders, receivers):
    """One edge, path and channel at a time, with e3nn-jax's coefficients, in float64."""
    x, harmonics, radial = (np.asarray(z, np.float64) for z in (x, harmonics, radial))
    weights = radial
    if made.radial is not None:
        weights = np.einsum("ef,fpc->epc", radial, np.asarray(made.radial, np.float64))
    first, second, out = (
        irreps.slices()
        for irreps in (made.bilinear.irreps_in1, made.bilinear.irreps_in2, made.irreps_out)
    )
    z = np.zeros((len(x), made.channels_out, made.irreps_out.dim))
    for n, path in enumerate(made.bilinear.triples):
        (i, j, o), degrees = path, made.bilinear.degrees(path)
        table = np.asarray(e3nn.clebsch_gordan(*degrees), np.float64)
        table = table * np.sqrt(2 * degrees[2] + 1) * made.bilinear.coefficients[n]
        mixing = np.asarray(made.mixing[o], np.float64)[made.paths_to(o).index(n)]
        for e, (s, r) in enumerate(zip(senders, receivers, strict=True)):
            message = np.einsum("ci,j,ijk->ck", x[s][:, first[i]], harmonics[e, second[j]], table)
            z[r][:, out[o]] += mixing.T @ (weights[e, n][:, None] * message)
    return z


def test_methods_agree_with_e3nn_edge_by_edge(dtype):
    methods = ("auto", "direct")
    made = [interaction(1, out=ALL, method=name, coupling="gaunt") for name in methods]
    arguments = inputs(made[0], dtype)
    expected = by_e3nn(made[0], *arguments)
    atol = 64 * jnp.finfo(dtype).eps * abs(expected).max()
    for got in jax.jit(lambda *z: [each(*z) for each in made])(*arguments):
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def test_weights_given_for_each_edge_path_and_channel(dtype):
    made = interaction(1, features=None, paths="even")
    arguments = inputs(made, dtype)
    expected = by_e3nn(made, *arguments)
    atol = 256 * jnp.finfo(dtype).eps * abs(expected).max()
    np.testing.assert_allclose(eqx.filter_jit(made)(*arguments), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("edges", "size"), [(12, 4), (13, 5)])
def test_blocks_change_neither_values_nor_gradients(edges, size, x64):  # noqa: ARG001
    made = interaction(out=ALL)
    x, harmonics, radial, senders, receivers = inputs(made, jnp.float64, edges=edges)
    use = Use(made.channels, 16, "float64")
    messages = chosen(made.bilinear, "direct", use, vectors=False)[1]

    def loss(x, harmonics, radial, size):
        sums = summed(
            messages,
            x.swapaxes(1, 2),
            Edges(senders, receivers, harmonics, radial),
            made.radial,
            size,
        )
        return sum((z**2).sum() for z in sums)

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2)), static_argnums=3)
    whole, blocks = (run(x, harmonics, radial, n) for n in (edges, size))
    for got, expected in zip(*map(jax.tree.leaves, (blocks, whole)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_a_memory_limit_is_kept():
    edges, nodes = 2048, 64
    options = {"channels": 16, "channels_out": 16}
    plain = interaction(**options)
    arguments = inputs(plain, jnp.float32, nodes, edges)

    def bytes_of(made):
        def loss(made, x, harmonics, radial):
            return (made(x, harmonics, radial, *arguments[3:]) ** 2).sum()

        compiled = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(made, *arguments[:3]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    quarter = bytes_of(plain) // 4
    assert bytes_of(interaction(memory_limit=quarter, **options)) <= quarter


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators take all at once")
def test_many_edges_are_taken_in_blocks_on_a_cpu():
    """The scratch of a gradient then hardly grows with the edges."""
    made = interaction(channels=32, channels_out=32, features=None)

    def bytes_of(edges):
        arguments = inputs(made, jnp.float32, 16, edges)

        def loss(*operands):
            return (made(*operands, *arguments[3:]) ** 2).sum()

        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arguments[:3]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = 6000, 12000
    assert bytes_of(many) - bytes_of(few) < (many - few) * 4 * made.channels * made.n_paths


def test_a_limit_that_cannot_be_met_is_refused():
    made = interaction(memory_limit=1000)
    with pytest.raises(ValueError, match="memory_limit: expected at least"):
        made(*inputs(made, jnp.float32))


def test_second_derivatives(x64):  # noqa: ARG001
    """Forces are gradients, and are trained: the gradient of a gradient by finite differences."""
    made = interaction(memory_limit=20_000)
    x, harmonics, *rest = inputs(made, jnp.float64, edges=24)
    assert "scan" in str(jax.make_jaxpr(made)(x, harmonics, *rest))

    def value(t):
        def energy(y):
            return (made(x, y, *rest) ** 2).sum()

        return (jax.grad(energy)(harmonics * (1 + t)) ** 2).sum()

    # The value is a polynomial of sixth degree in t: differences of sixth order have no error.
    step = jnp.array([0.1, 0.2, 0.3, -0.1, -0.2, -0.3])
    got, values = jax.jit(lambda t: (jax.grad(value)(0.0), jax.lax.map(value, t)))(step)
    odd = values[:3] - values[3:]
    slope = (45 * odd[0] - 9 * odd[1] + odd[2]) / (60 * 0.1)
    np.testing.assert_allclose(got, slope, rtol=1e-9)


def test_gradients_of_forces_hold_no_sums_for_each_block():
    """Twice the edges, in twice the blocks, take no more scratch but for their own gradients."""
    made = interaction(channels=16, channels_out=16, features=None, memory_limit=2_400_000)

    def bytes_of(edges):
        x, harmonics, weights, *ends = inputs(made, jnp.float32, 1024, edges)

        def squares(x, weights):
            forces = jax.grad(lambda y: (made(x, y, weights, *ends) ** 2).sum())(harmonics)
            return (forces**2).sum()

        compiled = jax.jit(jax.grad(squares, (0, 1))).lower(x, weights).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = 2048, 4096
    of_weights = (many - few) * made.n_paths * 16 * 4
    assert bytes_of(many) - bytes_of(few) < 5 * of_weights


def test_hessian_vector_products_in_blocks(x64):  # noqa: ARG001
    """Forward over reverse equals reverse over reverse."""
    made = interaction(memory_limit=20_000)
    x, harmonics, *rest = inputs(made, jnp.float64, edges=24)
    slope = jax.grad(lambda y: (made(x, y, *rest) ** 2).sum())
    along = harmonics[::-1]

    @jax.jit
    def both(y):
        return jax.jvp(slope, (y,), (along,))[1], jax.grad(lambda z: (slope(z) * along).sum())(y)

    got, expected = both(harmonics)
    np.testing.assert_allclose(got, expected, atol=1e-11 * float(abs(expected).max()))


def test_edges_of_weight_zero_add_nothing(dtype):
    made = interaction()
    x, harmonics, radial, senders, receivers = inputs(made, dtype)
    radial = radial.at[4:].set(0)
    run = eqx.filter_jit(made)
    got = run(x, harmonics, radial, senders, receivers)
    expected = run(x, harmonics[:4], radial[:4], senders[:4], receivers[:4])
    eps = jnp.finfo(dtype).eps
    np.testing.assert_allclose(got, expected, rtol=64 * eps, atol=64 * eps)


def test_equivariance(dtype):
    made = interaction(out=ALL)
    rest = inputs(made, dtype)[2:]

    nodes = made.bilinear.irreps_in1
    # A node and an edge to itself for each row of the measure's batch.
    radial, senders, receivers = rest[0][:1], rest[1][:1] * 0, rest[2][:1] * 0

    @jax.jit
    def one(x, harmonics):
        return jax.vmap(lambda a, b: made(a[None], b[:1], radial, senders, receivers)[0])(
            x, harmonics
        )

    error = equivariance_error(
        one, (nodes, nodes), made.irreps_out, key=KEY, channels=3, dtype=dtype
    )
    assert error < (1e-5 if dtype == jnp.float32 else 1e-11)


def test_refusals():
    made = interaction()
    x, harmonics, radial, senders, receivers = inputs(made, jnp.float32)
    with pytest.raises(ValueError, match=r"radial: expected shape \(12, 4\), got \(12, 3\)"):
        made(x, harmonics, radial[:, :3], senders, receivers)
    with pytest.raises(ValueError, match=r"harmonics: expected shape \(12, 4\)"):
        made(x, harmonics[:5], radial, senders, receivers)
    with pytest.raises(TypeError, match="senders: expected integers"):
        made(x, harmonics, radial, senders.astype(jnp.float32), receivers)
    with pytest.raises(ValueError, match="method: expected one of"):
        interaction(method="fastest")
    with pytest.raises(ValueError, match="vectors: expected one of the two, got neither"):
        made(x, None, radial, senders, receivers)
    with pytest.raises(ValueError, match="vectors: expected for method 'so2'"):
        interaction(method="so2")(x, harmonics, radial, senders, receivers)
    with pytest.raises(ValueError, match=r"vectors: expected shape \(12, 3\)"):
        made(x, None, radial, senders, receivers, vectors=harmonics)
    with pytest.raises(ValueError, match=r"irreps_edge: expected parities \(-1\)\^l"):
        Interaction("1e", "1e", "0e", channels=1, method="so2", key=KEY)
