"""Outcomes of iterative work, each with its diagnosis.

A traced computation cannot raise, so it returns one of these beside its value. Packages
that need more outcomes subclass `Status`.
"""

from typing import Any

import equinox as eqx


class Status(eqx.Enumeration):
    """Outcome of an iteration; `Status[outcome]` is its diagnosis, compare with `==`."""

    converged = "The iteration met its tolerance."
    max_iterations = (
        "The iteration stopped at the largest number of sweeps or steps allowed, before it met "
        "its tolerance. The value returned is the last iterate. Allow more, loosen the tolerance, "
        "or start closer (another `init`, more `starts`)."
    )
    stagnated = (
        "The iteration stalled: the change per sweep fell below the tolerance while its slow "
        "decay shows that much of the error could still go. This is a swamp, usually from nearly "
        "collinear components or a rank above the attainable one. Try another start, a lower "
        "rank, or a smaller tolerance with more sweeps."
    )
    non_finite = (
        "A NaN or an infinity appeared during the iteration. The value returned holds the last "
        "iterate. Check the input for NaN and for entries near the largest the precision holds."
    )


def name(status: Any) -> str:
    """Return the name of an outcome (`"converged"`), or `"traced"` inside a transformation."""
    if status.is_traced():
        return "traced"
    enumeration = status._enumeration
    return next(n for n, item in enumeration._name_to_item.items() if bool(item == status))
