"""Parameters of the scans that turn the crystal at fixed 2theta: rocking and mosaicity."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from dfxrm_control.parameters._windows import MeshParameters, RockWindow, RollWindow

__all__ = ["MosaicityParameters", "RockingParameters", "TiltMesh"]


class RockingParameters(RockWindow):
    """A scan of one tilt at fixed 2theta: the rocking curve of every pixel."""

    plan: ClassVar[str] = "rocking_scan"
    roles: ClassVar[tuple[str, ...]] = ("rock",)


class TiltMesh(MeshParameters, RollWindow, RockWindow):
    """A mesh with two tilts in it."""

    roles: ClassVar[tuple[str, ...]] = ("roll", "rock")

    @model_validator(mode="after")
    def _two_axes(self) -> Self:
        if self.rock is not None and self.rock == self.roll:
            raise ValueError(f"rock and roll are both {self.rock!r}; a mesh needs two axes")
        return self


class MosaicityParameters(TiltMesh):
    """A mesh of two tilts at fixed 2theta: the orientation of the lattice at every pixel."""

    plan: ClassVar[str] = "mosaicity_scan"
