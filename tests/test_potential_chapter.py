"""The chapter of the tour on potentials, told in few steps."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples lie only in the checkout", allow_module_level=True)
pytest.importorskip("matplotlib", reason="the tour draws with matplotlib (the extra `plot`)")
sys.path.append(str(EXAMPLES))

import tour  # noqa: E402
from tour_chapters import potential  # noqa: E402
from tour_chapters.chapter import Chapter  # noqa: E402

pytestmark = pytest.mark.slow


def test_a_small_potential(tmp_path):
    def run(stage):
        small = {"channels": 2, "width": 4, "layers": 1, "order": 1}
        limits = {"forces": 2.0, "drift": 100.0}
        return potential.learn(stage, steps=5, moves=20, limits=limits, **small)

    stream = io.StringIO()
    assert tour.tour([Chapter("small", "Small", 60.0, run)], tmp_path, stream=stream)
    found = json.loads((tmp_path / "results.json").read_text())["chapters"]["small"]
    assert found["failure"] == ""
    assert 0 < found["errors"]["forces rmse"] < 2
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_the_data_are_molecules_under_no_outer_force():
    frames = potential.frames()
    assert len(frames) == 400
    assert sorted(frames[0].numbers.tolist()) == [1] * 6 + [6] * 2 + [8]
    forces = np.stack([frame.forces for frame in frames])
    # What the density functional code leaves: no more than a thousandth of the forces.
    assert abs(forces.sum(1)).max() < 1e-2
    assert forces.std() > 0.5
