"""Problems to solve and to learn from, with the settings they are usually held at."""

from . import coefficients as coefficients
from .files import read_matrix_market as read_matrix_market
from .obstacles import balls as balls
from .obstacles import boxes as boxes
from .problem import Problem as Problem
from .stencil import anisotropic as anisotropic
from .stencil import diffusion as diffusion
from .stencil import poisson as poisson
from .stencil import poisson_around as poisson_around
from .stencil import poisson_stencil as poisson_stencil
