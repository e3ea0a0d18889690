"""Einsum subscripts, read together with the operands they are about."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .network import Constant, Labels, Network, Shape
from .pieces import Pieces, expanded, fresh_labels, pieces_of


def network(
    expression: str,
    shapes: Sequence[Any],
    dtypes: Sequence[Any],
    *,
    constants: Mapping[int, Any] | None = None,
    batch: str | None = None,
) -> Network:
    """Read an einsum expression with the shapes and dtypes of its operands.

    Args:
        expression: subscripts; `...` broadcasts, repeated labels in one operand take the
            diagonal, without `->` the output is every label that occurs once, sorted.
        shapes: of the operands that are not constants, in their order. A format stands for
            itself: the network is that of its pieces.
        dtypes: of the same operands; a format has its own.
        constants: values of further operands by position, arrays or formats; the word `"copy"`
            makes that operand the tensor that is one where all its indices agree and zero
            elsewhere.
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
    described = iter(zip(shapes, dtypes, strict=True))
    every: list[Any] = []
    types: list[str] = []
    values: dict[int, np.ndarray] = {}
    formats: dict[int, Pieces] = {}
    for p, text in enumerate(inputs):
        if p in copies:
            every.append(None)
            types.append("")
            continue
        value, kind = (given[p], None) if p in given else next(described)
        pieces = pieces_of(value)
        if pieces is not None:
            formats[p] = pieces = pieces.addressed(text, p)
            every.append(pieces.shape)
            types.append(pieces.dtype)
        elif p in given:
            values[p] = np.asarray(value)
            every.append(values[p].shape)
            types.append(str(values[p].dtype))
        else:
            every.append(tuple(value))
            types.append(str(np.dtype(kind)))
    ellipsis = _ellipsis_labels(inputs, every)
    terms = [
        _expand(p, text, s, ellipsis) for p, (text, s) in enumerate(zip(inputs, every, strict=True))
    ]
    _check_sizes(terms, every, set(ellipsis))
    labels = _output(output, inputs, terms, ellipsis)
    terms, every, types, labels, values, batch = _merge_copies(
        terms, every, types, labels, values, copies, batch
    )
    for p, name in enumerate(types):
        if not jax.numpy.issubdtype(np.dtype(name), np.number):
            raise TypeError(f"operand {p}: expected numbers, got dtype {name}")
    if batch is not None and not any(batch in term for term in terms):
        raise ValueError(f"batch: expected a label of {expression!r}, got {batch!r}")
    found = Network(
        tuple(terms),
        labels,
        tuple(every),
        tuple(types),
        tuple(sorted((p, Constant.of(value)) for p, value in values.items())),
        batch,
    )
    return expanded(found, formats, known=given) if formats else found


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
    fresh = fresh_labels(c for text in inputs for c in text)
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
