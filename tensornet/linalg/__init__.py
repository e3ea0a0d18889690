"""Matrix building blocks whose gradients stay finite when singular values repeat."""

from .implicit import at_stationary_point as at_stationary_point
from .leading import leading_left as leading_left
from .normal_equations import solve_gram as solve_gram
from .randomized import randomized_range as randomized_range
from .svd import eigh as eigh
from .svd import gram_floor as gram_floor
from .svd import left_singular as left_singular
from .svd import qr as qr
from .svd import rank_for as rank_for
from .svd import svd as svd
