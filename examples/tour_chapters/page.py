"""The report: one HTML page with its pictures inside."""

import base64
import html
from collections.abc import Mapping, Sequence

from .chapter import Chapter, Findings, Table

_STYLE = """
:root{color-scheme:light}
body{font:16px/1.6 system-ui,-apple-system,"Segoe UI",sans-serif;margin:0;color:#1d2433;
background:#f5f7fb}
main{max-width:1080px;margin:0 auto;padding:2.5rem 1.2rem 4rem}
h1{font-size:2rem;margin:0 0 .3rem}h2{font-size:1.4rem;margin:2.6rem 0 .6rem}
p{max-width:46rem}.facts{color:#5b6478;font-size:14px}
section{background:#fff;border:1px solid #e3e7ef;border-radius:10px;padding:.4rem 1.6rem 1.6rem;
margin-top:1.6rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px;margin:1rem 0;
font-variant-numeric:tabular-nums}
th,td{padding:.4rem .8rem;border-bottom:1px solid #e3e7ef;text-align:right;white-space:pre}
th{color:#5b6478;font-weight:600;vertical-align:bottom}th:first-child,td:first-child{text-align:left}
figure{margin:1.4rem 0}img{max-width:100%;height:auto;display:block}
figcaption{color:#5b6478;font-size:14px;max-width:46rem;margin-top:.4rem}
.holds{color:#0a7d4b;font-weight:600}.fails{color:#b3261e;font-weight:600}
"""


_PROMISE = """
Every chapter runs on real data and promises accuracy, not speed: its checks are at its end, and the
tour fails when one does not hold. Seconds are of this run on this machine.
"""


def page(
    facts: Mapping[str, str],
    told: Sequence[tuple[Chapter, Findings | None, str]],
) -> str:
    """Return the report.

    Args:
        facts: versions, device, dtype, seed, in the order to show them.
        told: each chapter, what it found (None if it failed), and how it went in a line.
    """
    shown = "; ".join(f"{name} {value}" for name, value in facts.items())
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>The tour</title><style>{_STYLE}</style><main><h1>The tour</h1>",
        f"<p class=facts>{html.escape(shown)}</p>",
        f"<p>{_PROMISE}</p>",
    ]
    for number, (chapter, findings, went) in enumerate(told, 1):
        parts.append(f"<section><h2>{number}. {html.escape(chapter.title)}</h2>")
        if findings is not None:
            parts += _body(findings)
        parts.append(f"<p class=facts>{html.escape(went)}</p></section>")
    return "\n".join([*parts, "</main></html>"]) + "\n"


def _body(findings: Findings) -> list[str]:
    parts = [f"<p>{html.escape(paragraph)}</p>" for paragraph in findings.story]
    parts += [_table(table) for table in findings.tables]
    for picture in findings.pictures:
        held = base64.b64encode(picture.path.read_bytes()).decode()
        caption = html.escape(picture.caption)
        parts.append(
            f"<figure><img alt='{caption}' src='data:image/png;base64,{held}'>"
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if findings.checks:
        parts.append("<h3>Checks</h3><ul>")
        for check in findings.checks:
            kind = "holds" if check.holds else "fails"
            told = f"{check.name}: {check.value:.5g}, at most {check.at_most:.5g}"
            parts.append(f"<li><span class={kind}>{kind}</span> {html.escape(told)}</li>")
        parts.append("</ul>")
    return parts


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>"


def text(table: Table) -> str:
    """Return a table for the terminal."""
    lines = [table.head, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
