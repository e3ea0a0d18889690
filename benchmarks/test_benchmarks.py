"""The suites' quick cases under pytest-benchmark: `pytest benchmarks --benchmark-only`."""

import jax
import pytest

from benchmarks.command import load_suite, suite_names

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (the extra `bench`)")

CASES = [case for name in suite_names() for case in load_suite(name, quick=True)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.suite}: {case.name} {case.dtype}")
def test_case(benchmark, case):
    """Time our program of a case and keep the error it reached beside the seconds."""
    benchmark.group = case.suite
    with jax.enable_x64(case.dtype == "float64"):
        program = case.measure.program()
        benchmark.pedantic(program.seconds, rounds=5, warmup_rounds=1)
        benchmark.extra_info.update(program.quality())
