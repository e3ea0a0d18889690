"""Neural operators: tensorized Fourier neural operators, their losses and their training."""

from .compression import tensorize as tensorize
from .fitting import Normalized as Normalized
from .fitting import Normalizer as Normalizer
from .fitting import fit as fit
from .fno import FNO as FNO
from .fno import TFNO as TFNO
from .fno import split_domain as split_domain
from .losses import evaluate as evaluate
from .losses import relative_h1 as relative_h1
from .losses import relative_l2 as relative_l2
from .spectral import SpectralConv as SpectralConv
from .weight import ranks_of as ranks_of
