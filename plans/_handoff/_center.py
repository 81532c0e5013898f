"""Centring a grain in all three directions: a scan of its height through the line beam.

Each height shows one slice of the grain where it is along the beam and across it, so the stack gives the centre of mass
of the whole grain, which is what a grain map calls its centre.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.alignment import Found, Spot, find_spot
from dfxrm_control.errors import LimitError, ParameterError
from dfxrm_control.geometry import pixel_to_detector
from dfxrm_control.microscope import View
from dfxrm_control.parameters import CenterGrainParameters
from plans._alignment._expected import lens_view
from plans._alignment._field import SAMPLE_AXES, sample_way
from plans._alignment._step import Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._handoff._find import coarse
from plans._instrument import Instrument
from plans._mesh import read_positions

__all__ = ["center_grain"]

MOST_SCANS = 5
SEARCH_SLICES = 8
"""Slices of a grain of the expected height in the first scan."""
NEAR_ENOUGH_UM = 0.5
"""A centre that a scan moves by less than this, or by half a pixel, is found."""
LEAST_SLICES = 4


@flat_keywords(CenterGrainParameters)
def center_grain(instrument: Instrument, parameters: CenterGrainParameters, md: dict[str, Any]) -> MsgGenerator:
    """Bring the centre of mass of the grain that diffracts to the rotation centre, by scans of its height.

    The line beam must be in and the grain on its peak. The first scan looks for the grain, the next ones go through it
    from end to end, until its centre stays. The sample is left there, or goes back where the grain is cut by the field
    or not seen. Returns a `dfxrm_control.alignment.Found`, whose position is what was left of the distance from the
    middle by the last scan, um; ``extra`` holds how far the sample went in the laboratory (``moved_x_um``, ...) and
    the height of the grain (``height_um``).

    Raises
    ------
    ParameterError, LimitError
        Before anything moves: no line beam, no objective, a position out of bounds.
    """
    p = parameters
    camera = p.camera or instrument.defaults.camera
    view = yield from lens_view(instrument, camera, p.plan)
    if "condenser" in instrument.channels:
        beam = yield from read_positions({"condenser": instrument.channels["condenser"]})
        if beam.get("condenser", "line") != "line":
            raise ParameterError(f"{p.plan}: the condenser is {beam['condenser']!r}; slices need the 'line' beam")
    whole_um = p.height_um + 2.0 * p.search_um
    line_um = instrument.config.beam.line_height_um
    first_um = max(p.height_um / SEARCH_SLICES, line_um)
    search = np.linspace(-whole_um / 2.0, whole_um / 2.0, max(math.ceil(whole_um / first_um) + 1, LEAST_SLICES))
    near_um = max(NEAR_ENOUGH_UM, 0.5 * min(view.pixel_x_um, view.pixel_y_um))

    def places(start: Place, from_um: NDArray, heights: Sequence[float] | NDArray) -> list[dict[str, float]]:
        """Where the sample is when its point ``from_um`` (laboratory, at the start) is lit and in the middle."""
        return [_moved(instrument, view, start, -from_um - np.array([0.0, 0.0, height])) for height in heights]

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        step.check(places(step.starts, np.zeros(3), search[[0, -1]]))
        return work(step)

    def work(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        def measure(image: NDArray) -> Spot | None:
            small, noise, by = coarse(image, step.noise_adu)
            spot = find_spot(small, noise)
            if spot is None or by == 1:
                return spot
            row, column = ((middle + 0.5) * by - 0.5 for middle in (spot.row, spot.column))
            errors = spot.row_error * by, spot.column_error * by
            return Spot(row, column, *errors, spot.total, spot.total_error, spot.pixels * by**2, spot.at_edge)

        centre, heights = np.zeros(3), search
        for number in range(MOST_SCANS):
            try:
                step.check(there := places(step.starts, centre, heights))
            except LimitError as error:
                return _found(math.nan, math.nan, False, f"its centre is out of reach: {error}"), {}
            seen = yield from step.line(there, measure)
            if not step.live:
                if number:
                    return _found(0.0, math.nan, True, "assumed in a dry run", predicted=True), step.starts
                heights = np.linspace(-p.height_um / 2.0, p.height_um / 2.0, p.num)
                continue
            lit = [k for k, spot in enumerate(seen) if spot is not None]
            if not lit:
                return _found(math.nan, math.nan, False, f"nothing is lit over {np.ptp(heights):.0f} um of height"), {}
            slices = np.array([[*_on_layer(view, seen[k]), heights[k]] for k in lit])  # type: ignore[arg-type]
            weights = np.array([seen[k].total for k in lit])  # type: ignore[union-attr]
            away = weights @ slices / weights.sum()
            centre = centre + away
            step_um = float(heights[1] - heights[0])
            low, high = float(heights[lit[0]] - away[2]), float(heights[lit[-1]] - away[2])
            cut = lit[0] == 0 or lit[-1] == len(seen) - 1
            edge = any(seen[k].at_edge for k in lit)  # type: ignore[union-attr]
            left_um = float(np.linalg.norm(away))
            fine = number and len(lit) >= LEAST_SLICES
            if fine and not cut and not edge and left_um <= near_um:
                error_um = _error_um(view, [seen[k] for k in lit], slices - away, weights, step_um)
                gone = {f"moved_{name}_um": float(part) for name, part in zip("xyz", -centre, strict=True)}
                extra = {**gone, "height_um": high - low + step_um}
                reason = f"{len(lit)} slices of {step_um:.2g} um, after {number + 1} scans"
                best = places(step.starts, centre, [0.0])[0]
                return _found(left_um, error_um, True, reason, extra), best
            # from a slice beyond one end to a slice beyond the other, and farther where it went on there
            reach = max(-low, high) + (2.0 if not cut else 0.25 * len(seen)) * step_um
            heights = np.linspace(-reach, reach, p.num)
        reason = "the field cuts it" if edge else f"after {MOST_SCANS} scans its centre still moves by {left_um:.2g} um"
        return _found(left_um, math.nan, False, reason), {}

    return (yield from run_step(instrument, p, SAMPLE_AXES, body, md, camera=camera))


def _moved(instrument: Instrument, view: View, start: Place, lab_um: NDArray) -> dict[str, float]:
    way = sample_way(instrument, view, lab_um)
    return {axis: start[axis] + float(part) for axis, part in zip(SAMPLE_AXES, way, strict=True)}


def _on_layer(view: View, spot: Spot) -> tuple[float, float]:
    """Return where a spot is on the illuminated layer, along the beam and across it, um."""
    u_mm, v_mm = pixel_to_detector(spot.row, spot.column, view.shape, view.pixel_um, view.flip_ud, view.flip_lr)
    sine = math.sin(math.radians(view.two_theta_deg))
    return 1e3 * float(v_mm) / (view.magnification_v * sine), -1e3 * float(u_mm) / view.magnification_h


def _error_um(view: View, spots: Sequence[Spot | None], slices: NDArray, weights: NDArray, step_um: float) -> float:
    """Return the standard error of a centre: noise in each slice, and where the grain ends between two heights."""
    share = weights / weights.sum()
    pixel = np.array([[s.row_error * view.pixel_x_um, s.column_error * view.pixel_y_um] for s in spots if s])
    noise = np.array([s.total_error for s in spots if s]) / weights.sum()
    across = np.sqrt((share**2) @ (pixel**2).sum(axis=1))
    height = np.sqrt(float(noise**2 @ slices[:, 2] ** 2))
    # each of the two end slices may be lit over any part of a step
    ends = step_um / math.sqrt(12.0) * math.hypot(share[0], share[-1]) + step_um / math.sqrt(12.0) / len(weights)
    return math.sqrt(float(across) ** 2 + float(height) ** 2 + ends**2)


def _found(
    left_um: float,
    error_um: float,
    sure: bool,
    reason: str,
    extra: dict[str, float] | None = None,
    *,
    predicted: bool = False,
) -> Found:
    return Found("center_grain", "grain", left_um, error_um, "um", sure, reason, predicted=predicted, extra=extra or {})
