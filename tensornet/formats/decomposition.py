"""What a decomposition returns: the factored tensor, how close it is, and how it went."""

from typing import Any, Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Float, Int

from ..status import name

Format = TypeVar("Format", bound=eqx.Module)


class Decomposition(eqx.Module, Generic[Format]):
    """A tensor in factored form with the quality that was reached.

    Attributes:
        tensor: the factored tensor.
        relative_error: Frobenius norm of the residual over that of the data (on the observed
            entries where there is a mask).
        status: how the iteration ended; `status == Status.converged` is success.
        history: relative error after each sweep, NaN after the last one.
        sweeps: how many sweeps ran; 0 for direct methods.
    """

    tensor: Format
    relative_error: Float[Array, ""]
    status: Any
    history: Float[Array, " sweeps"]
    sweeps: Int[Array, ""]

    def __repr__(self) -> str:
        def show(value: Array, spec: str) -> str:
            try:
                return format(value.item(), spec)
            except Exception:  # noqa: BLE001  a tracer or a batch has no single value to show
                return str(value)

        return (
            f"Decomposition({self.tensor!r}, relative_error={show(self.relative_error, '.3e')}, "
            f"status={name(self.status)}, sweeps={show(self.sweeps, 'd')})"
        )
