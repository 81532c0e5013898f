"""Scans that turn the crystal at fixed 2theta: rocking and mosaicity."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.errors import ParameterError, PhysicsError
from dfxrm_control.microscope import Microscope
from dfxrm_control.parameters import MosaicityParameters, RockingParameters
from dfxrm_control.windows import ScanAxis, TiltResponse, WindowWarning, plan_window, view_response
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument
from plans._mesh import Mesh, mesh_scan, position_of, read_positions

__all__ = ["mosaicity_scan", "rocking_scan"]

Window = tuple[str, float | None, float | None, float | None, int | None]


@flat_keywords(RockingParameters)
def rocking_scan(instrument: Instrument, parameters: RockingParameters, md: dict[str, Any]) -> MsgGenerator:
    """Rock the crystal about one axis at fixed 2theta, one frame per step.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    p = parameters
    rock = p.rock or instrument.defaults.rock
    axes, remarks = yield from _windows(instrument, p, [(rock, p.rock_center, p.rock_range, p.rock_step, p.rock_num)])
    title = f"fscan {_bliss(instrument, axes[0])} {p.exposure_s:.10g} {p.exposure_s:.10g}"
    return (yield from mesh_scan(instrument, Mesh(tuple(axes)), p, title=title, remarks=remarks, md=md))


@flat_keywords(MosaicityParameters)
def mosaicity_scan(instrument: Instrument, parameters: MosaicityParameters, md: dict[str, Any]) -> MsgGenerator:
    """Scan a mesh of two tilts at fixed 2theta, one frame per point: rock along each line, roll from line to line.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    p = parameters
    rock, roll = p.rock or instrument.defaults.rock, p.roll or instrument.defaults.roll
    if rock == roll:
        raise ParameterError(f"mosaicity_scan: rock and roll are both {rock!r}; a mesh needs two axes")
    axes, remarks = yield from _windows(
        instrument,
        p,
        [
            (roll, p.roll_center, p.roll_range, p.roll_step, p.roll_num),
            (rock, p.rock_center, p.rock_range, p.rock_step, p.rock_num),
        ],
    )
    motors = " ".join(_bliss(instrument, axis) for axis in axes)
    title = f"fscan2d {motors} {p.exposure_s:.10g} {p.exposure_s:.10g}"
    mesh = Mesh(tuple(axes), snake=p.snake)
    return (yield from mesh_scan(instrument, mesh, p, title=title, remarks=remarks, md=md))


def _bliss(instrument: Instrument, axis: ScanAxis) -> str:
    return f"{instrument.written(axis.name)} {axis.start:.10g} {axis.step:.10g} {axis.num}"


def _windows(
    instrument: Instrument, parameters: RockingParameters, windows: Sequence[Window]
) -> Generator[Msg, Any, tuple[list[ScanAxis], list[str]]]:
    """Work out where each axis goes, from where it stands and what the microscope resolves there."""
    names = [name for name, *_ in windows]
    axes = [instrument.axis(name) for name in names]
    responses, reason = yield from _responses(instrument, parameters.camera or instrument.defaults.camera, names)
    planned, remarks = [], []
    for axis, response, (name, center, width, step, num) in zip(axes, responses, windows, strict=True):
        here = yield from position_of(axis)
        middle = here if center is None else here + center if parameters.relative else center
        spread = instrument.sample.spread_deg
        scan_axis, said = plan_window(name, middle, width, step, num, response, spread, reason)
        planned.append(scan_axis)
        remarks += said
    for remark in remarks:
        warnings.warn(remark, WindowWarning, stacklevel=2)
    if reason:
        remarks.append(f"the windows were not compared with the instrument's resolution: {reason}")
    return planned, remarks


def _responses(
    instrument: Instrument, camera: str, names: Sequence[str]
) -> Generator[Msg, Any, tuple[Sequence[TiltResponse | None], str]]:
    """Return what each axis sees of the instrument; nothing, and why, where physics has no answer (no lens, say)."""
    instrument.camera(camera)
    positions = yield from read_positions(instrument.axes)
    channels = yield from read_positions({**instrument.channels, **instrument.per_event})
    try:
        view = Microscope(instrument.config).view(positions, camera, channels)
        return view_response(view, names), ""
    except PhysicsError as error:
        return [None] * len(names), str(error)
