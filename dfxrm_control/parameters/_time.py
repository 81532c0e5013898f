"""Parameters of a series in time, by a period or by the programme of a furnace, and of finding the Bragg peak again."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dfxrm_control.config import one_sentence
from dfxrm_control.parameters._alignment import AlignmentParameters
from dfxrm_control.parameters._base import AxisName
from dfxrm_control.parameters._series import SeriesParameters

__all__ = ["FindBraggParameters", "ProgrammeStep", "TimeSeriesParameters", "parse_programme"]

MOST_SCANS = 100_000
REPEATS = 10
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_STEP = re.compile(
    rf"(?P<target>[+-]?{_NUMBER})(?:@(?P<ramp_k_per_min>{_NUMBER}))?(?:/(?P<hold_s>{_NUMBER}))?"
    rf"(?:~(?P<tolerance_k>{_NUMBER}))?(?:\*(?P<scans>\d+))?"
)


class ProgrammeStep(BaseModel):
    """One step of a temperature programme: go to a temperature, hold it, scan.

    As text: ``target@ramp/hold~tolerance*scans``, of which all but the target may be left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    target: float = Field(ge=-273, le=3000, description="temperature, degC")
    ramp_k_per_min: float = Field(default=10.0, gt=0, le=6000, description="speed of the ramp to it, K/min")
    hold_s: float = Field(default=0.0, ge=0, le=1e7, description="time at it, s")
    tolerance_k: float = Field(default=2.0, gt=0, le=100, description="half width of the band that counts as at it, K")
    scans: int = Field(
        default=1,
        ge=0,
        le=MOST_SCANS,
        description="number of scans at it: one when the hold is over; more, from its begin to its end",
    )

    def __str__(self) -> str:
        return (
            f"{self.target:.10g}@{self.ramp_k_per_min:.10g}/{self.hold_s:.10g}~{self.tolerance_k:.10g}*{self.scans:d}"
        )

    def scan_times_s(self) -> list[float]:
        """Return when each scan is due, in s from the begin of the hold."""
        if self.scans < 2:
            return [self.hold_s] * self.scans
        return [self.hold_s * number / (self.scans - 1) for number in range(self.scans)]


def parse_programme(text: str) -> tuple[ProgrammeStep, ...]:
    """Return the steps of a programme such as ``325@10/1200, 25@20``.

    Raises
    ------
    ValueError
        Naming the step that is not of this form, or out of bounds.
    """
    steps = []
    for part in text.split(","):
        found = _STEP.fullmatch("".join(part.split()))
        if found is None:
            raise ValueError(
                f"{part.strip()!r} is no step of a temperature programme; one is target@ramp/hold~tolerance*scans in "
                "degC, K/min, s and K, e.g. 325@10/1200"
            )
        given = {name: value for name, value in found.groupdict().items() if value is not None}
        steps.append(_step(given, part.strip()))
    return tuple(steps)


def _step(values: Any, said: str) -> ProgrammeStep:
    try:
        return ProgrammeStep.model_validate(values)
    except ValidationError as error:
        raise ValueError(one_sentence(error, f"step {said!r}")) from error


def _as_text(value: Any) -> Any:
    """Return a programme given as a list of mappings as text."""
    if isinstance(value, list | tuple):
        return ", ".join(
            str(step if isinstance(step, ProgrammeStep) else _step(step, str(number + 1)))
            for number, step in enumerate(value)
        )
    return value


class TimeSeriesParameters(SeriesParameters):
    """A scan that is repeated: by a period, or at each step of a furnace's temperature programme."""

    plan: ClassVar[str] = "time_series"

    period_s: float | None = Field(
        default=None,
        gt=0,
        le=1e7,
        description="time from the start of one scan to that of the next; default: no pause between scans, which is "
        "also what becomes of scans that take longer",
        json_schema_extra={"units": "s"},
    )
    repeats: int | None = Field(default=None, ge=1, le=MOST_SCANS, description="number of scans; default: 10")
    programme: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        default=None,
        min_length=1,
        description="instead of a period and repeats: steps target@ramp/hold~tolerance*scans (degC, K/min, s, K), "
        "e.g. '25, 325@10/1200, 25@20'",
    )
    find: Literal["change", "always", "never"] = Field(
        default="change",
        description="find two_theta and rock again: after each change of temperature by the programme (so not in a "
        "series by a period), before each scan, or never",
    )
    find_range: float = Field(
        default=0.3,
        gt=0,
        le=10,
        description="full width of the search in two_theta, about where thermal expansion puts the peak",
        json_schema_extra={"units": "deg"},
    )
    find_exposure_s: float = Field(
        default=0.2,
        gt=0,
        le=3600,
        description="exposure time of each frame of the search",
        json_schema_extra={"units": "s"},
    )
    on_failure: Literal["cool", "stay"] = Field(
        default="cool",
        description="what the furnace does when the series does not end well: go to its safe "
        "temperature, or stay where it is",
    )

    @model_validator(mode="after")
    def _one_way_to_say_when(self) -> Self:
        if self.programme is not None:
            if self.period_s is not None or self.repeats is not None:
                raise ValueError("a programme says itself when to scan; give it, or period_s and repeats")
            if not any(step.scans for step in self.steps()):
                raise ValueError("the programme has no scan in it; give at least one step a number of scans above 0")
        return self

    def steps(self) -> tuple[ProgrammeStep, ...]:
        """Return the steps of the programme; none where a period says when to scan."""
        return parse_programme(self.programme) if self.programme is not None else ()

    @property
    def scans(self) -> int:
        """Number of scans of the whole series."""
        return sum(step.scans for step in self.steps()) if self.programme is not None else self.repeats or REPEATS


class FindBraggParameters(AlignmentParameters):
    """A search of the Bragg peak in scattering angle and rock together."""

    plan: ClassVar[str] = "find_bragg"

    rock: AxisName | None = Field(
        default=None, description="logical name of the axis that rocks; default: the configuration's"
    )
    search_range: float = Field(
        default=0.3,
        gt=0,
        le=10,
        description="full width of the search in two_theta, about where it stands; the rock goes with it",
        json_schema_extra={"units": "deg"},
    )
