"""Save and load pytrees in one file: a JSON header, then equinox leaves; never pickle."""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .container import FileFormatError as FileFormatError
from .container import read_container, read_container_header, write_container
from .status import Status

_PACKAGES = ("tensornet", "equivariant", "solvers")  # whose modules a file may name
_SCALARS = (bool, int, float, complex)
_SCALAR_NAMES = ("bool", "int", "float", "complex")
_KEY_NAMES = {"fry": "threefry2x32", "rbg": "rbg", "urbg": "unsafe_rbg"}  # in dtypes, in jax.random
_ENUMERATION_ITEM: type = type(Status.converged)


class Leaf(NamedTuple):
    """What the header says of one leaf: where it sits in the tree, and its type."""

    path: str
    type: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        kind: what the tree is, `"CP"` for one.
        version: version of this kind's layout.
        gauntax_version: version of the library that wrote the file.
        hyperparameters: what the writer added, JSON.
        leaves: path, type, shape and dtype of each leaf, in the order of the payload.
    """

    kind: str
    version: int
    gauntax_version: str
    hyperparameters: dict[str, Any]
    leaves: tuple[Leaf, ...]
    _structure: Any = dataclasses.field(repr=False)
    _values: tuple[Any, ...] = dataclasses.field(repr=False)  # of Python scalars


def save(
    path: str | os.PathLike[str],
    tree: Any,
    *,
    kind: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    version: int = 1,
) -> None:
    """Write a pytree to one file, in one step.

    Arrays of any dtype (jax and numpy), PRNG keys and Python and numpy scalars are kept exactly;
    other leaves (functions) are left out and taken from `like` when loading.

    Args:
        path: where to; a file there is replaced once the new one is whole.
        tree: any pytree; a format such as `CP` can be loaded again without a `like`.
        kind: what it is; the name of the tree's class when left out.
        hyperparameters: JSON-able facts to rebuild the tree from, returned by `read_header`.
        version: version of this kind's layout; `load` refuses a newer one than it is told.

    Raises:
        TypeError: `hyperparameters` are not JSON-able, or an array holds Python objects.
        OSError: the file cannot be written; what was at `path` is untouched.
    """
    saved = [
        (jax.tree_util.keystr(key_path), leaf)
        for key_path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if _is_saved(leaf)
    ]
    leaves = [_describe_leaf(key_path, leaf) for key_path, leaf in saved]
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, tree, filter_spec=_write_leaf)
    header = {
        "kind": type(tree).__name__ if kind is None else kind,
        "version": version,
        "gauntax_version": _library_version(),
        "hyperparameters": dict(hyperparameters or {}),
        "leaves": [leaf._asdict() for leaf in leaves],
        "values": [_scalar_to_json(leaf) for _, leaf in saved],
        "structure": _describe(tree),
    }
    write_container(path, header, buffer.getvalue(), argument="hyperparameters")


def load(
    path: str | os.PathLike[str],
    like: Any = None,
    *,
    make: Callable[[Header], Any] | None = None,
    kind: str | None = None,
    version: int = 1,
) -> Any:
    """Read a pytree written by `save`.

    Args:
        path: the file.
        like: a tree of the same structure whose arrays (or `jax.ShapeDtypeStruct`s) are
            replaced by those of the file. Not needed for trees built only of tuples, lists,
            dictionaries and this library's modules (every format): the file holds their
            structure.
        make: called with the `Header`, returns `like`; for a model rebuilt from its
            hyperparameters, `make=lambda h: eqx.filter_eval_shape(build, **h.hyperparameters)`.
        kind: what the file must be; any kind when left out.
        version: the newest layout of this kind that the caller understands.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: not a gauntax file, cut, damaged, of another kind, newer, or its leaves
            are not those of `like`; the message says what was expected and what came.
        ValueError: both `like` and `make` are given.
    """
    if like is not None and make is not None:
        raise ValueError("like, make: expected at most one of them, got both")
    raw, payload = read_container(path)
    header = _header(path, raw)
    if kind is not None and header.kind != kind:
        raise FileFormatError(f"{os.fspath(path)}: expected kind {kind!r}, got {header.kind!r}")
    if header.version > version:
        raise FileFormatError(
            f"{os.fspath(path)}: expected version {version} or older of kind {header.kind!r}, got "
            f"{header.version}, written by gauntax {header.gauntax_version}; update gauntax"
        )
    if make is not None:
        like = make(header)
    if like is None:
        if header._structure is None:
            raise FileFormatError(
                f"{os.fspath(path)}: expected a structure in the file, got none (kind "
                f"{header.kind!r} holds functions or foreign classes); pass like or make"
            )
        return _rebuild(header._structure, _read_leaves(path, header, payload), path)
    paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    wanted = [
        _describe_leaf(jax.tree_util.keystr(p), leaf)
        for p, leaf in paths_and_leaves
        if _is_saved(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
    ]
    _check_leaves(path, wanted, header.leaves)
    read = iter(_read_leaves(path, header, payload, wanted))
    return treedef.unflatten(
        next(read) if _is_saved(leaf) or isinstance(leaf, jax.ShapeDtypeStruct) else leaf
        for _, leaf in paths_and_leaves
    )


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return what a file says of itself.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: not a gauntax file, or its header is cut or damaged.
    """
    return _header(path, read_container_header(path))


def _header(path: Any, raw: dict[str, Any]) -> Header:
    try:
        return Header(
            kind=raw["kind"],
            version=raw["version"],
            gauntax_version=raw["gauntax_version"],
            hyperparameters=raw["hyperparameters"],
            leaves=tuple(
                Leaf(x["path"], x["type"], tuple(x["shape"]), x["dtype"]) for x in raw["leaves"]
            ),
            _structure=raw["structure"],
            _values=tuple(raw["values"]),
        )
    except KeyError as error:
        raise FileFormatError(
            f"{os.fspath(path)}: expected a saved tree, got a file without {error} in its header"
        ) from error


def _library_version() -> str:
    try:
        return importlib.metadata.version("gauntax")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"


# Leaves.


def _is_key(x: Any) -> TypeGuard[jax.Array]:
    return isinstance(x, (jax.Array, jax.ShapeDtypeStruct)) and jnp.issubdtype(
        x.dtype, jax.dtypes.prng_key
    )


def _is_saved(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic, *_SCALARS))


def _describe_leaf(path: str, leaf: Any) -> Leaf:
    if isinstance(leaf, _SCALARS) and not isinstance(leaf, np.generic):
        kind = type(leaf).__name__
        if kind not in _SCALAR_NAMES:
            raise TypeError(f"{path}: expected a plain Python number, got {type(leaf).__name__}")
        return Leaf(path, kind, (), kind)
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        return Leaf(path, "key" if _is_key(leaf) else "jax", tuple(leaf.shape), str(leaf.dtype))
    if leaf.dtype.hasobject or leaf.dtype.names:
        raise TypeError(f"{path}: expected numbers, got an array of dtype {leaf.dtype}")
    kind = "scalar" if isinstance(leaf, np.generic) else "numpy"
    return Leaf(path, kind, tuple(leaf.shape), str(leaf.dtype))


def _write_leaf(file: Any, leaf: Any) -> None:
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return  # Python scalars are in the header: JSON holds integers of any size
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    if array.dtype.isbuiltin == 2:  # bfloat16 and its like, which numpy's format does not know
        array = array.view(np.dtype(f"u{array.dtype.itemsize}"))
    np.save(file, array, allow_pickle=False)


def _scalar_to_json(value: Any) -> Any:
    if isinstance(value, np.generic) or not isinstance(value, _SCALARS):
        return None
    return [value.real, value.imag] if isinstance(value, complex) else value


def _check_leaves(path: Any, expected: list[Leaf], got: tuple[Leaf, ...]) -> None:
    def show(leaf: Leaf) -> str:
        if leaf.type in _SCALAR_NAMES:
            return f"a Python {leaf.type} at {leaf.path or 'the root'}"
        return f"{leaf.dtype}{list(leaf.shape)} at {leaf.path or 'the root'}"

    def facts(leaf: Leaf) -> tuple[Any, ...]:
        container = "array" if leaf.type in ("jax", "numpy", "scalar") else leaf.type
        return leaf.path, container, leaf.shape, leaf.dtype

    for e, g in zip(expected, got, strict=False):
        if facts(e) != facts(g):
            raise FileFormatError(f"{os.fspath(path)}: expected {show(e)}, got {show(g)}")
    if len(expected) != len(got):
        extra = (expected if len(expected) > len(got) else got)[min(len(expected), len(got))]
        raise FileFormatError(
            f"{os.fspath(path)}: expected {len(expected)} leaves, got {len(got)}; the first "
            f"without a partner is {show(extra)}"
        )


def _read_leaves(
    path: Any, header: Header, payload: bytes, wanted: list[Leaf] | None = None
) -> list[Any]:
    file = io.BytesIO(payload)
    types = [leaf.type for leaf in (header.leaves if wanted is None else wanted)]
    leaves: list[Any] = []
    for leaf, kind, value in zip(header.leaves, types, header._values, strict=True):
        if leaf.type in _SCALAR_NAMES:
            leaves.append(complex(*value) if leaf.type == "complex" else value)
            continue
        array = np.load(file, allow_pickle=False)
        if leaf.type == "key":
            name = leaf.dtype.removeprefix("key<").removesuffix(">")
            key = jax.random.wrap_key_data(jnp.asarray(array), impl=_KEY_NAMES.get(name, name))
            leaves.append(key)
            continue
        array = array.view(_dtype(leaf.dtype))
        if kind == "jax":
            leaves.append(_to_jax(path, leaf, array))
        else:
            leaves.append(array[()] if kind == "scalar" else array)
    return leaves


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(jnp, name)) if hasattr(jnp, name) else np.dtype(name)


def _to_jax(path: Any, leaf: Leaf, array: np.ndarray) -> jax.Array:
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise FileFormatError(
            f"{os.fspath(path)}: expected 64-bit types to be on (jax_enable_x64) for the "
            f"{leaf.dtype}{list(leaf.shape)} at {leaf.path or 'the root'}, got them off"
        )
    return jnp.asarray(array)


# Structure: of trees made of containers and of this library's modules, kept in the header.


class _Slot(NamedTuple):
    leaf: int


class _NotDescribableError(Exception):
    pass


def _describe(tree: Any) -> Any:
    """Return the tree's structure as JSON, or None where it holds functions or foreign classes."""
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    count = iter(range(len(leaves)))
    try:
        return _to_json(
            treedef.unflatten(_Slot(next(count)) if _is_saved(x) else x for x in leaves)
        )
    except _NotDescribableError:
        return None


def _to_json(node: Any) -> Any:
    if isinstance(node, _Slot):
        return {"leaf": node.leaf}
    if node is None or isinstance(node, (str, bool, int, float)):
        return {"value": node}
    if type(node) in (tuple, list):
        return {type(node).__name__: [_to_json(x) for x in node]}
    if type(node) is dict and all(isinstance(k, str) for k in node):
        return {"dict": {k: _to_json(v) for k, v in node.items()}}
    if isinstance(node, type):
        return {"class": _class_name(node)}
    if isinstance(node, eqx.Module):
        names = [f.name for f in dataclasses.fields(node) if f.name in node.__dict__]
        fields = {name: _to_json(node.__dict__[name]) for name in names}
        return {"module": _class_name(type(node)), "fields": fields}
    raise _NotDescribableError


def _class_name(cls: type) -> str:
    """Name a class by the shortest package that exports it: files outlive moves inside."""
    if cls is _ENUMERATION_ITEM:
        return "outcome"
    parts = cls.__module__.split(".")
    if parts[0] in _PACKAGES:
        for n in range(1, len(parts) + 1):
            module = ".".join(parts[:n])
            if getattr(sys.modules.get(module), cls.__name__, None) is cls:
                return f"{module}:{cls.__name__}"
    raise _NotDescribableError


def _find_class(name: str, path: Any) -> Any:
    if name == "outcome":
        return _ENUMERATION_ITEM
    module, _, attribute = name.partition(":")
    if module.split(".")[0] in _PACKAGES:
        with contextlib.suppress(ImportError, AttributeError):
            found = getattr(importlib.import_module(module), attribute)
            if isinstance(found, type) and found.__module__.split(".")[0] in _PACKAGES:
                return found
    raise FileFormatError(f"{os.fspath(path)}: expected a class of this gauntax, got {name!r}")


def _rebuild(node: dict[str, Any], leaves: list[Any], path: Any) -> Any:
    if "leaf" in node:
        return leaves[node["leaf"]]
    if "value" in node:
        return node["value"]
    if "class" in node:
        return _find_class(node["class"], path)
    if "dict" in node:
        return {k: _rebuild(v, leaves, path) for k, v in node["dict"].items()}
    if "module" not in node:
        is_tuple = "tuple" in node
        items = [_rebuild(x, leaves, path) for x in node["tuple" if is_tuple else "list"]]
        return tuple(items) if is_tuple else items
    cls: Any = _find_class(node["module"], path)
    if not issubclass(cls, eqx.Module):
        raise FileFormatError(f"{os.fspath(path)}: expected a module, got {node['module']!r}")
    known = [f.name for f in dataclasses.fields(cls)]
    if sorted(known) != sorted(node["fields"]):
        raise FileFormatError(
            f"{os.fspath(path)}: expected fields {known} of {cls.__name__}, "
            f"got {list(node['fields'])}"
        )
    module = object.__new__(cls)  # as jax rebuilds it: its fields were checked when it was made
    for name, field in node["fields"].items():
        object.__setattr__(module, name, _rebuild(field, leaves, path))
    return module
