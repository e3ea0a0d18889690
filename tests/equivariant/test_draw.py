"""Random weights drawn in blocks: their law, and that shapes share one program."""

import jax
import numpy as np
import pytest
from scipy.stats import kstest

from equivariant.draw import normal


def test_numbers_are_normal_and_independent_across_blocks():
    drawn = np.asarray(normal(jax.random.key(3), (3, 3000)), np.float64)
    assert kstest(drawn.ravel(), "norm").pvalue > 1e-3
    assert len(np.unique(drawn)) > 8950  # single precision draws few numbers twice
    assert abs(np.corrcoef(drawn)[np.triu_indices(3, 1)]).max() < 0.06


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (4096,), (2, 3, 683)])
def test_shape_and_dtype(shape, dtype):
    drawn = normal(jax.random.key(0), shape)
    assert drawn.shape == shape
    assert drawn.dtype == dtype


def test_the_same_under_jit_and_another_for_another_key():
    key = jax.random.key(1)
    first = normal(key, (5000,))
    np.testing.assert_array_equal(jax.jit(lambda k: normal(k, (5000,)))(key), first)
    other = normal(jax.random.key(2), (5000,))
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.06
