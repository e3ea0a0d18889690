"""Decompositions: dense tensors into factored form."""

from .cp_als import cp_als as cp_als
