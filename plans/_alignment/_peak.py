"""Finding the peak along one axis, and centring on it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.alignment import Found, growing_windows
from dfxrm_control.errors import ParameterError, PhysicsError
from dfxrm_control.parameters import CenterAxisParameters, FindPeakParameters
from plans._alignment._curve import Track, curve, dark_level, nothing, predicted, stands_out, units_of
from plans._alignment._expected import Width, expected_width, present_view
from plans._alignment._step import Look, Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["center_axis", "find_peak"]

SEARCH_STEP_PER_FWHM = 2.0 / 3.0
"""A perfect crystal's peak between two points of the search is then still at 73 % of its height at the nearer one."""
FIRST_WINDOW_STEPS = 12
"""Width of the first window of a search."""
FINE_POINTS = 31


@flat_keywords(FindPeakParameters)
def find_peak(instrument: Instrument, parameters: FindPeakParameters, md: dict[str, Any]) -> MsgGenerator:
    """Search one axis for the brightest position, in windows that grow about where it stands, and go there.

    The signal is the summed intensity of the frames. The search ends with the first window that brackets a peak; a fine
    curve through that peak gives its centre. The axis goes there when the peak is believed, and back when it is not.
    Returns a `dfxrm_control.alignment.Found`.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    p = parameters
    axis, camera, width = yield from _aim(instrument, p)
    if p.step is None and width is None:
        raise ParameterError(f"find_peak: the width of the peak along {axis!r} is not known here; give a step")
    step_size = p.step if p.step is not None else SEARCH_STEP_PER_FWHM * _of(width).instrument
    if p.search_range / step_size > 100_000:
        raise ParameterError(f"find_peak: {p.search_range:g} in steps of {step_size:g} is more than 100000 points")

    windows = growing_windows(step_size, FIRST_WINDOW_STEPS * step_size, p.search_range)
    reach = windows[-1][1][-1] * step_size
    sighted: list[tuple[float, float]] = []

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        here = step.starts[axis]
        step.check([{axis: here - reach}, {axis: here + reach}])
        track = Track.alone(axis, here)
        if sighted:
            # found already, but the camera saturated there
            middle, span = sighted[-1]
            return curve("find_peak", step, track, span, FINE_POINTS, width, middle=middle, top=True)
        return search(step, track)

    def search(step: Step, track: Track) -> Generator[Msg, Any, tuple[Found, Place]]:
        here = track.start
        seen: dict[int, Look] = {}
        for below, above in windows:
            for block in (above, below):
                if block:
                    places = [{axis: here + k * step_size} for k in block]
                    looks = yield from step.line(places, step.intensity, saturated=True)
                    seen.update(zip(block, looks, strict=False))
            if seen and _bracketed(seen):
                break
        if not step.live:
            yield from step.line([{axis: here}] * FINE_POINTS, step.intensity)
            return predicted("find_peak", track, instrument), {axis: here}
        brightest = max(seen, key=lambda k: seen[k].total)
        if not stands_out(seen, brightest):
            reached = f"{here + min(seen) * step_size:.6g} .. {here + max(seen) * step_size:.6g}"
            reached += f" {units_of(instrument, axis)}"
            return nothing("find_peak", track, instrument, f"all is dark in {reached}"), {}
        middle, span = here + brightest * step_size, _half_width(seen, brightest, step_size, width)
        sighted.append((middle, span))
        return (yield from curve("find_peak", step, track, span, FINE_POINTS, width, middle=middle, top=True))

    return (yield from run_step(instrument, p, [axis], body, md, camera=camera))


@flat_keywords(CenterAxisParameters)
def center_axis(instrument: Instrument, parameters: CenterAxisParameters, md: dict[str, Any]) -> MsgGenerator:
    """Take a curve over one axis about where it stands, fit its peak and go to the centre.

    A curve whose peak lies towards its edge is taken again about that peak. The axis goes to the centre when the peak
    is believed, and back when it is not. Returns a `dfxrm_control.alignment.Found`.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    p = parameters
    axis, camera, width = yield from _aim(instrument, p)
    if p.width is None and width is None:
        raise ParameterError(f"center_axis: the width of the peak along {axis!r} is not known here; give a width")
    span = p.width if p.width is not None else _of(width).whole + 3.0 * _of(width).instrument

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        return curve("center_axis", step, Track.alone(axis, step.starts[axis]), span, p.num, width)

    return (yield from run_step(instrument, p, [axis], body, md, camera=camera))


def _aim(
    instrument: Instrument, p: FindPeakParameters | CenterAxisParameters
) -> Generator[Msg, Any, tuple[str, str, Width | None]]:
    """Return the axis, the camera, and how wide the peak is along the axis, where physics has an answer."""
    axis = p.axis or instrument.defaults.rock
    camera = p.camera or instrument.defaults.camera
    instrument.axis(axis)
    instrument.camera(camera)
    try:
        view = yield from present_view(instrument, camera)
    except PhysicsError:
        return axis, camera, None
    return axis, camera, expected_width(instrument, view, axis)


def _of(width: Width | None) -> Width:
    assert width is not None  # every caller has refused to go on without it
    return width


def _bracketed(seen: dict[int, Look]) -> bool:
    """Whether the brightest point stands out and the curve falls to half of it on both sides."""
    brightest = max(seen, key=lambda k: seen[k].total)
    if not stands_out(seen, brightest):
        return False
    level = dark_level(seen)
    half = 0.5 * (seen[brightest].total + level)
    return all(
        any(seen[k].total < half for k in seen if (k > brightest) == upwards and k != brightest)
        for upwards in (True, False)
    )


def _half_width(seen: dict[int, Look], brightest: int, step: float, width: Width | None) -> float:
    """Return the full width of a fine curve: three FWHM of what the search saw, at least of the instrument."""
    level = dark_level(seen)
    half = 0.5 * (seen[brightest].total + level)
    low = high = brightest
    while low - 1 in seen and seen[low - 1].total > half:
        low -= 1
    while high + 1 in seen and seen[high + 1].total > half:
        high += 1
    wide = (high - low + 1) * step
    return 3.0 * max(wide, width.instrument if width is not None else 0.0)
