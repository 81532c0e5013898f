"""What all readers of grain maps do with what they found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import FileFormatError, ParameterError, PhysicsError
from dfxrm_control.grains._model import Voxels

__all__ = ["Asked", "from_rodrigues", "measure", "phase_of"]

Cell = tuple[float, float, float, float, float, float]


class Asked:
    """What the user says of a map because its file does not, and what is asked for by name if it is missing.

    Parameters
    ----------
    source : str
        The file, for messages.
    cell : sequence of 6 float, optional
        a, b, c in angstrom and alpha, beta, gamma in deg.
    space_group : str, optional
        Hermann-Mauguin symbol.
    """

    def __init__(self, source: str, cell: Sequence[float] | None, space_group: str | None) -> None:
        self.source, self.cell, self.space_group = source, cell, space_group

    def phase(self, cell: ArrayLike | None = None, space_group: str | int | None = None) -> Lattice:
        """Return the phase, of what the file says and, before that, of what the user said.

        Raises
        ------
        ParameterError
            When neither says it.
        FileFormatError
            When such a cell cannot be.
        """
        group = self.space_group if self.space_group is not None else space_group
        found = self.cell if self.cell is not None else cell
        missing = [
            text
            for text, value in (
                ("cell (a, b, c in angstrom, alpha, beta, gamma in deg)", found),
                ("space_group (such as 'F m -3 m')", group),
            )
            if value is None
        ]
        if missing:
            raise ParameterError(f"{self.source} does not say the crystal's {' and '.join(missing)}; give it")
        return phase_of(self.source, np.asarray(found, dtype=float).ravel().tolist(), group)


def phase_of(source: str, cell: Sequence[float], space_group: str | int | None) -> Lattice:
    """Return a lattice, or say in one sentence why the file's cell is none."""
    import gemmi

    name = space_group
    if isinstance(name, int | np.integer) or (isinstance(name, str) and name.strip().isdigit()):
        number = int(name)
        name = gemmi.find_spacegroup_by_number(number).xhm() if 1 <= number <= 230 else str(number)
    if len(cell) != 6:
        raise FileFormatError(f"{source}: a unit cell has 6 numbers, and {len(cell)} were found")
    try:
        return Lattice(tuple(float(value) for value in cell), str(name).strip())  # type: ignore[arg-type]
    except PhysicsError as error:
        raise FileFormatError(f"{source}: {error}") from error


def from_rodrigues(vectors: ArrayLike) -> NDArray[np.float64]:
    """Return rotation matrices of Rodrigues vectors (axis times tan of half the angle), shape (n, 3) -> (n, 3, 3).

    NaN where the vector is not finite.
    """
    rodrigues = np.atleast_2d(np.asarray(vectors, dtype=float))
    quaternions = np.concatenate([rodrigues, np.ones((len(rodrigues), 1))], axis=1)
    good = np.isfinite(quaternions).all(axis=1)
    matrices = np.full((len(rodrigues), 3, 3), np.nan)
    if good.any():
        matrices[good] = Rotation.from_quat(quaternions[good]).as_matrix()
    return matrices


def measure(voxels: Voxels, grain_id: NDArray[np.int64]) -> tuple[NDArray, NDArray, NDArray]:
    """Return centroid (n, 3) and extent (n, 3), mm, and volume (n,), mm^3, of grains in a volume; NaN if not in it."""
    ids = voxels.grain_id
    largest = int(max(ids.max(initial=0), grain_id.max(initial=0)))
    flat = np.clip(ids, 0, None).ravel()
    count = np.bincount(flat, minlength=largest + 1).astype(float)
    centre = np.empty((largest + 1, 3))
    with np.errstate(invalid="ignore"):
        for axis in range(3):
            place = np.broadcast_to(
                np.arange(ids.shape[axis], dtype=float).reshape([-1 if a == axis else 1 for a in range(3)]), ids.shape
            )
            centre[:, axis] = np.bincount(flat, place.ravel(), largest + 1) / count
    boxes = ndimage.find_objects(np.clip(ids, 0, None).astype(np.int32), max_label=largest)
    extent = np.full((largest + 1, 3), np.nan)
    for number, box in enumerate(boxes, start=1):
        if box is not None:
            extent[number] = [part.stop - part.start for part in box]
    count[count == 0] = np.nan
    return (
        voxels.place_mm(centre[grain_id]),
        extent[grain_id] * voxels.size_mm,
        count[grain_id] * float(np.prod(voxels.size_mm)),
    )
