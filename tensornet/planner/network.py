"""What is contracted: operands, their indices and sizes, and which of them are constants."""

import dataclasses
import functools
import itertools
import math
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import opt_einsum

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
    """

    terms: tuple[Labels, ...]
    output: Labels
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    constants: tuple[tuple[int, Constant], ...] = ()
    batch: str | None = None

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
        return tuple((self.shapes[p], np.dtype(self.dtypes[p])) for p in self.arguments)

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


def network(
    expression: str,
    shapes: Sequence[Sequence[int]],
    dtypes: Sequence[Any],
    *,
    constants: Mapping[int, Any] | None = None,
    batch: str | None = None,
) -> Network:
    """Read an einsum expression with the shapes and dtypes of its operands.

    Args:
        expression: subscripts; `...` broadcasts, repeated labels in one operand take the
            diagonal, without `->` the output is every label that occurs once, sorted.
        shapes: of the operands that are not constants, in their order.
        dtypes: of the same operands.
        constants: values of further operands by position; the word `"copy"` makes that operand
            the tensor that is one where all its indices agree and zero elsewhere.
        batch: label of the index whose size may change from call to call.

    Raises:
        ValueError: the expression does not fit the operands; the message names the operand,
            the label and the sizes.
        TypeError: an operand's dtype is not numeric.
    """
    given = dict(constants or {})
    inputs, output = _split(expression)
    _check_count(inputs, shapes, given)
    copies = {p for p, value in given.items() if isinstance(value, str)}
    for p in sorted(copies):
        if given[p] != "copy":
            raise ValueError(f'constants[{p}]: expected an array or "copy", got {given[p]!r}')
    values = {p: np.asarray(value) for p, value in given.items() if p not in copies}
    free = iter(shapes)
    every = [
        None if p in copies else tuple(values[p].shape if p in values else next(free))
        for p in range(len(inputs))
    ]
    ellipsis = _ellipsis_labels(inputs, every)
    terms = [
        _expand(p, text, s, ellipsis) for p, (text, s) in enumerate(zip(inputs, every, strict=True))
    ]
    _check_sizes(terms, every, set(ellipsis))
    labels = _output(output, inputs, terms, ellipsis)
    kinds = iter(dtypes)
    types = [
        str(values[p].dtype) if p in values else "" if p in copies else str(np.dtype(next(kinds)))
        for p in range(len(inputs))
    ]
    terms, every, types, labels, values, batch = _merge_copies(
        terms, every, types, labels, values, copies, batch
    )
    for p, name in enumerate(types):
        if not jax.numpy.issubdtype(np.dtype(name), np.number):
            raise TypeError(f"operand {p}: expected numbers, got dtype {name}")
    if batch is not None and not any(batch in term for term in terms):
        raise ValueError(f"batch: expected a label of {expression!r}, got {batch!r}")
    return Network(
        tuple(terms),
        labels,
        tuple(every),
        tuple(types),
        tuple(sorted((p, Constant.of(value)) for p, value in values.items())),
        batch,
    )


def _split(expression: str) -> tuple[list[str], str | None]:
    text = "".join(expression.split())
    left, arrow, right = text.partition("->")
    for part in (left, right):
        if ">" in part or "-" in part or "." in part.replace("...", ""):
            raise ValueError(f"expression: expected einsum subscripts, got {expression!r}")
    if "," in right:
        raise ValueError(f"expression: expected one output, got {right!r}")
    return left.split(","), right if arrow else None


def _check_count(inputs: list[str], shapes: Sequence[Any], given: Mapping[int, Any]) -> None:
    for p in given:
        if not 0 <= p < len(inputs):
            raise ValueError(
                f"constants: the expression has {len(inputs)} operands, got position {p}"
            )
    wanted = len(inputs) - len(given)
    if len(shapes) != wanted:
        known = f" besides {len(given)} constants" if given else ""
        raise ValueError(f"operands: the expression has {wanted}{known}, got {len(shapes)}")


def _ellipsis_labels(inputs: list[str], shapes: Sequence[Shape | None]) -> Labels:
    depth = 0
    for text, shape in zip(inputs, shapes, strict=True):
        if "..." in text and shape is not None:
            depth = max(depth, len(shape) - len(text.replace("...", "")))
    used = {c for text in inputs for c in text}
    symbols = map(opt_einsum.get_symbol, itertools.count())
    fresh = (c for c in itertools.chain(string.ascii_uppercase, symbols) if c not in used)
    return tuple(next(fresh) for _ in range(max(depth, 0)))


def _expand(position: int, text: str, shape: Shape | None, ellipsis: Labels) -> Labels:
    head, dots, tail = text.partition("...")
    if "." in head + tail:
        raise ValueError(f"operand {position}: expected one ellipsis at most, got {text!r}")
    named = len(head) + len(tail)
    if shape is None:
        return (*head, *tail)
    depth = len(shape) - named
    if depth < 0 or (depth and not dots):
        raise ValueError(
            f"operand {position}: {text!r} has {named} indices, got shape {shape} "
            f"of {len(shape)} axes"
        )
    return (*head, *ellipsis[len(ellipsis) - depth :], *tail)


def _check_sizes(
    terms: Sequence[Labels], shapes: Sequence[Shape | None], broadcast: set[str]
) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for position, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        for label, size in zip(term, shape or (), strict=False):
            first, size_there = seen.setdefault(label, (position, size))
            if size == size_there or (label in broadcast and 1 in (size, size_there)):
                if size_there == 1:
                    seen[label] = (position, size)
                continue
            raise ValueError(
                f"operand {position}: index {label!r} has size {size}, "
                f"but size {size_there} in operand {first}"
            )


def _output(
    output: str | None, inputs: list[str], terms: Sequence[Labels], ellipsis: Labels
) -> Labels:
    every = [label for term in terms for label in term]
    if output is None:
        once = sorted(x for x in set(every) - set(ellipsis) if every.count(x) == 1)
        return (*ellipsis, *once)
    head, dots, tail = output.partition("...")
    if "." in head + tail:
        raise ValueError(f"output: expected one ellipsis at most, got {output!r}")
    labels = (*head, *(ellipsis if dots else ()), *tail)
    for label in labels:
        if label not in every:
            raise ValueError(f"output: index {label!r} is in no operand of {','.join(inputs)!r}")
        if labels.count(label) > 1:
            raise ValueError(f"output: expected each index once, got {label!r} twice in {output!r}")
    return labels


def _merge_copies(
    terms: list[Labels],
    shapes: list[Shape | None],
    types: list[str],
    output: Labels,
    values: dict[int, np.ndarray],
    copies: set[int],
    batch: str | None,
) -> Any:
    """Let a copy tensor act: the labels it ties become one, and the operand disappears.

    Where two of its labels are wanted in the output it stays, as an array. Positions keep their
    meaning: an operand that acted is left as the scalar one.
    """
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        sizes.update(zip(term, shape or (), strict=False))
    dtype = next((t for t in types if t), "float32")
    alias: dict[str, str] = {}

    def name(label: str) -> str:
        return alias.get(label, label)

    for p in sorted(copies):
        tied = dict.fromkeys(name(x) for x in terms[p])
        known = {sizes[x] for x in terms[p] if x in sizes}
        if len(known) != 1:
            raise ValueError(
                f"operand {p}: a copy tensor needs one size from the other operands, "
                f"got {sorted(known)} for {''.join(terms[p])!r}"
            )
        size = known.pop()
        sizes.update(dict.fromkeys(terms[p], size))
        wanted = [x for x in tied if x in {name(y) for y in output}]
        if len(wanted) > 1:
            eye = np.zeros((size,) * len(terms[p]), dtype)
            eye[(np.arange(size),) * len(terms[p])] = 1
            values[p], shapes[p], types[p] = eye, eye.shape, dtype
            continue
        target = wanted[0] if wanted else next(iter(tied))
        alias = {x: target if y in tied else y for x, y in alias.items()}
        alias.update({x: target for x in tied if x != target})
        free = not any(target in map(name, t) for q, t in enumerate(terms) if q not in copies)
        if free:  # nothing else holds the index: the tensor is a vector of ones
            values[p], shapes[p], terms[p] = np.ones(size, dtype), (size,), (target,)
        else:
            values[p], shapes[p], terms[p] = np.ones((), dtype), (), ()
        types[p] = dtype
    terms = [tuple(map(name, term)) for term in terms]
    return terms, shapes, types, tuple(map(name, output)), values, batch and name(batch)


def divisors(n: int) -> Iterator[int]:
    """Divisors of `n` above 1, ascending."""
    return (d for d in range(2, n + 1) if n % d == 0)


def volume(labels: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Number of entries of a tensor with these indices."""
    return math.prod(sizes[x] for x in labels)
