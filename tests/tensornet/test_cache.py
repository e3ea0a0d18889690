"""The cache: found or built, never half an entry, never in the way."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensornet.cache import cache_directory, cached, get, put

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def entries() -> list[Path]:
    return [path for path in cache_directory().rglob("*") if path.is_file()]


def never():
    raise AssertionError("built although it was in the cache")


def test_second_call_reads():
    key = {"l": 3, "irreps": ("0e", "1o")}
    first = cached("tables", key, lambda: {"a": (1, 2.5), "b": None})
    assert first == {"a": [1, 2.5], "b": None}
    assert cached("tables", key, never) == first
    # The same key, spelled in another order and with a list for the tuple.
    assert cached("tables", {"irreps": ["0e", "1o"], "l": 3}, never) == first
    assert len(entries()) == 1


def test_keys_names_and_kinds_are_apart():
    assert cached("a", 1, lambda: "a1") == "a1"
    assert cached("a", 2, lambda: "a2") == "a2"
    assert cached("b", 1, lambda: "b1") == "b1"
    assert cached("a", "1", lambda: "text") == "text"
    array = cached("a", 1, lambda: {"x": np.arange(3)}, kind="npz")
    np.testing.assert_array_equal(array["x"], [0, 1, 2])
    assert cached("a", 1, never) == "a1"


@given(value=JSON, key=JSON)
def test_json_round_trip(tmp_path_factory, value, key):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        assert cached("x", key, lambda: value) == value
        assert cached("x", key, never) == value


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.int8, np.bool_])
def test_arrays_round_trip_bit_for_bit(dtype):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)).astype(dtype), "empty": np.zeros((0, 2), dtype)}
    for build in (lambda: arrays, never):
        read = cached("arrays", "k", build, kind="npz")
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            assert read[name].dtype == dtype
            assert read[name].shape == array.shape
            assert read[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "empty"])
def test_damaged_entry_is_discarded_and_rebuilt(damage, caplog):
    cached("x", 1, lambda: [1, 2, 3])
    (path,) = entries()
    whole = path.read_bytes()
    broken = {
        "cut": whole[:-1],
        "flip": whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:],
        "foreign": b"PK\x03\x04 something else",
        "empty": b"",
    }[damage]
    path.write_bytes(broken)
    with caplog.at_level(logging.WARNING, logger="tensornet.cache"):
        assert cached("x", 1, lambda: [1, 2, 3]) == [1, 2, 3]
    assert "discarding a cache entry" in caplog.text
    assert path.read_bytes() == whole
    caplog.clear()
    assert cached("x", 1, never) == [1, 2, 3]
    assert not caplog.records


def test_entry_under_another_key_is_not_believed(caplog):
    cached("x", 1, lambda: "one")
    (one,) = entries()
    cached("x", 2, lambda: "two")
    (two,) = (path for path in entries() if path != one)
    two.write_bytes(one.read_bytes())
    assert cached("x", 2, lambda: "two") == "two"
    assert "another key" in caplog.text
    assert cached("x", 2, never) == "two"


def test_a_directory_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, caplog):
    # A file where the directory should be: refused to root too, unlike a read-only directory.
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GAUNTAX_CACHE_DIR", str(tmp_path / "file"))
    calls = []
    for _ in range(2):
        assert cached("x", 1, lambda: calls.append(1) or "built") == "built"
    assert len(calls) == 2
    assert "going on without" in caplog.text


def test_a_failing_build_leaves_nothing():
    with pytest.raises(ZeroDivisionError):
        cached("x", 1, lambda: 1 / 0)
    assert entries() == []


def test_what_was_measured_is_replaced_and_what_was_built_is_not():
    assert get("rates", {"device": "cpu"}) is None
    for value in ({"a": [1.5, None]}, {"b": "longer than before"}, []):
        put("rates", {"device": "cpu"}, value)
        assert get("rates", {"device": "cpu"}) == value
    assert get("rates", {"device": "gpu"}) is None
    assert get("other", {"device": "cpu"}) is None
    assert len(entries()) == 1
    with pytest.raises(TypeError, match="value kept for rates: expected a JSON-able value"):
        put("rates", 1, {1, 2})
    with pytest.raises(ValueError, match="name: expected letters"):
        get("../up", 1)


def test_processes_share_the_directory(tmp_path):
    """Several processes build, read and damage the same entries at once; none fails."""
    program = """
import json, sys
from tensornet.cache import cache_directory, cached
import numpy as np
for i in range(30):
    big = cached("x", i % 3, lambda: {"x": np.full(2000, i % 3)}, kind="npz")
    assert big["x"].shape == (2000,) and (big["x"] == i % 3).all()
    if i % 7 == 0:
        for path in (cache_directory() / "x").iterdir():
            if not path.name.endswith(".tmp"):
                path.write_bytes(b"gauntax 1 cut")
print("well")
"""
    environment = {**os.environ, "GAUNTAX_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "well\n"), err
    assert not list(tmp_path.rglob("*.tmp"))


def test_place_of_the_cache(monkeypatch):
    monkeypatch.setenv("GAUNTAX_CACHE_DIR", "~/here")
    assert cache_directory() == Path.home() / "here"
    monkeypatch.delenv("GAUNTAX_CACHE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_directory() == Path("/somewhere/gauntax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "gauntax"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_directory() == Path.home() / "Library" / "Caches" / "gauntax"


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"key: expected a JSON-able value, got .*ndarray"):
        cached("x", {"a": np.ones(2)}, dict)
    with pytest.raises(TypeError, match="value built for x: expected a JSON-able value"):
        cached("x", 1, lambda: {1j: 2})
    with pytest.raises(TypeError, match="value built for x: expected a dictionary of numpy arrays"):
        cached("x", 1, lambda: [1, 2], kind="npz")
    with pytest.raises(TypeError, match="expected a dictionary of numpy arrays"):
        cached("x", 1, lambda: {"x": np.array([None])}, kind="npz")
    with pytest.raises(ValueError, match=r"name: expected letters.*got '\.\./up'"):
        cached("../up", 1, dict)
    assert json.loads("[]") == cached("x", 1, list)
    assert len(entries()) == 1
