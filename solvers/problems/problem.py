"""One linear system to solve: a matrix and what is known of where it comes from."""

import dataclasses

import numpy as np
import scipy.sparse


@dataclasses.dataclass(frozen=True)
class Problem:
    """A symmetric positive definite system.

    Attributes:
        name: what it is.
        matrix: on the host, float64, sorted.
        points: where each unknown (or node of unknowns) lies, (nodes, dimensions), if anywhere.
        block: unknowns at each node, one after the other.
        elements: the nodes of each cell among `points`, for pictures; -1 where a node is fixed.
    """

    name: str
    matrix: scipy.sparse.csr_array
    points: np.ndarray | None = None
    block: int = 1
    elements: np.ndarray | None = None

    @property
    def size(self) -> int:
        """The number of unknowns."""
        return len(self.matrix.indptr) - 1

    def right_side(self, seed: int) -> np.ndarray:
        """Return a right-hand side of standard normal entries."""
        return np.random.default_rng(seed).normal(size=self.size)
