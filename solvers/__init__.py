"""Solvers of partial differential equations: conjugate gradient and neural operators."""
