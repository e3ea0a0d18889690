"""What is costly to build and the same every time, kept in the user's cache directory.

An entry is named by a hash of its key, so it is found or it is not; only what was measured, and so
differs from time to time, is put in place of an older entry (`put`). Entries are written in one
step, so any number of processes may share the directory; two that build the same entry at once
write the same bytes. A cache that cannot be read or written costs time, never the result: it is
logged and the value is built.
"""

import hashlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .container import FileFormatError, read_container, write_container

_logger = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Return the directory of the cache, which need not exist yet.

    It is `GAUNTAX_CACHE_DIR` where that is set, else `gauntax` in the platform's place for
    caches (`XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`).
    """
    if chosen := os.environ.get("GAUNTAX_CACHE_DIR"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "gauntax"


def cached(
    name: str, key: Any, build: Callable[[], Any], *, kind: Literal["json", "npz"] = "json"
) -> Any:
    """Return `build()`, or what an earlier call with the same name and key built.

    Args:
        name: what is kept, a word fit for a folder's name (`"clebsch-gordan"`).
        key: everything the value depends on, JSON-able (tuples count as lists); versions of
            the code and of the device belong in it where they matter.
        build: makes the value.
        kind: `"json"`, a JSON-able value, or `"npz"`, a dictionary of numpy arrays.

    Returns:
        The value as it reads from the cache, so that the first call and the later ones return
        the same (JSON knows no tuples, and only strings as keys).

    Raises:
        TypeError: the key or the value is not JSON-able, or not a dictionary of arrays.
        ValueError: `name` is not a plain word, or `kind` is not known.
    """
    if kind not in ("json", "npz"):
        raise ValueError(f"kind: expected 'json' or 'npz', got {kind!r}")
    encode, decode = (_to_json, json.loads) if kind == "json" else (_to_npz, _from_npz)
    path, canonical = _entry(name, key, kind)
    payload = _read(path, canonical)
    if payload is None:
        payload = encode(build(), f"the value built for {name}")
        _write(path, canonical, payload)
    return decode(payload)


def put(name: str, key: Any, value: Any) -> None:
    """Keep a JSON-able value that was measured, in place of an older one of the same key.

    Args:
        name: as for `cached`.
        key: as for `cached`, and not one that is used with it.
        value: what to keep.

    Raises:
        TypeError: the key or the value is not JSON-able.
        ValueError: `name` is not a plain word.
    """
    path, canonical = _entry(name, key, "json")
    _write(path, canonical, _to_json(value, f"the value kept for {name}"))


def get(name: str, key: Any) -> Any:
    """Return what `put` kept under this name and key, or None; what cannot be read is logged.

    Raises:
        TypeError: the key is not JSON-able.
        ValueError: `name` is not a plain word.
    """
    payload = _read(*_entry(name, key, "json"))
    return None if payload is None else json.loads(payload)


def _entry(name: str, key: Any, kind: str) -> tuple[Path, str]:
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"name: expected letters, digits, '-', '_' and '.', got {name!r}")
    canonical = _to_json(key, "key", sort=True).decode()
    digest = hashlib.sha256(f"{kind} {canonical}".encode()).hexdigest()
    return cache_directory() / name / digest, canonical


def _read(path: Path, key: str) -> bytes | None:
    try:
        header, payload = read_container(path)
    except FileNotFoundError:
        return None
    except FileFormatError as error:
        _logger.warning("discarding a cache entry that cannot be used: %s", error)
    except OSError as error:
        _logger.warning("cannot read the cache, going on without: %s", error)
        return None
    else:
        if header.get("key") == key:
            return payload
        _logger.warning("discarding a cache entry of another key: %s", path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _logger.warning("cannot discard the cache entry: %s", error)
    return None


def _write(path: Path, key: str, payload: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_container(path, {"key": key}, payload)
    except OSError as error:
        _logger.warning("cannot write the cache, going on without: %s", error)


def _to_json(value: Any, argument: str, *, sort: bool = False) -> bytes:
    try:
        return json.dumps(value, sort_keys=sort, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: expected a JSON-able value, got {error}") from error


def _to_npz(value: Any, argument: str) -> bytes:
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(array, np.ndarray) and not array.dtype.hasobject
        for name, array in value.items()
    ):
        raise TypeError(f"{argument}: expected a dictionary of numpy arrays, got {value!r:.80}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **value)
    return buffer.getvalue()


def _from_npz(payload: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
