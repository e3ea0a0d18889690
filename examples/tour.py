"""The tour: real data in, tables and pictures out.

    python examples/tour.py [--out DIR] [--chapter NAME ...]

Writes `report.html`, which needs nothing beside itself, the pictures as PNG files and
`results.json`. Needs no network and no accelerator. The exit code is 0 if every promise of
accuracy holds.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tour_chapters import CHAPTERS
from tour_chapters.chapter import Chapter, Findings, Stage
from tour_chapters.page import page, text

from tensornet import restart_with_huge_pages
from tensornet.progress import TextProgress

PACKAGES = ("gauntax", "jax", "jaxlib", "equinox", "numpy", "tensorly", "matplotlib")


def facts(seed: int) -> dict[str, str]:
    """Return what a reader has to know to repeat the run."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found["device"] = f"{jax.devices()[0].device_kind} {_processor()}, {cores} cores"
    found["dtype"] = str(jnp.result_type(float))
    found["seed"] = str(seed)
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    told = information.read_text() if information.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def tour(chapters: Sequence[Chapter], out: Path, *, seed: int = 0, stream: Any = None) -> bool:
    """Tell the chapters and write the report.

    Args:
        chapters: what to tell, in order.
        out: the folder to write to; made if it is not there.
        seed: of everything random.
        stream: where the terminal's side goes; standard output when left out.

    Returns:
        Whether every chapter ran and every promise of accuracy holds.
    """
    stream = stream or sys.stdout

    def say(line: str = "") -> None:
        print(line, file=stream, flush=True)

    out.mkdir(parents=True, exist_ok=True)
    known = facts(seed)
    for name, value in known.items():
        say(f"{name:11} {value}")
    started = time.perf_counter()
    told: list[tuple[Chapter, Findings | None, str]] = []
    results: dict[str, Any] = {"facts": known, "chapters": {}}
    for number, chapter in enumerate(chapters, 1):
        say(f"\n{number}. {chapter.title}")
        begun = time.perf_counter()
        progress = TextProgress(seconds=None if sys.stderr.isatty() else 2.0)
        findings, trouble = None, ""
        try:
            findings = chapter.run(Stage(out, progress, seed))
        except Exception as error:  # noqa: BLE001  the other chapters are still worth telling
            trouble = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        finally:
            progress.close()
        seconds = time.perf_counter() - begun
        went = f"{seconds:.0f} s of the {chapter.budget:.0f} s this chapter should take"
        if trouble:
            went = f"failed after {went}: {trouble}"
        told.append((chapter, findings, went))
        if findings is not None:
            for table in findings.tables:
                say(f"\n{text(table)}")
            say()
            for check in findings.checks:
                mark = "holds" if check.holds else "FAILS"
                say(f"{mark}  {check.name}: {check.value:.5g}, at most {check.at_most:.5g}")
        say(went)
        results["chapters"][chapter.name] = {
            "seconds": seconds,
            "budget": chapter.budget,
            "failure": trouble,
            "checks": [
                {**dataclasses.asdict(check), "holds": check.holds}
                for check in (findings.checks if findings else ())
            ],
            **(findings.results if findings else {}),
        }
    held = all(
        findings is not None and all(check.holds for check in findings.checks)
        for _, findings, _ in told
    )
    results["holds"] = held
    results["seconds"] = time.perf_counter() - started
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "report.html").write_text(page(known, told), encoding="utf-8")
    say(f"\n{results['seconds']:.0f} s in all; the report: {out / 'report.html'}")
    say("Every promise of accuracy holds." if held else "A promise of accuracy does NOT hold.")
    return held


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    names = [chapter.name for chapter in CHAPTERS]
    parser = argparse.ArgumentParser(description="Real data in, tables and pictures out.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument("--chapter", action="append", choices=names, help="only this chapter")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chosen = [c for c in CHAPTERS if not options.chapter or c.name in options.chapter]
    return 0 if tour(chosen, options.out, seed=options.seed) else 1


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main())
