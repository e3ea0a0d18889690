"""Decompositions of dense tensors: seconds at equal error against TensorLy."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tensornet.decompose import cp_als, hooi, hosvd, tr_als, tt_svd
from tensornet.formats import CP, TensorRing

from .. import data, peers
from ..case import Case, Peer, Speed
from ..child import ChildProgram
from ..machine import Machine
from ..measure import Program

SUITE = "decompositions"


def cases(quick: bool) -> list[Case]:
    """Return the cases; the quick ones are smaller and promise nothing."""
    side, side4, count = (60, 24, 100) if quick else (200, 60, 1000)
    return [
        *_cp((side,) * 3, quick),
        *_cp((side4,) * 4, quick),
        *_tucker((side,) * 3, quick),
        *_hosvd((side,) * 3),
        *_tensor_train(8 if quick else 16, 6, quick),
        *_many_small(count, quick),
        *_tensor_ring((20,) * 3 if quick else (60,) * 3),
    ]


def _name(method: str, shape: Sequence[int], rest: str) -> str:
    size = f"{shape[0]}^{len(shape)}" if len(set(shape)) == 1 else "x".join(map(str, shape))
    return f"{method} {size} {rest}"


def _judged(x: np.ndarray) -> Callable:
    """Return a judge that rebuilds the tensor and takes the error itself."""

    def judge(result) -> dict[str, float]:
        error = data.relative_error(x, np.asarray(result.tensor.to_dense()))
        return {"error": error, "iterations": float(result.sweeps)}

    return judge


def _cp(shape: tuple[int, ...], quick: bool) -> list[Case]:
    # From a start this near both reach the noise within the sweeps, so that their errors agree.
    rank, sweeps, near = 20, 8, 1.0
    cases = []
    for dtype in ("float64", "float32"):

        def start(dtype=dtype):
            x, factors = data.cp_problem(shape, rank, near=near)
            held = tuple(jnp.asarray(factor, dtype) for factor in factors)
            return x, jnp.asarray(x, dtype), CP(jnp.ones(rank, dtype), held)

        def decompose(x, init):
            return cp_als(x, rank, init=init, rtol=0.0, max_sweeps=sweeps)

        def ours(start=start):
            exact, x, init = start()
            return Program("ours", lambda: decompose(x, init), _judged(exact))

        def cost(start=start):
            _, x, init = start()
            return decompose, (x, init)

        same = {"shape": shape, "rank": rank, "sweeps": sweeps, "near": near, "dtype": dtype}
        against = [
            Peer(
                lambda same=same: peers.parafac_sweeps(**same),
                target=None if quick or dtype == "float32" else 2.0,
                memory=True,
            )
        ]
        if dtype == "float64":
            against.append(
                Peer(
                    lambda same=same: ChildProgram(
                        "tensorly jax",
                        "benchmarks.peers:parafac_sweeps",
                        **same,
                        backend="jax",
                    ),
                    target=None if quick else 8.0,
                    note="in a child process, in turn with ours",
                )
            )
        # A dimension tree needs two products of the whole tensor with `rank` vectors a sweep.
        size, item = math.prod(shape), np.dtype(dtype).itemsize

        def floor(machine: Machine, size=size, item=item, dtype=dtype) -> float:
            return machine.floor(
                dtype, flops=sweeps * 4 * size * rank, read_bytes=sweeps * 2 * size * item
            )

        cases.append(
            Case(
                SUITE,
                _name("cp_als", shape, f"R={rank}"),
                dtype,
                Speed(
                    ours,
                    against,
                    sweeps=sweeps,
                    cost=cost,
                    floor=floor,
                    floor_note="floor: two products of the tensor with R vectors a sweep",
                    note=f"{sweeps} sweeps from the same start, an error each sweep, no stopping",
                ),
            )
        )
    return cases


def _tucker(shape: tuple[int, ...], quick: bool) -> list[Case]:
    rank, tolerance = (20,) * len(shape), 1e-4
    cases = []
    for dtype in ("float64", "float32"):

        def ours(dtype=dtype):
            exact = data.tucker_problem(shape, rank)
            x = jnp.asarray(exact, dtype)
            return Program("ours", lambda: hooi(x, rank, rtol=tolerance), _judged(exact))

        def cost(dtype=dtype):
            x = jnp.asarray(data.tucker_problem(shape, rank), dtype)
            return (lambda x: hooi(x, rank, rtol=tolerance)), (x,)

        def theirs(label, dtype=dtype, **options):
            x = data.tucker_problem(shape, rank).astype(dtype)
            return peers.tucker(x, rank, label=label, **options)

        def gram(dtype=dtype):
            x = data.tucker_problem(shape, rank).astype(dtype)
            return peers.gram_hooi(x, rank, tolerance=tolerance)

        claimed = not quick and dtype == "float64"
        against = [
            Peer(lambda theirs=theirs: theirs(", default"), target=30.0 if claimed else None),
            Peer(
                lambda theirs=theirs: theirs(
                    ", randomized init", svd="randomized_svd", random_state=0
                ),
                target=8.0 if claimed else None,
            ),
            Peer(
                gram,
                note="the ratio is XLA's share, the rest of the ratios above is the Gram matrices'",
                memory=True,
            ),
        ]
        cases.append(
            Case(
                SUITE,
                _name("hooi", shape, "rank 20"),
                dtype,
                Speed(
                    ours,
                    against if dtype == "float64" else against[1:],
                    cost=cost,
                    floor=_one_reading(shape, dtype),
                    floor_note="floor: the tensor read once",
                    note="each to its own rule at a tolerance of 1e-4",
                ),
            )
        )
    return cases


def _hosvd(shape: tuple[int, ...]) -> list[Case]:
    rank = (20,) * len(shape)

    def ours():
        exact = data.tucker_problem(shape, rank)
        x = jnp.asarray(exact)
        return Program("ours", lambda: hosvd(x, rank=rank), _judged(exact))

    def theirs():
        return peers.tucker(
            data.tucker_problem(shape, rank),
            rank,
            label=", no sweeps",
            n_iter_max=0,
            svd="randomized_svd",
            random_state=0,
        )

    speed = Speed(
        ours,
        [Peer(theirs, note="randomized SVD of each unfolding")],
        floor=_one_reading(shape, "float64"),
        floor_note="floor: the tensor read once",
    )
    return [Case(SUITE, _name("hosvd", shape, "rank 20"), "float64", speed)]


def _tensor_train(points: int, modes: int, quick: bool) -> list[Case]:
    shape = (points,) * modes
    cases = []
    for dtype, rtol in (("float64", 1e-6), ("float32", 1e-3)):

        def ours(dtype=dtype, rtol=rtol):
            exact = data.smooth_function(points, modes)
            x = jnp.asarray(exact, dtype)
            return Program("ours", lambda: tt_svd(x, rtol=rtol), _judged(exact))

        def theirs(dtype=dtype, rtol=rtol, **options):
            x = data.smooth_function(points, modes).astype(dtype)
            ranks = tt_svd(jnp.asarray(x), rtol=rtol).tensor.rank
            return peers.tensor_train(x, ranks, **options)

        claimed = not quick and dtype == "float64"
        cases.append(
            Case(
                SUITE,
                _name("tt_svd", shape, f"rtol={rtol:g}"),
                dtype,
                Speed(
                    ours,
                    [
                        Peer(
                            theirs,
                            target=10.0 if claimed else None,
                            note="at the ranks ours found",
                            memory=True,
                        )
                    ],
                    error_at_most=rtol,
                    floor=_one_reading(shape, dtype),
                    floor_note="floor: the tensor read once",
                    note=f"error to be at most {rtol:g}",
                ),
            )
        )
    return cases


def _many_small(count: int, quick: bool) -> list[Case]:
    shape, rank, sweeps = (8, 9, 10), 3, 100
    part = count // 10

    def program(**options):
        exact, starts = data.batch_problem(count, shape, rank)
        x, factors = jnp.asarray(exact), tuple(jnp.asarray(factor) for factor in starts)

        def one(x, factors):
            init = CP(jnp.ones(rank, x.dtype), factors)
            return cp_als(x, rank, init=init, throw=False, **options)

        decompose = jax.jit(jax.vmap(one))

        def judge(result) -> dict[str, float]:
            dense = np.asarray(jax.vmap(lambda cp: cp.to_dense())(result.tensor))
            # The same tensors as the peer's part of the loop.
            errors = [data.relative_error(exact[k], dense[k]) for k in range(part)]
            return {"error": float(np.median(errors)), "iterations": float(max(result.sweeps))}

        return Program("ours", lambda: decompose(x, factors), judge)

    def loop(**options):
        exact, starts = data.batch_problem(count, shape, rank)
        return peers.parafac_loop(
            exact[:part], [factor[:part] for factor in starts], rank, **options
        )

    peer_note = f"{part} of the {count} timed, seconds scaled by {count // part}"
    fixed = Speed(
        lambda: program(rtol=0.0, max_sweeps=sweeps),
        [
            Peer(
                lambda: loop(n_iter_max=sweeps, tol=0, return_errors=True),
                target=None if quick else 50.0,
                scale=count / part,
                note=peer_note,
            )
        ],
        note=f"{sweeps} sweeps each from the same starts; error: median",
    )
    stopping = Speed(
        lambda: program(rtol=1e-8, max_sweeps=500),
        [
            Peer(
                lambda: loop(n_iter_max=500, tol=1e-8),
                target=None if quick else 50.0,
                scale=count / part,
                note=peer_note,
            )
        ],
        note="each tensor to its own stopping at 1e-8, 500 sweeps at most; error: median",
    )
    name = f"cp_als {count} tensors 8x9x10 R={rank}"
    return [
        Case(SUITE, f"{name}, {sweeps} sweeps", "float64", fixed),
        Case(SUITE, f"{name}, to 1e-8", "float64", stopping),
    ]


def _tensor_ring(shape: tuple[int, ...]) -> list[Case]:
    rank, sweeps = 4, 10  # at 14 the error no longer moves and both stop
    ring = (rank,) * (len(shape) + 1)

    def ours():
        exact = data.ring_problem(shape, rank)
        x = jnp.asarray(exact)
        start = TensorRing(tuple(jnp.asarray(c) for c in peers.ring_start(shape, ring, 0)))
        return Program(
            "ours",
            lambda: tr_als(x, ring[:-1], init=start, rtol=0.0, max_sweeps=sweeps),
            _judged(exact),
        )

    def theirs(solver):
        return peers.tensor_ring_als(
            data.ring_problem(shape, rank),
            ring,
            label=f", {solver}",
            ls_solve=solver,
            n_iter_max=sweeps,
            tol=1e-300,
            random_state=0,
        )

    speed = Speed(
        ours,
        [Peer(lambda: theirs("lstsq")), Peer(lambda: theirs("normal_eq"))],
        sweeps=sweeps,
        note=f"{sweeps} sweeps from the same start",
    )
    return [Case(SUITE, _name("tr_als", shape, f"rank {rank}"), "float64", speed)]


def _one_reading(shape: Sequence[int], dtype: str) -> Callable[[Machine], float]:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return lambda machine: machine.floor(dtype, read_bytes=size)
