"""The peers' programs, each made from plain arguments so that a child process can make it too.

TensorLy's numpy backend runs in our process. Its jax backend turns 64-bit types on for the
whole process, so it runs in a child. Warnings that TensorLy raises about its own code are left
out of the output.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorly as tl
from tensorly import decomposition as theirs
from tensorly.cp_tensor import CPTensor

from . import data
from .measure import Program


def parafac_sweeps(
    *,
    shape: Sequence[int],
    rank: int,
    sweeps: int,
    near: float = 0.0,
    dtype: str = "float64",
    backend: str = "numpy",
) -> Program:
    """TensorLy's CP-ALS on `data.cp_problem`: a fixed count of sweeps, errors computed."""
    x, start = data.cp_problem(shape, rank, near=near)
    x, start = x.astype(dtype), [factor.astype(dtype) for factor in start]
    if backend != "numpy":
        tl.set_backend(backend)
    tensor, factors = tl.tensor(x), [tl.tensor(factor) for factor in start]

    def run():
        # return_errors: an error each sweep, as ours computes.
        (weights, found), errors = theirs.parafac(
            tensor,
            rank,
            n_iter_max=sweeps,
            init=_start(list(factors)),
            tol=0,
            return_errors=True,
        )
        return weights, found, errors

    def judge(result):
        _, found, _ = result
        dense = data.cp_dense([np.asarray(factor) for factor in found])
        return {"error": data.relative_error(x, dense), "iterations": float(sweeps)}

    return _quiet(f"tensorly {backend}", run, judge)


def parafac_loop(x: np.ndarray, starts: list[np.ndarray], rank: int, **options: Any) -> Program:
    """TensorLy's CP-ALS on one tensor after the other of a stack."""

    def run():
        found = []
        for k in range(len(x)):
            start = _start([factor[k].copy() for factor in starts])
            found.append(theirs.parafac(x[k], rank, init=start, **options))
        return found

    def judge(result):
        found = [cp[0] if options.get("return_errors") else cp for cp in result]
        errors = [data.relative_error(x[k], tl.cp_to_tensor(cp)) for k, cp in enumerate(found)]
        return {"error": float(np.median(errors))}

    return _quiet("tensorly numpy, loop", run, judge)


def parafac(x: np.ndarray, rank: int, *, mask: np.ndarray | None = None, **options: Any) -> Program:
    """TensorLy's CP-ALS to its own stopping rule."""
    held = x if mask is None else np.where(mask, x, 0.0)
    masked = {} if mask is None else {"mask": mask.astype(x.dtype)}

    def run():
        return theirs.parafac(held, rank, return_errors=True, **masked, **options)

    def judge(result):
        cp, errors = result
        error = data.relative_error(x, tl.cp_to_tensor(cp))
        return {"error": error, "iterations": float(len(errors))}

    return _quiet("tensorly numpy", run, judge)


def tucker(x: np.ndarray, rank: Sequence[int], *, label: str = "", **options: Any) -> Program:
    """TensorLy's Tucker decomposition by higher-order orthogonal iteration."""

    def run():
        return theirs.tucker(x, list(rank), return_errors=True, **options)

    def judge(result):
        found, errors = result
        error = data.relative_error(x, tl.tucker_to_tensor(found))
        return {"error": error, "iterations": float(len(errors))}

    return _quiet(f"tensorly numpy{label}", run, judge)


def tensor_train(x: np.ndarray, rank: Sequence[int], **options: Any) -> Program:
    """TensorLy's tensor train at given ranks."""
    return _quiet(
        "tensorly numpy",
        lambda: theirs.tensor_train(x, list(rank), **options),
        lambda found: {"error": data.relative_error(x, np.asarray(tl.tt_to_tensor(found)))},
    )


def tensor_ring(x: np.ndarray, rank: Sequence[int], **options: Any) -> Program:
    """TensorLy's tensor ring by SVD at given ranks."""
    return _quiet(
        "tensorly numpy",
        lambda: theirs.tensor_ring(x, list(rank), **options),
        lambda found: {"error": data.relative_error(x, tl.tr_to_tensor(found))},
    )


def tensor_ring_als(x: np.ndarray, rank: Sequence[int], *, label: str = "", **options) -> Program:
    """TensorLy's tensor ring by alternating least squares."""
    return _quiet(
        f"tensorly numpy{label}",
        lambda: theirs.tensor_ring_als(x, list(rank), **options),
        lambda found: {"error": data.relative_error(x, tl.tr_to_tensor(found))},
    )


def ring_start(shape: Sequence[int], rank: Sequence[int], seed: int) -> list[np.ndarray]:
    """Return the cores that TensorLy's ring by least squares starts from with this seed."""
    ring = tl.random.random_tr(tuple(shape), list(rank), random_state=seed)
    return [np.asarray(core) for core in ring.factors]


def gram_hooi(x: np.ndarray, rank: Sequence[int], *, tolerance: float) -> Program:
    """Our own algorithm for the Tucker format in plain numpy: what is left is XLA's share.

    Sequentially truncated HOSVD by Gram matrices, then orthogonal iteration until the error
    moves by less than `tolerance`.
    """

    def leading(y, mode, r):
        unfolded = np.moveaxis(y, mode, 0).reshape(y.shape[mode], -1)
        return np.linalg.eigh(unfolded @ unfolded.T)[1][:, : -r - 1 : -1]

    def project(y, factor, mode):
        return np.moveaxis(np.tensordot(factor.T, y, axes=(1, mode)), 0, mode)

    def run():
        square = np.vdot(x, x)

        def error(core):
            return np.sqrt(max(square - np.vdot(core, core), 0.0) / square)

        core, factors = x, []
        for mode, r in enumerate(rank):
            factors.append(leading(core, mode, r))
            core = project(core, factors[-1], mode)
        last, moved, sweeps = error(core), np.inf, 0
        while moved >= tolerance and sweeps < 100:
            for mode, r in enumerate(rank):
                partial = x
                for other in range(x.ndim):
                    if other != mode:
                        partial = project(partial, factors[other], other)
                factors[mode] = leading(partial, mode, r)
                if mode == x.ndim - 1:
                    core = project(partial, factors[mode], mode)
            now = error(core)
            last, moved, sweeps = now, abs(last - now), sweeps + 1
        return core, factors, sweeps

    def judge(result):
        core, factors, sweeps = result
        for mode, factor in enumerate(factors):
            core = project(core, factor.T, mode)
        return {"error": data.relative_error(x, core), "iterations": float(sweeps)}

    return Program("numpy, our algorithm", run, judge)


def _start(factors: list[Any]) -> Any:
    # TensorLy declares `init` a string and takes a CPTensor too.
    return CPTensor((None, factors))


def _quiet(name: str, run: Callable[[], Any], judge: Callable[[Any], dict[str, float]]) -> Program:
    def quietly():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()

    return Program(name, quietly, judge)
