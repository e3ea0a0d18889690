"""Tensors held in factored form: their algebra and their rounding."""

from .base import FactoredTensor as FactoredTensor
from .cp import CP as CP
from .decomposition import Decomposition as Decomposition
from .tensor_ring import TensorRing as TensorRing
from .tensor_train import TensorTrain as TensorTrain
from .tt_matrix import TTMatrix as TTMatrix
from .tucker import Tucker as Tucker
