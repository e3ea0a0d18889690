"""Weights per degree, and sums of such, around programs that know no weights.

A weight a_i b_j c_o is a factor of the first input's irrep i, of the second's j and of the result's
o. So it costs a few elementwise products, and a sum of R such is R products of inputs.
"""

from collections.abc import Callable
from dataclasses import replace

import e3nn_jax as e3nn
import numpy as np
from jaxtyping import Array, Float64

from .bilinear import BilinearMap
from .method import Program, Use, times_table

Cores = Callable[[Use], dict[str, Program]]


def weighted(bilinear: BilinearMap, cores: Cores, use: Use) -> dict[str, Program]:
    """Return programs for a map of weights that are not per path.

    Args:
        bilinear: the map.
        cores: makes programs for the same map with weights of one.
        use: the call.
    """
    if bilinear.weights is None:
        return cores(use)
    if bilinear.weights == "shared":
        return _shared(cores, use)
    return _separable(bilinear, cores, use)


def _shared(cores: Cores, use: Use) -> dict[str, Program]:
    """Multiply an input that has channels of its own, or else the result."""
    at = use.shared.index(False) if False in use.shared else 2
    inner = use if at < 2 else replace(use, channels=1, shared=(False, False))

    def run(core: Program, x: Array, y: Array, w: Array) -> Array:
        operands = [x, y]
        if at < 2:
            operands[at] = operands[at] * w[..., None]
        z = core.run(*operands, None)
        return z * w[..., None] if at == 2 else z

    return {k: Program(core.cost, _bound(run, core)) for k, core in cores(inner).items()}


def _separable(bilinear: BilinearMap, cores: Cores, use: Use) -> dict[str, Program]:
    terms = bilinear.n_terms
    table = components_of_irreps(bilinear.irreps_in1, bilinear.irreps_in2, bilinear.irreps_out)
    d1, d2, d = bilinear.irreps_in1.dim, bilinear.irreps_in2.dim, bilinear.irreps_out.dim
    spread = times_table(
        table, use.channels, replace(use, batch=terms * (use.batch if use.varying else 1))
    )
    inner = replace(use, batch=terms * use.batch, shared=(False, False))
    loops = use.loop(inner.rows * (d1 + d2 + d), 3 * inner.rows * (d1 + d2 + d))

    def run(core: Program, x: Array, y: Array, w: Array) -> Array:
        w = w.reshape(len(w), use.channels, terms, -1).swapaxes(1, 2)
        factors = spread.run(w.reshape(-1, use.channels, w.shape[-1]))
        factors = factors.reshape(*w.shape[:3], -1)
        x = x[:, None] * factors[..., :d1]
        y = y[:, None] * factors[..., d1 : d1 + d2]
        z = core.run(_merged(x), _merged(y), None)
        return (z.reshape(*x.shape[:3], d) * factors[..., d1 + d2 :]).sum(1)

    return {
        k: Program((*spread.cost, loops, *core.cost), _bound(run, core))
        for k, core in cores(inner).items()
    }


def components_of_irreps(*irreps: e3nn.Irreps) -> Float64[np.ndarray, "n d"]:
    """Return the matrix that repeats a number for each irrep once for each of its components.

    A product with it is faster than taking by index, above all its gradient.
    """
    dims = [ir.dim for each in irreps for _, ir in each]
    return np.repeat(np.eye(len(dims)), dims, axis=1)


def _merged(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _bound(run: Callable[..., Array], core: Program) -> Callable[..., Array]:
    return lambda x, y, w: run(core, x, y, w)
