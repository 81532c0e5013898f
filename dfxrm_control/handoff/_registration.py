"""How the frame of a coarse map lies in the microscope's sample frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dfxrm_control.grains import GrainMap

__all__ = ["Registration"]


@dataclass(frozen=True)
class Registration:
    """A rigid motion of the map: turned by a rotation vector, then shifted; omega counts from an offset.

    Attributes
    ----------
    rotation_deg : tuple of float
        Rotation vector that turns the map's frame to the microscope's sample frame, deg.
    shift_mm : tuple of float
        Where the map's origin lies from the rotation centre, mm.
    omega_offset_deg : float
        Reading of omega at which the omega stage is at the zero of the sample frame, deg.
    """

    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    omega_offset_deg: float = 0.0

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Rotation matrix, shape (3, 3)."""
        return Rotation.from_rotvec(self.rotation_deg, degrees=True).as_matrix()

    def ub(self, grains: GrainMap) -> NDArray[np.float64]:
        """Return the grains' UB matrices in the microscope's sample frame, shape (n, 3, 3), 1/angstrom."""
        return self.rotation @ grains.ub

    def centroid_mm(self, grains: GrainMap) -> NDArray[np.float64]:
        """Return the grains' centres in the microscope's sample frame, shape (n, 3), mm."""
        return grains.centroid_mm @ self.rotation.T + np.array(self.shift_mm)
