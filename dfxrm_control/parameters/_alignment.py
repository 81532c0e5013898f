"""Parameters of the plans that align the microscope."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dfxrm_control.parameters._base import AxisName, PlanParameters

__all__ = [
    "AlignObjectiveParameters",
    "AlignParameters",
    "AlignmentParameters",
    "CenterAxisParameters",
    "CenterFieldParameters",
    "FindBeamParameters",
    "FindPeakParameters",
    "FocusParameters",
    "MagnificationParameters",
]

_NearMm = Annotated[
    float,
    Field(
        gt=0,
        le=10_000,
        description="distance of the near-field camera (nfx) at which the beam is first looked for",
        json_schema_extra={"units": "mm"},
    ),
]
_FarMm = Annotated[
    float,
    Field(
        gt=0,
        le=10_000,
        description="distance of the near-field camera (nfx) at which its direction is measured",
        json_schema_extra={"units": "mm"},
    ),
]
_LensSearchMm = Annotated[
    float,
    Field(
        gt=0,
        le=10,
        description="how far the lens may be displaced, either way, for its image to be found",
        json_schema_extra={"units": "mm"},
    ),
]
_ArmSearch = Annotated[
    float,
    Field(
        ge=0,
        le=20,
        description="full range of arm angles over which the image is searched",
        json_schema_extra={"units": "deg"},
    ),
]


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


class FindBeamParameters(AlignmentParameters):
    """The direction of the diffracted beam, by the near-field camera at two distances without the objective."""

    plan: ClassVar[str] = "find_beam"

    exposure_s: float = Field(
        default=0.01,
        gt=0,
        le=3600,
        description="exposure time of each frame; made shorter by itself where the camera saturates",
        json_schema_extra={"units": "s"},
    )
    camera: AxisName | None = Field(
        default=None, description="logical name of the near-field camera; default: the first"
    )
    near_mm: _NearMm = 20.0
    far_mm: _FarMm = 100.0


class AlignObjectiveParameters(AlignmentParameters):
    """Inserting the objective and centring its five axes, by intensity and sharpness."""

    plan: ClassVar[str] = "align_objective"

    search_mm: _LensSearchMm = 0.25
    arm_search: _ArmSearch = 0.8
    focus_mm: float | None = Field(
        default=None,
        gt=0,
        le=500,
        description="full width of the curve of sharpness over the lens along the beam; "
        "default: as its acceptance asks",
        json_schema_extra={"units": "mm"},
    )
    focus_num: int = Field(default=25, ge=7, le=10_001, description="number of points of that curve")


class FocusParameters(AlignmentParameters):
    """Moving the objective, or the camera, along the beam to where the image is sharpest."""

    plan: ClassVar[str] = "focus"

    along: Literal["objective", "detector"] = Field(default="objective", description="what moves")
    width_mm: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="full width of the curve, along the beam; default: as the acceptance of the lens asks, "
        "about 6 mm of a CRL",
        json_schema_extra={"units": "mm"},
    )
    num: int = Field(default=25, ge=7, le=10_001, description="number of points of the curve")


class CenterFieldParameters(AlignmentParameters):
    """Bringing the lit grain, or its brightest place, to the middle of the field."""

    plan: ClassVar[str] = "center_field"

    feature: Literal["mass", "brightest"] = Field(
        default="mass", description="what goes to the middle: the centre of mass of what is lit, or the brightest place"
    )
    move: Literal["sample", "camera"] = Field(default="sample", description="what moves")


class MagnificationParameters(AlignmentParameters):
    """The magnification, by moving the sample a known way and registering the images."""

    plan: ClassVar[str] = "measure_magnification"

    step_um: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="distance between two places of the sample; default: a twentieth of the field",
        json_schema_extra={"units": "um"},
    )
    num: int = Field(default=5, ge=3, le=101, description="number of places in each direction")


class AlignParameters(AlignmentParameters):
    """The whole alignment: the beam without the objective, then the objective, peak, focus, field, magnification."""

    plan: ClassVar[str] = "align"

    near_field_exposure_s: float = Field(
        default=0.01,
        gt=0,
        le=3600,
        description="exposure time of a near-field frame; made shorter by itself where the camera saturates",
        json_schema_extra={"units": "s"},
    )
    rock: AxisName | None = Field(default=None, description="logical name of the axis; default: the configuration's")
    roll: AxisName | None = Field(default=None, description="logical name of the axis; default: the configuration's")
    rock_search: float = Field(
        default=2.0,
        gt=0,
        le=180,
        description="full range of the rock over which diffraction is searched",
        json_schema_extra={"units": "deg"},
    )
    fine_search: float = Field(
        default=0.3,
        gt=0,
        le=180,
        description="full range of the rock over which its peak is searched behind the objective",
        json_schema_extra={"units": "deg"},
    )
    roll_search: float = Field(
        default=1.5,
        gt=0,
        le=180,
        description="full range of the roll over which its peak is searched behind the objective",
        json_schema_extra={"units": "deg"},
    )
    near_mm: _NearMm = 20.0
    far_mm: _FarMm = 100.0
    objective_search_mm: _LensSearchMm = 0.25
    arm_search: _ArmSearch = 0.8
    focus_mm: float | None = Field(
        default=None,
        gt=0,
        le=500,
        description="full width of the last curve of sharpness over the lens along the beam; "
        "default: half of the first",
        json_schema_extra={"units": "mm"},
    )
