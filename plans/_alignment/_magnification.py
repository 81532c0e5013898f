"""The magnification, by moving the sample a known way."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.alignment import Found, Shift, image_shift
from dfxrm_control.microscope import View
from dfxrm_control.parameters import MagnificationParameters
from plans._alignment._expected import lens_view
from plans._alignment._field import SAMPLE_AXES, sample_way
from plans._alignment._step import Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["measure_magnification"]

LEAST_AGREEMENT = 0.5
"""Correlation of two images, one shifted back, from which they are held to show the same."""
LARGEST_ERROR = 0.05
"""Relative error up to which a magnification is believed."""


@flat_keywords(MagnificationParameters)
def measure_magnification(
    instrument: Instrument, parameters: MagnificationParameters, md: dict[str, Any]
) -> MsgGenerator:
    """Measure the magnification by moving the sample across the beam and along it and registering the images.

    The sample goes to a few places within the illuminated layer and back to where it was. A straight line through the
    shifts over the ways gives each magnification and its error, and is compared with what the model of the lens says.
    Nothing is changed by the result. Returns a `dfxrm_control.alignment.Found`: the magnification across the beam, and
    in ``extra`` the one along it and those of the model.

    Raises
    ------
    ParameterError, LimitError
        When a parameter or a position is out of bounds.
    """
    p = parameters
    camera = p.camera or instrument.defaults.camera
    view: View = yield from lens_view(instrument, camera, "measure_magnification")
    fields_um = view.field_of_view_um
    steps = [p.step_um or 0.05 * field for field in fields_um]
    sine = math.sin(math.radians(view.two_theta_deg))
    flips = (-1.0 if view.flip_ud else 1.0, -1.0 if view.flip_lr else 1.0)
    # as recorded: towards +x is up, to lower rows; towards +y is to larger columns
    per_um = (
        -flips[0] * view.magnification_v * sine / view.pixel_um,
        flips[1] * view.magnification_h / view.pixel_um,
    )

    offsets = [k - p.num // 2 for k in range(p.num)]
    ways = [
        sample_way(instrument, view, size * direction) for size, direction in zip(steps, np.eye(3)[:2], strict=True)
    ]

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        lines: list[list[Place]] = [
            [
                {axis: step.starts[axis] + k * float(part) for axis, part in zip(SAMPLE_AXES, way, strict=True)}
                for k in offsets
            ]
            for way in ways
        ]
        step.check([place for line in lines for place in line])
        return work(step, lines)

    def work(step: Step, lines: list[list[Place]]) -> Generator[Msg, Any, tuple[Found, Place]]:
        slopes: list[tuple[float, float]] = []
        agreement = 1.0
        for direction, places in enumerate(lines):
            images = yield from step.line(places, lambda image: image)
            if not step.live:
                continue
            shifts = [image_shift(images[p.num // 2], image) for image in images]
            agreement = min(agreement, *(shift.agreement for shift in shifts))
            slopes.append(_slope(np.array(offsets) * steps[direction], shifts, direction))
        model = {"magnification_h_model": view.magnification_h, "magnification_v_model": view.magnification_v}
        if not step.live:
            said = "assumed in a dry run"
            return _found(view.magnification_h, math.nan, True, said, model, predicted=True), {}
        (rows, rows_error), (columns, columns_error) = slopes
        measured = [rows / per_um[0] * view.magnification_v, columns / per_um[1] * view.magnification_h]
        errors = [
            abs(rows_error / per_um[0]) * view.magnification_v,
            abs(columns_error / per_um[1]) * view.magnification_h,
        ]
        extra = {**model, "magnification_v": measured[0], "magnification_v_error": errors[0]}
        doubt = ""
        if agreement < LEAST_AGREEMENT:
            doubt = f"the shifted images do not match (correlation {agreement:.2f}); is there anything to see in them?"
        elif min(measured) <= 0:
            doubt = "the image goes the wrong way; are the flips of the camera as configured?"
        elif any(error > LARGEST_ERROR * abs(value) for value, error in zip(measured, errors, strict=True)):
            doubt = "the shifts scatter too much"
        said = doubt or (
            f"along the beam {measured[0]:.4g} +/- {errors[0]:.2g}; model {view.magnification_h:.4g} and "
            f"{view.magnification_v:.4g}"
        )
        return _found(measured[1], errors[1], not doubt, said, extra), {}

    return (yield from run_step(instrument, p, SAMPLE_AXES, body, md, camera=camera))


def _slope(ways_um: NDArray, shifts: Sequence[Shift], direction: int) -> tuple[float, float]:
    """Return pixels per um of a straight line through the origin's neighbourhood, and its standard error."""
    moved = np.array([(shift.rows, shift.columns)[direction] for shift in shifts])
    error = np.array([shift.error for shift in shifts])
    if not np.isfinite(error).all():
        return math.nan, math.inf
    weight = 1.0 / error**2
    x = ways_um - np.average(ways_um, weights=weight)
    y = moved - np.average(moved, weights=weight)
    spread = float(weight @ x**2)
    slope = float(weight @ (x * y)) / spread
    chi2 = float(weight @ (y - slope * x) ** 2) / max(len(x) - 2, 1)
    return slope, math.sqrt(max(chi2, 1.0) / spread)


def _found(
    value: float, error: float, sure: bool, reason: str, extra: dict[str, float], *, predicted: bool = False
) -> Found:
    return Found(
        "measure_magnification", "magnification", value, error, "", sure, reason, predicted=predicted, extra=extra
    )
