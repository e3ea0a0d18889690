"""The chapters of the tour, in the order they are told."""

from . import compression
from .chapter import Chapter

CHAPTERS: tuple[Chapter, ...] = (compression.CHAPTER,)
