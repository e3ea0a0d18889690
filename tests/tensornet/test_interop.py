"""Exchange with TensorLy."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import tensorly
from tensorly.cp_tensor import CPTensor, cp_to_tensor
from tensorly.tr_tensor import TRTensor, tr_to_tensor
from tensorly.tt_matrix import TTMatrix as TensorlyTTMatrix
from tensorly.tt_matrix import tt_matrix_to_matrix
from tensorly.tt_tensor import TTTensor, tt_to_tensor
from tensorly.tucker_tensor import TuckerTensor, tucker_to_tensor

from tensornet import CP, TensorRing, TensorTrain, TTMatrix, Tucker
from tensornet.interop.tensorly import from_tensorly, to_tensorly

THEIRS = {
    CP: (CPTensor, cp_to_tensor),
    Tucker: (TuckerTensor, tucker_to_tensor),
    TensorTrain: (TTTensor, tt_to_tensor),
    TTMatrix: (TensorlyTTMatrix, tt_matrix_to_matrix),
    TensorRing: (TRTensor, tr_to_tensor),
}


@pytest.mark.parametrize("kind", list(THEIRS))
def test_there_and_back(kind, dtype, formats):
    container, to_dense = THEIRS[kind]
    x = formats.make(kind, formats.MAIN[kind], np.random.default_rng(0), dtype)
    theirs = to_tensorly(x)
    assert type(theirs) is container
    assert all(isinstance(part, np.ndarray) for part in parts(theirs))
    assert all(part.dtype == dtype for part in parts(theirs))

    back = from_tensorly(theirs)
    assert type(back) is kind
    for ours, again in zip(jax.tree.leaves(x), jax.tree.leaves(back), strict=True):
        assert again.dtype == dtype
        np.testing.assert_array_equal(ours, again)

    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(
        x.to_dense(), to_dense(theirs), rtol=0, atol=64 * eps * formats.size(x)
    )
    assert tensorly.get_backend() == "numpy"
    assert (np.asarray(jax.numpy.ones(1)).dtype == np.float64) == (dtype == "float64")


def parts(theirs):
    if isinstance(theirs, CPTensor):
        return [theirs.weights, *theirs.factors]
    if isinstance(theirs, TuckerTensor):
        return [theirs.core, *theirs.factors]
    return list(theirs.factors)


def test_changing_one_side_leaves_the_other():
    x = CP(np.ones(2, np.float32), [np.ones((3, 2), np.float32)])
    theirs = to_tensorly(x)
    theirs.factors[0][0, 0] = 7.0
    assert float(x.factors[0][0, 0]) == 1.0


def test_weights_of_none_are_ones(dtype):
    factors = [np.arange(6.0).reshape(3, 2).astype(dtype), np.ones((4, 2), dtype)]
    theirs = CPTensor((None, factors))
    theirs.weights = None
    x = from_tensorly(theirs)
    assert isinstance(x, CP)
    assert x.weights.dtype == dtype
    np.testing.assert_array_equal(x.to_dense(), factors[0] @ factors[1].T)


def test_what_tensorly_makes_can_be_read(dtype):
    data = np.random.default_rng(1).standard_normal((3, 4, 5)).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    for theirs, to_dense in [
        (tensorly.decomposition.parafac(data, 2, n_iter_max=3, init="svd"), cp_to_tensor),
        (tensorly.decomposition.tensor_train(data, [1, 2, 2, 1]), tt_to_tensor),
        (tensorly.decomposition.tucker(data, [2, 2, 2], n_iter_max=2), tucker_to_tensor),
        (tensorly.decomposition.tensor_ring(data, [1, 2, 2, 1]), tr_to_tensor),
    ]:
        np.testing.assert_allclose(
            from_tensorly(theirs).to_dense(), to_dense(theirs), rtol=0, atol=1e3 * eps
        )


def test_unknown_things_are_refused():
    with pytest.raises(TypeError, match=r"expected TensorLy's CPTensor, .*, got numpy.ndarray"):
        from_tensorly(np.ones(3))
    x = CP(np.ones(2, np.float32), [np.ones((3, 2), np.float32)])
    with pytest.raises(TypeError, match=r"expected TensorLy's .*, got tensornet.formats.cp.CP"):
        from_tensorly(x)
    with pytest.raises(TypeError, match="tensor: expected concrete arrays, got traced"):
        jax.jit(lambda x: to_tensorly(x) and 0)(x)


def test_importing_tensornet_leaves_tensorly_out():
    code = "import sys, tensornet; sys.exit('tensorly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
