"""One tensor product, ours and the peers': the same map, the same numbers, each in its own layout.

A problem is a map of irreps of degrees 0 to L, many channels, each multiplied with its own. What
is timed is the product, or the gradient of half its squared norm with respect to both inputs.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np

import equivariant
from equivariant.bilinear import BilinearMap

from .measure import Program

HIGHEST = jax.lax.Precision.HIGHEST
EXACT = ("clebsch-gordan", "gaunt-grid", "gaunt-fourier")
_CHECKED = 4  # rows of the batch that are compared with numpy's float64


@dataclasses.dataclass(frozen=True)
class Problem:
    """A product of natural irreps (0e+1o+2e+...) up to a degree.

    Attributes:
        degree: L, of both inputs and the result.
        paths: `"even"`, to natural irreps, or `"all"`, to those of both parities.
        coupling, weights: as of `BilinearMap`.
        batch, channels: arrays are [batch, channels, (L + 1)^2].
        gradients: time the gradient, not the product alone.
        even: irreps of even parity alone (0e+1e+2e+...) instead, whose tensors have exact CP
            forms that come with the package.
    """

    degree: int
    paths: str = "even"
    coupling: str = "gaunt"
    weights: str | None = "per-degree"
    batch: int = 256
    channels: int = 32
    gradients: bool = False
    even: bool = False

    @property
    def name(self) -> str:
        """Return what rows call it."""
        kind = "Gaunt" if self.coupling == "gaunt" else "Clebsch-Gordan"
        what = "gradient" if self.gradients else "forward"
        size = f"{self.batch} x {self.channels}"
        return f"{kind}, {self.paths} paths, L={self.degree}, {size}, {what}"

    @property
    def irreps(self) -> tuple[str, str, str]:
        """Return the irreps of both inputs and of the result."""
        if self.even:
            alike = "+".join(f"{n}e" for n in range(self.degree + 1))
            return alike, alike, alike
        natural = [f"{n}{'eo'[n % 2]}" for n in range(self.degree + 1)]
        other = [f"{n}{'oe'[n % 2]}" for n in range(1, self.degree + 1)]
        out = natural if self.paths == "even" else natural + other
        return "+".join(natural), "+".join(natural), "+".join(out)

    def map(self) -> BilinearMap:
        """Return what is computed."""
        return BilinearMap(*self.irreps, self.paths, self.coupling, self.weights)

    def product(self, method: str = "auto", **options: Any) -> Any:
        """Return our product.

        Raises:
            ValueError: the method cannot implement the map.
        """
        return equivariant.TensorProduct(
            *self.irreps,
            paths=self.paths,
            coupling=self.coupling,
            weights=self.weights,
            channels=self.channels,
            method=method,
            key=jax.random.key(0),
            **options,
        )

    def arrays(self, dtype: str = "float32") -> tuple[np.ndarray, ...]:
        """Return x and y, [batch, channels, d], and one channel's weights times so many."""
        rng = np.random.default_rng(0)
        made = self.map()
        x, y = (
            rng.normal(size=(self.batch, self.channels, irreps.dim)).astype(dtype)
            for irreps in (made.irreps_in1, made.irreps_in2)
        )
        shape = (self.channels, *(made.weight_shape or ()))
        return x, y, rng.uniform(0.5, 1.5, shape).astype(dtype)

    def path_weights(self) -> np.ndarray:
        """Return w_p c_p of each channel, [channels, path]: what peers weight paths by."""
        made = self.map()
        weights = None if made.weight_shape is None else jnp.asarray(self.arrays()[2])
        each = np.asarray(made.path_weights(weights), np.float64) * made.coefficients
        return np.broadcast_to(each, (self.channels, len(made.triples)))

    def judge(self, back: Callable[[Any], Any]) -> Callable[[Any], dict[str, float]]:
        """Return what compares a result with numpy's float64, on some rows.

        Args:
            back: takes one array of a peer's layout to [batch, channels, d].
        """

        def compare(result: Any) -> dict[str, float]:
            parts = result if self.gradients else (result,)
            pairs = [
                (np.asarray(back(part), np.float64)[:_CHECKED], exact)
                for part, exact in zip(parts, _exact(self), strict=True)
            ]
            wrong = np.sqrt(sum(np.sum((got - exact) ** 2) for got, exact in pairs))
            size = np.sqrt(sum(np.sum(exact**2) for _, exact in pairs))
            # Rounding of one sum or another is no difference between methods.
            return {"error": max(float(wrong / size), 1e-6)}

        return compare

    def timed(self, function: Callable[..., jax.Array]) -> Callable[..., Any]:
        """Return the function of x, y and more that is timed, not compiled yet."""
        if not self.gradients:
            return function

        def loss(x: Any, y: Any, *more: Any) -> jax.Array:
            return 0.5 * jnp.sum(function(x, y, *more) ** 2)

        return jax.grad(loss, argnums=(0, 1))

    def program(
        self,
        name: str,
        function: Callable[..., jax.Array],
        *operands: Any,
        back: Callable[[Any], Any] = lambda z: z,
    ) -> Program:
        """Return the program that is timed."""
        run = jax.jit(self.timed(function))
        arrays = [jnp.asarray(a) for a in operands]
        return Program(name, lambda: run(*arrays), self.judge(back))

    # Programs -----------------------------------------------------------------------------

    def ours(self, method: str = "auto", name: str = "", **options: Any) -> Program:
        """Our product."""
        made = self.product(method, **options)
        x, y, w = self.arrays()
        operands = (x, y) if made.bilinear.weight_shape is None else (x, y, w)
        return self.program(name or f"ours, {method}", lambda *a: made(*a), *operands)

    def e3nn(self) -> Program:
        """e3nn-jax's product, weighted by path and summed by irrep."""
        x, y, _ = self.arrays()
        return self.program("e3nn-jax", self.e3nn_function(), x, y, *self.by_irrep())

    def by_irrep(self) -> list[np.ndarray]:
        """Return the path weights of each irrep of the result, [channels, paths to it]."""
        made, every = self.map(), self.path_weights()
        return [
            every[:, [k for k, path in enumerate(made.triples) if path.out == o]].astype("float32")
            for o in range(len(made.irreps_out))
        ]

    def e3nn_function(self) -> Callable[..., jax.Array]:
        """Return e3nn-jax's product as a function of x, y and the weights of `by_irrep`."""
        first, second, out = (e3nn.Irreps(irreps) for irreps in self.irreps)
        wanted = [ir for _, ir in out]
        plain = self.weights is None

        def run(x: jax.Array, y: jax.Array, *weights: jax.Array) -> jax.Array:
            z = e3nn.tensor_product(
                e3nn.IrrepsArray(first, x), e3nn.IrrepsArray(second, y), filter_ir_out=wanted
            )
            chunks = {ir: chunk for (_, ir), chunk in zip(z.irreps, z.chunks, strict=True)}
            parts = [
                chunks[ir].sum(-2)
                if plain
                else jnp.einsum("bcui,cu->bci", chunks[ir], w, precision=HIGHEST)
                for ir, w in zip(wanted, weights, strict=True)
            ]
            return jnp.concatenate(parts, -1)

        return run

    def einsum_paths(self) -> Program:
        """One `jnp.einsum` a pair of irreps, channels last, y first contracted with the table."""
        made = self.map()
        slices = [i.slices() for i in (made.irreps_in1, made.irreps_in2, made.irreps_out)]
        tables: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
        plain = BilinearMap(*self.irreps, self.paths, "clebsch-gordan")
        for k, path in enumerate(made.triples):
            table = plain.path_tensor(path).astype("float32")
            tables.setdefault(path[:2], []).append((k, table))
        outs = [path.out for path in made.triples]
        weights = np.ascontiguousarray(self.path_weights().T.astype("float32"))
        unit = self.weights is None

        def run(x: jax.Array, y: jax.Array, w: jax.Array) -> jax.Array:
            parts: dict[int, jax.Array] = {}
            for (i, j), paths in tables.items():
                joined = np.concatenate([table for _, table in paths], 2)
                half = jnp.einsum("bjc,ijk->bikc", y[:, slices[1][j]], joined, precision=HIGHEST)
                z = jnp.einsum("bic,bikc->bkc", x[:, slices[0][i]], half, precision=HIGHEST)
                start = 0
                for k, table in paths:
                    part = z[:, start : start + table.shape[2]]
                    start += table.shape[2]
                    part = part if unit else part * w[k]
                    parts[outs[k]] = parts[outs[k]] + part if outs[k] in parts else part
            return jnp.concatenate([parts[o] for o in sorted(parts)], 1)

        return self._channel_last("jnp.einsum by pairs", run, weights)

    def einsum_dense(self) -> Program:
        """One `jnp.einsum` with the whole tensor, channels last, weights on inputs and result."""
        made = self.map()
        table = made.tensor().astype("float32")
        n1, n2, _ = made.sizes
        dims = [
            [ir.dim for _, ir in i] for i in (made.irreps_in1, made.irreps_in2, made.irreps_out)
        ]
        weights = self.arrays()[2].T if self.weights == "per-degree" else np.ones(0, "float32")

        def run(x: jax.Array, y: jax.Array, w: jax.Array) -> jax.Array:
            if w.ndim > 1:
                a, b, c = (
                    jnp.repeat(part, np.asarray(d), axis=0)
                    for part, d in zip(jnp.split(w, [n1, n1 + n2]), dims, strict=True)
                )
                x, y = x * a, y * b
            z = jnp.einsum("bic,bjc,ijk->bkc", x, y, table, precision=HIGHEST)
            return z * c if w.ndim > 1 else z

        return self._channel_last("jnp.einsum, one", run, weights)

    def _channel_last(self, name: str, run: Callable[..., jax.Array], weights: Any) -> Program:
        x, y, _ = self.arrays()
        return self.program(
            name,
            run,
            np.ascontiguousarray(x.swapaxes(1, 2)),
            np.ascontiguousarray(y.swapaxes(1, 2)),
            weights,
            back=lambda z: np.asarray(z).swapaxes(1, 2),
        )


def implementations(problem: Problem, methods: Sequence[str] = EXACT) -> dict[str, Any]:
    """Return our products by method, of those that can implement the map."""
    found = {}
    for method in methods:
        try:
            found[method] = problem.product(method)
        except ValueError:  # says which paths it cannot; the other methods are measured
            continue
    return found


@functools.lru_cache(maxsize=2)
def _exact(problem: Problem) -> tuple[np.ndarray, ...]:
    made = problem.map()
    x, y, w = (a.astype(np.float64) for a in problem.arrays())
    x, y = x[:_CHECKED], y[:_CHECKED]
    shape = (problem.channels, len(made.triples))
    each = np.ones(shape)
    if problem.weights == "per-degree":
        n1, n2, _ = made.sizes
        i, j, o = np.array(made.triples).T
        each = w[:, i] * w[:, n1 + j] * w[:, n1 + n2 + o]
    elif problem.weights is not None:
        raise ValueError(f"weights: expected None or 'per-degree', got {problem.weights!r}")
    z = np.zeros((*x.shape[:2], made.irreps_out.dim))
    back = [np.zeros_like(x), np.zeros_like(y)]
    paths = [(each[:, k], path) for k, path in enumerate(made.triples)]
    for w_p, path in paths:
        i, j, o = made.block(path)
        term = np.einsum("bci,bcj,ijk->bck", x[..., i], y[..., j], made.path_tensor(path))
        z[..., o] += w_p[:, None] * term
    if not problem.gradients:
        return (z,)
    for w_p, path in paths:
        i, j, o = made.block(path)
        table, weighted = made.path_tensor(path), w_p[:, None] * z[..., o]
        back[0][..., i] += np.einsum("bck,bcj,ijk->bci", weighted, y[..., j], table)
        back[1][..., j] += np.einsum("bck,bci,ijk->bcj", weighted, x[..., i], table)
    return tuple(back)
