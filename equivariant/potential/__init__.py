"""Interatomic potentials: graphs of atoms, and energies with their derivatives."""

from .energy import Prediction as Prediction
from .energy import energies as energies
from .energy import energy_forces_stress as energy_forces_stress
from .energy import hessian_vector as hessian_vector
from .graph import Graph as Graph
from .graph import bucket as bucket
from .graph import graph_of as graph_of
from .graph import padded as padded
from .model import Config as Config
from .model import Potential as Potential
from .neighbours import neighbours as neighbours
