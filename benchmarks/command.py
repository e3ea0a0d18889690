"""Read the arguments, run the suites, keep and show the rows."""

import argparse
import dataclasses
import datetime as dt
import importlib
import os
import pkgutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from . import report, rows, suites
from .case import Case, Context
from .machine import Machine, describe

# Suites of trainings, which users start as the packages' own commands start them: with huge pages,
# ours and the peers'. All else is measured in the environment as it is.
TRAININGS = ("darcy_small", "operator_training", "potential", "potential_throughput")
RESULTS = Path(__file__).resolve().parent / "results"


def suite_names() -> list[str]:
    """Return the suites there are: the modules of `benchmarks.suites`."""
    return sorted(module.name for module in pkgutil.iter_modules(suites.__path__))


def load_suite(name: str, *, quick: bool) -> list[Case]:
    """Return the cases of a suite."""
    return importlib.import_module(f"{suites.__name__}.{name}").cases(quick)


def measure(cases: Sequence[Case], context: Context) -> tuple[list[rows.Row], list[str]]:
    """Measure every case; one that fails is named and the others still run.

    An interrupt (Ctrl-C) ends the run there: what was measured is returned, the rest is named.
    """
    measured: list[rows.Row] = []
    failures: list[str] = []
    for number, case in enumerate(cases, 1):
        start = time.perf_counter()
        _log(f"[{number}/{len(cases)}] {case.suite}: {case.name} ({case.dtype})")
        try:
            for row in case.rows(context):
                measured.append(row)
                if row.target is not None:
                    _log(f"  {report.summary([row])}")
        except KeyboardInterrupt:
            left = len(cases) - number + 1
            failures.append(f"interrupted: {left} of {len(cases)} cases not measured to the end")
            break
        except Exception as error:  # noqa: BLE001  a case's failure is a result, not ours
            failures.append(f"{case.suite}: {case.name}: {type(error).__name__}: {error}")
            _log(f"  FAILED {failures[-1]}")
        _log(f"  {time.perf_counter() - start:.1f} s")
    return measured, failures


def header(machine: Machine, failures: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Return what a file of rows says of the run they come from."""
    return {
        "taken": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": dataclasses.asdict(machine),
        "failures": list(failures),
    }


def merge(path: Path, fresh: Sequence[rows.Row]) -> list[rows.Row]:
    """Return the rows kept at `path`, those of the cases in `fresh` replaced by it."""
    kept = rows.read(path)[1] if path.exists() else []
    measured = {(row.suite, row.case, row.dtype) for row in fresh}
    others = [row for row in kept if (row.suite, row.case, row.dtype) not in measured]
    return sorted([*others, *fresh], key=lambda row: row.suite)


def trains(arguments: Sequence[str] | None = None) -> bool:
    """Return whether the arguments name trainings and nothing else."""
    names = _parser().parse_args(arguments).suites
    return bool(names) and set(names) <= set(TRAININGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; non-zero when a case failed or the arguments make no sense."""
    options = _parser().parse_args(arguments)
    known = suite_names()
    unknown = [name for name in options.suites if name not in known]
    if unknown:
        _log(f"suite: expected some of {', '.join(known)}, got {', '.join(unknown)}")
        return 2
    names = options.suites or known
    cases = [case for name in names for case in load_suite(name, quick=options.quick)]
    cases = [case for case in cases if options.case in f"{case.suite}: {case.name}"]
    if options.list:
        for case in cases:
            print(f"{case.suite}: {case.name} ({case.dtype})")
        return 0
    if not cases:
        _log(f"--case: expected part of a case's name (see --list), got {options.case!r}")
        return 2
    # On an accelerator a peer in a child process needs memory too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_enable_compilation_cache", False)  # compile_seconds are of this run
    machine = describe(quick=options.quick)
    _log(f"{machine.device}, {machine.threads} threads; {machine.versions}")
    budget = options.budget if options.budget is not None else (3.0 if options.quick else 45.0)
    context = Context(machine, budget=budget, quick=options.quick)
    measured, failures = measure(cases, context)
    told = header(machine, failures, quick=options.quick)
    print(report.table(measured))
    print(f"\n{report.summary(measured)}")
    if options.json:
        rows.write(options.json, measured, **told)
    if options.html:
        rows.write_text(options.html, report.page(told, measured))
    if options.save:
        path = RESULTS / f"{machine.slug}.json"
        rows.write(path, merge(path, measured), **told)
        _log(f"kept in {path}")
    for failure in failures:
        _log(f"FAILED {failure}")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the packages against their peers, ours and theirs in turn.",
    )
    parser.add_argument("suites", nargs="*", metavar="suite", help="which suites (default: all)")
    parser.add_argument("--quick", action="store_true", help="few rounds, small cases")
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases whose name has TEXT")
    parser.add_argument(
        "--budget",
        type=_positive,
        metavar="S",
        help="seconds a claim's comparison may take; others have a quarter",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the rows as JSON")
    parser.add_argument("--html", type=Path, metavar="F", help="write the rows as a page")
    parser.add_argument(
        "--save", action="store_true", help="keep the rows in benchmarks/results/<device>.json"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and run nothing")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
