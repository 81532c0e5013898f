"""What the parameters of all plans have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dfxrm_control.config import one_sentence
from dfxrm_control.errors import ParameterError

__all__ = ["AxisName", "PlanParameters"]

AxisName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_]\w*$")]


class PlanParameters(BaseModel):
    """Parameters of one plan: flat, bounded, with units, and nothing that the plan does not know.

    The command line, the queue, the dry run and the metadata of a run all use the same model. A parameter left out
    (None) takes the microscope's configured value, or is worked out from its resolution.

    Attributes
    ----------
    plan : str
        Name of the plan these are the parameters of.
    version : int
        Raised when a field changes its name or meaning, so that old records stay readable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    plan: ClassVar[str]
    version: ClassVar[int] = 1

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Self:
        """Return the parameters, or say in one sentence what is wrong.

        Raises
        ------
        ParameterError
            When a value is out of bounds, of a wrong kind, unknown or in conflict with another.
        """
        unknown = [name for name in values if name not in cls.model_fields]
        if unknown:
            raise ParameterError(
                f"{cls.plan}: there is no parameter {unknown[0]!r}; it takes {', '.join(cls.model_fields)}"
            )
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            sentence = one_sentence(error, cls.plan).replace(": the file as a whole:", ":")
            raise ParameterError(sentence) from error

    def record(self) -> dict[str, Any]:
        """Return the parameters as they stand in the metadata of a run."""
        return {"model": type(self).__name__, "version": self.version, "values": self.model_dump(mode="json")}

    @classmethod
    def units(cls) -> dict[str, str]:
        """Return the unit of each parameter that has one."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return {
            name: str(extra["units"]) for name, extra in extras.items() if isinstance(extra, dict) and "units" in extra
        }
