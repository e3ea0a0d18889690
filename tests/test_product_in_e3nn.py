"""The example that puts our product into a network of e3nn-jax."""

import sys
from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples lie only in the checkout", allow_module_level=True)
sys.path.append(str(EXAMPLES))

import product_in_e3nn  # noqa: E402

pytestmark = pytest.mark.slow


def test_mirror_images_are_told_apart_with_all_paths(capsys):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = product_in_e3nn.main(steps=150, names=("Gaunt", "Gaunt, all paths"))
    # Without odd paths the two hands look the same.
    assert found["Gaunt"][0] <= 7 / 8
    assert found["Gaunt, all paths"][0] == 1
    assert all(change < 1e-4 for _, change in found.values())
    assert "100% of pieces told" in capsys.readouterr().out
