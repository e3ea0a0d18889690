"""The contraction planner: every expensive contraction of the packages goes through it."""

from .execute import contract as contract
