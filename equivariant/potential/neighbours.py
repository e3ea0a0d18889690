"""Neighbour lists of any periodicity, by matscipy where it is installed, else by a k-d tree."""

import importlib.util
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.spatial import KDTree

BACKENDS = ("auto", "matscipy", "scipy")
# Atoms closer than this are taken for one entered twice; in the unit of the positions.
_ONE_SPOT = 1e-6


class Neighbours(NamedTuple):
    """Pairs closer than a cutoff, both ways, sorted by receiver, sender and shift.

    The vector of a pair is positions[sender] - positions[receiver] + shift @ cell.
    """

    senders: Int64[np.ndarray, " edges"]
    receivers: Int64[np.ndarray, " edges"]
    shifts: Int64[np.ndarray, "edges 3"]


def neighbours(
    positions: Any,
    cutoff: float | int,
    *,
    cell: Any = None,
    periodic: bool | Sequence[bool] = False,
    backend: str = "auto",
) -> Neighbours:
    """Return all pairs of atoms, and of their periodic images, closer than `cutoff`.

    The cutoff may be larger than the cell: an atom then is its own neighbour, and others are
    several times. Atoms may lie outside the cell.

    Args:
        positions: `[atoms, 3]`.
        cutoff: in the same unit.
        cell: rows are the cell's vectors; those of directions that are not periodic are ignored.
        periodic: for each of the cell's vectors, or for all.
        backend: `"matscipy"`, `"scipy"`, or `"auto"`: the first that is installed. The pairs are
            the same.

    Raises:
        ValueError: no atoms, positions that are not finite or two on one spot, a cutoff that is
            not positive, vectors of periodic directions that are missing or not independent.
        ModuleNotFoundError: matscipy is asked for and not installed.
    """
    positions = np.asarray(positions, np.float64)
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise ValueError(f"positions: expected shape [atoms, 3], got {positions.shape}")
    bad = np.flatnonzero(~np.isfinite(positions).all(1))
    if len(bad):
        raise ValueError(
            f"positions: expected finite coordinates, got NaN or infinity for {len(bad)} atoms, "
            f"the first at index {bad[0]}"
        )
    if not (cutoff > 0 and math.isfinite(cutoff)):
        raise ValueError(f"cutoff: expected a positive distance, got {cutoff!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {BACKENDS}, got {backend!r}")
    directions = np.broadcast_to(np.asarray(periodic, bool), 3)
    box, origin = _box(positions, float(cutoff), cell, directions)
    if backend == "auto":
        backend = "matscipy" if importlib.util.find_spec("matscipy") else "scipy"
    search = _by_matscipy if backend == "matscipy" else _by_tree
    receivers, senders, shifts = search(positions - origin, float(cutoff), box, directions)
    _refuse_one_spot(positions, receivers, senders, shifts, box)
    order = np.lexsort((*shifts.T[::-1], senders, receivers))
    return Neighbours(senders[order], receivers[order], shifts[order])


def _box(
    positions: np.ndarray, cutoff: float, cell: Any, periodic: np.ndarray
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, " 3"]]:
    """Return a cell with its own vectors where it is periodic, and its corner.

    In other directions its vectors are orthogonal to those, and long enough to hold all atoms.
    """
    given = np.zeros((3, 3)) if cell is None else np.asarray(cell, np.float64)
    if given.shape != (3, 3) or not np.isfinite(given).all():
        raise ValueError(f"cell: expected 3 finite vectors, got {given.tolist()}")
    kept = given[periodic]
    lengths = np.linalg.norm(kept, axis=1)
    _, singular, rows = np.linalg.svd(kept / np.where(lengths > 0, lengths, 1)[:, None])
    if len(kept) and (not lengths.all() or singular.min() < 1e-6):
        raise ValueError(
            f"cell: expected independent vectors in the periodic directions "
            f"{np.flatnonzero(periodic).tolist()}, got {given.tolist()}"
        )
    box, origin = given.copy(), np.zeros(3)
    for k, direction in zip(np.flatnonzero(~periodic), rows[len(kept) :], strict=True):
        along = positions @ direction
        box[k] = direction * (np.ptp(along) + 2 * cutoff)
        origin += direction * (along.min() - cutoff)
    return box, origin


def _by_matscipy(
    positions: np.ndarray, cutoff: float, box: np.ndarray, periodic: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from matscipy.neighbours import neighbour_list  # pyright: ignore[reportMissingImports]

    i, j, shifts = neighbour_list("ijS", positions=positions, cell=box, pbc=periodic, cutoff=cutoff)
    return i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int64)


def _by_tree(
    positions: np.ndarray, cutoff: float, box: np.ndarray, periodic: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(box)
    offsets = np.where(periodic, np.floor(positions @ inverse), 0)
    inside = positions - offsets @ box
    heights = 1 / np.linalg.norm(inverse, axis=0)
    reach = np.where(periodic, np.floor(cutoff / heights) + 1, 0).astype(int)
    images = np.stack(
        np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1
    ).reshape(-1, 3)
    copies = inside[None] + (images @ box)[:, None]
    low, high = inside.min(0) - cutoff, inside.max(0) + cutoff
    image, atom = np.nonzero(((copies >= low) & (copies <= high)).all(-1))
    found = KDTree(inside).sparse_distance_matrix(
        KDTree(copies[image, atom]), cutoff, output_type="ndarray"
    )
    near = found["v"] < cutoff
    receivers, place = found["i"][near].astype(np.int64), found["j"][near]
    senders, shifts = atom[place].astype(np.int64), images[image[place]]
    other = (receivers != senders) | shifts.any(1)
    receivers, senders = receivers[other], senders[other]
    shifts = shifts[other] - offsets[senders] + offsets[receivers]
    return receivers, senders, shifts.astype(np.int64)


def _refuse_one_spot(
    positions: np.ndarray,
    receivers: np.ndarray,
    senders: np.ndarray,
    shifts: np.ndarray,
    box: np.ndarray,
) -> None:
    vectors = positions[senders] - positions[receivers] + shifts @ box
    close = np.flatnonzero(np.linalg.norm(vectors, axis=1) < _ONE_SPOT)
    if len(close):
        pair = receivers[close[0]], senders[close[0]]
        raise ValueError(
            f"positions: expected atoms apart from each other, got atoms {pair[0]} and {pair[1]} "
            f"on one spot"
        )
