"""Decompositions: dense tensors into factored form."""
