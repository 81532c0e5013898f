"""Finding the peak along one axis, and centring on it."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from bluesky.utils import Msg

from dfxrm_control.alignment import Found, PeakFit, fit_peak, growing_windows
from dfxrm_control.errors import ParameterError, PhysicsError
from dfxrm_control.parameters import CenterAxisParameters, FindPeakParameters
from plans._alignment._expected import Width, expected_width, present_view
from plans._alignment._step import Look, Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["center_axis", "find_peak"]

SEARCH_STEP_PER_FWHM = 2.0 / 3.0
"""A perfect crystal's peak between two points of the search is then still at 73 % of its height at the nearer one."""
FIRST_WINDOW_STEPS = 12
"""Width of the first window of a search."""
FINE_POINTS = 17
MOST_CURVES = 4
"""How often a curve whose peak lies towards its edge is taken again about that peak."""
NOT_DARK = 6.0
"""Sigma of its own noise by which a frame must stand above the dark ones to be a peak's."""


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
    axis = p.axis or instrument.defaults.rock
    camera = p.camera or instrument.defaults.camera
    instrument.axis(axis)
    width = yield from _width(instrument, camera, axis)
    if p.step is None and width is None:
        raise ParameterError(f"find_peak: the width of the peak along {axis!r} is not known here; give a step")
    step_size = p.step if p.step is not None else SEARCH_STEP_PER_FWHM * _of(width).instrument
    if p.search_range / step_size > 100_000:
        raise ParameterError(f"find_peak: {p.search_range:g} in steps of {step_size:g} is more than 100000 points")

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        here = step.starts[axis]
        windows = growing_windows(step_size, FIRST_WINDOW_STEPS * step_size, p.search_range)
        last_below, last_above = windows[-1]
        edges = (*last_below[:1], *last_above[-1:]) if last_below else (last_above[0], last_above[-1])
        step.check([{axis: here + edge * step_size} for edge in edges])
        seen: dict[int, Look] = {}
        for below, above in windows:
            for block in (above, below):
                if block:
                    looks = yield from step.line([{axis: here + k * step_size} for k in block], step.intensity)
                    seen.update(zip(block, looks, strict=False))
            if seen and _bracketed(seen):
                break
        if not step.live:
            yield from step.line([{axis: here}] * FINE_POINTS, step.intensity)
            return _predicted("find_peak", axis, here, instrument), {axis: here}
        brightest = max(seen, key=lambda k: seen[k].total)
        reached = f"{here + min(seen) * step_size:.6g} .. {here + max(seen) * step_size:.6g}"
        if not _stands_out(seen, brightest):
            return _nothing("find_peak", axis, here, instrument, f"all is dark in {reached}"), {}
        middle, span = here + brightest * step_size, _half_width(seen, brightest, step_size, width)
        return (yield from _fine("find_peak", step, axis, middle, span, FINE_POINTS, width))

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
    axis = p.axis or instrument.defaults.rock
    camera = p.camera or instrument.defaults.camera
    instrument.axis(axis)
    width = yield from _width(instrument, camera, axis)
    if p.width is None and width is None:
        raise ParameterError(f"center_axis: the width of the peak along {axis!r} is not known here; give a width")
    span = p.width if p.width is not None else _of(width).whole + 3.0 * _of(width).instrument

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        return (yield from _fine("center_axis", step, axis, step.starts[axis], span, p.num, width))

    return (yield from run_step(instrument, p, [axis], body, md, camera=camera))


def _fine(
    name: str, step: Step, axis: str, middle: float, span: float, num: int, width: Width | None
) -> Generator[Msg, Any, tuple[Found, Place]]:
    """Take a curve, again about its peak where that lies towards the edge, and judge it."""
    here = step.starts[axis]
    step.check([{axis: middle - span / 2}, {axis: middle + span / 2}])
    for _ in range(MOST_CURVES):
        places = np.linspace(middle - span / 2, middle + span / 2, num)
        looks = yield from step.line([{axis: float(place)} for place in places], step.intensity)
        if not looks:
            return _predicted(name, axis, here, step.instrument), {axis: here}
        seen = dict(enumerate(looks))
        brightest = max(seen, key=lambda k: seen[k].total)
        if not _stands_out(seen, brightest):
            where = f"{places[0]:.6g} .. {places[-1]:.6g}"
            return _nothing(name, axis, here, step.instrument, f"all is equally bright or dark in {where}"), {}
        fit = fit_peak(places, [look.total for look in looks], [look.error for look in looks])
        if abs(fit.centre - middle) <= 0.2 * span and fit.fwhm <= 0.8 * span:
            break
        middle = min(max(fit.centre, places[0]), places[-1])
        span = max(span, min(2.0 * fit.fwhm, 2.0 * span))
    found = _judged(name, axis, fit, here, width, step.instrument)
    return found, {axis: found.position} if found.sure else {}


def _judged(name: str, axis: str, fit: PeakFit, here: float, width: Width | None, instrument: Instrument) -> Found:
    doubt = fit.doubt(width.instrument, width.whole) if width is not None else fit.doubt()
    said = f"FWHM {fit.fwhm:.4g}" + (f" (instrument {width.instrument:.4g})" if width is not None else "")
    return Found(
        step=name,
        axis=axis,
        position=round(fit.centre, 9),
        error=fit.centre_error,
        units=units_of(instrument, axis),
        sure=not doubt,
        reason=doubt or f"{said}, {fit.height / fit.height_error:.0f} times its error",
        before=here,
        signal=fit.height,
    )


def units_of(instrument: Instrument, axis: str) -> str:
    """Return the unit of an axis; empty where it has none."""
    return str(getattr(instrument.axis(axis), "egu", ""))


def _predicted(name: str, axis: str, here: float, instrument: Instrument) -> Found:
    return Found(
        name, axis, here, math.nan, units_of(instrument, axis), True, "assumed in a dry run", here, predicted=True
    )


def _nothing(name: str, axis: str, here: float, instrument: Instrument, reason: str) -> Found:
    return Found(name, axis, math.nan, math.nan, units_of(instrument, axis), False, reason, here)


def _width(instrument: Instrument, camera: str, axis: str) -> Generator[Msg, Any, Width | None]:
    instrument.camera(camera)
    try:
        view = yield from present_view(instrument, camera)
    except PhysicsError:
        return None
    return expected_width(instrument, view, axis)


def _of(width: Width | None) -> Width:
    assert width is not None  # every caller has refused to go on without it
    return width


def _dark_level(looks: Sequence[Look]) -> float:
    return float(np.percentile([look.total for look in looks], 25))


def _stands_out(seen: dict[int, Look], k: int) -> bool:
    level = _dark_level(list(seen.values()))
    return seen[k].total - level > NOT_DARK * seen[k].error and seen[k].total - level > NOT_DARK * min(
        look.error for look in seen.values()
    )


def _bracketed(seen: dict[int, Look]) -> bool:
    """Whether the brightest point stands out and the curve falls to half of it on both sides."""
    brightest = max(seen, key=lambda k: seen[k].total)
    if not _stands_out(seen, brightest):
        return False
    level = _dark_level(list(seen.values()))
    half = 0.5 * (seen[brightest].total + level)
    return all(
        any(seen[k].total < half for k in seen if (k > brightest) == upwards and k != brightest)
        for upwards in (True, False)
    )


def _half_width(seen: dict[int, Look], brightest: int, step: float, width: Width | None) -> float:
    """Return the full width of a fine curve: three FWHM of what the search saw, at least of the instrument."""
    level = _dark_level(list(seen.values()))
    half = 0.5 * (seen[brightest].total + level)
    low = high = brightest
    while low - 1 in seen and seen[low - 1].total > half:
        low -= 1
    while high + 1 in seen and seen[high + 1].total > half:
        high += 1
    wide = (high - low + 1) * step
    return 3.0 * max(wide, width.instrument if width is not None else 0.0)
