"""Neural operators: tensorized Fourier neural operators, their losses and their training."""

from .spectral import SpectralConv as SpectralConv
from .weight import ranks_of as ranks_of
