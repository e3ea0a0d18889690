"""Conjugate gradient methods: one loop, every outcome told, gradients by the implicit theorem."""

from .flexible_cg import flexible_cg as flexible_cg
from .lineax_solver import PCG as PCG
from .pcg import pcg as pcg
from .solution import Solution as Solution
