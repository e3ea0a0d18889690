"""The front doors: `plan` and `contract`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from . import execute
from .assemble import Assembly
from .cost import Rates, shipped_rates
from .expression import network
from .network import Network
from .pieces import flat, pieces_of
from .plan import Plan, compiled
from .slicing import cut_plan, limit_bytes, sliced_plan
from .sparse import unrolled

SEARCHES = ("auto", "exact", "opt_einsum", "cotengra")
OBJECTIVES = ("seconds", "flops", "bytes", "memory")


def plan(
    expression: str,
    *operands: Any,
    memory_limit: int | str | None = None,
    slices: Mapping[str, int] | None = None,
    objective: str = "seconds",
    search: Any = "auto",
    constants: Mapping[int, Any] | None = None,
    gradients: bool = False,
    precision: Any = None,
    batch: str | None = None,
    dtype: Any = None,
    device: str | None = None,
    rates: Rates | None = None,
    seed: int = 0,
) -> Plan:
    """Plan a contraction from the shapes of its operands.

    Args:
        expression: einsum subscripts.
        operands: arrays, `jax.ShapeDtypeStruct`s or shapes of the operands that are not
            constants, or formats. A format stands for its dense form (a `TTMatrix` has two
            indices, or one for the rows of each core and then one for the columns of each), and
            is contracted as the network it is.
        memory_limit: bytes (or text such as `"2GB"`) for temporaries and result; a plan that
            needs more is cut into slices that run one after the other.
        slices: the cuts, in place of those a limit would choose: index label to number of
            equal parts.
        objective: what to minimise, `"seconds"`, `"flops"`, `"bytes"` or `"memory"`; ties go
            to the fewest seconds.
        search: `"auto"` (exact for up to 8 operands, opt_einsum's orders beyond), `"exact"`,
            `"opt_einsum"`, `"cotengra"` (where installed; for large loopy networks), or an
            order such as `[(0, 1), (0, 1)]`, in which each array of a format counts.
        constants: operands known now, by position: arrays, formats, or `"copy"`. Sparse ones
            are contracted term by term where that costs less.
        gradients: price the step's gradients too.
        precision: of the matrix products, a `jax.lax.Precision` or its name; highest by default.
        batch: label of an index whose size may change from call to call.
        dtype: of operands given as bare shapes; float32 by default.
        device: kind of device, by default the one jax runs on.
        rates: a measured table in place of the shipped one.
        seed: of searches that draw at random.

    Raises:
        ValueError: the expression does not fit the operands, or no slicing meets the limit.
        TypeError: an operand is not numeric or has no shape.
    """
    pairs = [
        (x, None) if pieces_of(x) else shape_and_dtype(x, p, dtype) for p, x in enumerate(operands)
    ]
    described = network(
        expression,
        [shape for shape, _ in pairs],
        [kind for _, kind in pairs],
        constants=constants,
        batch=batch,
    )
    return plan_network(
        described,
        memory_limit=memory_limit,
        slices=slices,
        objective=objective,
        search=search,
        gradients=gradients,
        precision=precision,
        device=device,
        rates=rates,
        seed=seed,
    )


def plan_network(
    described: Network,
    *,
    memory_limit: int | str | None = None,
    slices: Mapping[str, int] | None = None,
    objective: str = "seconds",
    search: Any = "auto",
    gradients: bool = False,
    precision: Any = None,
    device: str | None = None,
    rates: Rates | None = None,
    seed: int = 0,
) -> Plan:
    """Plan a network that is described already; the arguments are those of `plan`."""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {OBJECTIVES}, got {objective!r}")
    if isinstance(search, str) and search not in SEARCHES:
        raise ValueError(f"search: expected one of {SEARCHES} or an order, got {search!r}")
    table = rates or shipped_rates(device)
    options = {
        "objective": objective,
        "search": search,
        "gradients": gradients,
        "precision": precision_name(precision),
        "rates": table,
        "seed": seed,
    }

    def make(part: Network) -> Plan:
        return _unsliced(part, **options)

    if slices is not None:
        return cut_plan(described, dict(slices), make, gradients=gradients)
    if memory_limit is None:
        return make(described)
    limit = limit_bytes(memory_limit)
    return sliced_plan(described, limit, make, gradients=gradients)


def candidates(
    described: Network,
    *,
    objective: str,
    search: Any,
    gradients: bool,
    precision: str,
    rates: Rates,
    seed: int,
    most: int | None = None,
) -> list[Plan]:
    """Plans of different orders and layouts, the one predicted best first."""
    start = Assembly(described, rates)
    start.prepare()
    found = []
    for begun in (start, unrolled(start)):
        if begun is None:
            continue
        if len(begun.live) == 1:
            begun.arrange(next(iter(begun.live)), described.kept_output)
            found.append(_finished(begun, precision))
            continue
        # An order given by the caller is about the operands as they are.
        how = search if begun is start or isinstance(search, str) else "auto"
        for entry in begun.search(objective, how, seed, gradients)[:most]:
            made = begun.branch()
            made.follow(entry)
            found.append(_finished(made, precision))
    what = {"seconds": "seconds", "flops": "flops", "bytes": "bytes", "memory": "peak_bytes"}
    distinct = dict.fromkeys(found) if len(found) > 1 else found  # hashing a plan is no trifle
    # A stable sort: equal plans stay in the order of the search.
    return sorted(distinct, key=lambda p: (getattr(p, what[objective]), p.seconds))


def _unsliced(described: Network, **options: Any) -> Plan:
    return candidates(described, most=1, **options)[0]


def _finished(made: Assembly, precision: str) -> Plan:
    return Plan(
        network=made.network,
        steps=tuple(made.steps),
        slices=(),
        precision=precision,
        device=made.rates.device,
        peak_bytes=made.peak_bytes,
        order=made.order,
    )


def precision_name(precision: Any) -> str:
    """Name a precision; none is the highest."""
    if precision is None:
        return "HIGHEST"
    if isinstance(precision, str):
        precision = precision.lower()
    try:
        return jax.lax.Precision(precision).name
    except ValueError as error:
        names = [p.name.lower() for p in jax.lax.Precision]
        raise ValueError(f"precision: expected one of {names}, got {precision!r}") from error


def shape_and_dtype(x: Any, position: int | str, dtype: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of an operand given as an array, a description, or a bare shape."""
    if pieces_of(x):
        raise TypeError(f"operand {position!r}: expected an array or a shape, got {x!r}")
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return tuple(x.shape), jax.dtypes.canonicalize_dtype(x.dtype)
    if isinstance(x, Sequence) and all(isinstance(n, int) for n in x):
        return tuple(x), dtype or "float32"
    try:
        array = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"operand {position!r}: expected an array or a shape, got {type(x).__name__}"
        ) from error
    return array.shape, array.dtype


_PLANS: dict[Any, Any] = {}


def contract(
    expression: str,
    *operands: Any,
    precision: Any = jax.lax.Precision.HIGHEST,
    strip_exponent: bool = False,
    **options: Any,
) -> Any:
    """Contract `operands` as the einsum `expression` says, by a plan made from their shapes.

    Plans are kept in memory: the second call of the same shapes runs the compiled plan.

    Args:
        expression: einsum subscripts, such as `"ijk,kr->ijr"`.
        operands: arrays and formats, see `plan`.
        precision: of the matrix products; the highest by default, since the lower precision that
            accelerators use otherwise breaks orthogonality and equivariance.
        strip_exponent: return `(mantissa, log_scale)`, the result being
            `mantissa * exp(log_scale)`.
        options: further arguments of `plan`.

    Returns:
        The contraction, in the operands' dtype.

    Raises:
        ValueError: the subscripts do not fit the operands.
        TypeError: an operand is not an array of numbers.
    """
    arrays, formats = flat(operands)
    key: Any = (
        expression,
        precision,
        strip_exponent,
        tuple(x.shape for x in arrays),
        tuple(x.dtype for x in arrays),
        formats,
    )
    if options:
        key = (key, _frozen(options))
    made = _PLANS.get(key)
    if made is None:
        given = [x if pieces_of(x) else jnp.asarray(x) for x in operands]
        made = _PLANS[key] = plan(expression, *given, precision=precision, **options)
        if len(_PLANS) > 4096:
            _PLANS.pop(next(iter(_PLANS)))
    return compiled(made, strip_exponent, execute.is_sharded(arrays))(*arrays)


def _frozen(value: Any) -> Any:
    """A hashable stand-in for options, constants by content."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(k), _frozen(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    if pieces_of(value):
        return _frozen(pieces_of(value))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        from .network import Constant

        return Constant.of(value)
    return value
