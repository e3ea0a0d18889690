"""Tensor networks in JAX: CP, Tucker, tensor-train and tensor-ring, and the contraction planner."""

from .formats import Decomposition as Decomposition
from .planner import contract as contract
from .status import Status as Status
