"""Products of packages that need not be installed, for the same map and numbers as ours."""

import importlib.util
from collections.abc import Callable
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np

from equivariant.bilinear import BilinearMap

from .measure import Program
from .products import HIGHEST, Problem


def others(problem: Problem) -> list[tuple[Callable[[], Program], str]]:
    """Return the programs of packages that are installed, each with a note."""
    found = []
    if importlib.util.find_spec("cuequivariance_jax"):
        found.append((lambda: cuequivariance(problem), "naive: its kernels need a GPU"))
    if importlib.util.find_spec("e3j"):
        found.append((lambda: e3j(problem), "unfused: its kernels need a GPU"))
    return found


def cuequivariance(problem: Problem) -> Program:
    """cuequivariance-jax's segmented polynomial, paths summed and weighted inside."""
    import cuequivariance as cue
    import cuequivariance_jax as cuex

    made = problem.map()
    plain = BilinearMap(*problem.irreps, problem.paths, "clebsch-gordan")
    weighted = problem.weights is not None
    product = cue.SegmentedTensorProduct.from_subscripts(
        "u,iu,ju,ku+ijk" if weighted else "iu,ju,ku+ijk"
    )
    c = problem.channels
    three = (made.irreps_in1, made.irreps_in2, made.irreps_out)
    segments = [
        [product.add_segment(operand, (ir.dim, c)) for _, ir in irreps]
        for operand, irreps in enumerate(three, int(weighted))
    ]
    for path in made.triples:
        own = [product.add_segment(0, (c,))] if weighted else []
        places = [segments[side][k] for side, k in enumerate(path)]
        product.add_path(*own, *places, c=plain.path_tensor(path))
    polynomial = cue.SegmentedPolynomial.eval_last_operand(product)
    size = jax.ShapeDtypeStruct((problem.batch, made.irreps_out.dim * c), jnp.float32)

    def run(x: jax.Array, y: jax.Array, *weights: jax.Array) -> jax.Array:
        operands = [*weights, x, y]
        return cuex.segmented_polynomial(polynomial, operands, [size], method="naive")[0]

    x, y, _ = problem.arrays()
    weights = (problem.path_weights().T.reshape(1, -1).astype("float32"),) if weighted else ()
    return problem.program(
        "cuequivariance-jax",
        run,
        x.swapaxes(1, 2).reshape(problem.batch, -1),
        y.swapaxes(1, 2).reshape(problem.batch, -1),
        *weights,
        back=lambda z: np.asarray(z).reshape(problem.batch, -1, c).swapaxes(1, 2),
    )


def e3j(problem: Problem) -> Program:
    """e3j's channel-wise product, channels last, weighted by path and summed by irrep."""
    import e3j
    from e3j.core import TensorProduct

    e3j.config(tensor_product="UNFUSED")
    first, second, out = problem.irreps
    product = TensorProduct(
        (first, second), out, layout="TRAILING_CHANNELS", mode="MAP", normalization="SQRT_DIM_OUT"
    )
    found = e3nn.Irreps(str(product.target))
    unit = problem.weights is None

    def run(x: jax.Array, y: jax.Array, *weights: jax.Array) -> jax.Array:
        z: Any = product(x, y)
        z = getattr(z, "array", z)
        by_irrep = {}
        for (count, ir), part in zip(found, found.slices(), strict=True):
            by_irrep[ir] = z[:, part].reshape(len(x), count, ir.dim, -1)
        parts = [
            by_irrep[ir].sum(1)
            if unit
            else jnp.einsum("buic,cu->bic", by_irrep[ir], w, precision=HIGHEST)
            for (_, ir), w in zip(e3nn.Irreps(out), weights, strict=True)
        ]
        return jnp.concatenate(parts, 1)

    x, y, _ = problem.arrays()
    return problem.program(
        "e3j",
        run,
        np.ascontiguousarray(x.swapaxes(1, 2)),
        np.ascontiguousarray(y.swapaxes(1, 2)),
        *problem.by_irrep(),
        back=lambda z: np.asarray(z).swapaxes(1, 2),
    )
