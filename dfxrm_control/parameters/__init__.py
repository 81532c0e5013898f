"""Parameters of the plans, as models with units and bounds.

Importing this costs no control stack and no numerics, so that a command line or a queue can check a scan before
anything else is there.
"""

from dfxrm_control.parameters._base import PlanParameters
from dfxrm_control.parameters._series import SeriesParameters
from dfxrm_control.parameters._tilts import (
    MAX_POINTS_PER_AXIS,
    MosaicityParameters,
    RockingParameters,
    ScanParameters,
)

__all__ = [
    "MAX_POINTS_PER_AXIS",
    "PLAN_PARAMETERS",
    "MosaicityParameters",
    "PlanParameters",
    "RockingParameters",
    "ScanParameters",
    "SeriesParameters",
]

PLAN_PARAMETERS: dict[str, type[PlanParameters]] = {
    model.plan: model for model in (MosaicityParameters, RockingParameters)
}
"""The model of each plan's parameters, by the plan's name."""
