"""The chapters of the tour, in the order they are told."""

from . import compression, operators, planning, potential, products, solving
from .chapter import Chapter

CHAPTERS: tuple[Chapter, ...] = (
    compression.CHAPTER,
    planning.CHAPTER,
    products.CHAPTER,
    potential.CHAPTER,
    solving.CHAPTER,
    operators.CHAPTER,
)
