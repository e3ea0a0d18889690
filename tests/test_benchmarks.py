"""The benchmark harness on programs whose seconds and errors are known in advance."""

import json
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks lie only in the checkout", allow_module_level=True)
sys.path.append(str(ROOT))  # last, so that an installed package goes before the checkout's

from benchmarks import command, gpu, report, rows  # noqa: E402
from benchmarks.case import Case, Context, Peer, Quality, Speed  # noqa: E402
from benchmarks.child import ChildError, ChildProgram  # noqa: E402
from benchmarks.machine import Machine, slug  # noqa: E402
from benchmarks.measure import Program, Timings, allocated, interleave  # noqa: E402

MACHINE = Machine(
    device="cpu Test Model",
    threads=2,
    versions={"python": "3"},
    gemm={"float64": 1e9, "float32": 2e9},
    bandwidth=1e10,
)


class Scripted:
    """A program that reports given seconds without taking them."""

    def __init__(self, name, seconds, error=0.1, log=None, sweeps=7):
        self.name, self._seconds = name, list(seconds)
        self._quality = {"error": error, "iterations": float(sweeps)}
        self.log = log if log is not None else []
        self.closed = False

    def seconds(self):
        self.log.append(self.name)
        return self._seconds.pop(0) if len(self._seconds) > 1 else self._seconds[0]

    def quality(self):
        return self._quality

    def close(self):
        self.closed = True


def speed_rows(ours, *peers, **options):
    case = Case("fake", "case", "float32", Speed(lambda: ours, peers, **options))
    return list(case.rows(Context(MACHINE, budget=10.0)))


def test_rounds_are_interleaved_after_a_warm_up():
    log = []
    ours, peer = Scripted("ours", [1.0], log=log), Scripted("peer", [4.0], log=log)
    times = interleave(ours, peer, budget=0.0, least=2)
    assert log == ["ours", "ours", "peer", "peer"] + ["ours", "peer", "ours"] * 2
    assert times == Timings((1.0, 1.0), (4.0, 4.0), (1.0, 1.0))


def test_a_short_program_runs_in_a_loop_of_which_the_second_half_counts():
    log = []
    first, again = [0.09, 0.02, 0.08, 0.04], [0.2, 0.03, 0.05, 0.04]
    ours = Scripted("ours", [3.0, 0.01, *first, *again], log=log)  # the first compiles
    peer = Scripted("peer", [1.0, 2.0], log=log)
    times = interleave(ours, peer, budget=0.0, least=1)
    assert log == ["ours"] * 2 + ["peer"] * 2 + ["ours"] * 4 + ["peer"] + ["ours"] * 4
    assert times == Timings((pytest.approx(0.06),), (2.0,), (pytest.approx(0.04),))


@pytest.mark.parametrize(
    ("budget", "rounds"), [(0.0, 3), (31.0, 4), (1000.0, 15)], ids=["least", "budget", "most"]
)
def test_the_budget_bounds_the_rounds(budget, rounds):
    # A round costs 1 + 4 + 1 seconds and three rests, and one of them is for warming up.
    times = interleave(Scripted("ours", [1.0]), Scripted("peer", [4.0]), budget=budget)
    assert times.rounds == rounds


def test_ratio_is_peer_over_ours_by_least_and_by_median():
    # First call 5 s (compiling), warm-up 2 s twice; then rounds of ours, ours again.
    ours = Scripted("ours", [5.0, 2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 3.0, 2.0])
    peer = Scripted("peer", [9.0, 9.0, 8.0, 12.0, 16.0])
    seconds, compiled = speed_rows(ours, Peer(lambda: peer))
    assert (seconds.ours, seconds.peer, seconds.ratio) == (1.0, 8.0, 8.0)
    assert (seconds.ours_median, seconds.peer_median, seconds.ratio_median) == (2.0, 12.0, 6.0)
    assert seconds.aa_ratio == 1.0
    assert seconds.rounds == 3
    assert (compiled.quantity, compiled.ours) == ("compile_seconds", 4.0)
    assert peer.closed


def test_a_slower_second_timing_shows_in_the_aa_ratio():
    times = Timings(ours=(1.0, 1.0, 1.0), peer=(1.0,) * 3, again=(1.5, 1.5, 1.5))
    assert times.aa_ratio == 1.5
    assert times.spread == pytest.approx(0.5 / 1.25)


@pytest.mark.parametrize(
    ("peer_seconds", "peer_error", "met"),
    [([4.0], 0.1, True), ([3.9], 0.1, False), ([9.0], 0.05, False), ([9.0], 0.09995, True)],
    ids=["reached", "too slow", "worse error", "equal error"],
)
def test_a_ratio_target_needs_speed_at_equal_error(peer_seconds, peer_error, met):
    peer = Scripted("peer", peer_seconds, error=peer_error)
    row = speed_rows(Scripted("ours", [1.0]), Peer(lambda: peer, target=4.0))[0]
    assert row.met is met
    assert (row.target, row.target_is) == (4.0, "ratio at least")


def test_a_ratio_target_needs_the_median_too():
    peer = Scripted("peer", [4.0])
    ours = Scripted("ours", [1.0] * 3 + [1.0, 1.0] + [2.0, 2.0] * 14)
    row = speed_rows(ours, Peer(lambda: peer, target=4.0))[0]
    assert row.ratio == 4.0
    assert row.met is False


def test_an_error_asked_for_is_held_instead_of_the_peers():
    peer = Scripted("peer", [9.0], error=0.01)
    options = {"error_at_most": 0.2}
    assert speed_rows(Scripted("o", [1.0]), Peer(lambda: peer, target=4.0), **options)[0].met
    options = {"error_at_most": 0.05}
    assert not speed_rows(Scripted("o", [1.0]), Peer(lambda: peer, target=4.0), **options)[0].met


def test_seconds_of_a_part_are_scaled_and_the_floor_divided():
    peer = Scripted("peer", [1.0], sweeps=4)
    row = speed_rows(
        Scripted("ours", [2.0], sweeps=4),
        Peer(lambda: peer, scale=10.0, note="a tenth"),
        sweeps=4,
        floor=lambda machine: machine.floor("float64", flops=4e9, read_bytes=1e10),
        floor_note="by flops",
    )[0]
    assert (row.ours, row.peer, row.ratio, row.floor) == (0.5, 2.5, 5.0, 1.0)
    assert (row.unit, row.note) == ("s/sweep", "a tenth; by flops")


def test_a_run_of_fewer_sweeps_is_no_time_per_sweep():
    with pytest.raises(RuntimeError, match=r"sweeps: expected runs of 10, got 7"):
        speed_rows(Scripted("ours", [1.0]), sweeps=10)


def quality_rows(errors, **options):
    def ours(seed):
        return Scripted("ours", [1.0], error=errors[seed])

    case = Case("fake", "quality", "float64", Quality(ours, **options))
    return {row.quantity: row for row in case.rows(Context(MACHINE))}


def test_quality_is_the_median_over_seeds_rounded_as_promised():
    errors = [0.9, 0.30004, 0.1, 0.2, 0.8]
    found = quality_rows(errors, at_most=0.3, iterations_at_most=6, published=0.31)
    assert found["error"].ours == 0.30004
    assert found["error"].met is True
    assert found["error"].ratio == pytest.approx(0.31 / 0.30004)
    assert found["error"].peer_name == "published"
    assert found["iterations"].met is False
    assert quality_rows(errors, at_most=0.2999)["error"].met is False


def test_quality_runs_the_peer_on_fewer_seeds():
    asked = []

    def peer(seed):
        asked.append(seed)
        return Scripted("peer", [3.0], error=0.5)

    found = quality_rows([0.25] * 5, peer=peer, peer_seeds=2)
    assert asked == [0, 1]
    assert found["error"].ratio == 2.0
    assert found["seconds"].ratio == 3.0


def some_rows():
    peer = Scripted("peer <b>", [4.0])
    return speed_rows(Scripted("ours", [1.0]), Peer(lambda: peer, target=5.0))


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "new" / "rows.json"
    rows.write(path, some_rows(), machine={"device": "x"})
    header, read = rows.read(path)
    assert read == some_rows()
    assert header == {"schema": rows.SCHEMA, "machine": {"device": "x"}}
    assert [file.name for file in path.parent.iterdir()] == ["rows.json"]


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "rows.json"
    rows.write(path, [])
    with pytest.raises(TypeError):
        rows.write(path, [], machine=object())
    assert rows.read(path) == ({"schema": rows.SCHEMA}, [])
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]


def test_missing_figures_are_null_not_nan(tmp_path):
    path = tmp_path / "rows.json"
    rows.write(path, some_rows(), rate=float("nan"))
    assert json.loads(path.read_text())["rate"] is None


def test_another_schema_or_field_is_refused(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"schema": 99, "rows": []}')
    with pytest.raises(ValueError, match=r"expected schema 1, got 99"):
        rows.read(path)
    path.write_text('{"schema": 1, "rows": [{"colour": "red"}]}')
    with pytest.raises(ValueError, match=r"expected rows of schema 1.*colour"):
        rows.read(path)


def test_a_row_names_what_it_measures():
    with pytest.raises(ValueError, match=r"quantity: expected one of .*seconds.*got 'colour'"):
        rows.Row(suite="s", case="c", quantity="colour", unit="", ours=1.0)


def test_fresh_rows_replace_those_of_their_cases(tmp_path):
    path = tmp_path / "rows.json"
    old = [
        rows.Row(suite=suite, case=case, quantity="seconds", unit="s", ours=1.0)
        for suite, case in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    rows.write(path, old)
    fresh = rows.Row(suite="a", case="y", quantity="error", unit="", ours=2.0)
    assert command.merge(path, [fresh]) == [old[0], fresh, old[2]]
    assert command.merge(tmp_path / "none.json", [fresh]) == [fresh]


def test_the_table_and_the_page_show_the_verdict():
    measured = some_rows()
    text = report.table(measured)
    assert "4x" in text
    assert ">= 5 MISSED" in text
    told = report.summary(measured)
    assert told.startswith("MISSED  fake: case (float32), seconds over peer <b>: 4x")
    page = report.page({"machine": {"device": "x & y"}, "failures": ["<oh>"]}, measured)
    assert "peer &lt;b&gt;" in page
    assert "x &amp; y" in page
    assert "&lt;oh&gt;" in page
    assert "<script" not in page
    assert "http" not in page


def test_figures_choose_their_unit():
    shown = [report.figure(v) for v in (2.0, 0.0125, 3e-5, None)]
    assert shown == ["2 s", "12.5 ms", "30 us", "-"]
    assert report.figure(3.2e9, "flops") == "3.2 Gflop"
    assert report.figure(2.5e6, "temp_bytes") == "2.5 MB"
    assert report.figure(0.06121, "error") == "0.0612"
    assert report.figure(4e-7, "error") == "4.00e-07"


def test_slug():
    assert slug("cpu AMD EPYC(TM) 2 threads") == "cpu-amd-epyc-tm-2-threads"


def test_allocations_are_counted():
    assert allocated(Program("p", lambda: bytearray(10**6))) == pytest.approx(10**6, rel=0.05)


def test_program_times_its_run():
    program = Program("p", lambda: time.sleep(0.02) or 5, lambda result: {"error": result})
    assert program.seconds() >= 0.02
    assert program.quality() == {"error": 5}


def test_a_failing_case_is_named_and_the_others_run(capsys):
    def fails():
        raise ArithmeticError("no")

    cases = [
        Case("fake", "bad", "float32", Speed(fails)),
        Case("fake", "good", "float32", Speed(lambda: Scripted("ours", [1.0]))),
    ]
    measured, failures = command.measure(cases, Context(MACHINE))
    assert failures == ["fake: bad: ArithmeticError: no"]
    assert {row.case for row in measured} == {"good"}
    assert "[2/2] fake: good" in capsys.readouterr().err


def test_an_interrupt_keeps_what_was_measured():
    class Interrupted:
        def rows(self, case, context):
            yield case.row(context, quantity="seconds", unit="s", ours=1.0)
            raise KeyboardInterrupt

    cases = [Case("suite", name, "float32", Interrupted()) for name in ("first", "second")]
    measured, failures = command.measure(cases, Context(MACHINE))
    assert [row.case for row in measured] == ["first"]
    assert failures == ["interrupted: 2 of 2 cases not measured to the end"]


def test_an_unknown_suite_is_answered_with_those_there_are(capsys):
    assert command.main(["real_data", "colours"]) == 2
    told = capsys.readouterr().err
    assert "got colours" in told
    assert all(name in told for name in ("decompositions", "real_data"))


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["operator_training"], True),
        (["potential", "darcy_small", "--quick"], True),
        (["potential", "spmv"], False),
        ([], False),
    ],
)
def test_only_trainings_by_themselves_start_with_huge_pages(arguments, answer):
    assert command.trains(arguments) is answer
    assert set(command.TRAININGS) <= set(command.suite_names())


def test_a_budget_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        command.main(["--budget", "-1"])
    assert "expected a number above 0, got -1" in capsys.readouterr().err


def test_every_suite_names_its_cases_once(capsys):
    assert command.main(["--list"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(names) == len(set(names)) > 10
    assert command.main(["--list", "--case", "no such case"]) == 0
    assert command.main(["--case", "no such case"]) == 2
    assert "got 'no such case'" in capsys.readouterr().err


def test_a_child_process_runs_a_peer():
    child = ChildProgram(
        "child", "benchmarks.peers:parafac_sweeps", shape=[4, 5, 6], rank=2, sweeps=3
    )
    try:
        assert child.seconds() > 0
        assert child.quality()["iterations"] == 3
        assert 0 < child.quality()["error"] < 1
    finally:
        child.close()


def test_a_child_that_fails_says_why():
    with pytest.raises(ChildError, match=r"child: AttributeError: .*no_such_peer"):
        ChildProgram("child", "benchmarks.peers:no_such_peer")


@pytest.mark.parametrize("found", ["cpu", "none"])
def test_gpu_without_an_accelerator_says_so_and_fails(capsys, found):
    assert gpu.main(find=lambda: found, run=lambda _: pytest.fail("something was run")) == 1
    told = capsys.readouterr().err
    assert f"expected jax to see an accelerator, got backend '{found}'" in told


@pytest.mark.parametrize(("codes", "outcome"), [((0, 0), 0), ((1, 0), 1), ((0, 5), 1)])
def test_gpu_runs_tests_then_benchmarks_and_fails_with_either(codes, outcome):
    ran, left = [], list(codes)

    def run(line):
        ran.append(line[1:3])
        return left.pop(0)

    assert gpu.main(find=lambda: "gpu", run=run) == outcome
    assert ran == [["-m", "pytest"], ["-m", "benchmarks"]]
