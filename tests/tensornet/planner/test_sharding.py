"""Operands spread over devices: the same result, and the large one stays where it is."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tensornet.planner import contract


@pytest.mark.parametrize(
    ("expression", "shapes", "spec"),
    [
        ("ijk,jr,kr->ir", [(16, 8, 12), (8, 3), (12, 3)], ("d", None, None)),
        ("ijk,ir,kr->jr", [(8, 16, 12), (8, 3), (12, 3)], (None, "d", None)),
        ("ijk,ir,jr->kr", [(8, 12, 16), (8, 3), (12, 3)], (None, None, "d")),
        ("ni,nj,ir,jr,rk->nk", [(64, 4), (64, 5), (4, 6), (5, 6), (6, 3)], ("d", None)),
    ],
)
def test_a_sharded_free_index_is_not_gathered(expression, shapes, spec):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]
    expected = np.einsum(expression, *(np.asarray(a, np.float64) for a in arrays))
    sharded = jax.device_put(arrays[0], NamedSharding(mesh, PartitionSpec(*spec)))
    whole = NamedSharding(mesh, PartitionSpec())
    operands = [sharded, *(jax.device_put(a, whole) for a in arrays[1:])]
    got = contract(expression, *operands)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    from tensornet.planner.plan import compiled
    from tensornet.planner.planning import plan

    made = plan(expression, *arrays)
    text = compiled(made, False, True).lower(*operands).compile().as_text()
    entries = int(np.prod(shapes[0]))
    gathered = [
        int(np.prod([int(d) for d in dims.split(",") if d] or [1]))
        for dims in re.findall(r"= \w+\[([\d,]*)\]\S* all-gather", text)
    ]
    assert all(size < entries for size in gathered)
    assert "all-to-all" not in text
