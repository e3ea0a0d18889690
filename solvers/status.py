"""Outcomes of solving, each with its diagnosis."""

import tensornet


class Status(tensornet.Status):  # pyright: ignore[reportGeneralTypeIssues]
    """Outcome of a solve; `Status[outcome]` is its diagnosis, compare with `==`.

    All outcomes of `tensornet.Status`, which `Status.promote` turns into these.
    """

    stagnation = (
        "The recurrence said converged, the residual computed from the solution does not agree, "
        "and starting again from it gained nothing: the tolerance is below what the precision "
        "reaches on this matrix. Ask for less or solve in float64."
    )
    breakdown = (
        "A direction of length zero came up before the tolerance was met. Usually the "
        "preconditioner maps the residual to zero, or numbers underflow: rescale the system."
    )
    indefinite_matrix = (
        "The matrix is not positive definite: a direction p with p.Ap < 0 was met. Conjugate "
        "gradient needs a symmetric positive definite matrix. The value is the iterate before."
    )
    indefinite_preconditioner = (
        "The preconditioner is not positive definite: r.Mr < 0 for a residual r. The value is "
        "the iterate so far. Use another preconditioner, or a symmetric positive one."
    )
    singular = (
        "The matrix is singular to working precision: a direction p with p.Ap = 0 to rounding "
        "was met, so the right-hand side is not in the matrix's range. Pure Neumann problems "
        "need a fixed value, elasticity without supports needs them."
    )
