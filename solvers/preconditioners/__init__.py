"""Preconditioners for conjugate gradient: analysed on the host, set up and applied under jit."""

from .approximate_inverse import SparseApproximateInverse as SparseApproximateInverse
from .base import Preconditioner as Preconditioner
from .block_jacobi import BlockJacobi as BlockJacobi
from .chebyshev import Chebyshev as Chebyshev
from .conjugate_direction import ConjugateDirection as ConjugateDirection
from .graph_cholesky import GraphCholesky as GraphCholesky
from .graph_direction import GraphDirection as GraphDirection
from .graph_inverse import GraphApproximateInverse as GraphApproximateInverse
from .incomplete_cholesky import IncompleteCholesky as IncompleteCholesky
from .jacobi import Jacobi as Jacobi
from .multigrid import Multigrid as Multigrid
from .pretrained_models import PRETRAINED as PRETRAINED
from .pretrained_models import PRETRAINED_DIRECTIONS as PRETRAINED_DIRECTIONS
from .pretrained_models import pretrained as pretrained
from .pretrained_models import pretrained_direction as pretrained_direction
from .symmetric_polynomial import SymmetricPolynomial as SymmetricPolynomial
