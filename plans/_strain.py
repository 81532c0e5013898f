"""Scans that move 2theta or the energy: strain, and the one-dimensional curves that alignment goes by."""

from __future__ import annotations

from typing import Any

from dfxrm_control.errors import ParameterError
from dfxrm_control.microscope import View
from dfxrm_control.parameters import (
    EnergyParameters,
    MosaicityStrainParameters,
    StrainParameters,
    TwoThetaParameters,
)
from dfxrm_control.windows import apparent_q, contrast
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument
from plans._tilts import tilt_axes
from plans._windows import Axes, check_tilts, window_scan

__all__ = ["energy_scan", "mosaicity_strain_scan", "strain_scan", "two_theta_scan"]

SMALLEST_SLOPE = 0.97
"""Measured over true strain below which a mesh does not measure strain: the least that strain maps are held to."""
LARGEST_LEAK = 0.03
"""Strain per rad of tilt above which it is said: 3e-5 for a tilt of 1 mrad."""


@flat_keywords(StrainParameters)
def strain_scan(instrument: Instrument, parameters: StrainParameters, md: dict[str, Any]) -> MsgGenerator:
    """Scan a mesh of rock and 2theta, or of rock and energy at fixed 2theta: rock along each line, one frame per point.

    On the arm objective and camera move together. Only with the rock in the mesh are strain and tilt told apart.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds, or when the rocking axis does not rock
        the crystal at this setting.
    """
    rock = parameters.rock or instrument.defaults.rock
    if rock == parameters.axis:
        raise ParameterError(f"strain_scan: rock and axis are both {rock!r}; a mesh needs two axes")
    axes = {parameters.axis: parameters.axis, "rock": rock}
    return (yield from window_scan(instrument, parameters, axes, _strain, md))


@flat_keywords(MosaicityStrainParameters)
def mosaicity_strain_scan(
    instrument: Instrument, parameters: MosaicityStrainParameters, md: dict[str, Any]
) -> MsgGenerator:
    """Scan a mesh of 2theta, roll and rock, one frame per point: a mosaicity scan at each position of the arm.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    axes = {"two_theta": "two_theta", **tilt_axes(instrument, parameters)}
    return (yield from window_scan(instrument, parameters, axes, _strain, md))


@flat_keywords(TwoThetaParameters)
def two_theta_scan(instrument: Instrument, parameters: TwoThetaParameters, md: dict[str, Any]) -> MsgGenerator:
    """Move objective and camera along the arm at fixed rock, for alignment: relative contrast, not strain.

    Half of a strain and all of a tilt show in such a curve; how much is recorded as ``dfxrm.contrast`` of the run.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    return (yield from window_scan(instrument, parameters, {"two_theta": "two_theta"}, _contrast, md))


@flat_keywords(EnergyParameters)
def energy_scan(instrument: Instrument, parameters: EnergyParameters, md: dict[str, Any]) -> MsgGenerator:
    """Scan the energy by the monochromator's angle at fixed rock, for alignment: relative contrast, not strain.

    A tilt shows in such a curve too; how much is recorded as ``dfxrm.contrast`` of the run.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    return (yield from window_scan(instrument, parameters, {"ccmth": "ccmth"}, _contrast, md))


def _strain(view: View, axes: Axes) -> tuple[dict[str, Any], list[str]]:
    """Refuse a mesh that does not measure strain, and tell what of a tilt it takes for strain."""
    check_tilts(view, axes)
    if view.resolution is None:
        return {}, []
    apparent = apparent_q(view.resolution, view.jacobian(list(axes.values())))
    if apparent[2, 2] < SMALLEST_SLOPE:
        raise ParameterError(
            f"axis {axes['rock']!r} does not rock the crystal at this setting, so that only {apparent[2, 2]:.2f} of a "
            "strain would be measured; rock another axis"
        )
    leaks = {"rock": float(apparent[2, 0]), "roll": float(apparent[2, 1])}
    remarks = [
        f"{axes['rock']}: a {name} tilt of 1 mrad will look like a strain of {1e-3 * abs(leak):.1g}"
        for name, leak in leaks.items()
        if abs(leak) > LARGEST_LEAK
    ]
    return {}, remarks


def _contrast(view: View, axes: Axes) -> tuple[dict[str, Any], list[str]]:
    """Return what a curve along one axis makes of strain and of tilt."""
    if view.resolution is None:
        return {}, []
    return {"contrast": contrast(view.resolution, view.jacobian(list(axes.values())))}, []
