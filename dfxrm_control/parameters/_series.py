"""Parameters of plans that run another plan again and again: a stack of layers, a series in time."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from dfxrm_control.errors import ParameterError
from dfxrm_control.parameters._base import PlanParameters

__all__ = ["SeriesParameters"]


def _mapping(value: Any) -> Any:
    """Return what a command line or a queue gives as text, ``{rock_num: 9, exposure_s: 0.2}``, as a mapping."""
    if not isinstance(value, str):
        return value
    try:
        content = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{value!r} is no YAML mapping such as {{rock_num: 9}}") from error
    return {} if content is None else content


class SeriesParameters(PlanParameters):
    """A scan that is run several times, each time as a run of its own."""

    plan: ClassVar[str] = "series"

    scan: str = Field(default="mosaicity_scan", description="name of the plan that is run each time")
    scan_parameters: Annotated[dict[str, Any], BeforeValidator(_mapping)] = Field(
        default={}, description="its parameters, as name: value; default: the configuration's"
    )

    @model_validator(mode="after")
    def _scan_is_sound(self) -> Self:
        from dfxrm_control.parameters import PLAN_PARAMETERS  # that registry holds this model

        known = [name for name, model in PLAN_PARAMETERS.items() if not issubclass(model, SeriesParameters)]
        if self.scan not in known:
            raise ValueError(f"scan {self.scan!r} cannot be run in a series; {', '.join(known)} can")
        try:
            PLAN_PARAMETERS[self.scan].check(self.scan_parameters)
        except ParameterError as error:
            raise ValueError(f"scan_parameters: {error}") from error
        return self
