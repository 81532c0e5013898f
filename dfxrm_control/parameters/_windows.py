"""The window of each axis that a scan may move, and what every scan of frames is told: each set of fields once."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dfxrm_control.parameters._base import AxisName, PlanParameters

__all__ = [
    "MAX_POINTS_PER_AXIS",
    "CcmthWindow",
    "MeshParameters",
    "RockWindow",
    "RollWindow",
    "ScanParameters",
    "TwoThetaWindow",
    "WindowParameters",
]

MAX_POINTS_PER_AXIS = 100_000
"""More points along one axis than any scan has; a larger number is a slip of the keyboard."""


def _word_auto(value: Any) -> Any:
    return None if value == "auto" else value


Angle = Annotated[float, Field(ge=-360, le=360)]
Width = Annotated[float, Field(gt=0, le=180)]
Count = Annotated[int, Field(ge=2, le=MAX_POINTS_PER_AXIS)]
Auto = BeforeValidator(_word_auto)

_CENTER = "centre of the window; default: where the axis stands now"
_RANGE = "full width of the window, first to last point; default: sample spread +/- 3.5 sigma of the instrument"
_STEP = "distance between {}; default: two thirds of the instrument's FWHM"
_NUM = "number of {}, instead of a step"
_DEG: Any = {"units": "deg"}


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


class WindowParameters(ScanParameters):
    """A scan of axes through windows, each told by its centre, its full width and its step or number of points."""

    roles: ClassVar[tuple[str, ...]] = ()
    """First parts of the names of the windows' fields: ``rock`` of ``rock_center``, ``rock_range``, ..."""

    relative: bool = Field(default=True, description="centres count from where the axes stand now")

    def window(self, role: str) -> tuple[float | None, float | None, float | None, int | None]:
        """Return centre, full width, step and number of points of one window, as they were given."""
        center, width, step, num = (getattr(self, f"{role}_{part}") for part in ("center", "range", "step", "num"))
        return center, width, step, num

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        """Refuse a window that is said twice or that its step does not fit into."""
        for role in self.roles:
            _, width, step, num = self.window(role)
            if step is not None and num is not None:
                raise ValueError(f"{role}_step and {role}_num are both given; give one of them")
            if width is None or step is None:
                continue
            if step > width * (1 + 1e-9):
                raise ValueError(f"{role}_step {step:g} deg is larger than {role}_range {width:g} deg")
            if width / step > MAX_POINTS_PER_AXIS:
                raise ValueError(
                    f"{role}_range {width:g} deg in steps of {step:g} deg is more than {MAX_POINTS_PER_AXIS} points"
                )
        return self


class RockWindow(WindowParameters):
    """The rock: the tilt in the scattering plane."""

    rock: AxisName | None = Field(default=None, description="logical name of the axis; default: the configuration's")
    rock_center: Angle | None = Field(default=None, description=_CENTER, json_schema_extra=_DEG)
    rock_range: Annotated[Width | None, Auto] = Field(default=None, description=_RANGE, json_schema_extra=_DEG)
    rock_step: Annotated[Width | None, Auto] = Field(
        default=None, description=_STEP.format("points"), json_schema_extra=_DEG
    )
    rock_num: Annotated[Count | None, Auto] = Field(default=None, description=_NUM.format("points"))


class RollWindow(WindowParameters):
    """The roll: the tilt about the beam."""

    roll: AxisName | None = Field(
        default=None, description="logical name of the slower tilt; default: the configuration's"
    )
    roll_center: Angle | None = Field(default=None, description=_CENTER, json_schema_extra=_DEG)
    roll_range: Annotated[Width | None, Auto] = Field(default=None, description=_RANGE, json_schema_extra=_DEG)
    roll_step: Annotated[Width | None, Auto] = Field(
        default=None, description=_STEP.format("lines"), json_schema_extra=_DEG
    )
    roll_num: Annotated[Count | None, Auto] = Field(default=None, description=_NUM.format("lines"))


class TwoThetaWindow(WindowParameters):
    """The arm: objective and far-field camera together."""

    two_theta_center: Angle | None = Field(default=None, description=_CENTER, json_schema_extra=_DEG)
    two_theta_range: Annotated[Width | None, Auto] = Field(default=None, description=_RANGE, json_schema_extra=_DEG)
    two_theta_step: Annotated[Width | None, Auto] = Field(
        default=None, description=_STEP.format("positions of the arm"), json_schema_extra=_DEG
    )
    two_theta_num: Annotated[Count | None, Auto] = Field(default=None, description=_NUM.format("positions of the arm"))


class CcmthWindow(WindowParameters):
    """The energy, by the angle of the monochromator."""

    ccmth_center: Angle | None = Field(default=None, description=_CENTER, json_schema_extra=_DEG)
    ccmth_range: Annotated[Width | None, Auto] = Field(default=None, description=_RANGE, json_schema_extra=_DEG)
    ccmth_step: Annotated[Width | None, Auto] = Field(
        default=None, description=_STEP.format("angles of the monochromator"), json_schema_extra=_DEG
    )
    ccmth_num: Annotated[Count | None, Auto] = Field(
        default=None, description=_NUM.format("angles of the monochromator")
    )


class MeshParameters(WindowParameters):
    """A scan of two axes or more."""

    snake: bool = Field(default=True, description="scan every other line backwards instead of rewinding")
