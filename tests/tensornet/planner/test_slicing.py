"""Memory limits: the same numbers, a program that does not grow, and the limit kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.planner import contract, plan


def draws(shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.uniform(0.5, 1.5, s), dtype) for s in shapes]


def size_of(jaxpr):
    """Number of equations, those of inner jaxprs included."""
    inner = [
        value.jaxpr if hasattr(value, "jaxpr") else value
        for eqn in jaxpr.eqns
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        )
        if hasattr(value, "eqns") or hasattr(value, "jaxpr")
    ]
    return len(jaxpr.eqns) + sum(size_of(j) for j in inner)


@pytest.mark.parametrize("expression", ["na,nb,abc->nc", "na,nb,abc->c"])
@pytest.mark.usefixtures("x64")
def test_many_slices_are_one_loop(expression):
    sizes = []
    for count in (64, 4096):  # slices of eight
        shapes = [(8 * count, 3), (8 * count, 4), (3, 4, 5)]
        arrays = draws(shapes)
        whole = plan(expression, *shapes, dtype="float64")
        made = plan(expression, *shapes, dtype="float64", slices={"n": count})
        assert made.n_slices == count
        weights = jnp.cos(jnp.arange(whole(*arrays).size, dtype=float))

        def loss(made, xs, weights=weights):
            return jnp.sum(weights * made(*xs).ravel() ** 2)

        value, gradient = jax.value_and_grad(loss, 1)(whole, arrays)
        got, got_gradient = jax.jit(jax.value_and_grad(loss, 1), static_argnums=0)(made, arrays)
        np.testing.assert_allclose(got, value, rtol=1e-10)
        for a, b in zip(got_gradient, gradient, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * float(jnp.abs(b).max()))
        traced = jax.make_jaxpr(jax.value_and_grad(loss, 1), static_argnums=0)(made, arrays)
        sizes.append(size_of(traced.jaxpr))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("share", [2, 4])
@pytest.mark.usefixtures("x64")
def test_peak_stays_under_the_limit(gradients, share):
    expression, shapes = "ijk,klm,mnj->iln", [(16, 32, 64), (64, 16, 32), (32, 8, 32)]
    arrays = draws(shapes)
    whole = plan(expression, *shapes, dtype="float64", gradients=gradients, memory_limit="1TB")
    limit = whole.peak_bytes // share
    made = plan(expression, *shapes, dtype="float64", gradients=gradients, memory_limit=limit)
    assert made.n_slices > 1
    assert made.peak_bytes <= limit

    def run(xs):
        if gradients:
            return jax.grad(lambda xs: jnp.sum(jnp.sin(made(*xs))))(xs)
        return made(*xs)

    memory = jax.jit(run).lower(arrays).compile().memory_analysis()
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes <= limit


@pytest.mark.usefixtures("x64")
def test_several_cuts_and_stripped_exponents():
    expression, shapes = "ab,bc,cd,de->ea", [(4, 6), (6, 8), (8, 6), (6, 4)]
    arrays = draws(shapes)
    expected = np.linalg.multi_dot(arrays).T
    for cuts in ({"a": 2}, {"b": 3, "c": 8}, {"a": 4, "e": 2, "c": 4, "d": 2}):
        made = plan(expression, *shapes, dtype="float64", slices=cuts)
        np.testing.assert_allclose(made(*arrays), expected, rtol=1e-13)
        mantissa, log = made(*arrays, strip_exponent=True)
        np.testing.assert_allclose(mantissa * jnp.exp(log), expected, rtol=1e-13)


def test_no_slicing_meets_the_limit():
    # Nothing makes less than the result: 64 x 64 entries of 4 bytes.
    with pytest.raises(
        ValueError, match=r"needs at most 1000 bytes; the smallest .* is (\d+)"
    ) as e:
        plan("ij,jk->ik", (64, 64), (64, 64), memory_limit=1000)
    assert int(str(e.value).split(" is ")[1].split()[0]) >= 64 * 64 * 4
    for bad in ("much", "2 XB", 0, -1, True, "-3GB"):
        with pytest.raises(ValueError, match="memory_limit"):
            plan("ij,jk->ik", (4, 4), (4, 4), memory_limit=bad)
    with pytest.raises(ValueError, match=r"'j' of size 4 cannot be cut into 3"):
        plan("ij,jk->ik", (4, 4), (4, 4), slices={"j": 3})
    with pytest.raises(ValueError, match="index 'z' is not in"):
        plan("ij,jk->ik", (4, 4), (4, 4), slices={"z": 2})
    assert plan("ij,jk->ik", (4, 4), (4, 4), memory_limit="1 MiB").slices == ()


def test_long_chain_keeps_its_exponent():
    """A train of 200 cores of rank 4: its norm overflows float32, its logarithm does not."""
    sites, rank = 200, 4
    rng = np.random.default_rng(0)
    shapes = [(1, 2, rank), *[(rank, 2, rank)] * (sites - 2), (rank, 2, 1)]
    cores = [rng.normal(size=s) * 3 for s in shapes]
    state, expected = np.ones((1, 1)), 0.0
    for core in cores:
        state = np.einsum("ab,anc,bnd->cd", state, core, core)
        expected += np.log(np.abs(state).max())
        state /= np.abs(state).max()
    expected += np.log(state.item())
    assert expected > np.log(np.finfo(np.float32).max)
    symbol = [chr(0x4E00 + i) for i in range(3 * sites + 2)]
    upper, lower, legs = (
        symbol[: sites + 1],
        symbol[sites + 1 : 2 * sites + 2],
        symbol[2 * sites + 2 :],
    )
    terms = [f"{upper[i]}{legs[i]}{upper[i + 1]}" for i in range(sites)]
    terms += [f"{lower[i]}{legs[i]}{lower[i + 1]}" for i in range(sites)]
    arrays = [jnp.asarray(c, jnp.float32) for c in cores] * 2
    expression = ",".join(terms) + "->"
    with jax.disable_jit():
        mantissa, log = contract(expression, *arrays, strip_exponent=True)
    # Every one of the 400 steps rounds the logarithm by at most half an ulp of its value.
    got = float(log) + np.log(float(mantissa))
    assert abs(got - expected) < 400 * np.finfo(np.float32).eps * expected
