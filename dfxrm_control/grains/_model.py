"""A grain map: which grains a sample is made of, how each is turned, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import FileFormatError

__all__ = ["GrainMap", "Voxels"]

_LARGEST_STRETCH = 0.05
"""A lattice stretched by more than this against the phase's cell is that of another cell."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """The volume a grain map was reconstructed on.

    Attributes
    ----------
    grain_id : ndarray of int, shape (nx, ny, nz)
        Number of the grain in each voxel along x, y, z of the sample frame; 0 where there is none.
    size_mm : ndarray, shape (3,)
        Size of a voxel along x, y, z, mm.
    centre_mm : ndarray, shape (3,)
        Middle of the volume in the sample frame, mm.
    """

    grain_id: NDArray[np.int64]
    size_mm: NDArray[np.float64]
    centre_mm: NDArray[np.float64]

    def place_mm(self, index: NDArray) -> NDArray[np.float64]:
        """Return where voxels lie: index of shape (..., 3), may be fractional; 0 is the middle of the first voxel."""
        return self.centre_mm + (np.asarray(index) - (np.array(self.grain_id.shape) - 1) / 2.0) * self.size_mm


@dataclass(frozen=True, eq=False)
class GrainMap:
    """Grains in one sample frame: x along the beam, z up, at the rotation zero of the experiment that found them.

    Attributes
    ----------
    grain_id : ndarray of int, shape (n,)
        Number of each grain, as in the file.
    ub : ndarray, shape (n, 3, 3)
        Takes hkl to the diffraction vector in the sample frame, 1/angstrom without 2 pi.
    centroid_mm : ndarray, shape (n, 3)
        Centre of mass in the sample frame, mm.
    size_mm : ndarray, shape (n, 3)
        Extent along x, y, z, mm; NaN where the file does not tell.
    volume_mm3 : ndarray, shape (n,)
        Volume, mm^3; NaN where the file does not tell.
    phase : ndarray of int, shape (n,)
        Row of ``phases``.
    phases : tuple of Lattice
        Unit cell and space group.
    phase_names : tuple of str
        What the file calls them.
    voxels : Voxels or None
        The reconstructed volume, where there is one.
    source, file_format : str
        File, and what it turned out to be.
    notes : tuple of str
        What was assumed.

    Raises
    ------
    FileFormatError
        For a map without grains, an orientation that is not finite or no rotation of its phase's cell, a number that
        occurs twice or a position that is not finite.
    """

    grain_id: NDArray[np.int64]
    ub: NDArray[np.float64]
    centroid_mm: NDArray[np.float64]
    size_mm: NDArray[np.float64]
    volume_mm3: NDArray[np.float64]
    phase: NDArray[np.int64]
    phases: tuple[Lattice, ...]
    phase_names: tuple[str, ...]
    voxels: Voxels | None = None
    source: str = ""
    file_format: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.grain_id):
            raise FileFormatError(f"{self.source}: the map has no grains")
        numbers, counts = np.unique(self.grain_id, return_counts=True)
        if (counts > 1).any():
            raise FileFormatError(f"{self.source}: grain {numbers[counts > 1][0]} occurs more than once")
        self._refuse(np.logical_not(np.isfinite(self.ub.sum(axis=(1, 2)))), "an orientation that is not a number")
        self._refuse(np.logical_not(np.isfinite(self.centroid_mm.sum(axis=1))), "a position that is not a number")
        stretch = np.array([self.stretch(row) for row in range(len(self.grain_id))])
        self._refuse(
            ~(np.abs(stretch - 1.0).max(axis=1) < _LARGEST_STRETCH) | (np.linalg.det(self.ub) <= 0.0),
            f"an orientation that does not turn the cell {self._cells()}; is it the right cell, in angstrom?",
        )

    def _refuse(self, bad: NDArray[np.bool_], what: str) -> None:
        if bad.any():
            first, rest = self.grain_id[bad][0], int(bad.sum()) - 1
            more = f" and {rest} more" if rest else ""
            raise FileFormatError(f"{self.source}: grain {first}{more} of {len(self.grain_id)}: {what}")

    def _cells(self) -> str:
        return " or ".join(" ".join(f"{value:g}" for value in phase.cell) for phase in self.phases)

    def __len__(self) -> int:
        return len(self.grain_id)

    def row(self, grain_id: int) -> int:
        """Return the row of a grain by its number.

        Raises
        ------
        FileFormatError
            When the map has no such grain.
        """
        found = np.flatnonzero(self.grain_id == grain_id)
        if not found.size:
            raise FileFormatError(
                f"{self.source} has no grain {grain_id}; it has {len(self)} grains from {self.grain_id.min()} to "
                f"{self.grain_id.max()}"
            )
        return int(found[0])

    def stretch(self, row: int) -> NDArray[np.float64]:
        """Return by how much a grain's reciprocal lattice is longer than its phase's along its principal directions."""
        against_phase = self.ub[row] @ np.linalg.inv(self.phases[self.phase[row]].B)
        return np.linalg.svd(against_phase, compute_uv=False)

    @cached_property
    def u(self) -> NDArray[np.float64]:
        """Orientation matrices, shape (n, 3, 3): they take crystal coordinates to the sample's.

        The rotation nearest to ``UB B^-1`` (polar decomposition), so that a strained lattice has one too.
        """
        found = np.empty_like(self.ub)
        for row, phase in enumerate(self.phase):
            left, _, right = np.linalg.svd(self.ub[row] @ np.linalg.inv(self.phases[phase].B))
            found[row] = left @ right
        return found

    @cached_property
    def touches_edge(self) -> NDArray[np.bool_]:
        """Whether each grain reaches the border of the volume, where it may be cut; False without a volume."""
        if self.voxels is None:
            return np.zeros(len(self), bool)
        ids = self.voxels.grain_id
        faces = [np.take(ids, side, axis).ravel() for axis in range(3) if ids.shape[axis] > 1 for side in (0, -1)]
        return np.isin(self.grain_id, np.unique(np.concatenate(faces)))

    def only(self, grain_ids: Sequence[int]) -> GrainMap:
        """Return a map of some of the grains, by number."""
        rows = [self.row(grain) for grain in grain_ids]
        return GrainMap(
            self.grain_id[rows],
            self.ub[rows],
            self.centroid_mm[rows],
            self.size_mm[rows],
            self.volume_mm3[rows],
            self.phase[rows],
            self.phases,
            self.phase_names,
            self.voxels,
            self.source,
            self.file_format,
            self.notes,
        )
