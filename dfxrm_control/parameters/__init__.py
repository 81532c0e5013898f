"""Parameters of the plans, as models with units and bounds.

Importing this costs no control stack and no numerics, so that a command line or a queue can check a scan before
anything else is there.
"""

from dfxrm_control.parameters._alignment import (
    AlignmentParameters,
    AlignObjectiveParameters,
    AlignParameters,
    CenterAxisParameters,
    CenterFieldParameters,
    FindBeamParameters,
    FindPeakParameters,
    FocusParameters,
    MagnificationParameters,
)
from dfxrm_control.parameters._base import PlanParameters
from dfxrm_control.parameters._conditions import (
    CONDITION_PARAMETERS,
    MoveParameters,
    PlaceSampleParameters,
    SetTemperatureParameters,
    WaitParameters,
)
from dfxrm_control.parameters._handoff import (
    CampaignParameters,
    CenterGrainParameters,
    DctToDfxrmParameters,
    FindGrainParameters,
    HandoffParameters,
    numbers_in,
)
from dfxrm_control.parameters._layers import LayerParameters
from dfxrm_control.parameters._series import SeriesParameters
from dfxrm_control.parameters._strain import (
    EnergyParameters,
    MosaicityStrainParameters,
    StrainParameters,
    TwoThetaParameters,
)
from dfxrm_control.parameters._tilts import MosaicityParameters, RockingParameters
from dfxrm_control.parameters._time import (
    FindBraggParameters,
    ProgrammeStep,
    TimeSeriesParameters,
    parse_programme,
)
from dfxrm_control.parameters._topotomography import TopotomographyParameters
from dfxrm_control.parameters._weak_beam import WeakBeamExposure, WeakBeamParameters
from dfxrm_control.parameters._windows import MAX_POINTS_PER_AXIS, ScanParameters, WindowParameters

__all__ = [
    "CONDITION_PARAMETERS",
    "MAX_POINTS_PER_AXIS",
    "PLAN_PARAMETERS",
    "AlignObjectiveParameters",
    "AlignParameters",
    "AlignmentParameters",
    "CampaignParameters",
    "CenterAxisParameters",
    "CenterFieldParameters",
    "CenterGrainParameters",
    "DctToDfxrmParameters",
    "EnergyParameters",
    "FindBeamParameters",
    "FindBraggParameters",
    "FindGrainParameters",
    "FindPeakParameters",
    "FocusParameters",
    "HandoffParameters",
    "LayerParameters",
    "MagnificationParameters",
    "MosaicityParameters",
    "MosaicityStrainParameters",
    "MoveParameters",
    "PlaceSampleParameters",
    "PlanParameters",
    "ProgrammeStep",
    "RockingParameters",
    "ScanParameters",
    "SeriesParameters",
    "SetTemperatureParameters",
    "StrainParameters",
    "TimeSeriesParameters",
    "TopotomographyParameters",
    "TwoThetaParameters",
    "WaitParameters",
    "WeakBeamExposure",
    "WeakBeamParameters",
    "WindowParameters",
    "numbers_in",
    "parse_programme",
]

PLAN_PARAMETERS: dict[str, type[PlanParameters]] = {
    model.plan: model
    for model in (
        MosaicityParameters,
        RockingParameters,
        StrainParameters,
        MosaicityStrainParameters,
        TwoThetaParameters,
        EnergyParameters,
        WeakBeamParameters,
        FindPeakParameters,
        CenterAxisParameters,
        FindBeamParameters,
        AlignObjectiveParameters,
        FocusParameters,
        CenterFieldParameters,
        MagnificationParameters,
        AlignParameters,
        LayerParameters,
        TopotomographyParameters,
        FindBraggParameters,
        TimeSeriesParameters,
        FindGrainParameters,
        CenterGrainParameters,
        DctToDfxrmParameters,
        CampaignParameters,
    )
}
"""The model of each plan's parameters, by the plan's name."""
