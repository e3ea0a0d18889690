"""Dense operators turned into tensorized ones: the same function, up to the weights' error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.operators import FNO, TFNO, Normalized, Normalizer, tensorize
from tensornet.formats import Tucker

KEY = jax.random.key(0)
pytestmark = pytest.mark.usefixtures("x64")


def low_rank(ranks=(2, 3, 2, 3)):
    """A dense model whose weights have low Tucker ranks, and a little noise."""
    model = FNO(modes=(4, 4), in_channels=1, out_channels=1, width=5, layers=2, key=KEY)
    rng = np.random.default_rng(0)

    def weight():
        factors = [rng.normal(size=(n, r)) for n, r in zip((4, 6, 5, 5), ranks, strict=True)]
        core = Tucker(jnp.asarray(rng.normal(size=ranks)), [jnp.asarray(f) for f in factors])
        return core.to_dense() + 1e-9 * rng.normal(size=core.shape)

    return eqx.tree_at(lambda m: [b.spectral.weight for b in m.blocks], model, [weight(), weight()])


def relative(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize(
    ("factorization", "options"),
    [
        ("tucker", {"rank": (2, 3, 2, 3)}),
        ("tucker", {"rtol": 1e-6}),
        ("tt", {"rtol": 1e-6}),
        ("tr", {"rtol": 1e-6}),
    ],
)
def test_weights_of_low_rank_are_found(factorization, options):
    model = low_rank()
    made = tensorize(model, factorization=factorization, **options)
    assert isinstance(made, TFNO)
    assert made.n_parameters < model.n_parameters
    for small, large in zip(made.blocks, model.blocks, strict=True):
        assert relative(small.spectral.weight.to_dense(), large.spectral.weight) < 1e-6
        assert small.skip is large.skip
    if factorization == "tucker":
        assert made.blocks[0].spectral.weight.rank == (2, 3, 2, 3)


def test_the_function_is_the_same():
    model = low_rank()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 1, 6, 7)))
    ends = Normalizer.of(x), Normalizer.of(3 * x)
    made = tensorize(Normalized(model, *ends), rtol=1e-6)
    run = eqx.filter_jit(lambda f, x: f(x))
    np.testing.assert_allclose(run(made, x), run(Normalized(model, *ends), x), rtol=1e-5)


def test_a_share_by_cp():
    made = tensorize(low_rank((2, 2, 1, 1)), factorization="cp", rank=0.3, key=KEY)
    weight = made.blocks[0].spectral.weight
    assert weight.n_parameters <= 0.3 * 4 * 6 * 5 * 5
    # A core of 2 x 2 is a sum of two terms.
    assert relative(weight.to_dense(), low_rank((2, 2, 1, 1)).blocks[0].spectral.weight) < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "rank, rtol: expected one of them, got None and None"),
        ({"rank": 0.1, "rtol": 0.1}, "rank, rtol: expected one of them"),
        ({"rtol": 0.1, "factorization": "cp"}, "rtol: expected a rank for 'cp'"),
        ({"rank": 0.1, "factorization": "svd"}, "factorization: expected one of"),
        ({"rank": (9, 1, 1, 1)}, r"rank\[0\]: expected between 1 and 4"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        tensorize(low_rank(), **options)


def test_bad_models():
    with pytest.raises(TypeError, match="model: expected an FNO, got int"):
        tensorize(3, rank=0.1)
    made = tensorize(low_rank(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"model: expected dense weights, got Tucker.* in block 0"):
        tensorize(made, rtol=1e-6)
