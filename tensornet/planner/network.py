"""What is contracted: operands, their indices and sizes, and which of them are constants."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Labels = tuple[str, ...]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant operand held by value, so that plans can be hashed, compared and saved."""

    shape: Shape
    dtype: str
    data: bytes = dataclasses.field(repr=False)

    @classmethod
    def of(cls, value: Any) -> "Constant":
        """Hold the values of an array."""
        array = np.asarray(value, order="C")
        return cls(array.shape, str(array.dtype), array.tobytes())

    @functools.cached_property
    def value(self) -> np.ndarray:
        """The array, read-only."""
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape)

    @functools.cached_property
    def nonzeros(self) -> int:
        """How many entries differ from zero."""
        return int(np.count_nonzero(self.value))


@dataclasses.dataclass(frozen=True)
class Given:
    """How a contraction is asked for where operands are formats, whose pieces are contracted.

    Attributes:
        expression: the einsum subscripts in which a format is one operand.
        kinds: of every operand of that expression, `"array"` or the name of the format.
        owners: for every operand of the network, the operand of the expression it belongs to.
        terms: the labels of every operand of the network as it is given. Where a format numbers
            several indices as one axis, others that hold this axis are reshaped.
        shapes: in the order of the same labels.
        merged: how many indices of the network each axis of the result consists of.
    """

    expression: str
    kinds: tuple[str, ...]
    owners: tuple[int, ...]
    terms: tuple[Labels, ...]
    shapes: tuple[Shape, ...]
    merged: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Network:
    """A contraction described once: who holds which index, and how long each index is.

    Attributes:
        terms: the index labels of every operand, in the order of its axes.
        output: the labels of the result.
        shapes: the shape of every operand. An axis of length 1 may stand for a longer index
            where it came from an ellipsis (broadcasting).
        dtypes: of every operand.
        constants: pairs (position, value) of the operands known now.
        batch: the label whose size may differ from call to call, if any.
        given: how it was asked for, where that is not in these terms.
    """

    terms: tuple[Labels, ...]
    output: Labels
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    constants: tuple[tuple[int, Constant], ...] = ()
    batch: str | None = None
    given: Given | None = None

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """The length of every index."""
        sizes: dict[str, int] = {}
        for term, shape in zip(self.terms, self.shapes, strict=True):
            for label, size in zip(term, shape, strict=True):
                # Broadcasting replaces a length of 1, also by an empty axis.
                if sizes.get(label, 1) == 1:
                    sizes[label] = size
        return sizes

    @functools.cached_property
    def dtype(self) -> str:
        """The dtype of the result."""
        return str(jax.numpy.result_type(*(np.dtype(d) for d in dict.fromkeys(self.dtypes))))

    @property
    def itemsize(self) -> int:
        """Bytes per entry of the result."""
        return np.dtype(self.dtype).itemsize

    @property
    def expression(self) -> str:
        """The einsum subscripts."""
        return einsum(self.terms, self.output)

    @property
    def output_shape(self) -> Shape:
        """The shape of the result."""
        return tuple(self.sizes[label] for label in self.output)

    @property
    def arguments(self) -> tuple[int, ...]:
        """Positions of the operands that are given at the call."""
        known = {position for position, _ in self.constants}
        return tuple(p for p in range(len(self.terms)) if p not in known)

    @functools.cached_property
    def signature(self) -> tuple[tuple[Shape, Any], ...]:
        """Shape and dtype of every operand that is given at the call."""
        shapes = self.given.shapes if self.given else self.shapes
        return tuple((shapes[p], np.dtype(self.dtypes[p])) for p in self.arguments)

    def name(self, position: int) -> str:
        """Name an operand as the caller counts: `"2"`, or `"2.1"` for a piece of a format."""
        if self.given is None:
            return str(position)
        owners = self.given.owners
        owner = owners[position]
        piece = f".{position - owners.index(owner)}" if owners.count(owner) > 1 else ""
        return f"{owner}{piece}"

    def axes(self, position: int) -> Labels:
        """Labels of one operand without its axes of length 1, which carry no work."""
        pairs = zip(self.terms[position], self.shapes[position], strict=True)
        return tuple(label for label, n in pairs if n != 1 or label == self.batch)

    @functools.cached_property
    def kept_output(self) -> Labels:
        """Labels of the result without those of length 1."""
        return tuple(x for x in self.output if self.sizes[x] != 1 or x == self.batch)

    def sliced(self, counts: Mapping[str, int]) -> "Network":
        """The network of one slice, each index of `counts` cut into that many equal parts."""
        shapes = tuple(
            tuple(n // counts.get(x, 1) if n > 1 else n for x, n in zip(term, shape, strict=True))
            for term, shape in zip(self.terms, self.shapes, strict=True)
        )
        return dataclasses.replace(self, shapes=shapes) if counts else self


def einsum(terms: Sequence[Labels], output: Labels) -> str:
    """Write labels as einsum subscripts."""
    return ",".join("".join(term) for term in terms) + "->" + "".join(output)


def divisors(n: int) -> Iterator[int]:
    """Divisors of `n` above 1, ascending."""
    return (d for d in range(2, n + 1) if n % d == 0)


def volume(labels: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Number of entries of a tensor with these indices."""
    return math.prod(sizes[x] for x in labels)
