"""Decompositions: dense tensors into factored form."""

from .cp_als import cp_als as cp_als
from .tensor_ring import tr_als as tr_als
from .tensor_ring import tr_svd as tr_svd
from .tt_svd import tt_matrix_svd as tt_matrix_svd
from .tt_svd import tt_svd as tt_svd
from .tucker import hooi as hooi
from .tucker import hosvd as hosvd
