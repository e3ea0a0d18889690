"""Exchange factored tensors with TensorLy.

Only the containers are converted, by way of numpy arrays: nothing here calls TensorLy's
`set_backend`, which would turn on 64-bit types for the whole process.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from tensorly.cp_tensor import CPTensor
from tensorly.tr_tensor import TRTensor
from tensorly.tt_matrix import TTMatrix as TensorlyTTMatrix
from tensorly.tt_tensor import TTTensor
from tensorly.tucker_tensor import TuckerTensor

from ..formats import CP, FactoredTensor, TensorRing, TensorTrain, TTMatrix, Tucker
from ..validation import is_traced


def to_tensorly(tensor: FactoredTensor) -> Any:
    """Return a format as TensorLy's container of the same kind, with numpy arrays.

    Args:
        tensor: a `CP`, `Tucker`, `TensorTrain`, `TTMatrix` or `TensorRing`.

    Returns:
        A `CPTensor`, `TuckerTensor`, `TTTensor`, `TTMatrix` or `TRTensor` of TensorLy, of the
        same dtype.

    Raises:
        TypeError: something else, or a format with traced arrays.
    """
    if is_traced(tensor):
        raise TypeError("tensor: expected concrete arrays, got traced ones (under jit or grad)")
    if isinstance(tensor, CP):
        return CPTensor((_numpy(tensor.weights), _numpy(tensor.factors)))
    if isinstance(tensor, Tucker):
        return TuckerTensor((_numpy(tensor.core), _numpy(tensor.factors)))
    if isinstance(tensor, TensorTrain):
        return TTTensor(_numpy(tensor.cores))
    if isinstance(tensor, TTMatrix):
        return TensorlyTTMatrix(_numpy(tensor.cores))
    if isinstance(tensor, TensorRing):
        return TRTensor(_numpy(tensor.cores))
    raise TypeError(
        "tensor: expected a CP, Tucker, TensorTrain, TTMatrix or TensorRing, "
        f"got {type(tensor).__module__}.{type(tensor).__name__}"
    )


def from_tensorly(tensor: Any) -> FactoredTensor:
    """Return TensorLy's container as the format of the same kind.

    The arrays keep float32, and float64 where 64-bit types are on. Weights of None are ones.

    Args:
        tensor: a `CPTensor`, `TuckerTensor`, `TTTensor`, `TTMatrix` or `TRTensor` of TensorLy.

    Returns:
        A `CP`, `Tucker`, `TensorTrain`, `TTMatrix` or `TensorRing`.

    Raises:
        TypeError: something else.
        ValueError: shapes that do not fit together.
    """
    if isinstance(tensor, CPTensor):
        factors = [_jax(f) for f in tensor.factors]
        if tensor.weights is None:
            return CP(jnp.ones(factors[0].shape[1], factors[0].dtype), factors)
        return CP(_jax(tensor.weights), factors)
    if isinstance(tensor, TuckerTensor):
        return Tucker(_jax(tensor.core), [_jax(f) for f in tensor.factors])
    for theirs, ours in (
        (TTTensor, TensorTrain),
        (TensorlyTTMatrix, TTMatrix),
        (TRTensor, TensorRing),
    ):
        if isinstance(tensor, theirs):
            return ours([_jax(core) for core in tensor.factors])
    raise TypeError(
        "tensor: expected TensorLy's CPTensor, TuckerTensor, TTTensor, TTMatrix or TRTensor, "
        f"got {type(tensor).__module__}.{type(tensor).__name__}"
    )


def _numpy(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_numpy(v) for v in value]
    return np.array(value)


def _jax(value: Any) -> Any:
    # By way of numpy, whatever backend made the array.
    return jnp.asarray(np.asarray(value))
