"""Parameters of the scans that move 2theta or the energy: strain, and the curves that alignment goes by."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from dfxrm_control.parameters._tilts import TiltMesh
from dfxrm_control.parameters._windows import CcmthWindow, MeshParameters, RockWindow, TwoThetaWindow, WindowParameters

__all__ = ["EnergyParameters", "MosaicityStrainParameters", "StrainParameters", "TwoThetaParameters"]


class StrainAxis(WindowParameters):
    """Which of the two axes that tell a strain is scanned."""

    axis: Literal["two_theta", "ccmth"] = Field(
        default="two_theta",
        description="what moves from line to line: the arm, with objective and camera on it, or the monochromator's "
        "angle at fixed 2theta",
    )


class FollowFocus(WindowParameters):
    """What the objective does where the energy is scanned."""

    follow_focus: bool = Field(
        default=True,
        description="where the energy is scanned, the objective moves along the arm with it, so that the image stays "
        "in focus; no: it stays",
    )


class StrainParameters(FollowFocus, MeshParameters, CcmthWindow, TwoThetaWindow, RockWindow, StrainAxis):
    """A mesh of the rock and 2theta, or of the rock and the energy: the axial strain of the lattice at every pixel."""

    plan: ClassVar[str] = "strain_scan"
    roles: ClassVar[tuple[str, ...]] = ("two_theta", "ccmth", "rock")

    @model_validator(mode="after")
    def _fits_the_axis(self) -> Self:
        other = "ccmth" if self.axis == "two_theta" else "two_theta"
        for part in ("center", "range", "step", "num"):
            if getattr(self, f"{other}_{part}") is not None:
                raise ValueError(f"{other}_{part} is given, but axis is {self.axis!r}; give one or the other")
        if self.rock == self.axis:
            raise ValueError(f"rock and axis are both {self.rock!r}; a mesh needs two axes")
        return self


class MosaicityStrainParameters(TwoThetaWindow, TiltMesh):
    """A mesh of 2theta, roll and rock: orientation and axial strain of the lattice at every pixel."""

    plan: ClassVar[str] = "mosaicity_strain_scan"
    roles: ClassVar[tuple[str, ...]] = ("two_theta", "roll", "rock")

    @model_validator(mode="after")
    def _third_axis(self) -> Self:
        if "two_theta" in (self.rock, self.roll):
            raise ValueError("rock and roll are tilts; 'two_theta' is the third axis of the mesh already")
        return self


class TwoThetaParameters(TwoThetaWindow):
    """A scan of 2theta alone, for alignment: relative contrast, not strain."""

    plan: ClassVar[str] = "two_theta_scan"
    roles: ClassVar[tuple[str, ...]] = ("two_theta",)


class EnergyParameters(FollowFocus, CcmthWindow):
    """A scan of the energy alone, by the monochromator's angle, for alignment: relative contrast, not strain."""

    plan: ClassVar[str] = "energy_scan"
    roles: ClassVar[tuple[str, ...]] = ("ccmth",)
