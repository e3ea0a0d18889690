"""One tensor product of irreps by every method."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from equivariant import TensorProduct, equivariance_error, expressivity, interactability
from tensornet import plot

from .chapter import Chapter, Check, Findings, Picture, Stage, Table

METHODS = ("clebsch-gordan", "gaunt-grid", "gaunt-fourier")
# Errors are relative and in float32.
EXACT = 2e-6
EQUIVARIANT = 1e-6
CHECKED = 16  # rows of the batch that are compared with e3nn-jax's coefficients


@dataclasses.dataclass(frozen=True)
class Row:
    """One product by one method.

    Attributes:
        error: of the result, relative to e3nn-jax's paths summed in float64.
        bound: certified, of |z - exact| over |x| |y|; 0 where there is only rounding.
        over_bound: the largest |z - exact| / (|x| |y|) met, over the bound.
        forward, gradient: milliseconds for the batch; the gradient is with respect to both inputs.
    """

    map: str
    method: str
    error: float
    equivariance: float
    bound: float
    over_bound: float
    expressivity: int
    forward: float
    gradient: float


STORY = (
    (
        "A tensor product of irreps couples two sets of spherical tensors, such as the features "
        "of an atom and the direction to its neighbour, so that the result turns as they turn. "
        "It is a fixed bilinear map, z = sum over paths (l1, l2 -> l3) of a weight, a coupling "
        "coefficient and e3nn's Clebsch-Gordan product. How it is computed is another question."
    ),
    (
        "With the Gaunt coupling the paths of even l1 + l2 + l3 are the product of two functions "
        "on the sphere, and those of odd sums r . (grad f x grad g): few points of the sphere, "
        "or a Fourier series on the torus, give every path of both parities exactly. With e3nn's "
        "own coupling the same grid works as a sum of some such products. The tensor in CP form "
        "(a tensor decomposition network) is exact where its rank is high enough; below, its "
        "error has a certified bound."
    ),
    (
        "Errors are those against a sum over the paths with e3nn-jax's coefficients in float64; "
        "ours is float32. The "
        "error of equivariance is the largest over rotations and inversions. Expressivity is the "
        "number of independent changes that a product's weights can make to the map. Times are "
        "of this run, compiled, the least of several, gradients with respect to both inputs."
    ),
)


def irreps(degree: int) -> tuple[str, str, str]:
    """Return natural irreps up to a degree, twice, and those of both parities they reach."""
    natural = [f"{n}{'eo'[n % 2]}" for n in range(degree + 1)]
    other = [f"{n}{'oe'[n % 2]}" for n in range(1, degree + 1)]
    return "+".join(natural), "+".join(natural), "+".join(natural + other)


def alike(degree: int) -> tuple[str, str, str]:
    """Return irreps of even parity up to a degree, thrice, as tensor decomposition networks do."""
    same = "+".join(f"{n}e" for n in range(degree + 1))
    return same, same, same


def run(stage: Stage) -> Findings:
    """Compute a product of degree 2 by all methods, and the cost of one up to degree 6."""
    return products(stage, degree=2, degrees=(4, 6), batch=64, channels=32)


def products(
    stage: Stage, *, degree: int, degrees: Sequence[int], batch: int, channels: int
) -> Findings:
    """Compare the methods.

    Args:
        stage: where to write, whom to tell.
        degree: of the product in the table.
        degrees: of the products in the picture, besides.
        batch: of every array.
        channels: of every array; each is multiplied with its own.
    """
    kinds: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
        ("Gaunt, weights per degree", {"coupling": "gaunt"}, method, {}) for method in METHODS
    ]
    plain = {"coupling": "clebsch-gordan", "weights": None}
    kinds += [("e3nn's", plain, method, {}) for method in METHODS[:2]]
    kinds += [("e3nn's", plain, "cp", {"rtol": 1e-9})]
    kinds += [("e3nn's", plain, "cp", {"rank": 7 * degree**2})]
    stage.progress.init(len(kinds) + len(degrees), "multiplying")
    stage.progress.step(0)
    rows: list[Row] = []
    for number, (name, fields, method, options) in enumerate(kinds, 1):
        made = TensorProduct(
            *(irreps(degree) if fields["coupling"] == "gaunt" else alike(degree)),
            **fields,
            method=method,
            channels=channels,
            key=jax.random.key(stage.seed),
            **options,
        )
        label = f"{method}, rank {options['rank']}" if "rank" in options else method
        arrays = _inputs(made, batch, channels, stage.seed)
        rows.append(_measure(name, label, made, arrays, stage.seed))
        stage.progress.step(number, {"error": rows[-1].error})
    curves = {row.method: [(degree, row.forward)] for row in rows if row.map == kinds[0][0]}
    for number, L in enumerate(degrees, len(kinds) + 1):
        for method in METHODS:
            made = TensorProduct(
                *irreps(L), method=method, channels=channels, key=jax.random.key(stage.seed)
            )
            x, y = _inputs(made, batch, channels, stage.seed)
            curves[method].append((L, _milliseconds(_compiled(made), x, y)))
        stage.progress.step(number, {})
    stage.progress.close()
    curves = {method: sorted(points) for method, points in curves.items()}
    path = stage.out / "products_cost.png"
    _draw(path, curves, batch * channels)
    caption = (
        f"Milliseconds of {batch * channels:,} products (all paths, both parities, Gaunt coupling) "
        "against the largest degree, logarithmic; below is better."
    )
    return Findings(
        story=STORY,
        tables=[_table(rows)],
        pictures=[Picture(path, caption)],
        checks=_checks(rows),
        results={
            "degree": degree,
            "irreps": list(irreps(degree)),
            "triples": len(interactability(made)),
            "products": [dataclasses.asdict(row) for row in rows],
            "milliseconds": {name: [list(p) for p in curve] for name, curve in curves.items()},
        },
    )


def _inputs(made: TensorProduct, batch: int, channels: int, seed: int) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    three = (made.bilinear.irreps_in1, made.bilinear.irreps_in2)
    return [jnp.asarray(rng.normal(size=(batch, channels, i.dim)), jnp.float32) for i in three]


def _measure(
    name: str,
    label: str,
    made: TensorProduct,
    arrays: Sequence[jax.Array],
    seed: int,
) -> Row:
    x, y = arrays
    forward = _compiled(made)

    @jax.jit
    def gradient(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.grad(lambda x, y: 0.5 * jnp.sum(made(x, y) ** 2), argnums=(0, 1))(x, y)

    got = np.asarray(forward(x, y), np.float64)[:CHECKED]
    exact = _exact(made, *(np.asarray(a[:CHECKED], np.float64) for a in arrays))
    sizes = [np.linalg.norm(np.asarray(a[:CHECKED], np.float64), axis=-1) for a in (x, y)]
    most = np.max(np.linalg.norm(got - exact, axis=-1) / (sizes[0] * sizes[1]))
    return Row(
        map=name,
        method=label,
        error=float(np.linalg.norm(got - exact) / np.linalg.norm(exact)),
        equivariance=equivariance_error(
            forward,
            (made.bilinear.irreps_in1, made.bilinear.irreps_in2),
            made.bilinear.irreps_out,
            key=jax.random.key(seed),
            samples=max(len(x) // 16, 2),
            channels=x.shape[1],
        ),
        bound=float(made.error_bound),
        over_bound=float(most / made.error_bound) if made.error_bound else 0.0,
        expressivity=expressivity(made),
        forward=_milliseconds(forward, x, y),
        gradient=_milliseconds(gradient, x, y),
    )


def _exact(made: TensorProduct, x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """Sum over the paths with e3nn-jax's coefficients in float64, weighted as the map says."""
    bilinear = made.bilinear
    each = np.asarray(bilinear.path_weights(made.weights), np.float64) * bilinear.coefficients
    each = np.broadcast_to(each, (x.shape[1], len(bilinear.triples)))
    z = np.zeros((*x.shape[:2], bilinear.irreps_out.dim))
    for path, weights in zip(bilinear.triples, each.T, strict=True):
        i, j, o = bilinear.block(path)
        l1, l2, l3 = bilinear.degrees(path)
        table = math.sqrt(2 * l3 + 1) * np.asarray(e3nn.clebsch_gordan(l1, l2, l3), np.float64)
        pairs = np.einsum("bci,bcj,ijk->bck", x[..., i], y[..., j], table)
        z[..., o] += weights[:, None] * pairs
    return z


def _compiled(made: TensorProduct) -> Callable[..., jax.Array]:
    return jax.jit(lambda x, y: made(x, y))


def _milliseconds(function: Callable[..., Any], *arrays: jax.Array) -> float:
    """Return the least of several calls after one that compiles."""
    jax.block_until_ready(function(*arrays))
    best = math.inf
    stop = time.perf_counter() + 0.2
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > stop:
            break
    return 1e3 * best


def _checks(rows: Sequence[Row]) -> list[Check]:
    found = []
    for row in rows:
        name = f"{row.map}, {row.method}"
        if "rank" in row.method:
            found.append(Check(f"{name}: error over its certified bound", row.over_bound, 1.0))
        else:
            found.append(Check(f"{name}: error", row.error, EXACT))
            found.append(Check(f"{name}: equivariance error", row.equivariance, EQUIVARIANT))
    return found


def _table(rows: Sequence[Row]) -> Table:
    head = (
        "coupling", "method", "error", "equivariance error", "certified bound", "expressivity",
        "forward, ms", "gradient, ms",
    )  # fmt: skip
    return Table(
        head,
        [
            (
                row.map,
                row.method,
                f"{row.error:.1e}",
                f"{row.equivariance:.1e}",
                f"{row.bound:.1e}" if row.bound else "0",
                str(row.expressivity),
                f"{row.forward:.2f}",
                f"{row.gradient:.2f}",
            )
            for row in rows
        ],
    )


def _draw(path: Path, curves: dict[str, list[tuple[int, float]]], products: int) -> None:
    # A figure of its own, so that no state of pyplot is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for (name, points), colour, marker in zip(curves.items(), plot.COLOURS, "os^", strict=False):
        axis.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name)
    axis.set_yscale("log")
    axis.set_xticks([degree for degree, _ in next(iter(curves.values()))])
    axis.set_xlabel("largest degree L")
    axis.set_ylabel(f"milliseconds, {products:,} products")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, color="0.88", linewidth=0.8)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


CHAPTER = Chapter("products", "One tensor product by every method", 22.0, run)
