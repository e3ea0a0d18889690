"""Structures with the energies, forces and stresses that a potential learns from; extended XYZ."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

_PERIODIC_TABLE = """
X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se
Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy
Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf
Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS = _PERIODIC_TABLE.split()
_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
_ENTRY = re.compile(r'([^\s=]+)\s*=\s*("[^"]*"|\{[^}]*\}|\[[^\]]*\]|[^\s]+)|([^\s=]+)')


class Frame(NamedTuple):
    """One structure, and what is known of it; lengths and energies in the units of the data.

    Attributes:
        numbers: atomic numbers.
        positions: of the atoms.
        cell: rows are the cell's vectors, or None.
        periodic: in the direction of each of them.
        energy: of the structure, or None.
        forces: on the atoms, or None.
        stress: positive where the structure wants to shrink, or None.
        where: file and line it came from.
    """

    numbers: Int64[np.ndarray, " atoms"]
    positions: Float64[np.ndarray, "atoms 3"]
    cell: Float64[np.ndarray, "3 3"] | None = None
    periodic: tuple[bool, bool, bool] = (False, False, False)
    energy: float | None = None
    forces: Float64[np.ndarray, "atoms 3"] | None = None
    stress: Float64[np.ndarray, "3 3"] | None = None
    where: str = ""


def read_frames(
    path: str | os.PathLike[str],
    *,
    energy: str = "energy",
    forces: str = "forces",
    stress: str = "stress",
) -> list[Frame]:
    """Read a file in extended XYZ.

    Args:
        path: of the file.
        energy: name of the energy among the entries of a frame's second line.
        forces: name of the forces among its columns.
        stress: name of the stress, of nine numbers, among the entries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no frames, or a line that is not what it must be; the message names it.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    names, frames, at = (energy, forces, stress), [], 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        where = f"{os.fspath(path)}:{at + 1}"
        if not re.fullmatch(r"\s*[1-9]\d*\s*", lines[at]):
            raise ValueError(f"{where}: expected the number of atoms of a frame, got {lines[at]!r}")
        atoms = int(lines[at])
        rows = lines[at + 2 : at + 2 + atoms]
        if len(rows) < atoms:
            raise ValueError(f"{where}: expected {atoms} atoms, got {len(rows)} before the end")
        frames.append(_frame(where, lines[at + 1], rows, names))
        at += 2 + atoms
    if not frames:
        raise ValueError(f"{os.fspath(path)}: expected at least one frame, got none")
    return frames


def species_of(frames: Sequence[Frame]) -> tuple[int, ...]:
    """Return the atomic numbers that occur, in order."""
    return tuple(sorted({int(z) for frame in frames for z in np.unique(frame.numbers)}))


def composition(frames: Sequence[Frame], species: Sequence[int]) -> Int64[np.ndarray, "frames _"]:
    """Return how many atoms of each species every frame has.

    Raises:
        ValueError: an atom of another species.
    """
    counts = np.stack([[np.sum(f.numbers == z) for z in species] for f in frames]).astype(np.int64)
    for n, (frame, count) in enumerate(zip(frames, counts, strict=True)):
        if count.sum() != len(frame.numbers):
            unknown = sorted({int(z) for z in frame.numbers} - {int(z) for z in species})
            raise ValueError(
                f"frames[{n}]{_origin(frame)}: expected species among "
                f"{sorted(int(z) for z in species)}, got {unknown}"
            )
    return counts


def check_labels(frames: Sequence[Frame], *, forces: bool, stress: bool) -> list[Frame]:
    """Return the frames, once every label that is asked for is there and finite.

    The forces on a lone atom are zero, and need not be given.

    Raises:
        ValueError: no frames, or a label that is missing or not finite.
    """
    if not frames:
        raise ValueError("frames: expected at least one, got none")
    checked = []
    for n, frame in enumerate(frames):
        if frame.forces is None and len(frame.numbers) == 1:
            frame = frame._replace(forces=np.zeros((1, 3)))
        wanted = {"energy": True, "forces": forces, "stress": stress}
        for name, needed in wanted.items():
            value = getattr(frame, name)
            if needed and value is None:
                raise ValueError(
                    f"frames[{n}]{_origin(frame)}: expected {name}, got none (a weight of zero "
                    f"would leave {name} out)"
                )
            if value is not None and not np.isfinite(value).all():
                raise ValueError(
                    f"frames[{n}]{_origin(frame)}: expected finite {name}, got NaN or infinity"
                )
        checked.append(frame)
    return checked


def _origin(frame: Frame) -> str:
    return f" ({frame.where})" if frame.where else ""


def _frame(where: str, comment: str, rows: list[str], names: tuple[str, str, str]) -> Frame:
    entries = {key: value.strip('"{}[]') for key, value, _ in _ENTRY.findall(comment) if key}
    columns, start = {}, 0
    kinds = entries.get("Properties", "species:S:1:pos:R:3").split(":")
    if len(kinds) % 3:
        raise ValueError(f"{where}: expected Properties=name:type:columns..., got {kinds}")
    for name, _, count in zip(kinds[::3], kinds[1::3], kinds[2::3], strict=True):
        columns[name] = slice(start, start + int(count))
        start += int(count)
    for name in ("species", "pos"):
        if name not in columns:
            raise ValueError(f"{where}: expected a column {name} in Properties, got {kinds[::3]}")
    cells = [row.split() for row in rows]
    for n, row in enumerate(cells):
        if len(row) < start:
            raise ValueError(f"{where}: expected {start} columns for atom {n}, got {len(row)}")

    def numbers(values: Any, what: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.array(values, np.float64).reshape(shape)
        except ValueError:
            wanted = f"{' x '.join(map(str, shape))} numbers" if shape else "a number"
            raise ValueError(f"{where}: expected {wanted} as {what}, got {values}") from None

    def column(name: str) -> np.ndarray | None:
        if name not in columns:
            return None
        return numbers([row[columns[name]] for row in cells], name, (len(cells), 3))

    unknown = [row[columns["species"]][0] for row in cells]
    unknown = sorted({symbol for symbol in unknown if symbol not in _NUMBERS})
    if unknown:
        raise ValueError(f"{where}: expected chemical symbols, got {unknown}")
    energy, forces, stress = names
    lattice, given = entries.get("Lattice"), entries.get(stress)
    pbc = entries.get("pbc", "F F F" if lattice is None else "T T T").replace(",", " ").split()
    told = [word[:1].upper() in ("T", "1") for word in pbc]
    if len(told) != 3:
        raise ValueError(f"{where}: expected pbc of three directions, got {pbc}")
    positions = column("pos")
    assert positions is not None
    return Frame(
        numbers=np.array([_NUMBERS[row[columns["species"]][0]] for row in cells], np.int64),
        positions=positions,
        cell=None if lattice is None else numbers(lattice.split(), "Lattice", (3, 3)),
        periodic=(told[0], told[1], told[2]),
        energy=float(numbers(entries[energy], energy, ())) if energy in entries else None,
        forces=column(forces),
        stress=None if given is None else numbers(given.replace(",", " ").split(), stress, (3, 3)),
        where=where,
    )
