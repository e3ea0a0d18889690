"""Tensors held in factored form: their algebra and their rounding."""

from .decomposition import Decomposition as Decomposition
