"""Bringing what is to be looked at into the middle of the field."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray
from scipy import ndimage

from dfxrm_control.alignment import Found, Spot, find_spot
from dfxrm_control.geometry import goniometer_rotation, pixel_to_detector
from dfxrm_control.microscope import View
from dfxrm_control.parameters import CenterFieldParameters
from plans._alignment._expected import lens_view
from plans._alignment._step import Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["center_field", "sample_way"]

SAMPLE_AXES = ("samx", "samy", "samz")
CAMERA_AXES = ("ffy", "ffz")
MOST_MOVES = 4
NEAR_ENOUGH_PX = 1.0
BRIGHTEST_SMOOTH_PX = 3.0


@flat_keywords(CenterFieldParameters)
def center_field(instrument: Instrument, parameters: CenterFieldParameters, md: dict[str, Any]) -> MsgGenerator:
    """Bring the centre of mass of what is lit, or the brightest place, to the middle of the field.

    The sample is moved within the illuminated layer by samx, samy and samz, or the camera by ffy and ffz. A lit region
    that reaches the edge of the field has no centre that could be known, so nothing is moved. Returns a
    `dfxrm_control.alignment.Found`, whose position is what is left of the distance from the middle, um.

    Raises
    ------
    ParameterError, LimitError
        When a parameter or a position is out of bounds.
    """
    p = parameters
    camera = p.camera or instrument.defaults.camera
    view: View = yield from lens_view(instrument, camera, "center_field")
    axes = SAMPLE_AXES if p.move == "sample" else CAMERA_AXES

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        def measure(image: NDArray) -> Spot | None:
            spot = find_spot(image, step.noise_adu)
            return spot if spot is None or p.feature == "mass" else _brightest(image, spot)

        place = dict(step.starts)
        gone_um = math.inf
        for _ in range(MOST_MOVES):
            seen = yield from step.line([place], measure)
            if not step.live:
                return _found(0.0, math.nan, True, "assumed in a dry run", predicted=True), place
            spot = seen[0]
            if spot is None:
                return _found(math.nan, math.nan, False, "nothing is lit in the field"), {}
            if spot.at_edge:
                return _found(math.nan, math.nan, False, "what is lit reaches the edge of the field"), {}
            u_mm, v_mm = pixel_to_detector(spot.row, spot.column, view.shape, view.pixel_um, view.flip_ud, view.flip_lr)
            error_um = math.hypot(spot.row_error * view.pixel_x_um, spot.column_error * view.pixel_y_um)
            x_um, y_um = _on_layer(view, float(u_mm), float(v_mm))
            last_um, gone_um = gone_um, math.hypot(x_um, y_um)
            if gone_um <= NEAR_ENOUGH_PX * max(view.pixel_x_um, view.pixel_y_um):
                return _found(gone_um, error_um, True, f"{spot.pixels} pixels lit"), place
            if gone_um > 0.7 * last_um:
                return _found(gone_um, error_um, False, "moving it does not bring it to the middle"), {}
            if p.move == "camera":
                cosine = math.cos(math.radians(view.arm_two_theta_deg))
                place = {"ffy": place["ffy"] + float(u_mm), "ffz": place["ffz"] + float(v_mm) / cosine}
            else:
                way = sample_way(instrument, view, np.array([-x_um, -y_um, 0.0]))
                place = {axis: place[axis] + float(part) for axis, part in zip(SAMPLE_AXES, way, strict=True)}
            step.check([place])
        return _found(gone_um, math.nan, False, f"after {MOST_MOVES} moves it is still not in the middle"), {}

    return (yield from run_step(instrument, p, axes, body, md, camera=camera))


def sample_way(instrument: Instrument, view: View, lab_um: NDArray) -> NDArray:
    """Return by how much samx, samy and samz move the sample by a way in the laboratory, mm.

    Translations above the rotations turn with them; below, they are those of the laboratory.
    """
    if instrument.config.sample_stage == "below":
        return np.asarray(lab_um * 1e-3)
    mu, omega, chi, phi = (float(view.positions.get(axis, 0.0)) for axis in ("mu", "omega", "chi", "phi"))
    return np.asarray(goniometer_rotation(mu, omega, chi, phi, mu_sign=instrument.config.mu_sign).T @ lab_um * 1e-3)


def _on_layer(view: View, u_mm: float, v_mm: float) -> tuple[float, float]:
    """Return x and y on the illuminated layer of a point of the detector, um: ``x = V/(M sin 2th)``, ``y = -U/M``."""
    sine = math.sin(math.radians(view.two_theta_deg))
    return 1e3 * v_mm / (view.magnification_v * sine), -1e3 * u_mm / view.magnification_h


def _brightest(image: NDArray, spot: Spot) -> Spot:
    smooth = ndimage.gaussian_filter(np.asarray(image, float), BRIGHTEST_SMOOTH_PX)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return Spot(
        float(row),
        float(column),
        BRIGHTEST_SMOOTH_PX,
        BRIGHTEST_SMOOTH_PX,
        spot.total,
        spot.total_error,
        spot.pixels,
        at_edge=False,
    )


def _found(left_um: float, error_um: float, sure: bool, reason: str, *, predicted: bool = False) -> Found:
    return Found("center_field", "field", left_um, error_um, "um", sure, reason, predicted=predicted)
