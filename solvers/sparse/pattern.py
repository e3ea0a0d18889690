"""Where a sparse matrix has entries: on the host, hashed by content, static under jit."""

import functools
import hashlib
from typing import Any

import numpy as np
import scipy.sparse

_MOST = np.iinfo(np.int32).max


class Pattern:
    """The places of a sparse matrix's entries, by rows and in each row by columns.

    Everything that depends on the places alone (layouts, levels, symbolic products) is worked
    out from a pattern once, on the host; values of that pattern are a vector in its order, the
    order of scipy's CSR with sorted indices.

    Attributes:
        shape: rows and columns.
        indptr: where each row starts, of length rows + 1.
        indices: the column of each entry.
    """

    def __init__(self, shape: tuple[int, int], indptr: np.ndarray, indices: np.ndarray):
        if len(indices) > _MOST:
            raise ValueError(f"indices: expected at most {_MOST} entries, got {len(indices)}")
        self.shape = (int(shape[0]), int(shape[1]))
        self.indptr = np.ascontiguousarray(indptr, np.int32)
        self.indices = np.ascontiguousarray(indices, np.int32)
        content = hashlib.sha256(repr(self.shape).encode())
        content.update(self.indptr.tobytes())
        content.update(self.indices.tobytes())
        self._digest = content.digest()

    @classmethod
    def of(cls, matrix: Any) -> "Pattern":
        """Return the pattern of a scipy matrix, explicit zeros kept."""
        csr: Any = canonical(matrix)
        return cls(csr.shape, csr.indptr, csr.indices)

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self._digest == other._digest

    def __repr__(self) -> str:
        return f"Pattern({self.shape[0]} x {self.shape[1]}, {self.nnz} entries)"

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return len(self.indices)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Entries in each row."""
        return np.diff(self.indptr)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), self.lengths)

    @functools.cached_property
    def keys(self) -> np.ndarray:
        """Row times columns plus column of each entry: ascending, one for each place."""
        return self.rows.astype(np.int64) * self.shape[1] + self.indices

    @functools.cached_property
    def transposed(self) -> tuple["Pattern", np.ndarray]:
        """The pattern of the transpose, and which of our values each of its values is."""
        order = np.lexsort((self.rows, self.indices)).astype(np.int32)
        counts = np.bincount(self.indices, minlength=self.shape[1])
        indptr = np.concatenate([[0], np.cumsum(counts)])
        return Pattern((self.shape[1], self.shape[0]), indptr, self.rows[order]), order

    @functools.cached_property
    def is_symmetric(self) -> bool:
        """Whether the places mirror one another."""
        return self.shape[0] == self.shape[1] and self.transposed[0] == self

    @functools.cached_property
    def diagonal(self) -> np.ndarray:
        """Which value is the diagonal one of each row, `nnz` where there is none."""
        n = min(self.shape)
        return self.find(np.arange(n), np.arange(n))

    def find(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return which value stands at each place asked for, `nnz` where there is none."""
        wanted = rows.astype(np.int64) * self.shape[1] + columns
        found = np.searchsorted(self.keys, wanted)
        inside = np.minimum(found, max(self.nnz - 1, 0))
        hit = self.keys[inside] == wanted if self.nnz else np.zeros(wanted.shape, bool)
        return np.where(hit, inside, self.nnz).astype(np.int32)

    def select(self, keep: np.ndarray) -> "Pattern":
        """Return the pattern of the entries that are kept, a mask over entries."""
        counts = np.bincount(self.rows[keep], minlength=self.shape[0])
        indptr = np.concatenate([[0], np.cumsum(counts)])
        return Pattern(self.shape, indptr, self.indices[keep])

    def to_scipy(self, data: np.ndarray | None = None) -> scipy.sparse.csr_array:
        """Return a scipy matrix with these values, ones when left out."""
        values = np.ones(self.nnz) if data is None else data
        return scipy.sparse.csr_array((values, self.indices, self.indptr), shape=self.shape)


def canonical(matrix: Any) -> scipy.sparse.csr_array:
    """Return a scipy matrix as CSR of real floats with sorted indices and no duplicates.

    Raises:
        TypeError: not a scipy sparse matrix, or not of real numbers.
    """
    if not scipy.sparse.issparse(matrix):
        raise TypeError(f"A: expected a scipy sparse matrix, got {type(matrix).__name__}")
    if matrix.dtype.kind not in "fiub":
        raise TypeError(f"A: expected real numbers, got {matrix.dtype}")
    csr: Any = scipy.sparse.csr_array(matrix, copy=True)
    if csr.dtype not in (np.float32, np.float64):
        csr = csr.astype(np.float64)
    csr.sum_duplicates()
    csr.sort_indices()
    return csr
