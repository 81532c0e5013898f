"""Parameters of topotomography."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.config import JsonDict

from dfxrm_control.parameters._windows import RockWindow

__all__ = ["TopotomographyParameters"]

_DEG: JsonDict = {"units": "deg"}


class TopotomographyParameters(RockWindow):
    """Topotomography: a short rock at each of many turns about the diffraction vector, for the shape of the grain."""

    plan: ClassVar[str] = "topotomography_scan"
    roles: ClassVar[tuple[str, ...]] = ("rock",)

    omega_start: float = Field(default=-180.0, ge=-360, le=360, description="first turn", json_schema_extra=_DEG)
    omega_range: float = Field(
        default=360.0,
        gt=0,
        le=720,
        description="angle that the turns are spread over; the last one is a step short of its end",
        json_schema_extra=_DEG,
    )
    omega_num: Annotated[int, Field(ge=4, le=10_000)] = Field(default=72, description="number of turns")
    check_num: Annotated[int, Field(ge=0, le=100)] = Field(
        default=4, description="turns at which the alignment is checked before the scan; 0: none"
    )
    check_wander: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="most that the peak of the rock may wander between these turns; default: a fifth of the window",
        json_schema_extra=_DEG,
    )
    check_fading: float = Field(
        default=0.5, gt=0, le=1, description="least intensity at any of these turns, as a share of the highest"
    )

    @model_validator(mode="after")
    def _check_is_a_check(self) -> Self:
        if self.check_num == 1:
            raise ValueError("check_num is 1; a wandering spot shows at two turns or more, or give 0 for no check")
        if self.rock == "omega":
            raise ValueError("rock is 'omega', which turns about the diffraction vector; name another axis")
        return self
