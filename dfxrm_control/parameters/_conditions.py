"""Parameters of what a queue does between scans: go to a sample, go to a temperature, wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from dfxrm_control.parameters._base import AxisName, PlanParameters

__all__ = [
    "CONDITION_PARAMETERS",
    "MoveParameters",
    "PlaceSampleParameters",
    "SetTemperatureParameters",
    "WaitParameters",
]

LONGEST_WAIT_S = 7 * 24 * 3600.0

_Targets = Annotated[dict[AxisName, float], Field(min_length=1, max_length=50)]


class MoveParameters(PlanParameters):
    """A move of any axes, together."""

    plan: ClassVar[str] = "move"

    axes: _Targets = Field(description="target by logical axis, mm, deg or keV")


class PlaceSampleParameters(PlanParameters):
    """A move of axes of the goniometer, together: what brings another sample, or another part of it, into the beam."""

    plan: ClassVar[str] = "place_sample"

    axes: _Targets = Field(description="target by logical axis of the goniometer, mm or deg")


class SetTemperatureParameters(PlanParameters):
    """A ramp of the furnace to a temperature, and the time it is then held before anything else is done."""

    plan: ClassVar[str] = "set_temperature"

    temperature: float = Field(ge=-273, le=3000, description="temperature", json_schema_extra={"units": "degC"})
    ramp_k_per_min: float = Field(
        default=10.0, gt=0, le=6000, description="speed of the ramp to it", json_schema_extra={"units": "K/min"}
    )
    hold_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_WAIT_S,
        description="time at it before the next item",
        json_schema_extra={"units": "s"},
    )
    tolerance_k: float = Field(
        default=2.0,
        gt=0,
        le=100,
        description="half width of the band that counts as at it",
        json_schema_extra={"units": "K"},
    )


class WaitParameters(PlanParameters):
    """A pause: for a while by the microscope's clock, or until a time of the day's clock."""

    plan: ClassVar[str] = "wait"

    duration_s: float | None = Field(
        default=None, ge=0, le=LONGEST_WAIT_S, description="how long", json_schema_extra={"units": "s"}
    )
    until: str | None = Field(
        default=None, max_length=40, description="date and time, e.g. 2026-11-25T02:00; local where it says no zone"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.duration_s is None) == (self.until is None):
            raise ValueError("give either duration_s or until")
        if self.until is not None:
            self.until_time()
        return self

    def until_time(self) -> datetime:
        """Return the time to wait for, with its zone."""
        assert self.until is not None
        try:
            then = datetime.fromisoformat(self.until)
        except ValueError:
            raise ValueError(f"until {self.until!r} is no date and time such as 2026-11-25T02:00") from None
        then = then.astimezone()
        if then - datetime.now().astimezone() > timedelta(seconds=LONGEST_WAIT_S):
            raise ValueError(f"until {self.until!r} is more than {LONGEST_WAIT_S / 86400:g} days ahead")
        return then

    def remaining_s(self) -> float:
        """Return the time from now to ``until``, s; 0 where that is over."""
        return max(0.0, (self.until_time() - datetime.now().astimezone()).total_seconds())


CONDITION_PARAMETERS: dict[str, type[PlanParameters]] = {
    model.plan: model for model in (PlaceSampleParameters, MoveParameters, SetTemperatureParameters, WaitParameters)
}
"""The model of each of these plans' parameters, by the plan's name."""
