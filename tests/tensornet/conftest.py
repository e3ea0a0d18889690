"""Factored tensors for the tests: shapes and ranks, random ones, and their dense form by numpy."""

import itertools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet import CP, TensorRing, TensorTrain, TTMatrix, Tucker

# Sizes and ranks: one to five modes, modes of size 1, rank 1, ranks above the mode sizes.
CASES = {
    CP: [((5,), 2), ((2, 1, 3, 2), 1), ((2, 2, 3, 1, 2), 3)],
    Tucker: [((5,), (2,)), ((2, 1, 3, 2), (1, 1, 4, 1)), ((2, 2, 3, 1, 2), (2, 1, 2, 1, 2))],
    TensorTrain: [
        ((5,), (1, 1)),
        ((2, 1, 3, 2), (1, 1, 4, 1, 1)),
        ((2, 2, 3, 1, 2), (1, 2, 3, 3, 2, 1)),
    ],
    TTMatrix: [
        (((3, 2),), (1, 1)),
        (((1, 2), (3, 1)), (1, 2, 1)),
        (((2, 3), (2, 1), (1, 2)), (1, 3, 2, 1)),
    ],
    TensorRing: [
        ((5,), (2, 2)),
        ((2, 1, 3, 2), (1, 2, 2, 1, 1)),
        ((2, 2, 3, 1, 2), (2, 1, 2, 3, 2, 2)),
    ],
}
# One of each in three modes.
MAIN = {
    CP: ((3, 4, 2), 2),
    Tucker: ((3, 4, 2), (2, 3, 4)),
    TensorTrain: ((3, 4, 2), (1, 4, 2, 1)),
    TTMatrix: (((2, 3), (2, 2), (1, 2)), (1, 3, 2, 1)),
    TensorRing: ((3, 4, 2), (2, 3, 1, 2)),
}


def make(kind, case, rng, dtype) -> Any:
    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    shape, rank = case
    if kind is CP:
        return CP(normal(rank), [normal(n, rank) for n in shape])
    if kind is Tucker:
        return Tucker(normal(*rank), [normal(n, r) for n, r in zip(shape, rank, strict=True)])
    sizes = [(n,) if isinstance(n, int) else n for n in shape]
    ranks = list(itertools.pairwise(rank))
    return kind([normal(a, *n, b) for n, (a, b) in zip(sizes, ranks, strict=True)])


def dense(x):
    """The tensor, summed entry by entry in float64 by numpy from the definition."""
    if isinstance(x, CP):
        operands, inputs = [x.weights], ["z"]
        operands += x.factors
        inputs += [f"{chr(97 + k)}z" for k in range(len(x.factors))]
        output = "".join(chr(97 + k) for k in range(len(x.factors)))
    elif isinstance(x, Tucker):
        d = len(x.factors)
        inner, output = (
            "".join(chr(65 + k) for k in range(d)),
            "".join(chr(97 + k) for k in range(d)),
        )
        operands = [x.core, *x.factors]
        inputs = [inner, *(o + i for o, i in zip(output, inner, strict=True))]
    else:
        d = len(x.cores)
        bonds = [chr(65 + k) for k in range(d)] + ["A"]
        names = [chr(97 + k) for k in range(d)]
        columns = [chr(110 + k) for k in range(d)]
        middle = [a + b for a, b in zip(names, columns, strict=True)]
        middle = middle if isinstance(x, TTMatrix) else names
        operands = x.cores
        inputs = [bonds[k] + middle[k] + bonds[k + 1] for k in range(d)]
        output = "".join(names) + ("".join(columns) if isinstance(x, TTMatrix) else "")
    arrays = [np.asarray(a, np.float64) for a in operands]
    return np.einsum(",".join(inputs) + "->" + output, *arrays).reshape(x.shape)


def size(x):
    """What rounding errors are measured by: the tensor with no signs to cancel."""
    return float(np.linalg.norm(dense(jax.tree.map(jnp.abs, x))))


@pytest.fixture(scope="session")
def formats():
    """Cases and helpers: `CASES`, `MAIN`, `make`, `dense`, `size`."""
    return types.SimpleNamespace(CASES=CASES, MAIN=MAIN, make=make, dense=dense, size=size)
