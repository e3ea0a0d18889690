"""Plans as text."""

from typing import TYPE_CHECKING

from .cost import SHIPPED

if TYPE_CHECKING:
    from .plan import Plan


def table(plan: "Plan") -> str:
    """One line per step: einsum, sizes, copies, flops, bytes and share of the roofline."""
    rows = [("step", "how", "einsum", "m x n x k x batch", "copies", "flops", "bytes", "roofline")]
    n = len(plan.network.terms)
    for s, step in enumerate(plan.steps):
        names = ",".join(f"[{i}]" if i < n else f"({i - n})" for i in step.inputs)
        sizes = " x ".join(map(str, step.size)) if len(step.inputs) > 1 else ""
        rows.append(
            (
                f"({s}) = {names}",
                step.how,
                step.expression,
                sizes,
                amount(step.copied, "B") if step.copied else "-",
                amount(step.flops, ""),
                amount(step.bytes, "B"),
                f"{roofline_share(plan, s):.0%}",
            )
        )
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = [
        "  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    sliced = "".join(f", {label} in {count} slices" for label, count in plan.slices)
    head = f"{plan.network.expression} ({plan.network.dtype}, {plan.device}{sliced})"
    total = (
        f"total: {amount(plan.flops, '')} flops, {amount(plan.bytes, 'B')} moved, "
        f"{amount(plan.copied_bytes, 'B')} copied, peak {amount(plan.peak_bytes, 'B')}, "
        f"predicted {plan.seconds:.2e} s"
    )
    return "\n".join([head, *lines, total])


def roofline_share(plan: "Plan", step: int) -> float:
    """Seconds the device needs at best for one step over those predicted."""
    s, rates = plan.steps[step], SHIPPED[plan.device]
    work = 0.0 if s.how != "matmul" else s.flops / rates.matmul
    least = max(work, s.bytes / rates.bandwidth)
    return min(1.0, least / s.seconds) if s.seconds else 1.0


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
