"""Real data from TensorLy's own wheel: the error reached, to four decimals, over five seeds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tensornet.decompose import cp_als, hooi

from .. import data, peers
from ..case import Case, Quality
from ..measure import Program

SUITE = "real_data"


def cases(quick: bool) -> list[Case]:
    """Return the cases; quick leaves the large cube out."""
    small = [
        *(_cp("covid19 serology", rank, error, 5) for rank, error in _SEROLOGY.items()),
        *(_cp("kinetic", rank, error, 1) for rank, error in _KINETIC.items()),
        _missing("IL-2", 3, 0.2382),
    ]
    return small if quick else [_cube_cp(), _cube_tucker(), *small]


_SEROLOGY = {3: 0.4706, 5: 0.4118, 10: 0.3097}
_KINETIC = {3: 0.0500, 5: 0.0450}


@functools.cache
def load(name: str) -> np.ndarray:
    """Return one of TensorLy's data sets as a float64 array."""
    from tensorly import datasets

    loaders = {
        "covid19 serology": datasets.load_covid19_serology,
        "kinetic": datasets.load_kinetic,
        "IL-2": datasets.load_IL2data,
        "indian pines": datasets.load_indian_pines,
    }
    return np.asarray(loaders[name]().tensor, np.float64)


def _judge(x: np.ndarray, result) -> dict[str, float]:
    error = data.relative_error(x, np.asarray(result.tensor.to_dense()))
    return {"error": error, "iterations": float(result.sweeps)}


def _program(x: np.ndarray, run) -> Program:
    return Program("ours", run, functools.partial(_judge, x))


def _cp(name: str, rank: int, error: float, peer_seeds: int) -> Case:
    def ours(seed):
        held = jnp.asarray(load(name))
        key = jax.random.key(seed)
        return _program(load(name), lambda: cp_als(held, rank, key=key, init="random"))

    def theirs(seed):
        return peers.parafac(load(name), rank, init="random", random_state=seed, n_iter_max=500)

    quality = Quality(
        ours,
        at_most=error,
        peer=theirs,
        peer_seeds=peer_seeds,
        note="random starts on both sides, 500 sweeps at most",
    )
    return Case(SUITE, f"{name} CP {rank}", "float64", quality)


def _missing(name: str, rank: int, error: float) -> Case:
    def ours(seed):
        exact = load(name)
        held, mask = jnp.asarray(exact), jnp.asarray(~np.isnan(exact))
        key = jax.random.key(seed)

        def run():
            return cp_als(held, rank, key=key, mask=mask, init="random", max_sweeps=200)

        return _program(exact, run)

    def theirs(seed):
        exact = load(name)
        return peers.parafac(
            exact,
            rank,
            mask=~np.isnan(exact),
            init="random",
            random_state=seed,
            n_iter_max=1000,
        )

    missing = int(np.isnan(load(name)).sum())
    quality = Quality(
        ours,
        at_most=error,
        iterations_at_most=200,
        peer=theirs,
        note=f"error on what is observed, {missing} entries are not; random starts on both sides",
    )
    return Case(SUITE, f"{name} CP {rank}, {missing} missing", "float64", quality)


def _cube_cp() -> Case:
    rank = 20

    def ours(seed):
        held = jnp.asarray(load("indian pines"))
        key = jax.random.key(seed)

        def run():
            return cp_als(held, rank, key=key, init="random", max_sweeps=100)

        return _program(load("indian pines"), run)

    def theirs(seed):
        return peers.parafac(
            load("indian pines"),
            rank,
            init="svd",
            svd="randomized_svd",
            random_state=seed,
            n_iter_max=60,
        )

    quality = Quality(
        ours,
        at_most=0.0612,
        peer=theirs,
        peer_seeds=1,
        note="ours from random starts, 100 sweeps at most; TensorLy from a randomized SVD, "
        "60 sweeps at most",
    )
    return Case(SUITE, f"indian pines CP {rank}", "float64", quality)


def _cube_tucker() -> Case:
    rank = (30, 30, 20)

    def ours(seed):
        held = jnp.asarray(load("indian pines"))
        del seed  # nothing is drawn
        return _program(load("indian pines"), lambda: hooi(held, rank))

    def theirs(seed):
        return peers.tucker(load("indian pines"), rank, svd="randomized_svd", random_state=seed)

    quality = Quality(
        ours,
        at_most=0.0474,
        peer=theirs,
        peer_seeds=1,
        note="nothing random in ours; TensorLy's first factors by randomized SVD",
    )
    return Case(SUITE, "indian pines Tucker 30,30,20", "float64", quality)
