"""Where the objective and the far-field camera stand for a scattering angle in the vertical plane."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dfxrm_control.errors import PhysicsError

__all__ = ["ArmPositions", "arm_positions", "arm_two_theta_deg"]


@dataclass(frozen=True)
class ArmPositions:
    """Positions of the axes that the scattering angle moves, and those it leaves alone.

    Attributes
    ----------
    obx, obz : float
        Centre of the objective along the beam and up, mm.
    obpitch : float
        Pitch of the objective, deg.
    ffz : float
        Height of the far-field camera, mm.
    mainx : float
        Far-field camera along the beam, mm; negative by the convention of ID03 files.
    """

    obx: float
    obz: float
    obpitch: float
    ffz: float
    mainx: float

    @property
    def path_mm(self) -> float:
        """Sample to detector along the diffracted beam, ``L = X / cos 2theta``, mm."""
        return math.hypot(self.mainx, self.ffz)


def arm_positions(two_theta_deg: float, centre_distance_mm: float, horizontal_distance_mm: float) -> ArmPositions:
    """Return the positions that put objective and far-field camera at a scattering angle.

    ``obpitch = 2theta; obx = d_c cos 2theta; obz = d_c sin 2theta; ffz = X tan 2theta``. The camera keeps its
    horizontal distance X, so that its distance along the beam, and the magnification with it, change with the angle.

    Parameters
    ----------
    two_theta_deg : float
        Scattering angle, deg, above -90 and below 90.
    centre_distance_mm : float
        d_c, sample to the centre of the objective along the diffracted beam, mm.
    horizontal_distance_mm : float
        X, horizontal distance from the sample to the far-field camera, mm; the sign is ignored, so that a negative
        ``mainx`` may be given.

    Raises
    ------
    PhysicsError
        For an angle at or beyond 90 deg (the camera moves in a vertical plane) or a distance of zero.
    """
    if not abs(two_theta_deg) < 90.0:
        raise PhysicsError(f"two_theta: {two_theta_deg:g} deg was asked; the arm reaches from -90 to 90 deg")
    if not centre_distance_mm > 0.0:
        raise PhysicsError(f"objective distance: {centre_distance_mm:g} mm was asked; it must be above 0 mm")
    x = abs(horizontal_distance_mm)
    if not x > 0.0:
        raise PhysicsError(f"mainx: {horizontal_distance_mm:g} mm was asked; the camera stands away from the sample")
    angle = math.radians(two_theta_deg)
    return ArmPositions(
        obx=centre_distance_mm * math.cos(angle),
        obz=centre_distance_mm * math.sin(angle),
        obpitch=two_theta_deg,
        ffz=x * math.tan(angle),
        mainx=-x,
    )


def arm_two_theta_deg(along_mm: float, height_mm: float) -> float:
    """Return the scattering angle at which something stands, from its distance along the beam and its height.

    Parameters
    ----------
    along_mm : float
        Horizontal distance from the sample, mm: obx for the objective, mainx (either sign) for the camera.
    height_mm : float
        Height above the beam, mm: obz or ffz.

    Raises
    ------
    PhysicsError
        When both are zero: what stands at the sample has no direction.
    """
    if along_mm == 0.0 and height_mm == 0.0:
        raise PhysicsError("arm: objective or camera stands at the sample (0 mm along, 0 mm up); it has no angle there")
    return math.degrees(math.atan2(height_mm, abs(along_mm)))
