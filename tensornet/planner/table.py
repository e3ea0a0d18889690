"""Plans as text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cost import SHIPPED

if TYPE_CHECKING:
    from .plan import Plan, Step
    from .stages import StagedPlan


def table(plan: "Plan") -> str:
    """One line per step: einsum, sizes, copies, flops, bytes and share of the roofline."""
    network = plan.network
    names = [f"[{network.name(p)}]" for p in range(len(network.terms))]
    names += [f"({s})" for s in range(len(plan.steps))]
    lines = _rows(plan.steps, names, len(network.terms), plan.device)
    sliced = "".join(f", {label} in {count} slices" for label, count in plan.slices)
    head = f"{network.expression} ({network.dtype}, {plan.device}{sliced})"
    if network.given is not None:
        kinds = ", ".join(network.given.kinds)
        head = f"{network.given.expression} of {kinds}:\n{head}"
    total = (
        f"total: {amount(plan.flops, '')} flops, {amount(plan.bytes, 'B')} moved, "
        f"{amount(plan.copied_bytes, 'B')} copied, peak {amount(plan.peak_bytes, 'B')}, "
        f"predicted {plan.seconds:.2e} s"
    )
    return "\n".join([head, *lines, total])


def staged_table(plan: "StagedPlan") -> str:
    """The steps of every stage; results live on from stage to stage by their numbers."""
    total = sum(len(stage.steps) for stage in plan.stages)
    names = [f"[{name}]" for name in plan.names] + [f"({s})" for s in range(total)]
    lines = []
    for k, stage in enumerate(plan.stages):
        new = f", then {', '.join(stage.replaces)} is new" if stage.replaces else ""
        lines.append(f"stage {k}: {stage.network.expression}{new}")
        lines += ["  " + x for x in _rows(stage.steps, names, plan.first(k), plan.device)]
    lines.append(
        f"sweep: {amount(plan.flops, '')} flops, {amount(plan.bytes, 'B')} moved, "
        f"{amount(plan.copied_bytes, 'B')} copied, predicted {plan.seconds:.2e} s "
        f"({plan.device})"
    )
    return "\n".join(lines)


def _rows(steps: "Sequence[Step]", names: Sequence[str], first: int, device: str) -> list[str]:
    rows = [("step", "how", "einsum", "m x n x k x batch", "copies", "flops", "bytes", "roofline")]
    for s, step in enumerate(steps):
        sizes = " x ".join(map(str, step.size)) if len(step.inputs) > 1 else ""
        rows.append(
            (
                f"{names[first + s]} = {','.join(names[i] for i in step.inputs)}",
                step.how,
                step.expression,
                sizes,
                amount(step.copied, "B") if step.copied else "-",
                amount(step.flops, ""),
                amount(step.bytes, "B"),
                f"{roofline_share(step, device):.0%}",
            )
        )
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    return [
        "  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def roofline_share(step: "Step", device: str) -> float:
    """Seconds the device needs at best for a step over those predicted."""
    rates = SHIPPED[device]
    work = 0.0 if step.how != "matmul" else step.flops / rates.matmul
    least = max(work, step.bytes / rates.bandwidth)
    return min(1.0, least / step.seconds) if step.seconds else 1.0


def comparison(plan: "Plan", other: "Plan") -> str:
    """Say in words how `other` differs from `plan`, with its table."""
    slower = other.seconds / plan.seconds if plan.seconds else 1.0
    reasons = []
    for what, mine, theirs in (
        ("flops", plan.flops, other.flops),
        ("bytes moved", plan.bytes, other.bytes),
        ("bytes copied", plan.copied_bytes, other.copied_bytes),
        ("peak bytes", plan.peak_bytes, other.peak_bytes),
    ):
        reasons.append(f"{what} {amount(theirs, '')} against {amount(mine, '')}")
    worst = max(range(len(other.steps)), key=lambda s: other.steps[s].seconds, default=None)
    head = (
        f"order {list(other.order)}: predicted {slower:.2f}x the time of the plan's "
        f"{list(plan.order)} ({'; '.join(reasons)})"
    )
    lines = [head]
    if worst is not None:
        step = other.steps[worst]
        share = step.seconds / other.seconds * max(1, other.n_slices) if other.seconds else 0.0
        copies = f", {amount(step.copied, 'B')} of it copied first" if step.copied else ""
        lines.append(f"its slowest step ({worst}) {step.expression} takes {share:.0%}{copies}")
    return "\n".join([*lines, table(other)])


def amount(value: float | int, unit: str) -> str:
    """A number with a thousands prefix."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000 or prefix == "P":
            return f"{value:.3g}{prefix}{unit}" if prefix else f"{value:g}{unit}"
        value /= 1000
    raise AssertionError
