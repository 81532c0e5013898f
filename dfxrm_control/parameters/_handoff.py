"""Parameters of the plans that go to the grains of a coarse map."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic.config import JsonDict

from dfxrm_control.parameters._alignment import AlignmentParameters
from dfxrm_control.parameters._base import AxisName
from dfxrm_control.parameters._series import SeriesParameters

__all__ = ["CampaignParameters", "CenterGrainParameters", "DctToDfxrmParameters", "FindGrainParameters", "numbers_in"]

_DEG: JsonDict = {"units": "deg"}
_UM: JsonDict = {"units": "um"}
_MM: JsonDict = {"units": "mm"}


def _as_text(value: Any) -> Any:
    """Return numbers as text, ``(1, 1, 1)`` as ``1 1 1``: text is what every command line and queue can give."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def numbers_in(text: str) -> list[float]:
    """Return the numbers in a text such as ``1 -1 1`` or ``4.05,4.05,4.05,90,90,90``.

    Raises
    ------
    ValueError
        When something else is in it.
    """
    return [float(word) for word in text.replace(",", " ").split()]


_Hkl = Annotated[str, BeforeValidator(_as_text), Field(max_length=40, pattern=r"^\s*-?\d+([\s,]+-?\d+){2}\s*$")]
_Cell = Annotated[str, BeforeValidator(_as_text), Field(max_length=200)]


class FindGrainParameters(AlignmentParameters):
    """A search of a peak over rock and roll together, in windows that grow about where they stand."""

    plan: ClassVar[str] = "find_grain"

    rock: AxisName | None = Field(default=None, description="logical name of the axis; default: the configuration's")
    roll: AxisName | None = Field(default=None, description="logical name of the axis; default: the configuration's")
    search_range: float = Field(
        default=1.4,
        gt=0,
        le=90,
        description="full width of the largest window, in rock and in roll",
        json_schema_extra=_DEG,
    )


class CenterGrainParameters(AlignmentParameters):
    """A scan of the height of a grain in the line beam, and a move of its centre of mass to the rotation centre."""

    plan: ClassVar[str] = "center_grain"

    height_um: float = Field(
        default=60.0, gt=0, le=10_000, description="height of the grain that is expected", json_schema_extra=_UM
    )
    search_um: float = Field(
        default=50.0,
        ge=0,
        le=10_000,
        description="how far the grain may be from where the sample stands, either way",
        json_schema_extra=_UM,
    )
    num: int = Field(default=25, ge=9, le=10_001, description="number of heights through the grain in the last scan")


class HandoffParameters(SeriesParameters):
    """What every plan that goes to grains of a map is told."""

    plan: ClassVar[str] = "handoff"

    map: str = Field(min_length=1, max_length=4096, description="file with the coarse grain map")
    hkl: _Hkl | None = Field(default=None, description="reflection, e.g. '1 1 1'; default: the best that is in reach")
    camera: AxisName | None = Field(
        default=None, description="logical name of the camera behind the objective; default: the configuration's"
    )
    camera_objective: str | None = Field(
        default=None,
        description="visible-light objective of the camera for the scan, e.g. 10x; default: the present one. The grain "
        "is centred with the one of the widest field",
    )
    search_range: float = Field(
        default=1.4,
        gt=0,
        le=20,
        description="full width of the largest window, in rock and in roll, in which the peak is searched",
        json_schema_extra=_DEG,
    )
    search_um: float = Field(
        default=50.0,
        ge=0,
        le=10_000,
        description="how far a grain may be from its prediction, either way",
        json_schema_extra=_UM,
    )
    search_exposure_s: float = Field(
        default=0.2,
        gt=0,
        le=3600,
        description="exposure time of each frame of the search; made shorter by itself where the camera saturates",
        json_schema_extra={"units": "s"},
    )
    search_darks: int = Field(
        default=5, ge=2, le=1000, description="frames with the shutter closed before each step of the search"
    )
    retract_mm: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="how far below its place (samz) the sample waits while arm and goniometer move",
        json_schema_extra=_MM,
    )
    allow_edge: bool = Field(
        default=False,
        description="go also to a grain that touches the border of the map, where it may be cut and its centre lie "
        "elsewhere",
    )
    use_registration: bool = Field(
        default=True, description="predict by the registration that is stored with the sample, if it is of this map"
    )
    cell: _Cell | None = Field(
        default=None, description="unit cell 'a b c alpha beta gamma', angstrom and deg, where the map does not say it"
    )
    space_group: str | None = Field(
        default=None, max_length=40, description="space group, such as 'F m -3 m', where the map does not say it"
    )

    @model_validator(mode="after")
    def _cell_is_six_numbers(self) -> Self:
        if self.cell is not None:
            try:
                count = len(numbers_in(self.cell))
            except ValueError:
                count = 0
            if count != 6:
                raise ValueError(f"cell {self.cell!r} is not a b c in angstrom and alpha beta gamma in deg")
        return self


class DctToDfxrmParameters(HandoffParameters):
    """From a coarse grain map to a scan of one grain: go there, find its peak, centre it, scan it."""

    plan: ClassVar[str] = "dct_to_dfxrm"

    grain: int = Field(ge=0, description="number of the grain in the map")


class CampaignParameters(HandoffParameters):
    """Scans of the best grains of a coarse map, one after the other, unattended."""

    plan: ClassVar[str] = "campaign"

    n: int = Field(default=5, ge=1, le=10_000, description="number of grains")
    give_up_after: int = Field(
        default=3, ge=1, le=1000, description="grains not found, and none found, after which nothing more is tried"
    )
    refit: bool = Field(
        default=True, description="fit the registration again with each grain found, from the third on, and go by it"
    )
    keep_registration: bool = Field(
        default=True,
        description="store the registration of the last fit with the sample; `dfxrm register --undo` "
        "goes back to the one before",
    )
