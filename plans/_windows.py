"""Scans of axes through windows: from the parameters of a scan and the microscope as it stands to a mesh and its title.

What differs between a rocking curve and a three-dimensional mesh is which axes move. The rest stands here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.crystal import energy_kev
from dfxrm_control.errors import ParameterError, PhysicsError
from dfxrm_control.microscope import Microscope, View
from dfxrm_control.parameters import WindowParameters
from dfxrm_control.windows import AxisResponse, ScanAxis, Spread, WindowWarning, plan_window, view_response
from plans._flat import MsgGenerator
from plans._instrument import Instrument
from plans._mesh import Mesh, mesh_scan, position_of, read_channels, read_positions

__all__ = ["Axes", "Physics", "bliss_title", "check_tilts", "view_or_reason", "window_scan"]

Axes = Mapping[str, str]
"""Logical name of the axis by its role (``rock`` of ``rock_range``), slow first."""
Physics = Callable[[View, Axes], tuple[dict[str, Any], list[str]]]
"""From the microscope and the axes to what the scan says of its measurement, and what is to be warned about.

It raises ParameterError where these axes do not measure what the scan is for.
"""


def window_scan(
    instrument: Instrument, parameters: WindowParameters, axes: Axes, physics: Physics, md: Mapping[str, Any]
) -> MsgGenerator:
    """Scan a mesh of axes, each through the window that the parameters give it or that the microscope needs.

    Parameters
    ----------
    instrument : Instrument
        The devices.
    parameters : WindowParameters
        The windows by role, and what every scan is told.
    axes : mapping of str to str
        Logical name of the axis by role, slow first.
    physics : callable
        What the scan says of its measurement.
    md : mapping
        The user's metadata.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    p = parameters
    view, reason = yield from view_or_reason(instrument, p.camera or instrument.defaults.camera)
    devices = [instrument.axis(name) for name in axes.values()]
    statement: dict[str, Any] = {}
    remarks: list[str] = []
    responses: Sequence[AxisResponse | None] = [None] * len(axes)
    if view is not None:
        try:
            spread = Spread(instrument.sample.spread_deg, instrument.sample.spread_strain)
            responses = view_response(view, list(axes.values()), spread)
            statement, remarks = physics(view, axes)
        except PhysicsError as error:
            reason = str(error)
    planned = []
    for (role, name), axis, response in zip(axes.items(), devices, responses, strict=True):
        center, width, step, num = p.window(role)
        here = yield from position_of(axis)
        middle = here if center is None else here + center if p.relative else center
        scan_axis, said = plan_window(name, middle, width, step, num, response, reason)
        planned.append(scan_axis)
        remarks += said
    followers: dict[str, dict[str, list[float]]] = {}
    if getattr(p, "follow_focus", False) and "ccmth" in axes.values():
        followers, said = _in_focus(instrument, view, planned, reason)
        remarks += said
    mesh = Mesh(tuple(planned), snake=bool(getattr(p, "snake", False)), followers=followers)
    for remark in remarks:
        warnings.warn(remark, WindowWarning, stacklevel=2)
    if reason:
        remarks.append(f"the windows were not compared with the instrument's resolution: {reason}")
    title = bliss_title(instrument, planned, p.exposure_s)
    return (yield from mesh_scan(instrument, mesh, p, title=title, remarks=remarks, physics=statement, md=md))


def _in_focus(
    instrument: Instrument, view: View | None, planned: Sequence[ScanAxis], reason: str
) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """Return where the objective goes with the monochromator's angle; nothing, and why, where that cannot be known."""
    scanned = next(axis for axis in planned if axis.name == "ccmth")
    mono = instrument.config.monochromator
    if view is None or mono is None:
        why = reason or "there is no monochromator"
        return {}, [f"follow_focus: the objective stays where it is: {why}"]
    if view.objective is None:
        # a shadow is as sharp at any energy
        return {}, []
    try:
        places = [view.refocused(energy_kev(at, mono.d_spacing_angstrom)) for at in scanned.positions()]
    except PhysicsError as error:
        return {}, [f"follow_focus: the objective stays where it is: {error}"]
    return {scanned.name: {name: [place[name] for place in places] for name in places[0]}}, []


def check_tilts(view: View, axes: Axes) -> None:
    """Refuse a rock or a roll that does more than tilt the lattice.

    Raises
    ------
    ParameterError
        Naming the axis.
    """
    for role in ("rock", "roll"):
        if role in axes and abs(view.jacobian([axes[role]])[2, 0]) > 1e-9:
            raise ParameterError(f"{role}: axis {axes[role]!r} does not only tilt the lattice; name a goniometer axis")


def view_or_reason(instrument: Instrument, camera: str) -> Generator[Msg, Any, tuple[View | None, str]]:
    """Return the microscope as it stands; None, and why, where physics has no answer (no lens, say)."""
    instrument.camera(camera)
    positions = yield from read_positions(instrument.axes)
    channels = yield from read_channels(instrument)
    try:
        return Microscope(instrument.config).view(positions, camera, channels), ""
    except PhysicsError as error:
        return None, str(error)


def bliss_title(instrument: Instrument, axes: Sequence[ScanAxis], exposure_s: float) -> str:
    """Return the scan as a BLISS command."""
    command = "fscan" if len(axes) == 1 else f"fscan{len(axes)}d"
    motors = " ".join(f"{instrument.written(axis.name)} {axis.start:.10g} {axis.step:.10g} {axis.num}" for axis in axes)
    return f"{command} {motors} {exposure_s:.10g} {exposure_s:.10g}"
