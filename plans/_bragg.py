"""Finding the Bragg peak where neither scattering angle nor rock is known any more, as after a change of temperature.

An isotropic strain moves the peak along the diffraction vector. So the search goes that way: the arm by D in
two_theta, and the crystal with it, by as much as keeps q_rock where it is (about D/2). What is left, a turn of the
crystal, a curve over the rock finds; the two directions are all but independent in the resolution function (Poulsen et
al. 2017, J. Appl. Cryst. 50, 1441, Eqs. 58-63), so once more each is enough.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
from bluesky.utils import Msg

from dfxrm_control.alignment import Found
from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import FWHM_PER_SIGMA
from dfxrm_control.microscope import View
from dfxrm_control.parameters import FindBraggParameters
from plans._alignment._curve import Track, curve
from plans._alignment._expected import Width, expected_width, present_view
from plans._alignment._step import Place, Step, run_step
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["find_bragg", "rock_per_two_theta"]

ARM = "two_theta"
STEP_PER_FWHM = 2.0 / 3.0
FINE_POINTS = 13
LEAST_POINTS = 9
SMALLEST_ROCK = 0.05
"""d(q_rock)/d(motor) below which an axis counts as not rocking."""


@flat_keywords(FindBraggParameters)
def find_bragg(instrument: Instrument, parameters: FindBraggParameters, md: dict[str, Any]) -> MsgGenerator:
    """Find the Bragg peak along two_theta and rock together, and go there.

    A mosaic crystal's curve has several peaks: its centre is then its centre of mass, if all of it is in the window.
    Returns a `dfxrm_control.alignment.Found` with the position of two_theta. When it is not sure, both axes are back
    where they started.

    Raises
    ------
    ParameterError, LimitError, PhysicsError
        Before anything moves: no objective in the beam, an axis that does not rock, a position out of bounds.
    """
    p = parameters
    camera, rock = p.camera or instrument.defaults.camera, p.rock or instrument.defaults.rock
    instrument.camera(camera)
    instrument.axis(ARM)
    view = yield from present_view(instrument, camera)
    rate, fwhm = rock_per_two_theta(view, rock)
    # d(2theta) = 2 tan(theta) strain, to either side
    strains = 4.0 * math.degrees(math.tan(math.radians(view.two_theta_deg / 2.0))) * instrument.sample.spread_strain
    widths = Width(fwhm, 2.0 * fwhm + strains), expected_width(instrument, view, rock)
    points = max(math.ceil(p.search_range / (STEP_PER_FWHM * fwhm)) + 1, LEAST_POINTS)

    def body(step: Step) -> Generator[Msg, Any, tuple[Found, Place]]:
        best: Place = dict(step.starts)
        span, num = p.search_range, points
        for _ in range(2):
            radial = Track.together(ARM, best, {rock: rate})
            found, best = yield from curve("find_bragg", step, radial, span, num, widths[0], several=True)
            if not found.sure:
                return replace(found, before=step.starts[ARM]), {}
            arm = best[ARM]
            whole = widths[1].whole + 3.0 * widths[1].instrument if widths[1] is not None else 3.0 * fwhm
            # several peaks, each as narrow as the instrument's, are to be added up
            finest = widths[1].instrument if widths[1] is not None else fwhm
            fine = max(math.ceil(whole / (STEP_PER_FWHM * finest)) + 1, FINE_POINTS)
            turned = Track(rock, best[rock], lambda position, arm=arm: {ARM: arm, rock: position})  # type: ignore[misc]
            tilt, best = yield from curve("find_bragg", step, turned, whole, fine, widths[1], several=True)
            if not tilt.sure:
                return replace(tilt, before=step.starts[rock]), {}
            span, num = 4.0 * fwhm, FINE_POINTS
        said = f"{found.reason}; {rock} {tilt.position:.6g} +/- {tilt.error:.2g} {tilt.units}, {tilt.reason}"
        return replace(found, before=step.starts[ARM], reason=said), best

    return (yield from run_step(instrument, p, [ARM, rock], body, md, camera=camera))


def rock_per_two_theta(view: View, rock: str) -> tuple[float, float]:
    """Return by how much the rock goes with two_theta along the diffraction vector, and how wide a peak is that way.

    Parameters
    ----------
    view : View
        The microscope at the setting.
    rock : str
        Logical name of the axis that rocks.

    Returns
    -------
    rate : float
        deg of the rock per deg of two_theta that keeps q_rock.
    fwhm : float
        Of a perfect crystal along that way, deg of two_theta.

    Raises
    ------
    ParameterError
        When there is no objective in the beam, or the axis does not rock the crystal here.
    """
    if view.resolution is None:
        raise ParameterError("find_bragg: no objective is in the beam, so there is no peak in two_theta")
    jacobian = np.asarray(view.jacobian([ARM, rock]))
    if abs(jacobian[0, 1]) < SMALLEST_ROCK:
        raise ParameterError(f"find_bragg: axis {rock!r} does not rock the crystal at this setting; give another rock")
    rate = -float(jacobian[0, 0] / jacobian[0, 1])
    sigma = view.resolution.motor_sigma_rad(jacobian @ np.array([[1.0], [rate]]))
    return rate, FWHM_PER_SIGMA * math.degrees(float(sigma[0]))
