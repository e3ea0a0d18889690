"""The example that starts conjugate gradients from an operator's output, small."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples lie only in the checkout", allow_module_level=True)
sys.path.append(str(EXAMPLES))

import operator_guess  # noqa: E402

pytestmark = pytest.mark.slow


def test_whatever_the_guess_the_solution_is_the_same(capsys):
    found = operator_guess.main(cells=8, pairs=20, epochs=2, width=4, layers=1)
    assert len(found) == 10
    for from_zero, from_guess, difference in found:
        # Of 49 unknowns in single precision.
        assert 0 < from_zero < 200
        assert 0 < from_guess < 200
        assert 0 < difference < 1e-4
    assert "iterations to a residual of 1e-06" in capsys.readouterr().out
