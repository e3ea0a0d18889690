"""Frames labelled by Morse's potential in closed form, and a small model, for several files."""

import numpy as np

from equivariant.potential import Config, Frame

ISOLATED = {1: -13.5, 8: -2041.25}
SMALL = Config(
    (1, 8), cutoff=3.0, channels=4, layers=1, order=2, functions=4, width=6, neighbours=4
)


def morse(positions, cell=None):
    """Energy, forces and stress of sum (1 - exp(-(r - 1.5)))^2 - 1 over pairs closer than 3."""
    shifts = np.array([[0.0, 0, 0]])
    if cell is not None:
        span = np.arange(-2, 3)
        shifts = np.stack(np.meshgrid(span, span, span), -1).reshape(-1, 3) @ cell
    vectors = positions[:, None, None] - positions[None, :, None] + shifts
    r = np.sqrt((vectors**2).sum(-1))
    near = (r > 0) & (r < 3)
    r = np.where(near, r, 1.0)
    decay = np.exp(-(r - 1.5))
    slope = np.where(near, 2 * (1 - decay) * decay, 0)
    energy = np.where(near, (1 - decay) ** 2 - 1, 0).sum() / 2
    forces = -(slope / r)[..., None] * vectors
    stress = None
    if cell is not None:
        virial = np.einsum("ijs,ijsa,ijsb->ab", slope / r, vectors, vectors) / 2
        stress = virial / abs(np.linalg.det(cell))
    return energy, forces.sum((1, 2)), stress


def frames(number=24, *, cell=None, seed=0):
    """Return water-like molecules, or such in a cell, shaken."""
    rng = np.random.default_rng(seed)
    start = np.array([[0, 0, 0.0], [0, 1.3, 0.5], [0, -1.3, 0.5], [1.4, 0, -0.3]])
    found = []
    for n in range(number):
        atoms = 3 + n % 2
        positions = start[:atoms] + rng.uniform(-0.25, 0.25, (atoms, 3))
        numbers = np.array([8, 1, 1, 1][:atoms])
        energy, forces, stress = morse(positions, cell)
        energy += sum(ISOLATED[int(z)] for z in numbers)
        periodic = (cell is not None,) * 3
        found.append(Frame(numbers, positions, cell, periodic, energy, forces, stress))
    return found


def write(path, some):
    """Write frames in extended XYZ."""
    names = {1: "H", 8: "O"}
    with path.open("w") as file:
        for f in some:
            file.write(f"{len(f.numbers)}\nProperties=species:S:1:pos:R:3:forces:R:3 ")
            file.write(f'energy={float(f.energy)!r} pbc="F F F"\n')
            for z, place, force in zip(f.numbers, f.positions, f.forces, strict=True):
                row = " ".join(repr(float(x)) for x in (*place, *force))
                file.write(f"{names[int(z)]} {row}\n")
