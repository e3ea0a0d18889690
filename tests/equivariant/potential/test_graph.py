"""Graphs: padding that changes nothing, sizes that few graphs differ in, what is refused."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from equivariant.nn import smooth_cutoff
from equivariant.potential import bucket, energy_forces_stress, graph_of, padded

pytestmark = pytest.mark.slow

CUTOFF = 3.0


def structure(seed, atoms, dtype=None, periodic=True, **options):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[:atoms] * 1.4
    positions = grid + rng.uniform(-0.2, 0.2, grid.shape)
    cell = 4.2 * np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
    options = {"cutoff": CUTOFF, "species": (1, 8), "cell": cell, "periodic": periodic} | options
    return graph_of(positions, rng.choice([1, 8], atoms), dtype=dtype, **options)


def pairs(graph):
    """A smooth pair energy that knows species, half of it to each receiver."""
    r = jnp.linalg.norm(graph.vectors, axis=1)
    kind = (1 + graph.species[graph.senders] + graph.species[graph.receivers]).astype(r.dtype)
    energy = kind * jnp.exp(-r) * smooth_cutoff(r, CUTOFF) / 2
    return jnp.zeros(len(graph.positions), r.dtype).at[graph.receivers].add(energy) + 0.25


def test_padded_edges_are_beyond_the_cutoff_and_padding_changes_nothing(dtype):
    graphs = [structure(n, atoms, dtype) for n, atoms in enumerate((5, 3))]
    joined = padded(graphs, cutoff=CUTOFF, sizes=(3, 9, sum(g.sizes[2] for g in graphs)))
    larger = padded(graphs, cutoff=CUTOFF, sizes=(5, 24, 1024))
    extra = np.linalg.norm(larger.vectors[joined.sizes[2] :], axis=1)
    np.testing.assert_allclose(extra, 2 * CUTOFF, rtol=1e-6)
    few, many = (jax.jit(lambda g: energy_forces_stress(pairs, g))(g) for g in (joined, larger))
    # The same sums; vectorised loops of another length may round one term otherwise.
    close = {"rtol": 0, "atol": 16 * jnp.finfo(dtype).eps}
    np.testing.assert_allclose(many.energy[:3], few.energy, **close)
    np.testing.assert_allclose(many.forces[:8], few.forces[:8], **close)
    np.testing.assert_allclose(many.stress[:2], few.stress[:2], **close)
    assert not np.any(many.energy[2:])
    assert not np.any(many.forces[8:])
    assert not np.any(many.stress[2:])
    assert larger.atoms.sum() == 8


def test_a_joined_structure_has_the_results_it_has_alone(dtype):
    graphs = [structure(n, atoms, dtype) for n, atoms in enumerate((5, 3))]
    together = energy_forces_stress(pairs, padded(graphs, cutoff=CUTOFF))
    alone = [energy_forces_stress(pairs, graph) for graph in graphs]
    eps = 64 * jnp.finfo(dtype).eps
    for n, (own, nodes) in enumerate(zip(alone, (slice(0, 5), slice(5, 8)), strict=True)):
        np.testing.assert_allclose(together.energy[n], own.energy[0], rtol=eps)
        np.testing.assert_allclose(together.forces[nodes], own.forces, rtol=0, atol=10 * eps)
        np.testing.assert_allclose(together.stress[n], own.stress[0], rtol=0, atol=eps)


@given(st.integers(0, 10**7), st.sampled_from([1, 8, 64]))
def test_buckets_hold_and_waste_little(number, multiple):
    size = bucket(number, multiple=multiple)
    assert size >= number
    assert size % multiple == 0
    assert size - number < max(0.2 * size + multiple, 2 * multiple)
    assert bucket(size, multiple=multiple) == size


def test_no_recompilation_after_warm_up_and_little_padding():
    """Fifty frames of differing size, after the sizes of the largest and smallest were seen."""
    rng = np.random.default_rng(0)
    frames = [
        [structure(int(n), int(a), jnp.float32) for n, a in enumerate(rng.integers(20, 28, 4))]
        for _ in range(50)
    ]
    traced = []

    @jax.jit
    def run(graph):
        traced.append(graph.sizes)
        return graph.vectors.sum(), graph.species.sum()

    batches = [padded(frame, cutoff=CUTOFF) for frame in frames]
    for sizes in sorted({batch.sizes for batch in batches}):
        run(padded(frames[0][:1], cutoff=CUTOFF, sizes=sizes))
    warm = len(traced)
    assert warm <= 6  # of fifty
    for frame, batch in zip(frames, batches, strict=True):
        run(batch)
        for position in (1, 2):
            real = sum(g.sizes[position] for g in frame)
            assert batch.sizes[position] <= real / 0.7
    assert len(traced) == warm
    assert len({sum(g.sizes[2] for g in frame) for frame in frames}) > 10


def test_refusals():
    with pytest.raises(ValueError, match=r"numbers: expected species among \[1, 8\], got \[6\]"):
        graph_of(np.zeros((1, 3)), [6], cutoff=1.0, species=(1, 8))
    with pytest.raises(ValueError, match=r"numbers: expected shape \(1,\) like positions"):
        graph_of(np.zeros((1, 3)), [1, 1], cutoff=1.0, species=(1, 8))
    with pytest.raises(ValueError, match="graphs: expected at least one"):
        padded([], cutoff=1.0)
    with pytest.raises(ValueError, match=r"sizes: expected at least \(2, 4, 6\)"):
        padded([structure(0, 3, periodic=False, cutoff=4.0)], cutoff=4.0, sizes=(2, 3, 99))
