"""Tensor products of irreps for E(3)-equivariant networks."""

from .bilinear import BilinearMap as BilinearMap
from .functional import cp_tensor_product as cp_tensor_product
from .functional import gaunt_tensor_product as gaunt_tensor_product
from .interaction import Interaction as Interaction
from .measure import equivariance_error as equivariance_error
from .measure import expressivity as expressivity
from .measure import interactability as interactability
from .measure import representation as representation
from .measure import span as span
from .tensor_product import TensorProduct as TensorProduct
from .tensor_product import tensor_product as tensor_product
