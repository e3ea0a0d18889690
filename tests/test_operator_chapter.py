"""The chapter of the tour on operators, told on few problems."""

import io
import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples lie only in the checkout", allow_module_level=True)
pytest.importorskip("matplotlib", reason="the tour draws with matplotlib (the extra `plot`)")
sys.path.append(str(EXAMPLES))

import tour  # noqa: E402
from tour_chapters import operators  # noqa: E402
from tour_chapters.chapter import Chapter  # noqa: E402

pytestmark = pytest.mark.slow


def test_a_small_operator(tmp_path):
    def run(stage):
        small = {"pairs": 30, "epochs": 2, "width": 6, "modes": (4, 4), "layers": 1}
        return operators.learn(stage, **small, checks={"16": 1.0, "32": 1.0})

    stream = io.StringIO()
    assert tour.tour([Chapter("small", "Small", 60.0, run)], tmp_path, stream=stream)
    found = json.loads((tmp_path / "results.json").read_text())["chapters"]["small"]
    assert found["failure"] == ""
    assert 0 < found["errors"]["16"]["l2"] < 1
    assert found["parameters"] < found["dense_parameters"]
    assert len(list(tmp_path.glob("*.png"))) == 2
