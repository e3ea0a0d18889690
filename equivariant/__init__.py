"""Tensor products of irreps for E(3)-equivariant networks."""
