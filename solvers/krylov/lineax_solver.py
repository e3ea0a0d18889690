"""Conjugate gradient as a solver that `lineax.linear_solve` takes."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree

from ..status import Status
from . import guard
from .iteration import code, dot

_RESULTS = {
    "converged": lx.RESULTS.successful,
    "max_iterations": lx.RESULTS.max_steps_reached,
    "stagnation": lx.RESULTS.stagnation,
    "singular": lx.RESULTS.singular,
    "non_finite": lx.RESULTS.nonfinite_input,
}


class PCG(lx.AbstractLinearSolver):
    """`pcg` for `lineax.linear_solve`: the 2-norm, the true residual, our preconditioners.

    The option `preconditioner` is a lineax operator or one of `solvers.preconditioners` on the
    flattened vector, `y0` a first guess. `stats["status"]` is the outcome in our words,
    `stats["fallback"]` whether Jacobi reached it.

    Attributes:
        rtol: relative tolerance of the residual's 2-norm.
        atol: absolute tolerance.
        max_steps: steps at most; 10 n and 10 000 at most when None.
    """

    rtol: float = 1e-8
    atol: float = 0.0
    max_steps: int | None = eqx.field(default=None, static=True)

    def init(self, operator: Any, options: dict[str, Any]) -> Any:
        """Take an operator that is tagged positive semidefinite."""
        del options
        if operator.in_structure() != operator.out_structure():
            raise ValueError("operator: expected a square one, got two different spaces")
        if not lx.is_positive_semidefinite(operator):
            raise ValueError(
                "operator: expected one tagged lineax.positive_semidefinite_tag, got none"
            )
        return lx.linearise(operator)

    def compute(self, state: Any, vector: Any, options: dict[str, Any]) -> Any:
        """Solve for one right-hand side."""
        b, unravel = ravel_pytree(vector)

        def matvec(x: Any) -> Any:
            return ravel_pytree(state.mv(unravel(x)))[0]

        given: Any = options.get("preconditioner")
        if isinstance(given, lx.AbstractLinearOperator):
            operator = given
            given = lambda r: ravel_pytree(operator.mv(unravel(r)))[0]  # noqa: E731
        start = options.get("y0")
        x0 = jnp.zeros_like(b) if start is None else ravel_pytree(start)[0]
        most = min(10 * b.size, 10_000) if self.max_steps is None else self.max_steps
        tolerance = jnp.maximum(self.rtol * jnp.sqrt(dot(b, b)), self.atol)
        found, fallback = guard.run(matvec, given, b, x0, tolerance, max_iterations=most)
        result = lx.RESULTS.breakdown
        for name, theirs in _RESULTS.items():
            result = lx.RESULTS.where(found.code == code(getattr(Status, name)), theirs, result)
        stats = {"num_steps": found.count, "max_steps": self.max_steps, "status": found.code}
        stats["fallback"] = fallback
        return unravel(found.x), result, stats

    def transpose(self, state: Any, options: dict[str, Any]) -> Any:
        """The operator is its own transpose."""
        del options
        return state, {}

    def conj(self, state: Any, options: dict[str, Any]) -> Any:
        """The operator is real."""
        del options
        return state, {}

    def assume_full_rank(self) -> bool:
        """Positive definite operators have full rank."""
        return True
