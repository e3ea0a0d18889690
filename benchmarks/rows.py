"""One measured figure a row, and the file that rows are kept in."""

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SCHEMA = 1
QUANTITIES = (
    "seconds", "temp_bytes", "flops", "error", "iterations", "compile_seconds", "count",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One quantity of one case, ours beside one peer's.

    Attributes:
        quantity: one of `QUANTITIES`; `unit` says what it is counted in.
        ours: our figure; for seconds the least of the rounds. `ours_median` is their median.
        peer: the same for the peer, None where there is none.
        ratio: `peer / ours`, above 1 when ours is better; `ratio_median` of the medians.
        floor: the least that `ours` could be on this machine; `note` says by what count.
        error_ours: what the measured run reached, in the case's own measure of error.
        aa_ratio: our program's second timing in each round over its first; 1 on a quiet machine.
        spread: interquartile range over the median of our timings.
        rounds: how many interleaved rounds the figures come from.
        target: what the figure is held to; `target_is` says how ("ratio at least" or
            "ours at most"), `met` whether it holds.
    """

    suite: str
    case: str
    quantity: str
    unit: str
    ours: float
    peer_name: str = ""
    peer: float | None = None
    ratio: float | None = None
    floor: float | None = None
    error_ours: float | None = None
    error_peer: float | None = None
    aa_ratio: float | None = None
    spread: float | None = None
    dtype: str = ""
    threads: int = 0
    device: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    rounds: int = 1
    ours_median: float | None = None
    peer_median: float | None = None
    ratio_median: float | None = None
    target: float | None = None
    target_is: str = ""
    met: bool | None = None
    note: str = ""

    def __post_init__(self):
        if self.quantity not in QUANTITIES:
            raise ValueError(f"quantity: expected one of {QUANTITIES}, got {self.quantity!r}")


def ratio(peer: float | None, ours: float | None) -> float | None:
    """Return `peer / ours`, None where either is missing or the quotient has no meaning."""
    if peer is None or ours is None or ours == 0:
        return None
    quotient = peer / ours
    return quotient if math.isfinite(quotient) else None


def write(path: Path, rows: Iterable[Row], **header: Any) -> None:
    """Write rows and a header as JSON: whole or not at all."""
    document = {"schema": SCHEMA, **header, "rows": [dataclasses.asdict(row) for row in rows]}
    text = json.dumps(_finite(document), indent=1, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file by renaming a finished one into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Read what `write` wrote.

    Returns:
        The header and the rows.

    Raises:
        ValueError: another schema than this version writes, or a row with other fields.
    """
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, got {schema!r}")
    try:
        rows = [Row(**row) for row in document.pop("rows")]
    except TypeError as error:
        raise ValueError(f"{path}: expected rows of schema {SCHEMA}, got: {error}") from error
    return document, rows


def _finite(value: Any) -> Any:
    # JSON has no NaN or infinity; a figure that is neither number is kept as missing.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
