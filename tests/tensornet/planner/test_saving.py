"""Plans and staged plans as text: what comes back, in every process, and what is refused."""

import dataclasses
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.planner import Plan, StagedPlan, plan, plan_stages
from tensornet.planner.cost import CPU

CORE = "ni,nj,ir,jr,rk->nk"
SHAPES = [(64, 4), (64, 5), (4, 6), (5, 6), (6, 3)]
STAGES = ["x:ijk,b:jb,c:kc->ibc", "x:ijk,a:ia,c:kc->ajc", "x:ijk,a:ia,b:jb->abk"]
OPERANDS = {"x": (8, 7, 6), "a": (8, 3), "b": (7, 2), "c": (6, 2)}
EVERY = {
    Plan: lambda **options: plan(CORE, *SHAPES, **options),
    StagedPlan: lambda **options: plan_stages(STAGES, OPERANDS, **options),
}
by_kind = pytest.mark.parametrize("kind", list(EVERY))


@by_kind
def test_round_trip(kind):
    made = EVERY[kind]()
    again = kind.from_json(made.to_json())
    assert again == made
    assert hash(again) == hash(made)
    assert str(again) == str(made)
    assert again.seconds == made.seconds > 0
    assert again.to_json() == made.to_json()


@by_kind
def test_identity_is_all_but_seconds(kind):
    made = EVERY[kind]()
    # Seconds of another table; for sizes this small the same steps are best.
    dearer = EVERY[kind](rates=dataclasses.replace(CPU, overhead=2 * CPU.overhead))
    assert dearer.seconds > made.seconds
    assert dearer == made
    assert hash(dearer) == hash(made)
    for other in (EVERY[kind](precision="default"), EVERY[kind](dtype="bfloat16")):
        assert other != made
        assert kind.from_json(other.to_json()) == other


def test_read_in_another_process():
    texts = {kind.__name__: make().to_json() for kind, make in EVERY.items()}
    code = (
        "import json, sys\n"
        "from tensornet import planner\n"
        "for name, text in json.load(sys.stdin).items():\n"
        "    print(hash(getattr(planner, name).from_json(text)))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert out.stdout.split() == [str(hash(make())) for make in EVERY.values()]


def test_staged_plan_that_was_saved_runs():
    rng = np.random.default_rng(0)
    x, a, b, c = (rng.uniform(0.5, 1.5, shape).astype("float32") for shape in OPERANDS.values())
    operands = dict(zip("xabc", map(jnp.asarray, (x, a, b, c)), strict=True))
    values = []

    def update(stage, value, now):
        values.append(value)
        return now["abc"[stage]] * (stage + 2)

    StagedPlan.from_json(EVERY[StagedPlan]().to_json()).sweep(operands, update)
    np.testing.assert_allclose(values[0], np.einsum("ijk,jb,kc->ibc", x, b, c), rtol=1e-5)
    np.testing.assert_allclose(values[1], np.einsum("ijk,ia,kc->ajc", x, 2 * a, c), rtol=1e-5)
    np.testing.assert_allclose(values[2], np.einsum("ijk,ia,jb->abk", x, 2 * a, 3 * b), rtol=1e-5)


@by_kind
def test_text_that_is_no_plan_is_refused(kind):
    text = EVERY[kind]().to_json()
    name = f"tensornet.planner.{kind.__name__}"
    for length in (0, 1, len(text) // 2, len(text) - 1):
        with pytest.raises(ValueError, match="cut or not JSON"):
            kind.from_json(text[:length])
    for foreign, told in (('{"kind": "other"}', "'other'"), ("[1, 2]", "'list'"), ("{}", "None")):
        with pytest.raises(ValueError, match=f"expected kind '{name}', got {told}"):
            kind.from_json(foreign)
    (other,) = EVERY.keys() - {kind}
    with pytest.raises(ValueError, match=rf"expected kind '{name}', got '.*{other.__name__}'"):
        kind.from_json(EVERY[other]().to_json())
    data = json.loads(text)
    with pytest.raises(ValueError, match="expected version 1 or older, got version 2"):
        kind.from_json(json.dumps({**data, "version": 2}))
    changed = text.replace('"cpu"', '"gpu"')
    assert changed != text
    with pytest.raises(ValueError, match=r"damaged.*checksum"):
        kind.from_json(changed)
    for missing in ("content", "sha256"):
        with pytest.raises(ValueError, match="damaged"):
            kind.from_json(json.dumps({k: v for k, v in data.items() if k != missing}))
