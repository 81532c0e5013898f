"""The diffracted beam on the near-field camera, without the objective: where it goes."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.alignment import Found, Spot, find_spot
from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import imaging_basis, pixel_to_detector
from dfxrm_control.microscope import View
from dfxrm_control.parameters import FindBeamParameters
from plans._alignment._expected import present_view, reflection_two_theta_deg
from plans._alignment._step import Place, Step, run_step, set_channel
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["find_beam", "near_field_camera", "near_field_place"]

NEAR_FIELD_AXES = ("nfx", "nfy", "nfz")
LARGEST_ERROR_DEG = 0.01
"""Standard error of the direction up to which it is believed: a third of the acceptance of a lens."""


@flat_keywords(FindBeamParameters)
def find_beam(instrument: Instrument, parameters: FindBeamParameters, md: dict[str, Any]) -> MsgGenerator:
    """Find the direction of the diffracted beam by the near-field camera at two distances, with the objective out.

    The camera goes to where the configured reflection must be, close to the sample, where even a beam that is half a
    degree off falls on it, then far from it, where the direction is sharp. The line through the two spots is the beam,
    whatever the camera's own zeros are. The camera stays in the beam. Returns a `dfxrm_control.alignment.Found`
    of ``two_theta``, whose ``extra`` holds ``yaw_deg``.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when there is no near-field camera or it cannot go there.
    """
    p = parameters
    camera = near_field_camera(instrument, p.camera)
    if p.far_mm <= p.near_mm:
        raise ParameterError(f"find_beam: far_mm {p.far_mm:g} must be beyond near_mm {p.near_mm:g}")
    view: View = yield from present_view(instrument, camera)
    two_theta = reflection_two_theta_deg(instrument, view.energy_kev)

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        near, far = near_field_place(p.near_mm, two_theta), near_field_place(p.far_mm, two_theta)
        step.check([near, far])
        return work(step, near, far)

    def work(step: Step, near: Place, far: Place) -> Generator[Msg, Any, tuple[Found, Place]]:
        first = yield from _spot_at(step, view, near)
        if not step.live:
            yield from _spot_at(step, view, far)
            return _found(two_theta, math.nan, two_theta, True, "assumed in a dry run", predicted=True), far
        if first is None:
            return _found(math.nan, math.nan, two_theta, False, "no spot on the near-field camera"), {}
        # on from the sample through the first spot, so that the second falls on the camera's middle
        point = first[0]
        second = yield from _spot_at(step, view, dict(zip(NEAR_FIELD_AXES, point * p.far_mm / point[0], strict=True)))
        if second is None:
            return _found(math.nan, math.nan, two_theta, False, "the spot was lost away from the sample"), {}
        along = second[0] - first[0]
        angle = math.degrees(math.atan2(along[2], along[0]))
        yaw = math.degrees(math.atan2(along[1], math.hypot(along[0], along[2])))
        length = float(np.linalg.norm(along))
        error = math.degrees(math.hypot(first[1], second[1]) / length)
        doubt = next((each[2] for each in (first, second) if each[2]), "")
        if not doubt and error > LARGEST_ERROR_DEG:
            doubt = f"the direction is known to {error:.2g} deg only"
        reason = doubt or f"spot at {p.near_mm:g} and {p.far_mm:g} mm, {yaw:+.4f} deg out of the scattering plane"
        found = _found(angle, error, two_theta, not doubt, reason, yaw=yaw)
        return found, dict(zip(NEAR_FIELD_AXES, map(float, second[0]), strict=True))

    def whole() -> MsgGenerator:
        yield from set_channel(instrument, "objective_in", "out")
        return (yield from run_step(instrument, p, NEAR_FIELD_AXES, body, md, camera=camera))

    return (yield from whole())


def near_field_camera(instrument: Instrument, wanted: str | None = None) -> str:
    """Return the name of the near-field camera.

    Raises
    ------
    ParameterError
        When there is none, or the one wanted is none.
    """
    near = [name for name, camera in instrument.config.cameras.items() if camera.position == "near_field"]
    if wanted is not None and wanted not in near:
        raise ParameterError(f"camera {wanted!r} is no near-field camera; there is {', '.join(near) or 'none'}")
    if not near:
        raise ParameterError(f"configuration {instrument.name!r} has no near-field camera to find the beam with")
    return wanted or near[0]


def near_field_place(distance_mm: float, two_theta_deg: float) -> Place:
    """Return where the near-field camera sees a beam of a scattering angle, at a distance along x."""
    return {"nfx": distance_mm, "nfy": 0.0, "nfz": distance_mm * math.tan(math.radians(two_theta_deg))}


def _spot_at(step: Step, view: View, place: Place) -> Generator[Msg, Any, tuple[NDArray, float, str] | None]:
    """Return where the spot is in the laboratory (mm), its error, and what speaks against it."""
    step.check([place])

    def measure(image: NDArray) -> Spot | None:
        return find_spot(image, step.noise_adu)

    seen = yield from step.line([place], measure)
    spot = seen[0] if seen else None
    if spot is None:
        return None
    u_mm, v_mm = pixel_to_detector(spot.row, spot.column, view.shape, view.pixel_um, view.flip_ud, view.flip_lr)
    # the camera's plane is perpendicular to its direction from the sample
    angle = math.degrees(math.atan2(place["nfz"], place["nfx"]))
    up = imaging_basis(2.0 * angle)[2]
    centre = np.array([place[axis] for axis in NEAR_FIELD_AXES])
    point = centre + float(v_mm) * up + np.array([0.0, float(u_mm), 0.0])
    error = 1e-3 * view.pixel_um * math.hypot(spot.row_error, spot.column_error)
    doubt = f"the spot lies on the edge of the camera at nfx {place['nfx']:g} mm" if spot.at_edge else ""
    return point, error, doubt


def _found(
    angle: float, error: float, before: float, sure: bool, reason: str, *, yaw: float = 0.0, predicted: bool = False
) -> Found:
    return Found(
        "find_beam", "two_theta", angle, error, "deg", sure, reason, before, predicted=predicted, extra={"yaw_deg": yaw}
    )
