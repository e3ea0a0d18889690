"""Solvers of partial differential equations: conjugate gradient and neural operators."""

from .krylov import Solution as Solution
from .krylov import flexible_cg as flexible_cg
from .krylov import pcg as pcg
from .status import Status as Status
