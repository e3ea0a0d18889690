"""Sparse matrices that XLA multiplies fast: a pattern that is static, values that are traced."""

from .convert import as_matrix as as_matrix
from .convert import from_pattern as from_pattern
from .convert import from_scipy as from_scipy
from .dia import DIA as DIA
from .ell import ELL as ELL
from .matrix import SparseMatrix as SparseMatrix
from .pattern import Pattern as Pattern
from .products import Product as Product
from .products import product as product
from .stencil import Stencil as Stencil
