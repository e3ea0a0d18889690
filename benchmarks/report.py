"""Show rows: a table for the terminal, a page that stands alone."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from .rows import Row

_UNITS = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))


def figure(value: float | None, quantity: str = "seconds") -> str:
    """Return a value with as many digits as it is worth, in a unit that fits."""
    if value is None:
        return "-"
    if quantity in ("seconds", "compile_seconds"):
        if value >= 1:
            return f"{value:.3g} s"
        return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} us"
    if quantity in ("temp_bytes", "flops"):
        size = max(abs(value), 1.0)
        index = min(int(math.log10(size) // 3), len(_UNITS) - 1)
        name, unit = _UNITS[index]
        return f"{value / unit:.3g} {name}{'B' if quantity == 'temp_bytes' else 'flop'}"
    if quantity in ("iterations", "count"):
        return f"{value:g}"
    return f"{value:.4f}" if value >= 1e-3 else f"{value:.2e}"


def verdict(row: Row) -> str:
    """Return whether a row's target is met, in one word."""
    return "" if row.met is None else "met" if row.met else "MISSED"


def table(rows: Sequence[Row]) -> str:
    """Return rows as an aligned text table, one block a suite."""
    head = (
        "case", "dtype", "quantity", "ours", "peer", "against", "ratio", "median", "floor",
        "error", "peer's", "A/A", "spread", "n", "target",
    )  # fmt: skip
    lines: list[str] = []
    for suite in dict.fromkeys(row.suite for row in rows):
        body = [_cells(row) for row in rows if row.suite == suite]
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        lines.append(f"\n== {suite}")
        for line in (head, *body):
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    target = ""
    if row.target is not None:
        sign = ">=" if row.target_is == "ratio at least" else "<="
        target = f"{sign} {row.target:g} {verdict(row)}"
    return (
        row.case,
        row.dtype,
        row.unit if row.quantity == "count" else row.quantity,
        figure(row.ours, row.quantity),
        figure(row.peer, row.quantity),
        row.peer_name or "-",
        _times(row.ratio),
        _times(row.ratio_median),
        figure(row.floor, row.quantity),
        figure(row.error_ours, "error"),
        figure(row.error_peer, "error"),
        _plain(row.aa_ratio),
        _plain(row.spread),
        str(row.rounds),
        target,
    )


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}x"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def summary(rows: Iterable[Row]) -> str:
    """Return one line for each target: met or missed, and by how much."""
    lines = []
    for row in rows:
        if row.target is None:
            continue
        if row.target_is == "ratio at least":
            reached = f"{_times(row.ratio)} (median {_times(row.ratio_median)}) of {row.target:g}x"
            errors = f", error {figure(row.error_ours, 'error')}"
            if row.error_peer is not None:
                errors += f" against {figure(row.error_peer, 'error')}"
            against = f" over {row.peer_name}"
        else:
            reached = f"{figure(row.ours, row.quantity)}, at most {row.target:g}"
            errors, against = "", ""
        lines.append(
            f"{verdict(row):7} {row.suite}: {row.case} ({row.dtype}), {row.quantity}{against}: "
            f"{reached}{errors}"
        )
    return "\n".join(lines)


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;
color:#1d2433;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .5rem;border-bottom:1px solid #e3e7ef;text-align:right;white-space:nowrap}
th:first-child,td:first-child,.l{text-align:left}th{color:#5b6478;font-weight:600}
.met{color:#0a7d4b;font-weight:600}.missed{color:#b3261e;font-weight:600}
.bar{background:#e8edf7;display:inline-block;width:120px;height:.7rem;vertical-align:middle}
.bar i{background:#3b6fd4;display:block;height:100%}.bar i.behind{background:#d08a2e}
.note{color:#5b6478;font-size:12px;text-align:left;white-space:normal;max-width:34rem}
.wide{overflow-x:auto}p,li{max-width:46rem}
"""


_LEGEND = """
Seconds are the least of the rounds, ours and the peer's timed in turn after a warm-up;
<b>median</b> is the ratio of the medians. A ratio is peer over ours: above 1 ours is better. A/A
is our program against itself in the same rounds: how far from 1 the machine alone moves a ratio.
A ratio's target counts as met only if both ratios reach it at no worse an error.
"""


def page(header: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return rows as one HTML page that needs nothing beside itself."""
    machine = header.get("machine", {})
    versions = machine.get("versions", {})
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    taken = header.get("taken", "")
    where = f"{machine.get('device', '')}, {machine.get('threads', '?')} threads"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>gauntax benchmarks</title>",
        f"<style>{_STYLE}</style><h1>gauntax benchmarks</h1>",
        f"<p>{html.escape(f'{where}; {told}; {taken}')}</p>",
        f"<p>{_LEGEND}</p>",
    ]
    targets = [row for row in rows if row.target is not None]
    if targets:
        parts.append("<h2>Targets</h2><ul>")
        for row in targets:
            kind = "met" if row.met else "missed"
            text = html.escape(summary([row])[8:])
            parts.append(f"<li><span class={kind}>{kind}</span> {text}</li>")
        parts.append("</ul>")
    for suite in dict.fromkeys(row.suite for row in rows):
        parts += _suite_table(suite, [row for row in rows if row.suite == suite])
    failures = header.get("failures", [])
    if failures:
        parts.append("<h2>Failures</h2><ul>")
        parts += [f"<li class=missed>{html.escape(str(text))}</li>" for text in failures]
        parts.append("</ul>")
    return "\n".join(parts) + "\n"


def _suite_table(suite: str, rows: Sequence[Row]) -> list[str]:
    largest = max((row.ratio for row in rows if row.ratio), default=1.0)
    head = (
        "case", "dtype", "quantity", "ours", "peer", "against", "ratio", "", "median", "floor",
        "error", "peer's", "A/A", "spread", "rounds", "target", "note",
    )  # fmt: skip
    parts = [f"<h2>{html.escape(suite)}</h2><div class=wide><table><tr>"]
    parts += [f"<th>{name}</th>" for name in head]
    parts.append("</tr>")
    for row in rows:
        cells = list(_cells(row))
        cells.insert(7, _bar(row.ratio, largest))
        shown = [cell if i == 7 else html.escape(cell) for i, cell in enumerate(cells)]
        kind = {None: "", True: "met", False: "missed"}[row.met]
        shown[-1] = f"<span class='{kind}'>{shown[-1]}</span>"
        columns = "".join(f"<td>{cell}</td>" for cell in shown)
        parts.append(f"<tr>{columns}<td class=note>{html.escape(row.note)}</td></tr>")
    parts.append("</table></div>")
    return parts


def _bar(value: float | None, largest: float) -> str:
    # Logarithmic, so that 2x and 50x can both be seen; a ratio below 1 is drawn in its own colour.
    if value is None or value <= 0:
        return ""
    share = math.log1p(value) / math.log1p(max(largest, 1.0))
    kind = "" if value >= 1 else " class=behind"
    return f"<span class=bar><i{kind} style='width:{100 * min(share, 1):.0f}%'></i></span>"
