"""Plans as text: JSON that says what it is, and errors for text that is not that."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from .network import Constant, Given, Network

Saved = TypeVar("Saved")

VERSION = 1


def write(kind: str, content: dict[str, Any]) -> str:
    """Write content as text that `read` reads."""
    return json.dumps(
        {"kind": kind, "version": VERSION, "sha256": digest(content), "content": content}
    )


def read(kind: str, text: str, make: Callable[[dict[str, Any]], Saved]) -> Saved:
    """Read what `write` wrote, and let `make` build it.

    Raises:
        ValueError: the text is cut, of another kind, of a newer version, or damaged.
    """
    if not isinstance(text, str):
        raise ValueError(f"text: expected a string, got {type(text).__name__}")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"plan: the text is cut or not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("kind") != kind:
        got = data.get("kind") if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"plan: expected kind {kind!r}, got {got!r}")
    if data.get("version") != VERSION:
        raise ValueError(
            f"plan: expected version {VERSION} or older, got version {data.get('version')}"
        )
    try:
        content = data["content"]
        if digest(content) != data["sha256"]:
            raise ValueError("its checksum is another")
        return make(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"plan: the content is damaged ({error!r})") from error


def digest(content: dict[str, Any]) -> str:
    """A digest of content, the same in every process."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def network_content(network: Network) -> dict[str, Any]:
    """What a network says, for JSON."""
    content = {field.name: getattr(network, field.name) for field in dataclasses.fields(Network)}
    if network.given is not None:
        content["given"] = dataclasses.asdict(network.given)
    content["constants"] = [
        [p, {"shape": c.shape, "dtype": c.dtype, "data": base64.b64encode(c.data).decode()}]
        for p, c in network.constants
    ]
    return content


def read_network(content: dict[str, Any]) -> Network:
    """Build a network from `network_content`."""
    raw = dict(content)
    constants = tuple(
        (p, Constant(tuple(c["shape"]), c["dtype"], base64.b64decode(c["data"], validate=True)))
        for p, c in raw.pop("constants")
    )
    given = raw.pop("given")
    return Network(
        **{k: tuples(v) for k, v in raw.items()},
        constants=constants,
        given=given and Given(**{k: tuples(v) for k, v in given.items()}),
    )


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
