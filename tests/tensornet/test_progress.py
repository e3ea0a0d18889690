"""Progress: what is written where, and what an argument `progress` may be."""

import io
import re
import sys
from itertools import pairwise

import jaxtyping
import pytest

from tensornet import progress
from tensornet.progress import (
    NoProgress,
    ProgressMeter,
    TextProgress,
    TqdmProgress,
    resolve_progress,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(meter, total=100, every=10):
    meter.init(total, "sweeps")
    for done in range(0, total + 1, every):
        meter.step(done, {"error": 1 / (done + 1)})
    meter.close()


def test_lines_where_it_is_no_terminal():
    stream = io.StringIO()
    work(TextProgress(stream, seconds=0.0))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("sweeps   0%  0/100  error 1")
    assert re.fullmatch(r"sweeps 100%  100/100  0:00, 0:00 left  error 0\.009901", lines[-1])


def test_sparse_lines_with_the_last_one_always():
    stream = io.StringIO()
    work(TextProgress(stream))
    counts = [re.search(r"(\d+)/100", line)[1] for line in stream.getvalue().splitlines()]
    assert counts == ["0", "100"]


def test_one_line_in_place_on_a_terminal():
    stream = Terminal()
    work(TextProgress(stream, seconds=0.0))
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    pieces = text.strip("\n").split("\r")[1:]
    assert len(pieces) == 11
    # A shorter line covers the longer one before it.
    assert all(len(new) >= len(old.rstrip()) for old, new in pairwise(pieces))


def test_close_without_a_step_writes_nothing():
    stream = Terminal()
    meter = TextProgress(stream)
    meter.close()
    meter.init(3)
    meter.close()
    assert stream.getvalue() == ""


def test_time_left_counts_from_where_the_work_resumed(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    meter = TextProgress(stream, seconds=0.0)
    meter.init(100)
    meter.step(60)
    now[0] += 3600 + 120
    meter.step(80)
    assert stream.getvalue().splitlines() == [" 60%  60/100", " 80%  80/100  1:02:00, 1:02:00 left"]


def test_standard_error_is_looked_up_late(capsys):
    work(TextProgress())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "100/100" in captured.err


def test_tqdm():
    stream = io.StringIO()
    meter = TqdmProgress(file=stream, mininterval=0)
    work(meter)
    work(meter, 7, 7)
    text = stream.getvalue()
    assert "100/100" in text
    assert "7/7" in text
    assert "error=0.0099" in text
    assert text.startswith("\rsweeps:")


def test_tqdm_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"TqdmProgress needs tqdm: .*gauntax\[progress\]"):
        TqdmProgress()


def test_what_an_argument_may_be(monkeypatch):
    assert isinstance(resolve_progress(None), NoProgress)
    assert isinstance(resolve_progress(False), NoProgress)
    assert isinstance(resolve_progress(True), TextProgress)
    meter = TqdmProgress()
    assert resolve_progress(meter) is meter
    assert all(isinstance(m, ProgressMeter) for m in (NoProgress(), TextProgress(), meter))
    work(NoProgress())
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it
    for bad in ("yes", 1, TextProgress):
        with pytest.raises(
            TypeError, match=r"progress: expected True, False, None or a meter.*got"
        ):
            resolve_progress(bad)
