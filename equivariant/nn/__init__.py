"""Layers of equivariant networks, usable alone: `[*batch, channels, irreps.dim]` in and out."""

from .energies import ScaleShift as ScaleShift
from .energies import isolated_atom_energies as isolated_atom_energies
from .gate import Gate as Gate
from .linear import Linear as Linear
from .power import ManyBody as ManyBody
from .radial import Bessel as Bessel
from .radial import smooth_cutoff as smooth_cutoff
from .readout import Readout as Readout
from .repulsion import ZBL as ZBL
