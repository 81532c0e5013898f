"""Focusing: the lens, or the camera, along the beam to where the image is sharpest."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.alignment import Found, sharpness
from dfxrm_control.errors import LimitError
from dfxrm_control.microscope import View
from dfxrm_control.parameters import FocusParameters
from plans._alignment._curve import Track, curve
from plans._alignment._expected import lens_view
from plans._alignment._step import Look, Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["focus", "focus_body", "focus_width_mm"]

ALONG = {"objective": ("obx", "obz"), "detector": ("mainx", "ffz")}
END_BLUR_UM = {"objective": 0.8, "detector": 0.27}
"""Rms blur on the sample at the ends of a curve of default width; the camera has less room to move."""
FINE_ENOUGH = 4.0
"""Step of a curve in depths of field, beyond which a finer one is taken about its peak: a tip that is as wide as the
depth of field, on the wings of what is blurred anyway, may lie between two points of a wide curve."""
MOST_REFINED = 3
"""How often."""
SHARPNESS_ERROR = 0.02
"""Relative standard deviation of the sharpness of equal frames, beyond which a rise is believed; the scatter about the
fitted curve counts where it is more."""

Body = Callable[[Step], Generator[Msg, Any, tuple[Found, Place]]]


@flat_keywords(FocusParameters)
def focus(instrument: Instrument, parameters: FocusParameters, md: dict[str, Any]) -> MsgGenerator:
    """Move the objective, or the far-field camera, along the diffracted beam to where the image is sharpest.

    The figure of merit is `dfxrm_control.alignment.sharpness`. Where the depth of field is less than a quarter of a
    step, as with multilayer Laue lenses, a finer curve about the peak follows. It stays where it was when the curve has
    no believable maximum, as with a field in which nothing has an outline. Returns a
    `dfxrm_control.alignment.Found` of obx or mainx.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    """
    p = parameters
    camera = p.camera or instrument.defaults.camera
    view: View = yield from lens_view(instrument, camera, "focus")
    body = focus_body(instrument, view, p.along, p.width_mm or focus_width_mm(view, p.along), p.num, "focus")
    return (yield from run_step(instrument, p, ALONG[p.along], body, md, camera=camera))


def focus_width_mm(view: View, along: str) -> float:
    """Return the full width of a curve along the beam, mm: as wide as the lens's acceptance makes it need to be.

    A defocus d blurs by the rms acceptance times d; d at the sample is M^2 d at the camera.
    """
    sample_side_mm = 2e-3 * END_BLUR_UM[along] / view.acceptance("v").rms_rad
    return sample_side_mm * (1.0 if along == "objective" else view.magnification_v**2)


def focus_body(instrument: Instrument, view: View, along: str, width_mm: float, num: int, name: str) -> Body:
    """Return the body of a step that focuses along the beam.

    Parameters
    ----------
    instrument : Instrument
        The devices.
    view : View
        The microscope as it stands.
    along : {"objective", "detector"}
        What moves.
    width_mm : float
        Full width of the curve in distance along the beam, mm.
    num : int
        Number of points.
    name : str
        Name of the step.
    """
    axis, upwards = ALONG[along]
    depth_um = view.objective.depth_of_field_um(view.energy_kev, view.d1_mm) if view.objective is not None else math.inf
    angle = math.radians(view.two_theta_deg if along == "objective" else view.arm_two_theta_deg)
    # mainx is negative: away from the sample is down in mainx, and up in ffz
    rate = math.tan(angle) * (1.0 if along == "objective" else -1.0)

    finest_mm = FINE_ENOUGH * 1e-3 * depth_um * (1.0 if along == "objective" else view.magnification_v**2)

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        def merit(image: NDArray) -> Look:
            value = sharpness(image, step.noise_adu, step.gain)
            return Look(value, max(SHARPNESS_ERROR * abs(value), 1e-12))

        track = Track.together(axis, step.starts, {upwards: rate})

        def at(span_mm: float, middle: float | None) -> Generator[Msg, Any, tuple[Found, Place]]:
            return curve(name, step, track, span_mm * math.cos(angle), num, None, middle=middle, merit=merit)

        first = at(width_mm, None)  # here, so that limits are checked before anything moves

        def refined() -> Generator[Msg, Any, tuple[Found, Place]]:
            found, place = yield from first
            seen, span_mm, coarsest_mm = found, width_mm, finest_mm
            for _ in range(MOST_REFINED):
                if span_mm / (num - 1) <= coarsest_mm or not math.isfinite(seen.position):
                    break
                span_mm = max(span_mm * 4.0 / (num - 1), 2.0 * finest_mm)
                try:
                    seen, there = yield from at(span_mm, seen.position)
                except LimitError:
                    break
                # a sharp tip on broad wings is no single peak to a wide curve, and one to a narrow curve
                if seen.sure:
                    found, place = seen, there
                # where nothing is sure yet the curve goes down to the depth of field
                coarsest_mm = finest_mm if found.sure else finest_mm / FINE_ENOUGH
            return found, place

        return refined()

    return body
