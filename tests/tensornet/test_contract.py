import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import contract


@pytest.mark.parametrize(
    ("expression", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("ijk,jr,kr->ir", [(3, 4, 5), (4, 2), (5, 2)]),
        ("ni,nj,ir,jr,rk->nk", [(6, 3), (6, 4), (3, 5), (4, 5), (5, 2)]),
    ],
)
def test_equals_numpy(expression, shapes, dtype):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    arrays = [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]
    expected = np.einsum(expression, *(np.asarray(a, np.float64) for a in arrays))
    result = contract(expression, *arrays)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=0, atol=30 * jnp.finfo(dtype).eps)
