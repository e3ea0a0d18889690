"""Solvers of partial differential equations: conjugate gradient and neural operators."""

from .status import Status as Status
