"""Parameters of the scans that turn the crystal at fixed 2theta: rocking and mosaicity."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dfxrm_control.parameters._base import PlanParameters

__all__ = ["MAX_POINTS_PER_AXIS", "MosaicityParameters", "RockingParameters", "ScanParameters"]

MAX_POINTS_PER_AXIS = 100_000
"""More points along one axis than any scan has; a larger number is a slip of the keyboard."""


def _word_auto(value: Any) -> Any:
    return None if value == "auto" else value


AxisName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_]\w*$")]
Angle = Annotated[float, Field(ge=-360, le=360)]
Width = Annotated[float, Field(gt=0, le=180)]
Count = Annotated[int, Field(ge=2, le=MAX_POINTS_PER_AXIS)]
Auto = BeforeValidator(_word_auto)


class ScanParameters(PlanParameters):
    """What every scan that takes frames is told, whatever moves."""

    exposure_s: float = Field(
        default=0.5, gt=0, le=3600, description="exposure time of each frame", json_schema_extra={"units": "s"}
    )
    camera: AxisName | None = Field(
        default=None, description="logical name of the camera; default: the configuration's"
    )
    darks_before: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="frames taken with the shutter closed before the scan; default: the configuration's",
    )
    darks_after: int = Field(default=0, ge=0, le=10_000, description="frames with the shutter closed after the scan")
    after: Literal["start", "stay"] | None = Field(
        default=None,
        description="where the scanned axes are left: where they started or where the scan ends; "
        "default: the configuration's",
    )


class RockingParameters(ScanParameters):
    """A scan of one tilt at fixed 2theta: the rocking curve of every pixel."""

    plan: ClassVar[str] = "rocking_scan"

    rock: AxisName | None = Field(default=None, description="logical name of the axis; default: the configuration's")
    relative: bool = Field(default=True, description="centres count from where the axes stand now")
    rock_center: Angle | None = Field(
        default=None,
        description="centre of the window; default: where the axis stands now",
        json_schema_extra={"units": "deg"},
    )
    rock_range: Annotated[Width | None, Auto] = Field(
        default=None,
        description="full width of the window, first to last point; "
        "default: sample spread +/- 3.5 sigma of the instrument",
        json_schema_extra={"units": "deg"},
    )
    rock_step: Annotated[Width | None, Auto] = Field(
        default=None,
        description="distance between points; default: two thirds of the instrument's FWHM",
        json_schema_extra={"units": "deg"},
    )
    rock_num: Annotated[Count | None, Auto] = Field(default=None, description="number of points, instead of a step")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        _check_window("rock", self.rock_range, self.rock_step, self.rock_num)
        return self


class MosaicityParameters(RockingParameters):
    """A mesh of two tilts at fixed 2theta: the orientation of the lattice at every pixel."""

    plan: ClassVar[str] = "mosaicity_scan"

    roll: AxisName | None = Field(
        default=None, description="logical name of the slow axis; default: the configuration's"
    )
    roll_center: Angle | None = Field(
        default=None,
        description="centre of the window; default: where the axis stands now",
        json_schema_extra={"units": "deg"},
    )
    roll_range: Annotated[Width | None, Auto] = Field(
        default=None,
        description="full width of the window, first to last point; "
        "default: sample spread +/- 3.5 sigma of the instrument",
        json_schema_extra={"units": "deg"},
    )
    roll_step: Annotated[Width | None, Auto] = Field(
        default=None,
        description="distance between lines; default: two thirds of the instrument's FWHM",
        json_schema_extra={"units": "deg"},
    )
    roll_num: Annotated[Count | None, Auto] = Field(default=None, description="number of lines, instead of a step")
    snake: bool = Field(default=True, description="scan every other line backwards instead of rewinding")

    @model_validator(mode="after")
    def _two_axes(self) -> Self:
        _check_window("roll", self.roll_range, self.roll_step, self.roll_num)
        if self.rock is not None and self.rock == self.roll:
            raise ValueError(f"rock and roll are both {self.rock!r}; a mesh needs two axes")
        return self


def _check_window(axis: str, width: float | None, step: float | None, num: int | None) -> None:
    """Refuse a window that is said twice or that its step does not fit into."""
    if step is not None and num is not None:
        raise ValueError(f"{axis}_step and {axis}_num are both given; give one of them")
    if width is not None and step is not None and step > width * (1 + 1e-9):
        raise ValueError(f"{axis}_step {step:g} deg is larger than {axis}_range {width:g} deg")
    if width is not None and step is not None and width / step > MAX_POINTS_PER_AXIS:
        raise ValueError(
            f"{axis}_range {width:g} deg in steps of {step:g} deg is more than {MAX_POINTS_PER_AXIS} points"
        )
