"""Tensor products of irreps for E(3)-equivariant networks."""

from .measure import equivariance_error as equivariance_error
from .measure import expressivity as expressivity
from .measure import interactability as interactability
from .measure import representation as representation
from .measure import span as span
