"""The one chooser between alternatives, and the two calls that measure: `calibrate` and `tune`."""

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import cache
from .cost import Rates, shipped_rates
from .network import Network
from .plan import Plan
from .planning import candidates, plan_network, precision_name
from .stages import StagedPlan
from .table import amount

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Work:
    """What an alternative costs that is no contraction, such as a Fourier transform.

    Attributes:
        flops: operations.
        bytes: read and written.
        run: the callable, returned with the choice.
        efficiency: share of the rate of a large matrix product that it reaches.
    """

    flops: float | int
    bytes: float | int
    run: Any = None
    efficiency: float = 0.25

    def seconds(self, rates: Rates) -> float:
        """Predicted by a table of rates."""
        compute = self.flops / (rates.matmul * self.efficiency)
        return max(compute, self.bytes / rates.bandwidth) + rates.overhead


@dataclasses.dataclass(frozen=True)
class Repeated:
    """An alternative, or a part of one, that runs several times.

    Attributes:
        what: as `cheapest` takes it.
        times: how often.
        efficiency: share of the predicted speed that it reaches here.
    """

    what: Any
    times: int = 1
    efficiency: float = 1.0


def cheapest(
    alternatives: Mapping[str, Any], *, device: str | None = None, rates: Rates | None = None
) -> tuple[str, Any, str]:
    """Choose the alternative of the least predicted seconds; the first of equals.

    Args:
        alternatives: by name, a `Plan`, a `StagedPlan`, a `Network` (which is planned), a
            `Work`, one of these `Repeated`, or a sequence of these that are all needed.
        device: kind of device; by default the one jax runs on.
        rates: a measured table in place of the shipped one.

    Returns:
        The name, the plan (of a network; else the alternative itself), and a table of all.

    Raises:
        ValueError: there is no alternative.
        TypeError: an alternative is none of the above.
    """
    if not alternatives:
        raise ValueError("alternatives: expected at least one, got none")
    table = rates or shipped_rates(device)
    priced = {name: _priced(name, x, table) for name, x in alternatives.items()}
    best = min(priced, key=lambda name: priced[name][0])
    width = max(map(len, priced))
    lines = [f"{'':2}{'alternative':{max(width, 11)}}  seconds   flops    bytes    against best"]
    for name, (seconds, flops, nbytes, _) in sorted(priced.items(), key=lambda kv: kv[1][0]):
        mark = "* " if name == best else "  "
        ratio = seconds / priced[best][0] if priced[best][0] else 1.0
        lines.append(
            f"{mark}{name:{max(width, 11)}}  {seconds:.2e}  {amount(flops, ''):7}  "
            f"{amount(nbytes, 'B'):7}  {ratio:.2f}x"
        )
    return best, priced[best][3], "\n".join(lines)


def _priced(name: str, x: Any, rates: Rates) -> tuple[float, float | int, float | int, Any]:
    if isinstance(x, Network):
        x = plan_network(x, rates=rates)
    if isinstance(x, Work):
        return x.seconds(rates), x.flops, x.bytes, x
    if isinstance(x, (Plan, StagedPlan)):
        return x.seconds, x.flops, x.bytes, x
    if isinstance(x, Repeated):
        *once, chosen = _priced(name, x.what, rates)
        seconds, flops, nbytes = (x.times * value for value in once)
        return seconds / x.efficiency, flops, nbytes, dataclasses.replace(x, what=chosen)
    if isinstance(x, Sequence) and not isinstance(x, str):
        parts = [_priced(name, part, rates) for part in x]
        chosen = type(x)(part[3] for part in parts)  # type: ignore[call-arg]
        total = [sum((part[i] for part in parts), 0.0) for i in range(3)]
        return total[0], total[1], total[2], chosen
    raise TypeError(
        f"alternatives[{name!r}]: expected a Plan, StagedPlan, Network, Work, Repeated or a "
        f"sequence of these, got {type(x).__name__}"
    )


# Measuring ------------------------------------------------------------------------------------


def calibrate(*, seconds: float = 3.0, save: bool = True) -> Rates:
    """Measure a table of rates for this machine.

    Plans use it only where it is given (`plan(..., rates=calibrate())`): default choices never
    come from a clock. With several processes the first one's table is used by all.

    Args:
        seconds: about how long to measure.
        save: keep it in the user's cache directory, where `calibrated` finds it; a directory
            that cannot be written is logged.
    """
    base = shipped_rates()
    key = jax.random.key(0)
    budget = seconds / 5

    def array(*shape: int) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)

    n = 1024
    large = _shortest(product, (array(n, n), array(n, n)), budget)
    rows, columns, inner = base.half
    matmul = 2 * (n + rows) * (n + columns) * (n + inner) / large
    wide = array(2048, 2048)
    read = _shortest(jnp.sum, (wide,), budget)
    copy = _shortest(lambda x: x.T + 0, (wide,), budget)
    tiny = _shortest(product, (array(4, 4), array(4, 4)), budget)
    near = array(512, 512)
    loop = _shortest(lambda x, y: x * y, (near, near), budget)
    # An empty call costs the host as well; what is left over is the step's own.
    vector = near.size / max(loop - tiny, 1e-9)
    bandwidth = wide.nbytes / max(read - tiny, 1e-9)
    # What is not measured keeps its proportion to what is.
    rates = dataclasses.replace(
        base,
        matmul=float(matmul),
        batched=base.batched * float(matmul) / base.matmul,
        bandwidth=bandwidth,
        write=base.write * bandwidth / base.bandwidth,
        strided=wide.nbytes / max(copy - tiny, 1e-9),
        vector=vector,
        jump=base.jump * vector / base.vector,
        column=base.column * vector / base.vector,
        overhead=float(tiny),
    )
    rates = _from_first_process(rates)
    if save:
        cache.put("planner-rates", _calibration_key(base.device), dataclasses.asdict(rates))
    return rates


def calibrated() -> Rates | None:
    """Return the table `calibrate` saved on this machine, or None.

    A table that is there and cannot be read is logged as a warning.
    """
    key = _calibration_key(shipped_rates().device)
    kept = cache.get("planner-rates", key)
    if kept is None:
        return None
    try:
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return Rates(**fields)
    except (TypeError, AttributeError) as error:
        _logger.warning("the table of %s is not of this version, calibrate again: %s", key, error)
        return None


def _calibration_key(device: str) -> dict[str, str]:
    # Machines that share a home directory may have different devices of one kind.
    return {"device": device, "model": jax.devices()[0].device_kind}


def _from_first_process(rates: Rates) -> Rates:
    if jax.process_count() == 1:
        return rates
    from jax.experimental import multihost_utils

    fields = [
        f.name for f in dataclasses.fields(Rates) if isinstance(getattr(rates, f.name), float)
    ]
    values = np.asarray([getattr(rates, name) for name in fields])
    shared = multihost_utils.broadcast_one_to_all(values)
    return dataclasses.replace(rates, **dict(zip(fields, map(float, shared), strict=True)))


def tune(
    plan: Plan,
    *operands: Any,
    gradients: bool = False,
    most: int = 8,
    rounds: int = 7,
    rates: Rates | None = None,
) -> tuple[Plan, str]:
    """Measure the plans predicted best for a plan's network, and return the fastest.

    Args:
        plan: where to start; its own order is among the candidates.
        operands: as for a call of the plan.
        gradients: measure value and gradient instead of the value.
        most: how many candidates to compile and measure.
        rounds: how often each is timed, in turns.
        rates: the table that ranks the candidates.

    Returns:
        The fastest plan, to be kept with the model (`to_json`), and a table of seconds. With
        several processes all return what the first one measured.
    """
    table = rates or shipped_rates(plan.device)
    found = candidates(
        plan.network,
        objective="seconds",
        search="auto",
        gradients=gradients,
        precision=precision_name(plan.precision),
        rates=table,
        seed=0,
    )
    options = list(dict.fromkeys([plan, *found]))[: max(1, most)]
    arrays = jax.tree.map(jnp.asarray, operands)
    runs = [_measured(option, gradients) for option in options]
    for run in runs:
        jax.block_until_ready(run(*arrays))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for spent, run in zip(times, runs, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(run(*arrays))
            spent.append(time.perf_counter() - begin)
    medians = np.asarray([float(np.median(spent)) for spent in times])
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        medians = np.asarray(multihost_utils.broadcast_one_to_all(medians))
    best = int(np.argmin(medians))
    lines = [
        f"{'* ' if i == best else '  '}{seconds:.3e} s measured, {option.seconds:.3e} s "
        f"predicted, order {list(option.order)}"
        for i, (seconds, option) in enumerate(zip(medians, options, strict=True))
    ]
    return options[best], "\n".join(lines)


def _measured(plan: Plan, gradients: bool) -> Any:
    if not gradients:
        return jax.jit(plan)

    def value(operands: Any) -> jax.Array:
        return jnp.sum(plan(*operands) ** 2)

    run = jax.jit(jax.value_and_grad(value))
    return lambda *operands: run(operands)


def _shortest(function: Any, arguments: Sequence[jax.Array], budget: float) -> float:
    run = jax.jit(function)
    jax.block_until_ready(run(*arguments))
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < budget:
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        best = min(best, time.perf_counter() - start)
    return best
