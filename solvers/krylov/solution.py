"""What a solve returns."""

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

from tensornet.status import name
from tensornet.validation import is_traced

from ..status import Status


class Solution(eqx.Module):
    """The value of a solve and how it came about; with many right-hand sides one entry for each.

    Attributes:
        value: the solution, of the shape of the right-hand side.
        status: the outcome; the solve succeeded where `status == Status.converged`, which is said
            only of a residual computed from `value`.
        iterations: steps taken.
        residual_history: 2-norms of the residual from the start on, NaN after the last step.
        fallback: whether Jacobi took the place of a preconditioner that was not positive or not
            worth its cost.
    """

    value: Float[Array, "n *many"]
    status: Status
    iterations: Int[Array, "*many"]
    residual_history: Float[Array, "steps *many"]
    fallback: Bool[Array, ""]

    def __repr__(self) -> str:
        if is_traced(self) or self.iterations.ndim:
            return f"Solution(value of shape {self.value.shape})"
        last = float(self.residual_history[int(self.iterations)])
        return (
            f"Solution({name(self.status)} after {int(self.iterations)} iterations, residual "
            f"{last:.2e}{', by the fallback' if bool(self.fallback) else ''})"
        )
