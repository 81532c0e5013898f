"""A curve over one axis, or over several that go together, and what is to be made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.alignment import LARGEST_END, Found, PeakFit, fit_middle, fit_peak, fit_top
from dfxrm_control.errors import LimitError
from plans._alignment._expected import Width
from plans._alignment._step import Look, Place, Step
from plans._instrument import Instrument

__all__ = ["Track", "curve", "dark_level", "nothing", "predicted", "stands_out", "units_of"]

MOST_CURVES = 5
"""How often a curve whose peak lies towards its edge is taken again about that peak."""
NO_PEAK = 0.5
"""Misfit over height beyond which there is no peak to go after."""
NOT_DARK = 6.0
"""Sigma of its own noise by which a frame must stand above the dark ones to be a peak's."""

Merit = Callable[[NDArray], Look]
"""Figure of merit of a frame less its dark, with its error."""


@dataclass(frozen=True)
class Track:
    """A way of one number: an axis, and those that go with it.

    Attributes
    ----------
    axis : str
        Logical name of the axis whose position is the number.
    start : float
        Where it stands.
    place : callable
        Returns where every axis of the way is for a position of that axis.
    """

    axis: str
    start: float
    place: Callable[[float], Place]

    @classmethod
    def alone(cls, axis: str, start: float) -> Track:
        """Return the way of one axis by itself."""
        return cls(axis, start, lambda position: {axis: position})

    @classmethod
    def together(cls, axis: str, starts: Mapping[str, float], per_unit: Mapping[str, float]) -> Track:
        """Return the way of an axis with which others go in proportion.

        Parameters
        ----------
        axis : str
            The axis whose position is the number.
        starts : mapping
            Where the axes stand.
        per_unit : mapping
            How far each other axis goes while the first goes by one.
        """

        def place(position: float) -> Place:
            gone = position - starts[axis]
            return {axis: position, **{other: starts[other] + rate * gone for other, rate in per_unit.items()}}

        return cls(axis, starts[axis], place)


def curve(
    name: str,
    step: Step,
    track: Track,
    span: float,
    num: int,
    width: Width | None,
    *,
    middle: float | None = None,
    merit: Merit | None = None,
    top: bool = False,
    several: bool = False,
) -> Generator[Msg, Any, tuple[Found, Place]]:
    """Return the plan of a curve, taken again about its peak where that lies towards its edge, and judged.

    Parameters
    ----------
    name : str
        Name of the step, for the finding.
    step : Step
        What takes the frames.
    track : Track
        Where to go.
    span : float
        Full width of the curve.
    num : int
        Number of points.
    width : Width or None
        How wide a true peak is; None where nobody knows.
    middle : float, optional
        Middle of the curve; default: where the axis stands.
    merit : callable, optional
        What is to be largest; default: the intensity of the whole frame.
    top : bool
        Whether the position is that of the maximum rather than the middle of the whole curve.
    several : bool
        Whether several peaks are as good as one: the position is then their centre of mass, see `fit_middle`.

    Returns
    -------
    generator
        The plan. It returns a `Found` with the position of the track's axis, and where the axes are to go, which is
        nowhere when it is not sure.

    Raises
    ------
    LimitError
        At once, when the curve leaves the limits of an axis.
    """
    centre = track.start if middle is None else middle
    step.check([track.place(centre - span / 2), track.place(centre + span / 2)])
    return _curve(name, step, track, centre, span, num, width, merit or step.intensity, top, several)


def _curve(
    name: str,
    step: Step,
    track: Track,
    centre: float,
    span: float,
    num: int,
    width: Width | None,
    measure: Merit,
    top: bool,
    several: bool,
) -> Generator[Msg, Any, tuple[Found, Place]]:
    for _ in range(MOST_CURVES):
        places = np.linspace(centre - span / 2, centre + span / 2, num)
        looks = yield from step.line([track.place(float(place)) for place in places], measure)
        if not looks:
            return predicted(name, track, step.instrument), track.place(track.start)
        seen = dict(enumerate(looks))
        if not stands_out(seen, max(seen, key=lambda k: seen[k].total)):
            where = f"{places[0]:.6g} .. {places[-1]:.6g}"
            return nothing(name, track, step.instrument, f"all is equally bright or dark in {where}"), {}
        seen_here = places, [look.total for look in looks], [look.error for look in looks]
        fit = fit_peak(*seen_here)
        if several:
            fit = fit_middle(*seen_here, fit)
        inside = abs(fit.centre - centre) <= 0.2 * span and fit.fwhm <= 0.8 * span
        if fit.ends is not None:
            inside = inside and fit.ends <= LARGEST_END
        if inside or (fit.ends is None and fit.residual > NO_PEAK):
            break
        centre = min(max(fit.centre, float(places[0])), float(places[-1]))
        # several peaks that are cut off look narrower than they are
        span = max(span, min((2.0 if fit.ends is None else 3.0) * fit.fwhm, 2.0 * span))
        try:
            step.check([track.place(centre - span / 2), track.place(centre + span / 2)])
        except LimitError:
            break
    if top:
        fit = fit_top(*seen_here, fit)
    found = _judged(name, track, fit, width, step.instrument)
    return found, track.place(found.position) if found.sure else {}


def _judged(name: str, track: Track, fit: PeakFit, width: Width | None, instrument: Instrument) -> Found:
    doubt = fit.doubt(width.instrument, width.whole) if width is not None else fit.doubt()
    peaks = "several peaks: centre of mass, " if fit.ends is not None else ""
    said = f"{peaks}FWHM {fit.fwhm:.4g}" + (f" (instrument {width.instrument:.4g})" if width is not None else "")
    return Found(
        step=name,
        axis=track.axis,
        position=round(fit.centre, 9),
        error=fit.centre_error,
        units=units_of(instrument, track.axis),
        sure=not doubt,
        reason=doubt or f"{said}, height {fit.height / fit.height_error:.0f} times its error",
        before=track.start,
        signal=fit.height,
    )


def units_of(instrument: Instrument, axis: str) -> str:
    """Return the unit of an axis; empty where it has none."""
    return str(getattr(instrument.axis(axis), "egu", ""))


def predicted(name: str, track: Track, instrument: Instrument) -> Found:
    """Return what a dry run assumes: all is where it should be."""
    units = units_of(instrument, track.axis)
    return Found(
        name, track.axis, track.start, math.nan, units, True, "assumed in a dry run", track.start, predicted=True
    )


def nothing(name: str, track: Track, instrument: Instrument, reason: str) -> Found:
    """Return that nothing was found, and why."""
    units = units_of(instrument, track.axis)
    return Found(name, track.axis, math.nan, math.nan, units, False, reason, track.start)


def dark_level(seen: Mapping[int, Look]) -> float:
    """Return the level of the frames that show nothing: the lower quartile."""
    return float(np.percentile([look.total for look in seen.values()], 25))


def stands_out(seen: Mapping[int, Look], k: int) -> bool:
    """Whether one frame stands above the dark ones by more than chance."""
    rise = seen[k].total - dark_level(seen)
    return rise > NOT_DARK * max(seen[k].error, min(look.error for look in seen.values()))
