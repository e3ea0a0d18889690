"""One file on disk: a checksummed JSON header and a payload, written in one step.

A file is a first line `gauntax <format> <header bytes> <header sha256>`, the JSON header, and
the payload whose length and sha256 the header holds: every byte is covered by a checksum, so a
cut or damaged file is told from a whole one. Files are written beside their place and moved
there in one step: a reader sees the old file or the new one, never half of one.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAGIC = b"gauntax "
_FORMAT = 1  # first line, header, payload
_FIRST_LINE_MOST = 120


class FileFormatError(ValueError):
    """A file that is not what was asked for: foreign, cut, damaged, newer, or of another kind."""


def write_container(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    payload: bytes,
    *,
    argument: str = "header",
) -> None:
    """Write a JSON header and a payload to one file, in one step, each under its checksum.

    Raises:
        TypeError: the header is not JSON-able; the message starts with `argument`.
        OSError: the file cannot be written; what was at `path` is untouched.
    """
    facts = {**header, "payload_bytes": len(payload), "payload_sha256": _sha256(payload)}
    try:
        text = json.dumps(facts, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: expected JSON-able values, got {error}") from error
    first = _MAGIC + f"{_FORMAT} {len(text)} {_sha256(text)}\n".encode()
    path = Path(path)
    # Beside its place, so that the move stays within one file system and is one step; opened
    # by hand, as the files of `tempfile` keep their owner-only permissions when moved.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(first + text)
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_container(path: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes]:
    """Return the header and the payload of a file, both verified.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: not a gauntax file, cut, or damaged.
    """
    with _open(path) as file:
        header = _read_header(path, file)
        payload = file.read()
    if len(payload) != header["payload_bytes"]:
        raise FileFormatError(
            f"{_show(path)}: expected {header['payload_bytes']} bytes after the header, got "
            f"{len(payload)}; the file is {_cut_or_grown(len(payload), header['payload_bytes'])}"
        )
    if (got := _sha256(payload)) != header["payload_sha256"]:
        raise FileFormatError(
            f"{_show(path)}: expected sha256 {header['payload_sha256'][:16]}... of the payload, "
            f"got {got[:16]}...; the file is damaged"
        )
    return header, payload


def read_container_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a file, verified; the payload is not read.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: not a gauntax file, or its header is cut or damaged.
    """
    with _open(path) as file:
        return _read_header(path, file)


def _open(path: Any) -> Any:
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{_show(path)}: expected a file, got none") from None


def _read_header(path: Any, file: Any) -> dict[str, Any]:
    first = file.readline(_FIRST_LINE_MOST)
    if not first.startswith(_MAGIC):
        raise FileFormatError(
            f"{_show(path)}: expected a gauntax file, which starts with {_MAGIC!r}, "
            f"got {first[: len(_MAGIC)]!r}"
        )
    words = first.split()
    if len(words) > 1 and words[1].isdigit() and int(words[1]) > _FORMAT:
        raise FileFormatError(
            f"{_show(path)}: expected file format {_FORMAT} or older, got {int(words[1])}; "
            "update gauntax"
        )
    known = len(words) == 4 and words[1] == str(_FORMAT).encode() and words[2].isdigit()
    if not (known and first.endswith(b"\n")):
        raise FileFormatError(
            f"{_show(path)}: expected a first line of 4 words, got {first!r}; "
            "the file is cut or damaged"
        )
    length, sha256 = int(words[2]), words[3].decode(errors="replace")
    text = file.read(length)
    if len(text) != length:
        raise FileFormatError(
            f"{_show(path)}: expected a header of {length} bytes, got {len(text)}; the file is cut"
        )
    if (got := _sha256(text)) != sha256:
        raise FileFormatError(
            f"{_show(path)}: expected sha256 {sha256[:16]}... of the header, got {got[:16]}...; "
            "the file is damaged"
        )
    return json.loads(text)


def _show(path: Any) -> str:
    return os.fspath(path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _cut_or_grown(got: int, expected: int) -> str:
    return "cut" if got < expected else "longer than it was written"
