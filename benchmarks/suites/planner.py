"""The planner's lowering against `jnp.einsum` and against code written by hand."""

import dataclasses
import functools
import importlib.util
import math
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum

from tensornet.planner import contract, plan, plan_stages

from ..case import Case, Context, Peer, Speed
from ..measure import Program, compiled_cost, interleave
from ..rows import Row, ratio

SUITE = "planner"
HIGHEST = jax.lax.Precision.HIGHEST
CORE = "ni,nj,ir,jr,rk->nk"


def cases(quick: bool) -> list[Case]:
    """Return the cases; the quick ones are smaller and promise nothing."""
    side = 60 if quick else 200
    found = [_mttkrp(side, mode, quick) for mode in range(3)]
    found.append(Case(SUITE, f"MTTKRP {side}^3 R=16, mean of modes", "float32", Mean(side, quick)))
    found += [_sweep((side,) * 3, quick), _sweep((24 if quick else 60,) * 4, quick)]
    targets = (2.0, 5.0, 8.0)
    for size, target in zip(
        ((16384, 16, 48), (2048, 49, 147), (10000, 49, 200)), targets, strict=True
    ):
        n = size[0] // 16 if quick else size[0]
        found.append(_core(n, *size[1:], None if quick else target))
    found.append(_clebsch_gordan(3, 2048 if quick else 16384, quick))
    found.append(Case(SUITE, "cached contract above the jitted call", "float32", CallCost()))
    found.append(Case(SUITE, "planning 6 operands", "float32", Planning()))
    if _loopy_network() is not None and importlib.util.find_spec("cotengra"):
        found.append(Case(SUITE, "loopy network of 52 tensors, cotengra", "float32", Loopy()))
    return found


def _arrays(*shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@functools.lru_cache(maxsize=1)
def _exact(expression: str, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    arrays = [np.asarray(a, np.float64) for a in _arrays(*shapes)]
    return opt_einsum.contract(expression, *arrays, optimize="dp")


def _einsum(expression: str) -> Callable:
    return lambda *arrays: jnp.einsum(expression, *arrays, precision=HIGHEST)


def _program(name: str, function: Callable, expression: str, *shapes: tuple[int, ...]) -> Program:
    arrays = _arrays(*shapes)
    exact = _exact(expression, shapes)

    def judge(result: Any) -> dict[str, float]:
        # Rounding of one sum or another is no difference between methods.
        error = float(
            np.linalg.norm(np.asarray(result, np.float64) - exact) / np.linalg.norm(exact)
        )
        return {"error": max(error, 1e-6)}

    run = jax.jit(function)
    return Program(name, lambda: run(*arrays), judge)


@dataclasses.dataclass(frozen=True)
class Lowered(Speed):
    """Seconds, and XLA's temporary bytes beside those of the first peer's program.

    Attributes:
        functions: ours and the peer's, with the operands' shapes.
        temp_target: the least ratio of temporary bytes that is held.
        compile_target: the most seconds of compiling that are held.
    """

    functions: tuple[Callable, Callable, tuple[tuple[int, ...], ...]] | None = None
    temp_target: float | None = None
    compile_target: float | None = None

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        for row in super().rows(case, context):
            if row.quantity == "compile_seconds" and self.compile_target is not None:
                most = self.compile_target
                yield dataclasses.replace(
                    row, target=most, target_is="ours at most", met=row.ours <= most
                )
            else:
                yield row
        if self.functions is None:
            return
        ours, theirs, shapes = self.functions
        arrays = _arrays(*shapes)
        bytes_ours = compiled_cost(ours, *arrays)["temp_bytes"]
        bytes_theirs = compiled_cost(theirs, *arrays)["temp_bytes"]
        # A program without any temporary is a ratio that has no number: count a kilobyte.
        share = ratio(bytes_theirs, max(bytes_ours, 1024.0))
        yield case.row(
            context,
            quantity="temp_bytes",
            unit="bytes",
            ours=bytes_ours,
            peer_name="jnp.einsum",
            peer=bytes_theirs,
            ratio=share,
            target=self.temp_target,
            target_is="" if self.temp_target is None else "ratio at least",
            met=None if self.temp_target is None else (share or 0.0) >= self.temp_target,
            note="XLA's temporary buffers",
        )


def _compared(
    name: str,
    expression: str,
    shapes: tuple[tuple[int, ...], ...],
    target: float | None,
    *,
    temp_target: float | None = None,
    hand: Callable | None = None,
) -> Case:
    def ours(*arrays: jax.Array) -> jax.Array:
        return contract(expression, *arrays)

    theirs = _einsum(expression)
    peers = [
        Peer(lambda: _program("jnp.einsum", theirs, expression, *shapes), target=target),
    ]
    if hand is not None:
        peers.append(
            Peer(
                lambda: _program("by hand", hand, expression, *shapes),
                note="to be no slower than the A/A ratio and 5% allow",
            )
        )
    speed = Lowered(
        lambda: _program("ours", ours, expression, *shapes),
        peers,
        within=1.0,
        functions=(ours, theirs, shapes),
        temp_target=temp_target,
    )
    return Case(SUITE, name, "float32", speed)


_MODES = ("ijk,jr,kr->ir", "ijk,ir,kr->jr", "ijk,ir,jr->kr")


def _mttkrp(side: int, mode: int, quick: bool) -> Case:
    shapes = ((side,) * 3, (side, 16), (side, 16))
    target = None if quick or mode < 2 else 4.0
    name = f"MTTKRP {side}^3 R=16, mode {mode}"
    temp = None if quick or mode == 0 else 4.0
    return _compared(name, _MODES[mode], shapes, target, temp_target=temp)


@dataclasses.dataclass(frozen=True)
class Mean(Speed):
    """Geometric mean over the modes of the ratio to `jnp.einsum`."""

    ours: Any = None
    side: int = 200
    quick: bool = False

    def __init__(self, side: int, quick: bool):
        object.__setattr__(self, "side", side)
        object.__setattr__(self, "quick", quick)

    def program(self) -> Any:
        """Return the program of the last mode."""
        return self._pair(2)[0]

    def _pair(self, mode: int) -> tuple[Program, Program]:
        expression = _MODES[mode]
        shapes = ((self.side,) * 3, (self.side, 16), (self.side, 16))
        mine = _program("ours", lambda *a: contract(expression, *a), expression, *shapes)
        return mine, _program("jnp.einsum", _einsum(expression), expression, *shapes)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure the modes one after the other, each interleaved with its peer."""
        least, most = context.rounds
        runs = [
            interleave(*self._pair(mode), budget=context.budget / 3, least=least, most=most)
            for mode in range(3)
        ]
        best = [(min(t.ours), min(t.peer)) for t in runs]
        middle = [(statistics.median(t.ours), statistics.median(t.peer)) for t in runs]
        means = [math.prod(b / a for a, b in pairs) ** (1 / 3) for pairs in (best, middle)]
        target = None if self.quick else 2.0
        yield case.row(
            context,
            quantity="seconds",
            unit="s, three modes",
            ours=sum(a for a, _ in best),
            peer_name="jnp.einsum",
            peer=sum(b for _, b in best),
            ratio=means[0],
            ratio_median=means[1],
            aa_ratio=math.prod(t.aa_ratio for t in runs) ** (1 / 3),
            rounds=min(t.rounds for t in runs),
            target=target,
            target_is="" if target is None else "ratio at least",
            met=None if target is None else min(means) >= target,
            note="ratio: geometric mean over the modes",
        )


def _sweep(shape: tuple[int, ...], quick: bool) -> Case:
    """All MTTKRPs of a sweep with fixed factors: a dimension tree against one einsum a mode."""
    modes, rank = "ijkl"[: len(shape)], 16
    factors = [f"{m}r" for m in modes]
    expressions = [
        ",".join([modes, *(f for f in factors if f != own)]) + f"->{own}" for own in factors
    ]
    shapes = {modes: shape, **dict.fromkeys(factors, (shape[0], rank))}
    made = plan_stages(expressions, shapes)

    # Normalised as in a sweep, so that no stage can be shared that must not be.
    def ours(*arrays: jax.Array) -> list[jax.Array]:
        operands = dict(zip(shapes, arrays, strict=True))
        new = made.sweep(operands, lambda _, value, __: value / jnp.linalg.norm(value))
        return [new[f] for f in factors]

    def theirs(*arrays: jax.Array) -> list[jax.Array]:
        now = dict(zip(shapes, arrays, strict=True))
        for text, own in zip(expressions, factors, strict=True):
            value = _einsum(text)(*(now[n] for n in text.split("->")[0].split(",")))
            now[own] = value / jnp.linalg.norm(value)
        return [now[f] for f in factors]

    def program(name: str, function: Callable) -> Program:
        arrays = _arrays(*shapes.values())
        run = jax.jit(function)
        return Program(name, lambda: run(*arrays))

    label = f"{shape[0]}^{len(shape)} R={rank}"
    speed = Lowered(
        lambda: program("ours", ours),
        [
            Peer(
                lambda: program(f"{len(shape)} jnp.einsums", theirs),
                target=None if quick else 3.0,
            )
        ],
        functions=(ours, theirs, tuple(shapes.values())),
        note="the contractions of one sweep, every factor new after its own",
    )
    return Case(SUITE, f"CP sweep {label}", "float32", speed)


def _core(n: int, d: int, r: int, target: float | None) -> Case:
    def hand(x: Any, y: Any, a: Any, b: Any, c: Any) -> Any:
        left, right = (jnp.matmul(u, v, precision=HIGHEST) for u, v in ((x, a), (y, b)))
        return jnp.matmul(left * right, c, precision=HIGHEST)

    shapes = ((n, d), (n, d), (d, r), (d, r), (r, d))
    return _compared(f"{CORE} n={n} d={d} r={r}", CORE, shapes, target, hand=hand)


def _clebsch_gordan(degree: int, n: int, quick: bool) -> Case:
    import e3nn_jax

    dim = (degree + 1) ** 2
    table = np.zeros((dim, dim, dim), np.float32)
    parts = [slice(k * k, (k + 1) ** 2) for k in range(degree + 1)]
    for l1 in range(degree + 1):
        for l2 in range(degree + 1):
            for l3 in range(abs(l1 - l2), min(degree, l1 + l2) + 1):
                table[parts[l1], parts[l2], parts[l3]] = e3nn_jax.clebsch_gordan(l1, l2, l3)
    table[np.abs(table) < 1e-7] = 0
    expression = "ni,nj,ijk->nk"
    made = plan(expression, (n, dim), (n, dim), constants={2: table})
    full = _arrays((n, dim), (n, dim))

    def program(name: str, function: Callable) -> Program:
        exact = np.einsum(expression, *full, table, dtype=np.float64, optimize=True)
        run = jax.jit(function)

        def judge(result: Any) -> dict[str, float]:
            error = np.linalg.norm(result - exact) / np.linalg.norm(exact)
            return {"error": max(float(error), 1e-6)}

        return Program(name, lambda: run(*full), judge)

    speed = Lowered(
        lambda: program("ours", lambda x, y: made(x, y)),
        [
            Peer(
                lambda: program(
                    "jnp.einsum", lambda x, y: _einsum(expression)(x, y, jnp.asarray(table))
                ),
                target=None if quick else 1.6,
            )
        ],
        within=1.0,
        compile_target=None if quick else 0.5,
        note=f"{np.count_nonzero(table)} coefficients, {made.steps[0].how}",
    )
    return Case(SUITE, f"Clebsch-Gordan L={degree} n={n}", "float32", speed)


class Figure(Speed):
    """One number that is no comparison of two programs."""

    def __init__(self):
        pass

    def program(self) -> Any:
        """Return a program that takes the figure once."""
        return Program("ours", self.figure)

    def figure(self) -> tuple[float, str]:
        """Return the number and a note."""
        raise NotImplementedError

    quantity, unit, most = "seconds", "s", 0.0

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Take the figure."""
        value, note = self.figure()
        yield case.row(
            context,
            quantity=self.quantity,
            unit=self.unit,
            ours=value,
            target=None if context.quick else self.most,
            target_is="" if context.quick else "ours at most",
            met=None if context.quick else value <= self.most,
            note=note,
        )


class CallCost(Figure):
    """What a cached `contract` outside jit costs above the jitted function."""

    most = 40e-6

    def figure(self) -> tuple[float, str]:
        shapes = ((8, 4), (8, 4), (4, 6), (4, 6), (6, 4))
        arrays = _arrays(*shapes)
        jitted = jax.jit(lambda *a: contract(CORE, *a))
        spent: dict[str, list[float]] = {"contract": [], "jitted": []}
        for _ in range(30):
            for name, call in (
                ("contract", lambda: contract(CORE, *arrays)),
                ("jitted", lambda: jitted(*arrays)),
            ):
                jax.block_until_ready(call())
                start = time.perf_counter()
                for _ in range(100):
                    result = call()
                jax.block_until_ready(result)
                spent[name].append((time.perf_counter() - start) / 100)
        middle = {name: statistics.median(times) for name, times in spent.items()}
        note = ", ".join(f"{name} {1e6 * seconds:.1f} us" for name, seconds in middle.items())
        return middle["contract"] - middle["jitted"], f"medians: {note}; five operands"


class Planning(Figure):
    """How long a plan of six operands takes to make."""

    most = 0.05

    def figure(self) -> tuple[float, str]:
        networks = [
            ("ab,bc,cd,de,ef,fg->ag", [(10, 20), *[(20, 20)] * 4, (20, 5)]),
            ("ijk,ir,jr,kr,as,ar->s", [(20,) * 3, *[(20, 6)] * 3, (4, 5), (4, 6)]),
            ("nabcd,ai,bj,ck,dl,nz->zijkl", [(32, 8, 8, 8, 8), *[(8, 8)] * 4, (32, 7)]),
        ]
        times = []
        for expression, shapes in networks:
            runs = []
            for _ in range(5):
                start = time.perf_counter()
                plan(expression, *shapes)
                runs.append(time.perf_counter() - start)
            times.append(statistics.median(runs))
        note = ", ".join(f"{1e3 * t:.1f} ms" for t in times)
        return max(times), f"a chain, CP factors with others, a Tucker form: {note}"


class Loopy(Figure):
    """The order of a loopy network, found by cotengra."""

    quantity, unit, most = "flops", "log10 multiplications", 13.6

    def figure(self) -> tuple[float, str]:
        network = _loopy_network()
        assert network is not None
        expression, shapes = network
        start = time.perf_counter()
        made = plan(expression, *shapes, search="cotengra")
        seconds = time.perf_counter() - start
        note = f"found in {seconds:.1f} s; p_first_and_last(3, 16, 11) of einsum-benchmark"
        if seconds > 10:
            raise RuntimeError(f"the search took {seconds:.1f} s, more than 10 s")
        # The literature counts multiplications; `flops` counts additions too.
        return math.log10(made.flops / 2), note


def _loopy_network() -> tuple[str, list[tuple[int, ...]]] | None:
    """The network of einsum-benchmark's generator, where that package is installed.

    Its top module wants to load the instances it downloads, so only the generator is imported.
    """
    spec = importlib.util.find_spec("einsum_benchmark")
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(next(iter(spec.submodule_search_locations)))
    stubs = {
        "einsum_benchmark": base,
        "einsum_benchmark.generators": base / "generators",
        "einsum_benchmark.generators.language_model": base / "generators" / "language_model",
    }
    before = {name: sys.modules.get(name) for name in stubs}
    try:
        for name, path in stubs.items():
            module = types.ModuleType(name)
            module.__path__ = [str(path)]
            sys.modules[name] = module
        generator = importlib.import_module(f"{list(stubs)[-1]}.generator")
        expression, shapes = generator.p_first_and_last(3, 16, 11)
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
    return expression, [tuple(int(n) for n in shape) for shape in shapes]
