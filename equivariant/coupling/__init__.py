"""How two irreps couple to a third: the coefficients, and the products built on them."""

from .cp import CPCoupling as CPCoupling
from .cp import decompose_coupling as decompose_coupling
from .tables import clebsch_gordan as clebsch_gordan
from .tables import gaunt_coefficient as gaunt_coefficient
