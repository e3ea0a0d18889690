"""How a spectral layer is computed: its programs, and the choice between them by cost."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensornet.formats import CP
from tensornet.formats.base import FactoredTensor
from tensornet.planner import Plan, Work, cheapest, contract, plan

from .modes import kept
from .transform import MODES, Field, by_fft, by_matrices

TRANSFORMS = ("dft", "fft")
CONTRACTIONS = ("dense", "factorized", "rebuilt", "terms")
METHODS = tuple(f"{t}+{c}" for t in TRANSFORMS for c in CONTRACTIONS)

# z[e] = sum over c, d of x[c] w[d] COMPLEX[c, d, e] multiplies complex numbers.
COMPLEX = np.zeros((2, 2, 2))
COMPLEX[[0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]] = (1, -1, 1, 1)
_RANKS = "ABCDEFGHJKLMNOPQRSTUVW"


class Layer(NamedTuple):
    """What a program is made for.

    Attributes:
        kind: the weight's format, "" where it is an array.
        terms: of each array of the weight the names of its axes, the modes counted from 0.
        shapes: of these arrays.
        batch: how many fields.
        modes: kept of each axis.
        grid: its points.
        channels: of the input and of the output.
        separable: whether each channel has its own weight.
        dtype: of the fields.
        low: in which frequencies are multiplied.
        gradients: whether those count.
        device: kind of device.
    """

    kind: str
    terms: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]
    batch: int
    modes: tuple[int, ...]
    grid: tuple[int, ...]
    channels: tuple[int, int]
    separable: bool
    dtype: str
    low: str
    gradients: bool
    device: str

    @classmethod
    def of(cls, weight: Any, **fields: Any) -> "Layer":
        """Describe a layer from its weight and the rest."""
        if isinstance(weight, FactoredTensor):
            pieces = weight.pieces()
            shapes = tuple(tuple(a.shape) for a in pieces.arrays)
            return cls(type(weight).__name__, pieces.terms, shapes, **fields)
        return cls("", (tuple(range(weight.ndim)),), (tuple(weight.shape),), **fields)

    @property
    def sizes(self) -> dict[str, int]:
        """Of the labels of the spectrum."""
        sizes = dict(zip(MODES, kept(self.modes), strict=False))
        return sizes | {"b": self.batch, "i": self.channels[0], "o": self.channels[1], "c": 2}

    @property
    def last(self) -> int:
        """The position of the mode that holds the pairs."""
        return len(self.modes) - 1

    def field(self, channels: int) -> Field:
        """The fields on one side."""
        return Field(
            *(self.batch, channels, self.grid, self.modes),
            *(self.dtype, self.gradients, self.device),
        )

    def labelled(self) -> tuple[list[str], list[tuple[int, ...]]]:
        """Labels and shapes of the weight's arrays, the pairs as an axis d of their own."""
        names: dict[Any, str] = dict(enumerate(MODES[: self.last + 1]))
        names[self.last] += "d"
        names |= (
            {self.last + 1: "i"} if self.separable else {self.last + 1: "i", self.last + 2: "o"}
        )
        ranks = dict.fromkeys(n for term in self.terms for n in term if n not in names)
        names |= dict(zip(ranks, _RANKS, strict=False))
        labels, shapes = [], []
        for term, shape in zip(self.terms, self.shapes, strict=True):
            labels.append("".join(names[n] for n in term))
            split = [
                (m // 2, 2) if n == self.last else (m,) for n, m in zip(term, shape, strict=True)
            ]
            shapes.append(tuple(m for part in split for m in part))
        return labels, shapes

    def product(self, expression: str, *shapes: Any, **options: Any) -> Plan:
        """Plan a contraction of frequencies."""
        return plan(
            expression,
            *shapes,
            batch="b" if "b" in expression else None,
            dtype=self.low,
            gradients=self.gradients,
            device=self.device,
            **options,
        )


class Contraction(NamedTuple):
    """One way to multiply frequencies by the weight.

    Attributes:
        layout: the axes of the spectrum, with i for the channels; the result has the same.
        cost: what `cheapest` compares.
        run: takes the spectrum and the weight's arrays.
    """

    layout: str
    cost: tuple[Any, ...]
    run: Callable[..., Array]


class Program(NamedTuple):
    """A whole layer without its bias.

    Attributes:
        cost: what `cheapest` compares.
        run: takes fields `[batch, in, *grid]`, the weight, and the name of an axis of devices where
            the fields are slabs.
    """

    cost: tuple[Any, ...]
    run: Callable[..., Array]


@lru_cache(maxsize=1024)
def choose(layer: Layer, method: str, sharded: bool = False) -> tuple[str, Program, str]:
    """Return the program expected to be the fastest (or that of a name), and a table of all.

    Raises:
        ValueError: a method that the weight, or a split field, does not allow.
    """
    found = programs(layer, sharded=sharded)
    if method != "auto":
        if method not in found:
            what = f"a {layer.kind or 'dense'} weight{' and a split field' if sharded else ''}"
            raise ValueError(f"method: expected one of {tuple(found)} for {what}, got {method!r}")
        found = {method: found[method]}
    name, _, table = cheapest({k: p.cost for k, p in found.items()}, device=layer.device)
    return name, found[name], table


def programs(layer: Layer, *, sharded: bool = False) -> dict[str, Program]:
    """All programs by name; of a split field those that need no more than sums over devices."""
    transforms = {"dft": by_matrices, "fft": by_fft}
    if sharded:
        del transforms["fft"]
    found = {}
    for name, contraction in _contractions(layer).items():
        for transform, make in transforms.items():
            there, _ = make(layer.field(layer.channels[0]), contraction.layout)
            _, back = make(layer.field(layer.channels[1]), contraction.layout)
            cost = (*there.cost, *contraction.cost, *back.cost)
            run = _chain(layer, there.run, contraction.run, back.run)
            found[f"{transform}+{name}"] = Program(cost, run)
    return found


def _chain(layer: Layer, there: Any, multiply: Any, back: Any) -> Callable[..., Array]:
    def run(x: Array, weight: Any, shard: str | None) -> Array:
        split = {} if shard is None else {"shard": shard}
        arrays = weight.pieces().arrays if isinstance(weight, FactoredTensor) else (weight,)
        arrays = [a.reshape(s) for a, s in zip(arrays, layer.labelled()[1], strict=True)]
        z = there(x, **split).astype(arrays[0].dtype)
        return back(multiply(z, arrays).astype(x.dtype), **split)

    return run


def _contractions(layer: Layer) -> dict[str, Contraction]:
    labels, shapes = layer.labelled()
    modes = MODES[: layer.last + 1]
    out = "i" if layer.separable else "o"
    sizes = layer.sizes
    # Modes first: a product for each frequency, of channels.
    layout = f"{modes}cbi"
    x, y = layout, f"{modes}eb{out}"
    spectrum = [sizes[n] for n in layout]
    constant = {"constants": {len(labels) + 1: COMPLEX.astype(layer.low)}}
    whole = layer.product(f"{x},{','.join(labels)},cde->{y}", spectrum, *shapes, **constant)

    def direct(z: Array, arrays: Any) -> Array:
        return whole(z, *arrays)

    if not layer.kind:
        return {"dense": Contraction(layout, (whole,), direct)}
    found = {"factorized": Contraction(layout, (whole,), direct)}
    dense = f"{modes}di" + ("" if layer.separable else "o")
    rebuilding = layer.product(f"{','.join(labels)}->{dense}", *shapes)
    shape = [(sizes | {"d": 2})[n] for n in dense]
    constant = {"constants": {2: COMPLEX.astype(layer.low)}}
    product = layer.product(f"{x},{dense},cde->{y}", spectrum, shape, **constant)

    def rebuilt(z: Array, arrays: Any) -> Array:
        return product(z, rebuilding(*arrays))

    found["rebuilt"] = Contraction(layout, (rebuilding, product), rebuilt)
    if layer.kind == CP.__name__ and not layer.separable:
        found["terms"] = _terms(layer)
    return found


def _terms(layer: Layer) -> Contraction:
    """CP term by term: into the terms, times a number of each frequency and term, out of them."""
    sizes, rank = layer.sizes, layer.shapes[0][0]
    modes = MODES[: layer.last + 1]
    frequencies = math.prod(sizes[n] for n in modes)
    rows = 2 * layer.batch * frequencies
    into = layer.product("bi,iR->bR", (rows, sizes["i"]), (sizes["i"], rank))
    out = layer.product("bR,oR->bo", (rows, rank), (sizes["o"], rank))
    factors = ",".join(f"{n}R" for n in modes[:-1])
    expression = f"R,{factors}{',' if factors else ''}{modes[-1]}dR->d{modes}R"
    size = np.dtype(jnp.dtype(layer.low)).itemsize
    passes = 3 if layer.gradients else 1
    # Three arrays of the rows' size are read or written by each pass, with few operations.
    loop = Work(passes * 3 * rows * rank, passes * 3 * size * rows * rank, efficiency=0.05)

    def run(z: Array, arrays: Any) -> Array:
        weights, *factors, a, b = arrays
        number = contract(expression, weights, *factors).reshape(2, frequencies, rank)
        re, im = (_for_each(part, z.shape[1]) for part in number)
        t = [into(part.reshape(-1, part.shape[-1]), a).reshape(re.shape) for part in z]
        products = (t[0] * re - t[1] * im, t[0] * im + t[1] * re)
        found = [out(p.reshape(-1, rank), b).reshape(*z.shape[1:-1], -1) for p in products]
        return jnp.stack(found)

    return Contraction(f"cb{modes}i", (into, out, loop), run)


def _for_each(x: Array, batch: int) -> Array:
    """Repeat an array for every member of a batch.

    The transposed sum is written out as a tree, which XLA fuses; its own sum along a leading axis
    is many times slower on a CPU.
    """

    def repeat(_: Any, x: Array) -> Array:
        return jnp.broadcast_to(x, (batch, *x.shape))

    def add(_: Any, g: Array) -> Array:
        while len(g) > 1:
            half = len(g) // 2
            odd = g[2 * half :]
            g = g[:half] + g[half : 2 * half]
            g = jnp.concatenate([g, odd]) if len(odd) else g
        return g[0]

    return jax.custom_derivatives.linear_call(repeat, add, (), x)
