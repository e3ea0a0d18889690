"""The chapter of the tour on preconditioners, told on a small mesh."""

import io
import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples lie only in the checkout", allow_module_level=True)
pytest.importorskip("matplotlib", reason="the tour draws with matplotlib (the extra `plot`)")
pytest.importorskip("skfem", reason="scikit-fem is not installed")
pytest.importorskip("pyamg", reason="pyamg is not installed")
sys.path.append(str(EXAMPLES))

import tour  # noqa: E402
from tour_chapters import solving  # noqa: E402
from tour_chapters.chapter import Chapter  # noqa: E402

pytestmark = pytest.mark.slow


def test_a_small_mesh(tmp_path):
    def run(stage):
        return solving.solve(stage, refinements=4, share=0.7)

    stream = io.StringIO()
    held = tour.tour([Chapter("small", "Small", 60.0, run)], tmp_path, stream=stream)
    assert held, stream.getvalue()
    found = json.loads((tmp_path / "results.json").read_text())["chapters"]["small"]
    assert found["failure"] == ""
    counts = found["iterations"]
    assert counts["multigrid"] < counts["learned inverse"] < counts["Jacobi"]
    assert found["error"] < 1e-5
    assert len(list(tmp_path.glob("*.png"))) == 2
