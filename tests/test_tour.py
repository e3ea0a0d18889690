"""The tour on a small part of its data, and what it does when something is wrong."""

import html.parser
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
from tour_chapters import CHAPTERS, compression, compression_pictures, planning, products  # noqa: E402
from tour_chapters.chapter import Chapter, Check, Findings, Table  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = {
    "CP": (3, ()),
    "Tucker": ((4, 4, 3), ((2, 2, 2),)),
    "tensor train": (0.1, (0.2,)),
    "tensor ring": ((3, 3, 3), ()),
}


def tell(*chapters, out):
    stream = io.StringIO()
    held = tour.tour(chapters, out, stream=stream)
    return held, stream.getvalue(), json.loads((out / "results.json").read_text())


def found(*checks):
    return Findings(
        story=("a < b",), tables=(Table(("name", "x"), [("first", "1")]),), pictures=(),
        checks=checks, results={"answer": 42},
    )  # fmt: skip


class Sources(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.found += [value for name, value in attrs if name in ("src", "href")]


def test_compression_of_a_small_cube(tmp_path):
    import tensorly.datasets

    loaded = tensorly.datasets.load_indian_pines()
    cube = np.asarray(loaded.tensor, np.float32)[::8, ::8, ::10]
    wavelengths = np.asarray(loaded.ticks[1], np.float64)[::10]
    methods = [
        compression.Method(m.name, m.ours, m.theirs, *SMALL[m.name]) for m in compression.METHODS
    ]

    def run(stage):
        # The train is asked for 10%: a promise of the format, not a figure of ours. In so small
        # a cube alternating least squares ends in other minima from other starts.
        checks = {"tensor train": 0.1}
        return compression.compress(cube, wavelengths, stage, methods, checks=checks, over_peer=1.1)

    held, told, results = tell(Chapter("small", "A small cube", 60.0, run), out=tmp_path)
    chapter = results["chapters"]["small"]
    assert chapter["failure"] == ""
    assert held
    assert results["facts"]["seed"] == "0"
    assert [row["format"] for row in chapter["formats"]] == list(SMALL)
    for row in chapter["formats"]:
        assert row["ratio"] == pytest.approx(cube.size / row["parameters"])
        assert 0 < row["error"] <= 1.1 * row["tensorly_error"] < 0.5
        # A larger format of the same kind is closer.
        errors = [point["error"] for point in chapter["curves"][row["format"]]]
        assert errors == sorted(errors, reverse=True)
        assert f"{row['error']:.4f}" in told
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 3
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    sources = Sources()
    sources.feed((tmp_path / "report.html").read_text())
    assert len(sources.found) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources.found)


def test_planning_of_a_small_sweep(tmp_path):
    cube = np.random.default_rng(0).normal(size=(12, 14, 9)).astype(np.float32)

    def run(stage):
        return planning.compare(cube, 4, stage)

    held, told, results = tell(Chapter("small", "A small sweep", 60.0, run), out=tmp_path)
    chapter = results["chapters"]["small"]
    assert chapter["failure"] == ""
    assert held
    assert chapter["planned"]["flops"] > 0
    assert "then a is new" in told
    assert (tmp_path / "planning.png").read_bytes().startswith(b"\x89PNG")


def test_products_of_small_degree(tmp_path):
    def run(stage):
        return products.products(stage, degree=1, degrees=(2,), batch=32, channels=2)

    held, told, results = tell(Chapter("small", "Small products", 60.0, run), out=tmp_path)
    chapter = results["chapters"]["small"]
    assert chapter["failure"] == ""
    assert held
    rows = {(row["map"], row["method"]): row for row in chapter["products"]}
    gaunt = [row for (kind, _), row in rows.items() if kind.startswith("Gaunt")]
    # Seven irreps, whose factors change the map in five ways; the method does not matter.
    assert [row["expressivity"] for row in gaunt] == [5] * 3
    assert all(0 < row["error"] < 2e-6 for row in gaunt)
    near = rows["e3nn's", "cp, rank 7"]
    assert 1e-6 < near["error"] < 0.1
    assert 0 < near["over_bound"] <= 1
    assert "certified bound" in told
    assert set(chapter["milliseconds"]) == set(products.METHODS)
    assert (tmp_path / "products_cost.png").read_bytes().startswith(b"\x89PNG")


def test_a_promise_that_does_not_hold_fails_the_tour(tmp_path):
    chapter = Chapter("c", "T", 5.0, lambda _: found(Check("error", 0.2, 0.1)))
    held, told, results = tell(chapter, out=tmp_path)
    assert not held
    assert "FAILS  error: 0.2, at most 0.1" in told
    assert "does NOT hold" in told
    assert results["holds"] is False
    assert "<span class=fails>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("value", "holds"), [(0.1, True), (0.05, True), (0.11, False), (float("nan"), False)]
)
def test_checks(value, holds):
    assert Check("error", value, 0.1).holds is holds


def test_a_chapter_that_breaks_fails_the_tour_and_the_others_are_told(tmp_path, capsys):
    def breaks(_):
        raise ArithmeticError("no such <field>")

    good = Chapter("good", "Good & fine", 5.0, lambda _: found(Check("error", 0.0, 0.1)))
    held, told, results = tell(Chapter("bad", "Bad", 5.0, breaks), good, out=tmp_path)
    assert not held
    assert "ArithmeticError: no such <field>" in told
    assert "ArithmeticError" in capsys.readouterr().err
    assert results["chapters"]["bad"]["failure"] == "ArithmeticError: no such <field>"
    assert results["chapters"]["good"]["answer"] == 42
    page = (tmp_path / "report.html").read_text()
    assert "no such &lt;field&gt;" in page
    assert "Good &amp; fine" in page
    assert "a &lt; b" in page


def test_the_command_fails_where_the_tour_does(tmp_path, monkeypatch):
    chapter = Chapter("c", "T", 5.0, lambda stage: found(Check("seed", float(stage.seed), 1.0)))
    monkeypatch.setattr(tour, "CHAPTERS", (chapter,))
    assert tour.main(["--out", str(tmp_path / "a"), "--seed", "1"]) == 0
    assert tour.main(["--out", str(tmp_path / "b"), "--seed", "2", "--chapter", "c"]) == 1
    with pytest.raises(SystemExit):
        tour.main(["--chapter", "nowhere"])


def test_chapters_fit_into_three_minutes():
    names = [chapter.name for chapter in CHAPTERS]
    assert len(names) == len(set(names)) >= 1
    assert sum(chapter.budget for chapter in CHAPTERS) < 180


def test_the_band_nearest_to_a_wavelength():
    wavelengths = np.array([400.0, 550.0, 650.0, 860.0])
    assert [compression_pictures.nearest(wavelengths, w) for w in (860, 640, 560)] == [3, 2, 1]


def test_relative_error_is_the_norm_of_the_difference():
    cube = np.full((2, 2, 2), 3.0, np.float32)
    assert compression.relative_error(cube, np.full((2, 2, 2), 3.3)) == pytest.approx(0.1)
