"""Finding the peak of a grain whose tilts are known to a degree only.

A roll by w throws the diffracted beam aside by 2 sin(theta) w, out of the acceptance of a lens, so rock and roll are
searched together. The search walks along the pure directions of q_rock and q_roll, whatever the goniometer stands at:
along them the resolution function is all but independent (Poulsen et al. 2017, J. Appl. Cryst. 50, 1441, Eqs. 58-63),
so one curve along each, and another along the first, is enough to centre both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray
from scipy import ndimage

from dfxrm_control.alignment import Found, find_spot
from dfxrm_control.errors import LimitError, ParameterError
from dfxrm_control.geometry import FWHM_PER_SIGMA
from dfxrm_control.microscope import View
from dfxrm_control.parameters import FindGrainParameters
from plans._alignment._curve import Track, curve, nothing, predicted
from plans._alignment._expected import Width, lens_view
from plans._alignment._step import Look, Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["Ways", "coarse", "find_grain", "peak_ways"]

FIRST_STEPS = 6
"""Half width of the first window, in steps of the rock."""
SMALLEST_DETERMINANT = 0.1
"""Area in q_rock and q_roll that a unit square of the two axes covers, below which they do not tilt both ways."""
FINE_POINTS = 21
WIDE_FWHM = 4.0
"""Full width of a fine curve, in FWHM of the instrument, beside the spread of the sample."""
SMOOTH_PX = 1.5
RIM = 0.3
"""A pixel belongs to a spot above this share of its brightest, both smoothed; two more around it are added."""
COARSE_ROWS = 256
"""A spot is looked for in frames of no more rows: neighbouring pixels are added up."""


@dataclass(frozen=True)
class Ways:
    """How two axes go so that q_rock, or q_roll, changes alone.

    Attributes
    ----------
    rock, roll : str
        Logical names of the axes.
    per_q : ndarray, shape (2, 2)
        deg of (rock, roll) per deg of (q_rock, q_roll).
    fwhm : tuple of float
        Of a perfect crystal along q_rock and q_roll, deg.
    """

    rock: str
    roll: str
    per_q: NDArray[np.float64]
    fwhm: tuple[float, float]

    def place(self, start: Place, q_rock: float, q_roll: float) -> dict[str, float]:
        """Return where the axes are when q has changed by so much, deg, from where they start."""
        moved = self.per_q @ np.array([q_rock, q_roll])
        return {name: start[name] + float(part) for name, part in zip((self.rock, self.roll), moved, strict=True)}

    def track(self, along: int, start: Place) -> tuple[Track, float]:
        """Return the way along q_rock (0) or q_roll (1), by the position of its axis, and deg of it per deg of q."""
        axis, other = (self.rock, self.roll) if along == 0 else (self.roll, self.rock)
        own, follows = self.per_q[along, along], self.per_q[1 - along, along]
        return Track.together(axis, start, {other: float(follows / own)}), abs(float(own))


def peak_ways(view: View, rock: str, roll: str) -> Ways:
    """Return how rock and roll go along q_rock and q_roll at a setting.

    Raises
    ------
    ParameterError
        When the two axes do not tilt the lattice both ways there.
    """
    jacobian = np.asarray(view.jacobian([rock, roll]))
    if abs(np.linalg.det(jacobian[:2])) < SMALLEST_DETERMINANT:
        raise ParameterError(f"axes {rock!r} and {roll!r} do not tilt the lattice both ways at this setting")
    per_q = np.asarray(np.linalg.inv(jacobian[:2]), np.float64)
    assert view.resolution is not None  # `lens_view` has seen to it
    sigma = [float(view.resolution.motor_sigma_rad(jacobian @ per_q[:, [along]])[0]) for along in (0, 1)]
    rocks, rolls = (FWHM_PER_SIGMA * math.degrees(each) for each in sigma)
    return Ways(rock, roll, per_q, (rocks, rolls))


def coarse(image: NDArray, noise_adu: float) -> tuple[NDArray, float, int]:
    """Return a frame with neighbouring pixels added up, its noise, and how many pixels became one along each side."""
    by = max(1, math.ceil(max(image.shape) / COARSE_ROWS))
    if by == 1:
        return image, noise_adu, 1
    rows, columns = (size // by for size in image.shape)
    blocks = image[: rows * by, : columns * by].reshape(rows, by, columns, by)
    return blocks.sum(axis=(1, 3)), noise_adu * by, by


@flat_keywords(FindGrainParameters)
def find_grain(instrument: Instrument, parameters: FindGrainParameters, md: dict[str, Any]) -> MsgGenerator:
    """Search rock and roll together for a spot, in windows that grow about where they stand, and centre both on it.

    The search ends with the first line that shows a spot: what lies nearest to the prediction is the likeliest. Fine
    curves along rock, roll and rock again, of the intensity of that spot alone, give the centre. Positions that the
    limits forbid are left out. The axes go to the centre when it is believed, and back when it is not. Returns a
    `dfxrm_control.alignment.Found` of the rock, whose ``extra`` holds ``roll_position`` and ``roll_error``.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds, or the objective is out.
    """
    p = parameters
    camera = p.camera or instrument.defaults.camera
    rock, roll = p.rock or instrument.defaults.rock, p.roll or instrument.defaults.roll
    for name in (rock, roll):
        instrument.axis(name)
    view = yield from lens_view(instrument, camera, p.plan)
    ways = peak_ways(view, rock, roll)
    spread = 2.0 * instrument.sample.spread_deg
    sighted: list[tuple[Place, NDArray[np.bool_]]] = []

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        step.check([step.starts])
        return work(step)

    def work(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        start = Track.alone(rock, step.starts[rock])
        if not sighted:
            searched = yield from _search(step, ways, p.search_range, sighted.append)
            if step.live and not sighted:
                tilt = f"{p.search_range / 2:g} deg of rock and roll"
                return nothing(p.plan, start, instrument, f"all is dark within {tilt} ({searched} frames)"), {}
        if not step.live:
            for along in (0, 1, 0):
                yield from _centred(step, ways, along, step.starts, spread, None)
            return replace(predicted(p.plan, start, instrument), extra=_extra(step.starts[roll], math.nan)), {}
        place, lit = sighted[-1]
        errors = [math.nan, math.nan]
        for along in (0, 1, 0):
            found, place = yield from _centred(step, ways, along, place, spread, lit)
            if not found.sure:
                return replace(found, axis=rock, before=step.starts[rock]), {}
            errors[along] = found.error
        best = {name: round(position, 9) for name, position in place.items()}
        moved = "; ".join(f"{name} by {best[name] - step.starts[name]:+.4f} deg" for name in (rock, roll))
        return (
            replace(
                found,
                position=best[rock],
                before=step.starts[rock],
                reason=f"{moved}; {found.reason}",
                extra=_extra(best[roll], errors[1]),
            ),
            best,
        )

    return (yield from run_step(instrument, p, [rock, roll], body, md, camera=camera))


def _extra(roll_position: float, roll_error: float) -> dict[str, float]:
    return {"roll_position": roll_position, "roll_error": roll_error}


def _lines(ways: Ways, search_range: float) -> Iterator[list[tuple[float, float]]]:
    """Yield lines along q_rock, in windows of doubling width about zero and the nearest to zero first, deg."""
    # a spot half a step away in both directions still has a quarter of its intensity
    steps = ways.fwhm
    last = search_range / 2.0
    reach = min(FIRST_STEPS * steps[0], last)
    done: set[tuple[int, int]] = set()
    forth = True
    while True:
        most = [math.ceil(reach / step - 1e-9) for step in steps]
        for j in sorted(range(-most[1], most[1] + 1), key=abs):
            line = [(i, j) for i in range(-most[0], most[0] + 1) if (i, j) not in done]
            if line:
                done.update(line)
                yield [(i * steps[0], j * steps[1]) for i, j in (line if forth else line[::-1])]
                forth = not forth
        if reach >= last:
            return
        reach = min(2.0 * reach, last)


def _search(
    step: Step, ways: Ways, search_range: float, sight: Callable[[tuple[Place, NDArray[np.bool_]]], None]
) -> Generator[Msg, Any, int]:
    """Look for a spot, tell where it is, and return how many frames that took."""
    frames = 0

    def measure(image: NDArray) -> tuple[float, NDArray[np.bool_]] | None:
        small, noise, _ = coarse(image, step.noise_adu)
        spot = find_spot(small, noise)
        if spot is None:
            return None
        smooth = ndimage.gaussian_filter(ndimage.median_filter(small, size=3).astype(float), SMOOTH_PX)
        return spot.total, ndimage.binary_dilation(smooth > RIM * smooth.max(), iterations=2)

    for line in _lines(ways, search_range):
        places = [place for place in (ways.place(step.starts, *q) for q in line) if _allowed(step, place)]
        if not places:
            continue
        frames += len(places)
        seen = yield from step.line(places, measure, saturated=True)
        spots = {k: each for k, each in enumerate(seen) if each is not None}
        if spots:
            best = max(spots, key=lambda k: spots[k][0])
            sight((places[best], spots[best][1]))
            break
    return frames


def _allowed(step: Step, place: Place) -> bool:
    try:
        step.check([place])
    except LimitError:
        return False
    return True


def _centred(
    step: Step, ways: Ways, along: int, place: Place, spread: float, lit: NDArray[np.bool_] | None
) -> Generator[Msg, Any, tuple[Found, Place]]:
    """Centre on the intensity of the lit pixels, along q_rock or q_roll; the place stays where that is unsure."""
    track, per_q = ways.track(along, place)
    width = Width(ways.fwhm[along] * per_q, (ways.fwhm[along] + spread) * per_q)
    # as far as the limits allow
    span = (WIDE_FWHM * ways.fwhm[along] + spread) * per_q
    while span > width.instrument and not all(
        _allowed(step, track.place(track.start + side * span / 2.0)) for side in (-1.0, 1.0)
    ):
        span *= 0.8

    def merit(image: NDArray) -> Look:
        small, noise, _ = coarse(image, step.noise_adu)
        values = small if lit is None else small[lit]
        total = float(values.sum(dtype=np.float64))
        return Look(total, math.sqrt(values.size * noise**2 + step.gain * max(total, 0.0)))

    found, best = yield from curve("find_grain", step, track, span, FINE_POINTS, width, merit=merit, top=False)
    return found, best or place
