"""Putting the objective into the diffracted beam and centring it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.alignment import Found, Spot, find_spot
from dfxrm_control.errors import AlignmentError, ParameterError
from dfxrm_control.geometry import FWHM_PER_SIGMA, pixel_to_detector
from dfxrm_control.microscope import View
from dfxrm_control.parameters import AlignObjectiveParameters
from plans._alignment._curve import Track, curve, nothing
from plans._alignment._expected import Width, lens_view
from plans._alignment._focus import focus_body, focus_width_mm
from plans._alignment._step import Place, Step, run_step, set_channel
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument
from plans._mesh import always

__all__ = ["align_objective", "far_field_camera", "with_widest_field"]

SEEN_AXES = ("obx", "oby", "obz", "obpitch", "ffy", "ffz")
OVERLAP = 0.8
"""Distance of two places of the camera in a search, in fields."""
ARM_SIGMAS = 2.0
"""Distance of two arm angles in a search, in rms acceptances: the lens still passes exp(-1/2) half way."""
MOST_CENTRINGS = 6
CURVE_SIGMAS = 3.0
CURVE_POINTS = 17

Steps = Generator[Msg, Any, list[Found]]


@flat_keywords(AlignObjectiveParameters)
def align_objective(instrument: Instrument, parameters: AlignObjectiveParameters, md: dict[str, Any]) -> Steps:
    """Insert the objective and centre its five axes on the diffracted beam, by intensity and sharpness.

    First the image is searched on the far-field camera behind the visible-light objective with the largest field: a
    lens that is displaced by D throws it aside by (M + 1) D, so the camera looks about, farther and farther, and at
    more and more arm angles. Then oby and obz are centred by intensity, the camera following the image, then obpitch
    and obyaw, then obx along the beam by sharpness. Each is a run of its own and moves nothing when it is not sure.
    Returns a list of `dfxrm_control.alignment.Found`, all sure but perhaps those of the last three axes: a sample
    without outlines gives no sharpness, and a lens that takes everything has no tilt.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    AlignmentError
        When there is no image, or the lens cannot be centred on the beam.
    """
    p = parameters
    camera = far_field_camera(instrument, p.camera)
    yield from set_channel(instrument, "objective_in", "in")
    results: list[Found] = []

    def need(found: Found) -> None:
        results.append(found)
        if not found.sure:
            raise AlignmentError(f"the alignment stopped: {found.line()}")

    def centred() -> MsgGenerator:
        need((yield from _find_image(instrument, p, camera, md)))
        for axis, camera_axis in (("oby", "ffy"), ("obz", "ffz"), ("oby", "ffy"), ("obz", "ffz")):
            need((yield from _center(instrument, p, camera, axis, camera_axis, md)))
        for axis in ("obpitch", "obyaw"):
            results.append((yield from _tilt(instrument, p, camera, axis, md)))

    yield from with_widest_field(instrument, camera, centred)
    results.append((yield from _sharpen(instrument, p, camera, md)))
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


def with_widest_field(instrument: Instrument, camera: str, plan: Callable[[], MsgGenerator]) -> MsgGenerator:
    """Run a plan with the visible-light objective of the largest field before a camera, and put the present one back.

    Where the camera has but one, or none that can be changed from here, the plan runs with that.
    """
    visible = instrument.config.cameras[camera].objectives
    channel = f"{camera}_camera_objective"
    if len(visible) < 2 or channel not in instrument.channels:
        return (yield from plan())
    reading = yield Msg("read", instrument.channels[channel])
    present = str(reading[channel]["value"]) if reading else next(iter(visible))
    yield from set_channel(instrument, channel, min(visible, key=lambda name: visible[name]))
    return (yield from always(plan(), lambda: set_channel(instrument, channel, present)))


@dataclass(frozen=True)
class _Aim:
    """Where an image is looked for: an arm angle from the present one, and a place of the camera from its own there."""

    turned_deg: float = 0.0
    up_mm: float = 0.0
    left_mm: float = 0.0


class _ImageSearch:
    """The search of the image, over places of the camera and angles of the arm, the likeliest first."""

    def __init__(self, step: Step, view: View, search_mm: float, arm_search: float) -> None:
        self.step = step
        self._view = view
        self._start = dict(step.starts)
        self._radius_mm = math.hypot(self._start["obx"], self._start["obz"])
        self.here_deg = math.degrees(math.atan2(self._start["obz"], self._start["obx"]))
        self._horizontal_mm = view.total_mm * math.cos(math.radians(view.arm_two_theta_deg))
        self.fields_mm = [1e-3 * view.pixel_um * size for size in view.shape]
        reach_mm = (view.magnification_v + 1.0) * search_mm
        self._rings = [
            math.ceil(max(reach_mm - field / 2.0, 0.0) / (OVERLAP * field) - 1e-9) for field in self.fields_mm
        ]
        self.arm_step_deg = ARM_SIGMAS * math.degrees(view.acceptance("v").rms_rad)
        self.arms = math.ceil(arm_search / 2.0 / self.arm_step_deg - 1e-9)
        self.frames = 0
        rows, columns = self._rings
        step.check(
            [
                self.place(self._grid(turn, row * sign, column * sign))
                for turn in (-self.arms, self.arms)
                for row, column, sign in ((rows, columns, 1), (rows, columns, -1))
            ]
        )

    def place(self, aim: _Aim) -> Place:
        """Return where the axes are for an aim; objective and camera turn about the sample together, mainx stays."""
        angle = math.radians(self.here_deg + aim.turned_deg)
        present = math.radians(self._view.arm_two_theta_deg)
        camera = present + math.radians(aim.turned_deg)
        return {
            "obx": self._radius_mm * math.cos(angle),
            "obz": self._radius_mm * math.sin(angle),
            "oby": self._start["oby"],
            "obpitch": self._start["obpitch"] + aim.turned_deg,
            "ffy": self._start["ffy"] + aim.left_mm,
            "ffz": self._start["ffz"]
            + self._horizontal_mm * (math.tan(camera) - math.tan(present))
            + aim.up_mm / math.cos(present),
        }

    def look(self, aims: Sequence[_Aim]) -> Generator[Msg, Any, list[tuple[Spot, _Aim]]]:
        """Return what is seen at some aims, brightest first."""
        seen = yield from self.step.line(
            [self.place(aim) for aim in aims], lambda image: find_spot(image, self.step.noise_adu)
        )
        self.frames += len(aims)
        lit = [(spot, aim) for spot, aim in zip(seen, aims, strict=False) if spot is not None]
        return sorted(lit, key=lambda pair: -pair[0].total)

    def run(self) -> Generator[Msg, Any, tuple[Spot, _Aim] | None]:
        """Return the image in the middle of the camera, or None."""
        for turn in _outwards(self.arms):
            for ring in _rings(*self._rings):
                lit = yield from self.look([self._grid(turn, row, column) for row, column in ring])
                if lit and (centred := (yield from self._confirm(lit[0]))) is not None:
                    return centred
        return None

    def _confirm(self, seen: tuple[Spot, _Aim]) -> Generator[Msg, Any, tuple[Spot, _Aim] | None]:
        """Go to the brightest arm angle about a sighting and bring the image to the middle; None if it was none."""
        _, aim = seen
        near = [replace(aim, turned_deg=aim.turned_deg + k * self.arm_step_deg / 2.0) for k in range(-4, 5)]
        lit = yield from self.look(near)
        for _ in range(MOST_CENTRINGS):
            if not lit:
                return None
            spot, aim = lit[0]
            v = self._view
            u_mm, v_mm = pixel_to_detector(spot.row, spot.column, v.shape, v.pixel_um, v.flip_ud, v.flip_lr)
            if math.hypot(float(u_mm) / self.fields_mm[1], float(v_mm) / self.fields_mm[0]) < 0.02:
                break
            lit = yield from self.look([replace(aim, up_mm=aim.up_mm + float(v_mm), left_mm=aim.left_mm + float(u_mm))])
        return lit[0] if lit else None

    def _grid(self, turn: int, row: int, column: int) -> _Aim:
        rows_mm, columns_mm = (OVERLAP * field for field in self.fields_mm)
        return _Aim(turn * self.arm_step_deg, row * rows_mm, column * columns_mm)


def _find_image(
    instrument: Instrument, parameters: AlignObjectiveParameters, camera: str, md: dict[str, Any]
) -> Generator[Msg, Any, Found]:
    """Search the image, bring it to the middle of the camera and the arm to where it is brightest."""
    view = yield from lens_view(instrument, camera, "align_objective")

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        return work(step, _ImageSearch(step, view, parameters.search_mm, parameters.arm_search))

    def work(step: Step, search: _ImageSearch) -> Generator[Msg, Any, tuple[Found, Place]]:
        seen = yield from search.run()
        here = search.here_deg
        if not step.live:
            found = Found(
                "find_image", "two_theta", here, math.nan, "deg", True, "assumed in a dry run", here, predicted=True
            )
            return found, dict(step.starts)
        if seen is None:
            about = f"{search.arms * search.arm_step_deg:.3g} deg of arm and {parameters.search_mm:g} mm of lens"
            said = f"no image in {search.frames} frames within {about} either way"
            return nothing("find_image", Track.alone("two_theta", here), instrument, said), {}
        spot, aim = seen
        moved = math.hypot(aim.up_mm, aim.left_mm)
        said = f"after {search.frames} frames, image {moved:.3g} mm off the camera's middle, {spot.pixels} pixels lit"
        position, error = here + aim.turned_deg, search.arm_step_deg / 4.0
        found = Found("find_image", "two_theta", position, error, "deg", True, said, here, spot.total)
        return found, search.place(aim)

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
    view = yield from lens_view(instrument, camera, "align_objective")
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
        return curve("align_objective", step, track, 2.0 * CURVE_SIGMAS * sigma, CURVE_POINTS, width)

    return (yield from run_step(instrument, parameters, axes, body, md, camera=camera))


def _tilt(
    instrument: Instrument, parameters: AlignObjectiveParameters, camera: str, axis: str, md: dict[str, Any]
) -> Generator[Msg, Any, Found]:
    """Tilt the lens to where it passes most."""
    view = yield from lens_view(instrument, camera, "align_objective")
    sigma = math.degrees(_tilt_rms_rad(view))

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        track = Track.alone(axis, step.starts[axis])
        width = Width(FWHM_PER_SIGMA * sigma, 1.5 * FWHM_PER_SIGMA * sigma)
        return curve("align_objective", step, track, 2.0 * CURVE_SIGMAS * sigma, CURVE_POINTS, width)

    return (yield from run_step(instrument, parameters, [axis], body, md, camera=camera))


def _tilt_rms_rad(view: View) -> float:
    """Return the tilt of the lens at which exp(-1/2) passes, rad: the model is a Gaussian of the tilt."""
    assert view.objective is not None  # by lens_view
    probe = 1e-3
    passed = view.objective.alignment_efficiency(view.energy_kev, probe, 0.0)
    return probe / math.sqrt(-2.0 * math.log(passed))


def _sharpen(
    instrument: Instrument, parameters: AlignObjectiveParameters, camera: str, md: dict[str, Any]
) -> Generator[Msg, Any, Found]:
    """Move the lens along the beam to where the image is sharpest."""
    view = yield from lens_view(instrument, camera, "align_objective")
    width_mm = parameters.focus_mm or focus_width_mm(view, "objective")
    body = focus_body(instrument, view, "objective", width_mm, parameters.focus_num, "align_objective")
    return (yield from run_step(instrument, parameters, ("obx", "obz"), body, md, camera=camera))


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
