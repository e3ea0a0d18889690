"""Interatomic potentials: graphs of atoms, energies with their derivatives, training, files."""

from .calculators import PotentialCalculator as PotentialCalculator
from .calculators import energy_fn as energy_fn
from .command import train as train
from .energy import Prediction as Prediction
from .energy import energies as energies
from .energy import energy_forces_stress as energy_forces_stress
from .energy import hessian_vector as hessian_vector
from .evaluation import Evaluation as Evaluation
from .evaluation import error_table as error_table
from .evaluation import evaluate as evaluate
from .frames import Frame as Frame
from .frames import read_frames as read_frames
from .graph import Graph as Graph
from .graph import bucket as bucket
from .graph import graph_of as graph_of
from .graph import padded as padded
from .losses import Weights as Weights
from .model import Config as Config
from .model import Potential as Potential
from .neighbours import neighbours as neighbours
from .optimizer import muon as muon
from .trained import TrainedPotential as TrainedPotential
from .trained import load_potential as load_potential
from .trained import save_potential as save_potential
from .training import config_for as config_for
from .training import fit as fit
