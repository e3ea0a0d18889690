"""Sweeps planned as a whole: values, and what the compiled program does to the full tensor."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensornet.planner import plan_stages


def cp_sweep(order):
    modes = "ijkl"[:order]
    factors = [f"{m}r" for m in modes]
    expressions = [
        ",".join([modes, *(f for f in factors if f != own)]) + "->" + own for own in factors
    ]
    return modes, factors, expressions


def operands_of(shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.uniform(0.5, 1.5, s), dtype) for name, s in shapes.items()}


def by_einsum(expressions, outputs, operands):
    now = dict(operands)
    for text, name in zip(expressions, outputs, strict=True):
        names = text.split("->")[0].split(",")
        value = np.einsum(text, *(now[n] for n in names), optimize="greedy")
        now[name] = value / np.linalg.norm(value)
    return now


@pytest.mark.parametrize("order", [3, 4])
@pytest.mark.usefixtures("x64")
def test_cp_sweep_touches_the_tensor_twice_and_copies_nothing(order):
    modes, factors, expressions = cp_sweep(order)
    sizes = dict(zip(modes, (40, 30, 50, 20), strict=False))
    shapes = {modes: tuple(sizes.values()), **{f: (sizes[f[0]], 6) for f in factors}}
    made = plan_stages(expressions, shapes, dtype="float64")
    operands = operands_of(shapes)

    def sweep(operands):
        new = made.sweep(operands, lambda _, value, __: value / jnp.linalg.norm(value))
        return {name: new[name] for name in factors}

    compiled = jax.jit(sweep).lower(operands).compile()
    expected = by_einsum(expressions, factors, operands)
    got = compiled(operands)
    for name in factors:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-12)
    full = int(np.prod(list(sizes.values())))
    dots, copies = full_size_instructions(compiled.as_text(), full)
    assert dots == 2
    assert copies == 0
    # Temporaries stay below half of the tensor: no copy of it hides in a fusion either.
    assert compiled.memory_analysis().temp_size_in_bytes < full * 8 / 2


def full_size_instructions(text, full):
    """Count contractions that read, and transposes or copies that make, `full` entries."""
    shape_of = dict(re.findall(r"%?([\w.-]+) = \w+\[([\d,]*)\]", text))
    entries = {
        name: int(np.prod([int(d) for d in dims.split(",") if d] or [1]))
        for name, dims in shape_of.items()
    }
    dots = copies = 0
    for name, op, args in re.findall(r"%?([\w.-]+) = \S+ ([\w-]+)\((.*)", text):
        read = [entries.get(a, 0) for a in re.findall(r"%([\w.-]+)", args.split("metadata")[0])]
        if op == "custom-call" or op == "dot":
            dots += full in read
        if op in ("copy", "transpose", "copy-start"):
            copies += entries[name] == full
    return dots, copies


@pytest.mark.usefixtures("x64")
def test_tucker_and_named_operands():
    expressions = ["x:ijk,b:jb,c:kc->ibc", "x:ijk,a:ia,c:kc->ajc", "x:ijk,a:ia,b:jb->abk"]
    shapes = {"x": (8, 7, 6), "a": (8, 3), "b": (7, 2), "c": (6, 2)}
    made = plan_stages(expressions, shapes, dtype="float64")
    operands = operands_of(shapes)
    values = []

    def update(stage, value, now):
        values.append(value)
        name = "abc"[stage]
        return now[name] * (stage + 2.0)

    last = made.sweep(operands, update)
    x, a, b, c = (np.asarray(operands[n]) for n in "xabc")
    np.testing.assert_allclose(values[0], np.einsum("ijk,jb,kc->ibc", x, b, c), rtol=1e-12)
    np.testing.assert_allclose(values[1], np.einsum("ijk,ia,kc->ajc", x, 2 * a, c), rtol=1e-12)
    np.testing.assert_allclose(values[2], np.einsum("ijk,ia,jb->abk", x, 2 * a, 3 * b), rtol=1e-12)
    np.testing.assert_allclose(last["c"], 4 * c)
    again = plan_stages(expressions, shapes, dtype="float64")
    assert made == again
    assert hash(made) == hash(again)
    assert str(made) == str(again)


@pytest.mark.usefixtures("x64")
def test_replacing_everything_shares_nothing():
    shapes = {"ij": (5, 4), "jk": (4, 3), "kl": (3, 6)}
    texts = ["ij,jk,kl->il", "ij,jk,kl->il"]
    shared = plan_stages(texts, shapes, replaces=["kl", None], dtype="float64")
    apart = plan_stages(texts, shapes, replaces=[tuple(shapes), None], dtype="float64")
    same = plan_stages(texts, shapes, replaces=[None, None], dtype="float64")
    assert not same.stages[1].steps
    assert len(apart.stages[1].steps) == len(apart.stages[0].steps) == 2
    assert same.flops < shared.flops <= apart.flops
    operands = operands_of(shapes)
    seen = []
    apart.sweep(operands, lambda _, v, now: (seen.append(v), {n: 2 * x for n, x in now.items()})[1])
    np.testing.assert_allclose(seen[1], 8 * np.asarray(seen[0]), rtol=1e-12)


def test_bad_input():
    shapes = {"ij": (5, 4), "jk": (4, 3)}
    with pytest.raises(ValueError, match=r"stage 0: operand 'kl' is not among .*'ij', 'jk'"):
        plan_stages(["ij,kl->i"], shapes)
    with pytest.raises(ValueError, match=r"stage 1: operand 1: index 'j' has size 5.*size 4"):
        plan_stages(["ij,jk->ik", "ij,a:jk->ik"], {**shapes, "a": (5, 3)})
    with pytest.raises(ValueError, match="same subscripts"):
        plan_stages(["ij,ij->"], shapes)
    with pytest.raises(ValueError, match=r"replaces: stage 0 uses none of \['jk', 'kl'\]"):
        plan_stages(["ij->i", "ij,jk,kl->i"], {**shapes, "kl": (3, 2)})
    with pytest.raises(ValueError, match=r"replaces\[0\].*'zz'"):
        plan_stages(["ij,jk->ik"], shapes, replaces=["zz"])
    made = plan_stages(["ij,jk->ik"], shapes)
    with pytest.raises(ValueError, match=r"'jk': planned for shape \(4, 3\), got \(4, 4\)"):
        made.run(0, {"ij": jnp.ones((5, 4)), "jk": jnp.ones((4, 4))}, {})
    with pytest.raises(TypeError, match="operand 'ij': planned for float32, got int32"):
        made.run(0, {"ij": jnp.ones((5, 4), "int32"), "jk": jnp.ones((4, 3))}, {})
