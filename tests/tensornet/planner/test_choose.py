"""The chooser, and the two calls that measure."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.cache import cache_directory
from tensornet.container import read_container, write_container
from tensornet.planner import (
    Repeated,
    Work,
    calibrate,
    calibrated,
    cheapest,
    network,
    plan,
    plan_stages,
    tune,
)
from tensornet.planner.cost import CPU
from tensornet.planner.table import amount


def test_cheapest_names_plans_and_tabulates():
    small = network("ij,jk->ik", [(8, 8), (8, 8)], ["float32"] * 2)
    large = plan("ij,jk->ik", (512, 512), (512, 512))
    name, chosen, table = cheapest({"large": large, "small": small}, device="cpu")
    assert name == "small"
    assert chosen == plan("ij,jk->ik", (8, 8), (8, 8))
    assert table.splitlines()[1].split()[-1] == "1.00x"
    assert "* small" in table
    assert "  large" in table
    # The first of equals; parts that are all needed add up.
    assert cheapest({"b": large, "a": large}, device="cpu")[0] == "b"
    assert cheapest({"two": (large, large), "one": large}, device="cpu")[0] == "one"
    often = {"large, twice": Repeated((large,), 2), "both": (large, large, small)}
    name, _, repeated = cheapest(often, device="cpu")
    assert name == "large, twice"
    assert amount(2 * large.flops, "") in repeated
    # Half as fast as planned: as long as two, with the operations of one.
    slow = {"slow": Repeated((large,), efficiency=0.5), "thrice": Repeated((large,), 3)}
    name, _, halved = cheapest(slow, device="cpu")
    assert name == "slow"
    assert f"{2 * large.seconds:.2e}  {amount(large.flops, '')}" in halved
    staged = plan_stages(["ij,jk->ik"], {"ij": (8, 8), "jk": (8, 8)})
    fast = Work(flops=1, bytes=8, run=jnp.fft.fft)
    name, chosen, _ = cheapest({"plan": staged, "fft": fast}, device="cpu")
    assert (name, chosen.run) == ("fft", jnp.fft.fft)


def test_cheapest_refuses_what_it_cannot_price():
    with pytest.raises(ValueError, match="at least one"):
        cheapest({})
    with pytest.raises(TypeError, match=r"alternatives\['x'\]: expected a Plan.*got str"):
        cheapest({"x": "ij,jk->ik"})


def test_work_is_the_larger_of_compute_and_traffic():
    rates = dataclasses.replace(CPU, matmul=1e9, bandwidth=1e6, overhead=0.0)
    assert Work(flops=1e9, bytes=0, efficiency=0.5).seconds(rates) == pytest.approx(2.0)
    assert Work(flops=0, bytes=3e6).seconds(rates) == pytest.approx(3.0)


def test_calibration_is_kept_and_used_only_where_given():
    before = plan("ij,jk->ik", (64, 64), (64, 64))
    assert calibrated() is None
    rates = calibrate(seconds=0.2)
    assert calibrated() == rates
    assert rates.matmul > 0
    assert rates.bandwidth > 0
    assert plan("ij,jk->ik", (64, 64), (64, 64)).seconds == before.seconds
    # Everything but the products is free, whatever was measured.
    slower = dataclasses.replace(
        rates,
        matmul=1e6,
        half=(0.0, 0.0, 0.0),
        overhead=0.0,
        product=0.0,
        turned=(float("inf"), float("inf")),
        bandwidth=float("inf"),
        write=float("inf"),
    )
    seconds = plan("ij,jk->ik", (64, 64), (64, 64), rates=slower).seconds
    assert seconds == pytest.approx(2 * 64**3 / 1e6)


def test_calibration_that_cannot_be_read_is_reported(caplog):
    rates = calibrate(seconds=0.05)
    (path,) = (path for path in cache_directory().rglob("*") if path.is_file())
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:-2] + b"x}", b'{"matmul": 1}'):
        path.write_bytes(broken)
        caplog.clear()
        assert calibrated() is None
        assert "discarding a cache entry that cannot be used" in caplog.text
        assert not path.exists()
        path.write_bytes(whole)
    caplog.clear()
    assert calibrated() == rates
    assert not caplog.records
    # Whole, and written by a version whose table has other columns.
    header, payload = read_container(path)
    write_container(path, {"key": header["key"]}, payload.replace(b"matmul", b"speed"))
    assert calibrated() is None
    assert "calibrate again" in caplog.text
    # A new measurement takes its place.
    again = calibrate(seconds=0.05)
    assert calibrated() == again != rates


def test_calibration_leaves_the_old_table_where_writing_fails(monkeypatch, caplog):
    rates = calibrate(seconds=0.05)
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        assert calibrate(seconds=0.05) != rates
    assert "cannot write the cache, going on without: full" in caplog.text
    assert calibrated() == rates
    assert len([path for path in cache_directory().rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("gradients", [False, True])
def test_tune_returns_one_of_the_candidates(gradients):
    made = plan("ab,bc,cd->ad", (8, 6), (6, 5), (5, 7))
    arrays = [jnp.ones(s) for s in ((8, 6), (6, 5), (5, 7))]
    best, table = tune(made, *arrays, gradients=gradients, most=3, rounds=2)
    np.testing.assert_allclose(best(*arrays), made(*arrays))
    lines = table.splitlines()
    assert 1 < len(lines) <= 3
    assert sum(line.startswith("* ") for line in lines) == 1
    assert f"order {list(best.order)}" in next(x for x in lines if x.startswith("* "))
