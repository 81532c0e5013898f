"""Putting the objective into the diffracted beam and centring it."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any

from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.alignment import Found, Spot, find_spot
from dfxrm_control.errors import ParameterError, PhysicsError
from dfxrm_control.geometry import FWHM_PER_SIGMA, pixel_to_detector
from dfxrm_control.microscope import View
from dfxrm_control.parameters import AlignObjectiveParameters
from plans._alignment._curve import Track, curve, nothing
from plans._alignment._expected import Width, present_view
from plans._alignment._focus import focus_body
from plans._alignment._step import Place, Step, run_step, set_channel
from plans._flat import flat_keywords
from plans._instrument import Instrument

__all__ = ["align_objective", "far_field_camera", "widest_objective"]

SEEN_AXES = ("obx", "oby", "obz", "obpitch", "ffy", "ffz")
OVERLAP = 0.8
"""Distance of two places of the camera in a search, in fields."""
ARM_SIGMAS = 2.0
"""Distance of two arm angles in a search, in rms acceptances: the lens still passes exp(-1/2) half way."""
CURVE_SIGMAS = 3.0
CURVE_POINTS = 17

Steps = Generator[Msg, Any, list[Found]]


@flat_keywords(AlignObjectiveParameters)
def align_objective(instrument: Instrument, parameters: AlignObjectiveParameters, md: dict[str, Any]) -> Steps:
    """Insert the objective and centre its five axes on the diffracted beam, by intensity and sharpness.

    First the image is searched on the far-field camera behind the visible-light objective with the largest field: a
    lens that is displaced by D throws it aside by (M + 1) D, so the camera looks about, farther and farther, and at
    more and more arm angles. Then oby and obz are centred by intensity, the camera following the image, then obpitch
    and obyaw, then obx along the beam by sharpness. Each is a run of its own and moves nothing when it is not sure; a
    search that finds no image ends the plan. Returns a list of `dfxrm_control.alignment.Found`.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    p = parameters
    camera = far_field_camera(instrument, p.camera)
    yield from set_channel(instrument, "objective_in", "in")
    before = yield from widest_objective(instrument, camera)
    results: list[Found] = []
    results.append((yield from _find_image(instrument, p, camera, md)))
    if results[-1].sure:
        for axis, camera_axis in (("oby", "ffy"), ("obz", "ffz"), ("oby", "ffy"), ("obz", "ffz")):
            results.append((yield from _center(instrument, p, camera, axis, camera_axis, md)))
        for axis in ("obpitch", "obyaw"):
            results.append((yield from _tilt(instrument, p, camera, axis, md)))
        if before is not None:
            yield from set_channel(instrument, *before)
        results.append((yield from _sharpen(instrument, p, camera, md)))
    elif before is not None:
        yield from set_channel(instrument, *before)
    return results


def far_field_camera(instrument: Instrument, wanted: str | None) -> str:
    """Return the name of the camera behind the objective.

    Raises
    ------
    ParameterError
        When there is none, or the one wanted is none.
    """
    name = wanted or instrument.defaults.camera
    far = [each for each, camera in instrument.config.cameras.items() if camera.position == "far_field"]
    if name not in far:
        raise ParameterError(f"camera {name!r} is not behind the objective; {', '.join(far) or 'none'} is")
    return name


def widest_objective(instrument: Instrument, camera: str) -> Generator[Msg, Any, tuple[str, str] | None]:
    """Put the visible-light objective with the largest field before a camera.

    Returns
    -------
    tuple or None
        Channel and value that put the present one back; None when nothing was changed.
    """
    visible = instrument.config.cameras[camera].objectives
    channel = f"{camera}_camera_objective"
    if len(visible) < 2 or channel not in instrument.channels:
        return None
    reading = yield Msg("read", instrument.channels[channel])
    present = str(reading[channel]["value"]) if reading else next(iter(visible))
    widest = min(visible, key=lambda name: visible[name])
    if present == widest:
        return None
    yield from set_channel(instrument, channel, widest)
    return channel, present


def _find_image(
    instrument: Instrument, parameters: AlignObjectiveParameters, camera: str, md: dict[str, Any]
) -> Generator[Msg, Any, Found]:
    """Search the image over places of the camera and angles of the arm, the likeliest first."""
    view = yield from _lens_view(instrument, camera)
    horizontal_mm = view.total_mm * math.cos(math.radians(view.arm_two_theta_deg))
    reach_mm = (view.magnification_v + 1.0) * parameters.search_mm
    fields = [1e-3 * view.pixel_um * size for size in view.shape]
    rings = [math.ceil(max(reach_mm - field / 2.0, 0.0) / (OVERLAP * field)) for field in fields]
    arm_step = ARM_SIGMAS * math.degrees(view.acceptance("v").rms_rad)
    arms = math.ceil(parameters.arm_search / 2.0 / arm_step - 1e-9)
    cosine = math.cos(math.radians(view.arm_two_theta_deg))

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        start = step.starts
        here = math.degrees(math.atan2(start["obz"], start["obx"]))

        def place(turned_deg: float, row: int, column: int) -> Place:
            angle = math.radians(here + turned_deg)
            # objective and camera turn about the sample together; the camera keeps its horizontal distance
            camera_angle = math.radians(view.arm_two_theta_deg + turned_deg)
            return {
                "obx": d_c_xz * math.cos(angle),
                "obz": d_c_xz * math.sin(angle),
                "oby": start["oby"],
                "obpitch": start["obpitch"] + turned_deg,
                "ffz": horizontal_mm * math.tan(camera_angle) + OVERLAP * fields[0] * row / cosine + zero,
                "ffy": start["ffy"] + OVERLAP * fields[1] * column,
            }

        d_c_xz = math.hypot(start["obx"], start["obz"])
        zero = start["ffz"] - horizontal_mm * math.tan(math.radians(view.arm_two_theta_deg))
        step.check([place(sign * arms * arm_step, sign * rings[0], sign * rings[1]) for sign in (-1, 1)])

        def measure(image: NDArray) -> Spot | None:
            return find_spot(image, step.noise_adu)

        best: tuple[Spot, Place] | None = None
        frames = 0
        for turn in _outwards(arms):
            for ring in _rings(*rings):
                places = [place(turn * arm_step, row, column) for row, column in ring]
                seen = yield from step.line(places, measure)
                frames += len(places)
                lit = [(spot, at) for spot, at in zip(seen, places, strict=False) if spot is not None]
                if lit:
                    best = max(lit, key=lambda pair: pair[0].total)
                    break
            if best is not None:
                break
        track = Track.alone("two_theta", here)
        if not step.live:
            found = Found("find_image", "two_theta", here, math.nan, "deg", True, "assumed in a dry run", here)
            return found, dict(start)
        if best is None:
            said = (
                f"no image in {frames} frames, {arms * arm_step:.3g} deg of arm and {parameters.search_mm:g} mm about"
            )
            return nothing("find_image", track, instrument, said), {}
        spot, at = best
        # bring it to the middle, and look again until it stays there
        for _ in range(4):
            u_mm, v_mm = pixel_to_detector(spot.row, spot.column, view.shape, view.pixel_um, view.flip_ud, view.flip_lr)
            at = {**at, "ffy": at["ffy"] + float(u_mm), "ffz": at["ffz"] + float(v_mm) / cosine}
            (again,) = yield from step.line([at], measure)
            if again is None:
                return nothing("find_image", track, instrument, "an image was lost while it was centred"), {}
            spot = again
            if math.hypot(float(u_mm) / fields[1], float(v_mm) / fields[0]) < 0.02:
                break
        turned = math.degrees(math.atan2(at["obz"], at["obx"]))
        moved = math.hypot(at["ffy"] - start["ffy"], at["ffz"] - start["ffz"])
        said = f"after {frames} frames, camera {moved:.3g} mm from where it was, {spot.pixels} pixels lit"
        found = Found("find_image", "two_theta", turned, arm_step / 2.0, "deg", True, said, here, spot.total)
        return found, at

    return (yield from run_step(instrument, parameters, SEEN_AXES, body, md, camera=camera))


def _center(
    instrument: Instrument,
    parameters: AlignObjectiveParameters,
    camera: str,
    axis: str,
    camera_axis: str,
    md: dict[str, Any],
) -> Generator[Msg, Any, Found]:
    """Centre the lens across the beam by intensity, the camera following the image by (M + 1) times its way."""
    view = yield from _lens_view(instrument, camera)
    two_theta = math.radians(view.two_theta_deg)
    sigma = view.acceptance("v" if axis == "obz" else "h").rms_rad * view.centre_mm
    follow = (view.magnification_v if axis == "obz" else view.magnification_h) + 1.0
    if axis == "obz":
        # perpendicular to the beam: a way D goes up by D cos and back by D sin; the camera goes straight up
        cosine = math.cos(two_theta)
        others = {
            "obx": -math.tan(two_theta),
            camera_axis: follow / cosine / math.cos(math.radians(view.arm_two_theta_deg)),
        }
        sigma *= cosine
    else:
        others = {camera_axis: follow}
    axes = [axis, *others]

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        track = Track.together(axis, step.starts, others)
        width = Width(FWHM_PER_SIGMA * sigma, 1.5 * FWHM_PER_SIGMA * sigma)
        return (yield from curve("align_objective", step, track, 2.0 * CURVE_SIGMAS * sigma, CURVE_POINTS, width))

    return (yield from run_step(instrument, parameters, axes, body, md, camera=camera))


def _tilt(
    instrument: Instrument, parameters: AlignObjectiveParameters, camera: str, axis: str, md: dict[str, Any]
) -> Generator[Msg, Any, Found]:
    """Tilt the lens to where it passes most."""
    view = yield from _lens_view(instrument, camera)
    sigma = math.degrees(_tilt_rms_rad(view))

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        track = Track.alone(axis, step.starts[axis])
        width = Width(FWHM_PER_SIGMA * sigma, 1.5 * FWHM_PER_SIGMA * sigma)
        return (yield from curve("align_objective", step, track, 2.0 * CURVE_SIGMAS * sigma, CURVE_POINTS, width))

    return (yield from run_step(instrument, parameters, [axis], body, md, camera=camera))


def _tilt_rms_rad(view: View) -> float:
    """Return the tilt of the lens at which exp(-1/2) passes, rad: the model is a Gaussian of the tilt."""
    assert view.objective is not None  # by _lens_view
    probe = 1e-3
    passed = view.objective.alignment_efficiency(view.energy_kev, probe, 0.0)
    return probe / math.sqrt(-2.0 * math.log(passed))


def _sharpen(
    instrument: Instrument, parameters: AlignObjectiveParameters, camera: str, md: dict[str, Any]
) -> Generator[Msg, Any, Found]:
    """Move the lens along the beam to where the image is sharpest."""
    view = yield from _lens_view(instrument, camera)
    body = focus_body(instrument, view, "objective", parameters.focus_mm, parameters.focus_num, "align_objective")
    return (yield from run_step(instrument, parameters, ("obx", "obz"), body, md, camera=camera))


def _lens_view(instrument: Instrument, camera: str) -> Generator[Msg, Any, View]:
    """Return the view through the objective; raises ParameterError where there is none."""
    try:
        view: View = yield from present_view(instrument, camera)
    except PhysicsError as error:
        raise ParameterError(f"align_objective: {error}") from error
    if view.resolution is None:
        raise ParameterError(
            f"align_objective: the objective gives camera {camera!r} no image at 2theta {view.two_theta_deg:.4g} deg"
        )
    return view


def _outwards(most: int) -> Iterator[int]:
    """Yield 0, 1, -1, 2, -2, ... up to ``most``."""
    yield 0
    for index in range(1, most + 1):
        yield index
        yield -index


def _rings(rows: int, columns: int) -> Iterator[list[tuple[int, int]]]:
    """Yield squares around (0, 0), one inside the other, as far as rows and columns reach."""
    for ring in range(max(rows, columns) + 1):
        square = [
            (row, column)
            for row in range(-ring, ring + 1)
            for column in range(-ring, ring + 1)
            if max(abs(row), abs(column)) == ring and abs(row) <= rows and abs(column) <= columns
        ]
        if square:
            yield square
