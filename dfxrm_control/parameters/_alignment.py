"""Parameters of the plans that align the microscope."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dfxrm_control.parameters._base import AxisName, PlanParameters

__all__ = ["AlignmentParameters", "CenterAxisParameters", "FindPeakParameters"]


class AlignmentParameters(PlanParameters):
    """What every step of an alignment is told."""

    exposure_s: float = Field(
        default=0.2,
        gt=0,
        le=3600,
        description="exposure time of each frame; made shorter by itself where the camera saturates",
        json_schema_extra={"units": "s"},
    )
    camera: AxisName | None = Field(
        default=None, description="logical name of the camera; default: the configuration's"
    )
    darks: int = Field(
        default=5, ge=2, le=1000, description="frames with the shutter closed, whose mean is taken off each frame"
    )


class FindPeakParameters(AlignmentParameters):
    """A search of the brightest position of one axis in windows that grow about where it stands."""

    plan: ClassVar[str] = "find_peak"

    axis: AxisName | None = Field(
        default=None, description="logical name of the axis, e.g. phi, chi or two_theta; default: the one that rocks"
    )
    search_range: float = Field(
        default=2.0,
        gt=0,
        le=180,
        description="full width of the largest window, about where the axis stands",
        json_schema_extra={"units": "deg"},
    )
    step: float | None = Field(
        default=None,
        gt=0,
        le=180,
        description="distance between points of the search; default: two thirds of the instrument's FWHM",
        json_schema_extra={"units": "deg"},
    )


class CenterAxisParameters(AlignmentParameters):
    """A curve over one axis about where it stands, and a move to its centre."""

    plan: ClassVar[str] = "center_axis"

    axis: AxisName | None = Field(
        default=None, description="logical name of the axis, e.g. phi, chi or two_theta; default: the one that rocks"
    )
    width: float | None = Field(
        default=None,
        gt=0,
        le=180,
        description="full width of the curve; default: that of the sample's spread and three FWHM of the instrument",
        json_schema_extra={"units": "deg"},
    )
    num: int = Field(default=25, ge=7, le=10_001, description="number of points of the curve")
