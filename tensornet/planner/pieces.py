"""Operands that are networks themselves: a format is contracted as the pieces it is made of.

A format offers its pieces by a method `pieces()` and is in turn unknown here, so that the order of
contraction is searched through it: nothing is made dense that need not be.
"""

import dataclasses
import itertools
import math
import string
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum

from .network import Constant, Given, Labels, Network, Shape

Names = tuple[Hashable, ...]


class Pieces(NamedTuple):
    """A tensor as the contraction of smaller ones, in names that mean something only in here.

    Attributes:
        arrays: the pieces, or what describes them (`jax.ShapeDtypeStruct`).
        terms: for each piece, the names of its axes. Those of one name are one index.
        axes: for each axis of the tensor, the names it consists of: one, or several that are
            numbered as one axis, the last running fastest. All other names are summed over.
        kind: the name of the format; `pieces_of` fills it in.
    """

    arrays: tuple[Any, ...]
    terms: tuple[Names, ...]
    axes: tuple[Names, ...]
    kind: str = ""

    @property
    def sizes(self) -> dict[Hashable, int]:
        """The length of every index."""
        return {
            name: n
            for term, array in zip(self.terms, self.arrays, strict=True)
            for name, n in zip(term, array.shape, strict=True)
        }

    @property
    def shape(self) -> Shape:
        """The shape of the tensor."""
        sizes = self.sizes
        return tuple(math.prod(sizes[name] for name in axis) for axis in self.axes)

    @property
    def dtype(self) -> str:
        """The dtype of the tensor."""
        return _dtype(self.arrays[0])

    def addressed(self, text: str, position: int) -> "Pieces":
        """The pieces as subscripts see them: with as many labels as names, each has its own.

        Raises:
            ValueError: a piece has another number of axes than names.
        """
        for k, (term, array) in enumerate(zip(self.terms, self.arrays, strict=True)):
            if len(term) != len(array.shape):
                raise ValueError(
                    f"operand {position}: array {k} of a {self.kind} has {len(term)} indices, got "
                    f"shape {array.shape}; a batch that vmap made is contracted under vmap"
                )
        names = _joined(self.axes)
        split = "..." not in text and len(text) == len(names)
        return self._replace(axes=tuple((name,) for name in names)) if split else self


def pieces_of(x: Any) -> Pieces | None:
    """The pieces of a format, or None for everything else."""
    if not hasattr(type(x), "pieces"):
        return None
    pieces: Pieces = x.pieces()
    return pieces._replace(kind=type(x).__name__)


def flat(operands: Sequence[Any]) -> tuple[list[jax.Array], tuple[Any, ...]]:
    """Return the arrays of all operands, and for each format its place, kind and structure."""
    arrays, formats = [], []
    for p, x in enumerate(operands):
        if isinstance(x, jax.Array):
            arrays.append(x)
            continue
        pieces = pieces_of(x)
        if pieces is None:
            arrays.append(jnp.asarray(x))
        else:
            arrays += pieces.arrays
            formats.append((p, pieces.kind, pieces.terms, pieces.axes))
    return arrays, tuple(formats)


def check_formats(network: Network, formats: Sequence[Any], operands: int) -> None:
    """Require as many operands as planned, and formats where and of the kind they were planned."""
    kinds = dict.fromkeys(network.arguments, ("array", 1))
    if network.given is not None:
        owners = [network.given.owners[p] for p in network.arguments]
        kinds = {p: (network.given.kinds[p], owners.count(p)) for p in owners}
    if operands != len(kinds):
        raise ValueError(f"operands: planned for {len(kinds)}, got {operands}")
    got = {place: (kind, len(terms)) for place, kind, terms, _ in formats}
    for place, (p, (kind, count)) in enumerate(kinds.items()):
        other, pieces = got.get(place, ("array", 1))
        if other != kind:
            raise TypeError(f"operand {p}: planned for {_a(kind)}, got {_a(other)}")
        if pieces != count:
            raise ValueError(
                f"operand {p}: planned for {_a(kind)} of {count} arrays, got one of {pieces}"
            )


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def expanded(found: Network, formats: Mapping[int, Pieces], known: Collection[int]) -> Network:
    """The network of the pieces, from that in which every format is one operand.

    Args:
        found: its operands at the positions of `formats` have those shapes and dtypes.
        formats: by position.
        known: positions of constants; a format there becomes constants.

    Raises:
        ValueError: operands divide an index in different ways.
    """
    parts = _divided(found, formats)
    fresh = fresh_labels(label for term in found.terms for label in term)
    names = {label: tuple(next(fresh) for _ in sizes) for label, sizes in parts.items()}
    values = dict(found.constants)
    held: list[_Held] = []
    for p, term in enumerate(found.terms):
        if p not in formats:
            held.append(_Held(p, term, found.shapes[p], found.dtypes[p], values.get(p)))
            continue
        pieces = formats[p]
        labels: dict[Hashable, str] = {}
        for label, axis in zip(term, pieces.axes, strict=True):
            labels.update(zip(axis, (label,) if len(axis) == 1 else names[label], strict=True))
        inside = {name: None for piece in pieces.terms for name in piece if name not in labels}
        labels.update(zip(inside, fresh, strict=False))
        for piece, array in zip(pieces.terms, pieces.arrays, strict=True):
            own = tuple(labels[name] for name in piece)
            value = Constant.of(array) if p in known else None
            held.append(_Held(p, own, tuple(array.shape), _dtype(array), value))

    def lengths(label: str, n: int) -> Shape:
        sizes = parts.get(label, (n,))
        return sizes if n != 1 else (1,) * len(sizes)

    shapes = [_joined(map(lengths, part.term, part.shape)) for part in held]
    return Network(
        terms=tuple(_joined(names.get(x, (x,)) for x in part.term) for part in held),
        output=_joined(names.get(x, (x,)) for x in found.output),
        shapes=tuple(shapes),
        dtypes=tuple(part.dtype for part in held),
        constants=tuple(
            (k, dataclasses.replace(part.value, shape=shapes[k]))
            for k, part in enumerate(held)
            if part.value is not None
        ),
        batch=found.batch,
        given=Given(
            expression=found.expression,
            kinds=tuple(
                formats[p].kind if p in formats else "array" for p in range(len(found.terms))
            ),
            owners=tuple(part.owner for part in held),
            terms=tuple(part.term for part in held),
            shapes=tuple(part.shape for part in held),
            merged=tuple(len(names.get(x, (x,))) for x in found.output),
        ),
    )


class _Held(NamedTuple):
    """One operand of the network to be, as it is given: which one of the caller's it belongs to."""

    owner: int
    term: Labels
    shape: Shape
    dtype: str
    value: Constant | None


def _joined(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(itertools.chain.from_iterable(parts))


def _divided(found: Network, formats: Mapping[int, Pieces]) -> dict[str, Shape]:
    """The sizes of the parts of every index that a format divides."""
    parts: dict[str, Shape] = {}
    first: dict[str, int] = {}
    for p, pieces in formats.items():
        for label, axis in zip(found.terms[p], pieces.axes, strict=True):
            if len(axis) == 1:
                continue
            sizes = tuple(pieces.sizes[name] for name in axis)
            if label == found.batch:
                raise ValueError(
                    f"batch: index {label!r} is divided into {sizes} by operand {p}, so its size "
                    f"cannot change"
                )
            if math.prod(sizes) != found.sizes[label]:
                raise ValueError(
                    f"operand {p}: index {label!r} of size 1 is divided into {sizes}, so it cannot "
                    f"be broadcast to size {found.sizes[label]}"
                )
            if parts.setdefault(label, sizes) != sizes:
                raise ValueError(
                    f"operand {p}: index {label!r} is divided into {sizes}, but into "
                    f"{parts[label]} in operand {first[label]}"
                )
            first.setdefault(label, p)
    return parts


def fresh_labels(used: Iterable[str]) -> Iterator[str]:
    """Labels that are not used, capitals first."""
    seen = set(used)
    for label in itertools.chain(
        string.ascii_uppercase, map(opt_einsum.get_symbol, itertools.count())
    ):
        if label not in seen:
            seen.add(label)
            yield label


def divided(network: Network, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Divide the axes of the arrays of a call as the network has them."""
    if network.given is None:
        return list(arrays)
    found = []
    for p, array in zip(network.arguments, arrays, strict=True):
        term, own = network.given.terms[p], network.terms[p]
        if len(term) < len(own):
            sizes = dict(zip(own, network.shapes[p], strict=True))
            sizes |= {x: n for x, n in zip(term, array.shape, strict=True) if x in sizes}
            array = array.reshape([sizes[x] for x in own])
        found.append(array)
    return found


def merged(network: Network, value: jax.Array) -> jax.Array:
    """Merge axes of the result to those that were asked for."""
    if network.given is None or len(network.given.merged) == len(network.output):
        return value
    sizes = iter(value.shape)
    return value.reshape(
        [math.prod(itertools.islice(sizes, count)) for count in network.given.merged]
    )


def _dtype(array: Any) -> str:
    return str(np.dtype(jax.dtypes.canonicalize_dtype(array.dtype)))
