"""The whole alignment, unattended: from a beam that nobody has seen to a sharp, centred, bright image."""

from __future__ import annotations

import math
import uuid
from collections.abc import Generator
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.alignment import Found
from dfxrm_control.errors import AlignmentError, LimitError
from dfxrm_control.geometry import motor_jacobian
from dfxrm_control.microscope import View
from dfxrm_control.parameters import AlignParameters
from plans._alignment._beam import NEAR_FIELD_AXES, find_beam, near_field_camera, near_field_place
from plans._alignment._expected import present_view, reflection_two_theta_deg
from plans._alignment._field import center_field
from plans._alignment._focus import focus, focus_width_mm
from plans._alignment._magnification import measure_magnification
from plans._alignment._objective import align_objective, far_field_camera, with_widest_field
from plans._alignment._peak import find_peak
from plans._alignment._step import Place, set_channel
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument
from plans._mesh import always, position_of

__all__ = ["align"]

STRAIGHT_DEG = 0.005
"""Yaw of the beam that is left as it is."""


@flat_keywords(AlignParameters)
def align(instrument: Instrument, parameters: AlignParameters, md: dict[str, Any]) -> MsgGenerator:
    """Align the microscope: find the beam, centre the objective on it, then peak, focus, field and magnification.

    Objective out, near-field camera in: the rocking angle is searched until the crystal diffracts, the direction of the
    beam is measured, and the roll is turned until it lies in the scattering plane. Near-field camera out, arm to the
    beam, objective in and centred (`align_objective`). Then rock and roll are searched with the lens, the lens is
    focused, the camera goes to the image and the magnification is measured. Each step is a run of its own, ends with
    what it found and how sure it is, and moves nothing when it is not sure. At the end the arm as it stands is declared
    to be at the angle of the beam (channel ``two_theta_zero``), so that scans of ``two_theta`` keep the alignment.
    Returns the list of findings.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    AlignmentError
        When a step that the next ones need is not sure.
    """
    p = parameters
    near, far = near_field_camera(instrument), far_field_camera(instrument, p.camera)
    rock, roll = p.rock or instrument.defaults.rock, p.roll or instrument.defaults.roll
    for axis in (rock, roll, "two_theta"):
        instrument.axis(axis)
    session = {"uid": str(uuid.uuid4())}
    results: list[Found] = []
    common = {"darks": p.darks}

    def metadata() -> dict[str, Any]:
        ours = {**md.get("dfxrm", {}), "alignment": {**session, "index": len(results)}}
        return {**md, "dfxrm": ours}

    def need(found: Found) -> Found:
        results.append(found)
        if not found.sure:
            raise AlignmentError(f"the alignment stopped: {found.line()}")
        return found

    def in_near_field() -> Generator[Msg, Any, float]:
        view: View = yield from present_view(instrument, near)
        expected = reflection_two_theta_deg(instrument, view.energy_kev)
        yield from set_channel(instrument, "objective_in", "out")
        yield from _go(instrument, near_field_place(p.near_mm, expected))
        exposure = {**common, "exposure_s": p.near_field_exposure_s, "camera": near}
        first = need(
            (yield from find_peak(instrument, axis=rock, search_range=p.rock_search, md=metadata(), **exposure))
        )
        # as short as the camera needs it
        beam_options = {**exposure, "near_mm": p.near_mm, "far_mm": p.far_mm, "exposure_s": first.exposure_s}
        beam = need((yield from find_beam(instrument, md=metadata(), **beam_options)))
        if abs(beam.extra["yaw_deg"]) > STRAIGHT_DEG and (
            yield from _straighten(instrument, view, beam.extra["yaw_deg"], beam.position, roll)
        ):
            beam = need((yield from find_beam(instrument, md=metadata(), **beam_options)))
        return beam.position

    parked: dict[str, float] = {}
    for axis in NEAR_FIELD_AXES:
        parked[axis] = yield from position_of(instrument.axis(axis))

    def park() -> MsgGenerator:
        yield from _go(instrument, parked)

    two_theta = yield from always(in_near_field(), park)
    yield from _go(instrument, {"two_theta": two_theta})
    exposure = {**common, "exposure_s": p.exposure_s, "camera": far}
    lens = {"search_mm": p.objective_search_mm, "arm_search": p.arm_search, **exposure}
    results.extend((yield from align_objective(instrument, md=metadata(), **lens)))
    for axis, width in ((rock, p.fine_search), (roll, p.roll_search), (rock, p.fine_search)):
        need((yield from find_peak(instrument, axis=axis, search_range=width, md=metadata(), **exposure)))
    # twice as fine as the first time
    lens_view: View = yield from present_view(instrument, far)
    width_mm = p.focus_mm or focus_width_mm(lens_view, "objective") / 2.0
    results.append((yield from focus(instrument, md=metadata(), width_mm=width_mm, **exposure)))
    # the lens and the arm were moved, not the sample: so the camera goes to the image
    field: dict[str, Any] = {"move": "camera", "md": metadata(), **exposure}
    results.append((yield from with_widest_field(instrument, far, lambda: center_field(instrument, **field))))
    results.append((yield from measure_magnification(instrument, md=metadata(), **exposure)))
    need((yield from find_peak(instrument, axis=rock, search_range=p.fine_search, md=metadata(), **exposure)))
    yield from _keep_arm(instrument, two_theta)
    return results


def _go(instrument: Instrument, place: Place) -> MsgGenerator:
    for name, position in place.items():
        yield Msg("set", instrument.axis(name), round(position, 9), group="align")
    yield Msg("wait", None, group="align")


def _keep_arm(instrument: Instrument, two_theta_deg: float) -> MsgGenerator:
    """Let the arm, as it stands now, be at the angle of the beam: moved by ``two_theta`` alone it stays aligned."""
    zero: Any = instrument.channels.get("two_theta_zero")
    if zero is not None and hasattr(zero, "set"):
        yield Msg("set", zero, two_theta_deg, group="zero")
        yield Msg("wait", None, group="zero")


def _straighten(
    instrument: Instrument, view: View, yaw_deg: float, two_theta_deg: float, roll: str
) -> Generator[Msg, Any, bool]:
    """Turn the roll until the beam lies in the scattering plane; False where the roll cannot go there.

    ``k_y = 2 sin(theta) q_roll``, and the Jacobian tells what the roll does to q_roll.
    """
    angles = {axis: float(view.positions.get(axis, 0.0)) for axis in ("mu", "omega", "chi", "phi")}
    rate = float(motor_jacobian([roll], two_theta_deg, **angles, mu_sign=instrument.config.mu_sign)[1, 0])
    if abs(rate) < 0.1:
        return False
    turn = -math.tan(math.radians(yaw_deg)) / (2.0 * math.sin(math.radians(two_theta_deg / 2.0))) / rate
    axis = instrument.axis(roll)
    here = yield from position_of(axis)
    target = here + math.degrees(turn)
    check = getattr(axis, "check_value", None)
    try:
        if check is not None:
            check(target)
    except LimitError:
        return False
    yield from _go(instrument, {roll: target})
    return True
