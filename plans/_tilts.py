"""Scans that turn the crystal at fixed 2theta: rocking and mosaicity."""

from __future__ import annotations

from typing import Any

from dfxrm_control.errors import ParameterError
from dfxrm_control.microscope import View
from dfxrm_control.parameters import MosaicityParameters, RockingParameters
from dfxrm_control.windows import coupling
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument
from plans._windows import Axes, check_tilts, window_scan

__all__ = ["mosaicity_scan", "rocking_scan", "tilt_axes"]


@flat_keywords(RockingParameters)
def rocking_scan(instrument: Instrument, parameters: RockingParameters, md: dict[str, Any]) -> MsgGenerator:
    """Rock the crystal about one axis at fixed 2theta, one frame per step.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    axes = {"rock": parameters.rock or instrument.defaults.rock}
    return (yield from window_scan(instrument, parameters, axes, _at_fixed_two_theta, md))


@flat_keywords(MosaicityParameters)
def mosaicity_scan(instrument: Instrument, parameters: MosaicityParameters, md: dict[str, Any]) -> MsgGenerator:
    """Scan a mesh of two tilts at fixed 2theta, one frame per point: rock along each line, roll from line to line.

    A strain still shows as a small rock tilt; how much is recorded as ``dfxrm.coupling`` of the run.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    axes = tilt_axes(instrument, parameters)
    return (yield from window_scan(instrument, parameters, axes, _at_fixed_two_theta, md))


def tilt_axes(instrument: Instrument, parameters: Any) -> dict[str, str]:
    """Return the logical names of roll and rock, slow first.

    Raises
    ------
    ParameterError
        When they are one axis.
    """
    rock, roll = parameters.rock or instrument.defaults.rock, parameters.roll or instrument.defaults.roll
    if rock == roll:
        raise ParameterError(f"{parameters.plan}: rock and roll are both {rock!r}; a mesh needs two axes")
    return {"roll": roll, "rock": rock}


def _at_fixed_two_theta(view: View, axes: Axes) -> tuple[dict[str, Any], list[str]]:
    """Return what is left of strain in a scan of tilts."""
    check_tilts(view, axes)
    if view.resolution is None:
        return {}, []
    return {"coupling": coupling(view.resolution, view.jacobian(list(axes.values())))}, []
