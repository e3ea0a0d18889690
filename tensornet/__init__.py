"""Tensor networks in JAX: CP, Tucker, tensor-train and tensor-ring, and the contraction planner."""

from .decompose import cp_als as cp_als
from .decompose import hooi as hooi
from .decompose import hosvd as hosvd
from .decompose import tr_als as tr_als
from .decompose import tr_svd as tr_svd
from .decompose import tt_matrix_svd as tt_matrix_svd
from .decompose import tt_svd as tt_svd
from .formats import CP as CP
from .formats import Decomposition as Decomposition
from .formats import FactoredTensor as FactoredTensor
from .formats import TensorRing as TensorRing
from .formats import TensorTrain as TensorTrain
from .formats import TTMatrix as TTMatrix
from .formats import Tucker as Tucker
from .huge_pages import restart_with_huge_pages as restart_with_huge_pages
from .io import load as load
from .io import save as save
from .planner import contract as contract
from .status import Status as Status
