"""Parameters of weak-beam imaging."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dfxrm_control.parameters._base import AxisName
from dfxrm_control.parameters._windows import Auto, RockWindow, ScanParameters, Width

__all__ = ["WeakBeamExposure", "WeakBeamParameters"]


def _numbers(value: Any) -> Any:
    """Return what a command line or a queue gives, a number or several with commas between, as a list."""
    if isinstance(value, str):
        return [part for part in value.replace(",", " ").split() if part]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Multiple = Annotated[float, Field(gt=0, le=20)]
Offset = Annotated[float, Field(ge=-20, le=20)]


class WeakBeamParameters(RockWindow):
    """Images off the peak: a fine rock tells the width of the peak, then long exposures at multiples of half of it."""

    plan: ClassVar[str] = "weak_beam_scan"
    roles: ClassVar[tuple[str, ...]] = ("rock",)

    rock: AxisName | None = Field(
        default=None,
        description="logical name of the axis that is rocked, and along which the images are taken off the peak; "
        "default: the configuration's",
    )
    rock_step: Annotated[Width | None, Auto] = Field(
        default=None,
        description="distance between points of the rock; default: a tenth of the instrument's FWHM",
        json_schema_extra={"units": "deg"},
    )
    k: Annotated[list[Multiple], BeforeValidator(_numbers)] = Field(
        default=[3.0],
        min_length=1,
        max_length=100,
        description="offsets from the peak, in half widths of the median pixel; several for a series",
        json_schema_extra={"units": "FWHM/2"},
    )
    flanks: Literal["both", "plus", "minus"] = Field(default="both", description="which sides of the peak are imaged")
    weak_exposure_s: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="exposure time of the images off the peak; default: ten times that of the rock",
        json_schema_extra={"units": "s"},
    )
    frames: int = Field(default=1, ge=1, le=100_000, description="frames taken, and averaged, at each point")
    weak_darks: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="frames with the shutter closed at that exposure; default: as many as frames are taken off the "
        "peak, at least 10 and at most the configuration's",
    )
    two_theta_offsets: Annotated[list[Offset], BeforeValidator(_numbers)] = Field(
        default=[0.0],
        min_length=1,
        max_length=100,
        description="positions of the arm, from where it stands, at each of which all offsets are taken; three or more "
        "tell strain from tilt",
        json_schema_extra={"units": "deg"},
    )
    thickness_um: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="length of the crystal along the beam, for the report",
        json_schema_extra={"units": "um"},
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("k", "two_theta_offsets"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: {', '.join(f'{value:g}' for value in values)} has a value twice")
        return self

    def signed_k(self) -> list[float]:
        """Return the multiples to go to, those below the peak negative, in the order of the axis."""
        multiples = sorted(self.k)
        below = [] if self.flanks == "plus" else [-k for k in reversed(multiples)]
        return below + ([] if self.flanks == "minus" else multiples)


class WeakBeamExposure(ScanParameters):
    """Frames at one point off the peak; made by the plan of weak-beam imaging, not asked for by itself."""

    plan: ClassVar[str] = "weak_beam_exposure"

    positions: dict[str, float] = Field(description="where each axis stands, by logical name")
    frames: int = Field(ge=1, description="number of frames")
