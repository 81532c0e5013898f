"""How wide and how finely a tilt has to be scanned, from the resolution of the microscope and the spread of the sample.

A perfect crystal's peak in a mesh of tilts is a Gaussian whose precision matrix is ``J^T C^-1 J``: C the covariance of
the resolution function in (q_rock, q_roll, q_par) (Poulsen et al. 2017, J. Appl. Cryst. 50, 1441, Eqs. 58-63) and J the
Jacobian of q to the motors at the actual setting. A window that cuts the tails of that peak pulls the centre of mass
towards the window's middle; a step that is too coarse makes it wobble.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dfxrm_control.errors import ParameterError, PhysicsError
from dfxrm_control.geometry import FWHM_PER_SIGMA

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from dfxrm_control.geometry import Resolution
    from dfxrm_control.microscope import View

__all__ = [
    "WINDOW_SIGMAS",
    "ScanAxis",
    "TiltResponse",
    "WindowWarning",
    "centroid_slope",
    "plan_window",
    "tilt_response",
    "view_response",
]

WINDOW_SIGMAS = 3.5
"""Default window: this many sigma of the instrument beyond the expected spread on either side (slope 0.994)."""
STEP_PER_FWHM = 2.0 / 3.0
"""Default step, s = 1.57 sigma: the centre of mass of a sampled Gaussian then wobbles with the place of the peak
between two points by ``4 pi sigma^2/s exp(-2 pi^2 sigma^2/s^2)`` = 0.0027 sigma (Poisson summation); at s = FWHM by
0.15 sigma."""
SMALLEST_TILT = 0.05
"""Sine below which an axis, or a second axis, counts as not tilting the lattice."""


class WindowWarning(UserWarning):
    """A scan window will clip the peaks it is meant to measure."""


@dataclass(frozen=True)
class ScanAxis:
    """One axis of a regular mesh.

    Attributes
    ----------
    name : str
        Logical name.
    start, step : float
        First position and signed distance between positions, in the axis' unit.
    num : int
        Number of positions.
    """

    name: str
    start: float
    step: float
    num: int

    @property
    def stop(self) -> float:
        """Last position."""
        return self.position(self.num - 1)

    def position(self, index: int) -> float:
        """Return one position; rounded to 1e-9 so that set-points repeat exactly from line to line."""
        return round(self.start + index * self.step, 9)

    def positions(self) -> list[float]:
        """Return all positions, first to last."""
        return [self.position(index) for index in range(self.num)]

    def record(self) -> dict[str, str | float | int]:
        """Return the axis as it stands in the metadata of a run."""
        return {"name": self.name, "start": self.start, "step": self.step, "num": self.num}


@dataclass(frozen=True)
class TiltResponse:
    """What one motor of a mesh sees of the instrument and of the sample.

    Attributes
    ----------
    mesh_sigma_deg : float
        rms width of a perfect crystal's peak along this motor in the whole mesh (the other motors summed over), deg.
    curve_sigma_deg : float
        rms width of its curve along this motor with the others at the peak, deg; never larger than the one above.
    reach : float
        Motor travel in deg that meets all lattice tilts of up to 1 deg.
    """

    mesh_sigma_deg: float
    curve_sigma_deg: float
    reach: float


def tilt_response(resolution: Resolution, jacobian: ArrayLike, names: Sequence[str]) -> list[TiltResponse]:
    """Return how a mesh of motors sees a perfect crystal and a spread of tilts.

    Parameters
    ----------
    resolution : Resolution
        Resolution function at the setting.
    jacobian : array_like, shape (3, k)
        d(q_rock, q_roll, q_par) / d(motor), rad per rad, one column per motor; k is 1 or 2.
    names : sequence of str, length k
        Logical names, for messages.

    Raises
    ------
    ParameterError
        When a motor does not tilt the lattice here, or two motors tilt it about the same direction.
    PhysicsError
        When the resolution function has no volume.
    """
    columns = np.asarray(jacobian, dtype=float).reshape(3, len(names))
    tilts = columns[:2]
    lengths = np.linalg.norm(tilts, axis=0)
    for name, length in zip(names, lengths, strict=True):
        if length < SMALLEST_TILT:
            raise ParameterError(f"axis {name!r} does not tilt the lattice at this setting; scan another axis")
    if np.linalg.svd(tilts / lengths, compute_uv=False)[-1] < SMALLEST_TILT:
        raise ParameterError(f"axes {' and '.join(names)} tilt the lattice about the same direction at this setting")
    mesh = resolution.motor_sigma_rad(columns)
    reach = np.linalg.norm(np.linalg.pinv(tilts), axis=1)
    return [
        TiltResponse(
            mesh_sigma_deg=math.degrees(mesh[index]),
            curve_sigma_deg=math.degrees(resolution.motor_sigma_rad(columns[:, [index]])[0]),
            reach=float(reach[index]),
        )
        for index in range(len(names))
    ]


def _normal(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _cumulative(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def centroid_slope(half_width: float, sigma: float, offset: float = 0.0) -> float:
    """Return by how much the centre of mass moves per unit the peak moves, seen through a window.

    The centre of mass of a Gaussian cut at a and b is that of the truncated normal distribution; its derivative by the
    peak's position is the variance of that distribution in units of sigma^2,
    ``1 + (a phi(a) - b phi(b))/Z - ((phi(a) - phi(b))/Z)^2`` with ``Z = Phi(b) - Phi(a)``
    (Johnson, Kotz & Balakrishnan 1994, Continuous Univariate Distributions 1, sect. 10.1).

    Parameters
    ----------
    half_width, sigma, offset : float
        Half of the window, rms width of the peak, and the peak's distance from the window's middle, in one unit.

    Returns
    -------
    float
        1 for a window that brackets the peak; 0.77 at two sigma either side, 0.973 at three.
    """
    a, b = (-half_width - offset) / sigma, (half_width - offset) / sigma
    inside = _cumulative(b) - _cumulative(a)
    if inside < 1e-12:
        return 0.0
    shift = (_normal(a) - _normal(b)) / inside
    return 1.0 + (a * _normal(a) - b * _normal(b)) / inside - shift * shift


def _three_digits_down(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return round(math.floor(value / unit + 1e-9) * unit, 12)


def plan_window(
    name: str,
    center: float,
    width: float | None,
    step: float | None,
    num: int | None,
    response: TiltResponse | None,
    spread_deg: float,
    reason: str = "",
) -> tuple[ScanAxis, list[str]]:
    """Return the positions of one tilt, and what is to be said about them.

    Parameters
    ----------
    name : str
        Logical name of the axis.
    center : float
        Middle of the window, deg.
    width, step : float or None
        Full width and step in deg; None: from ``response`` and ``spread_deg``.
    num : int or None
        Number of points, instead of a step.
    response : TiltResponse or None
        What the motor sees of the instrument; None where it cannot be known.
    spread_deg : float
        Half width of the tilts expected in the sample, deg.
    reason : str
        Why the response is not known, for the message.

    Raises
    ------
    ParameterError
        When something is to be worked out and ``response`` is None.
    """
    if response is None and (width is None or (step is None and num is None)):
        missing = "range" if width is None else "step"
        because = f" ({reason})" if reason else ""
        raise ParameterError(f"the {missing} of {name!r} cannot be worked out at this setting{because}; give it")
    remarks = []
    needed = None if response is None else 2.0 * (response.reach * spread_deg + WINDOW_SIGMAS * response.mesh_sigma_deg)
    full = width if width is not None else needed
    assert full is not None  # one of the two, by the check above
    if num is not None:
        step = full / (num - 1)
    elif step is not None:
        num = max(2, math.ceil(full / step - 1e-6) + 1)
        if width is None:
            full = step * (num - 1)
    else:
        assert response is not None
        # three digits, so that titles and set-points can be read, and repeated by hand
        step = _three_digits_down(STEP_PER_FWHM * FWHM_PER_SIGMA * response.curve_sigma_deg)
        num = max(2, math.ceil(full / step - 1e-6) + 1)
    axis = ScanAxis(name, round(center - step * (num - 1) / 2.0, 6), step, num)
    if response is not None and needed is not None:
        span = step * (num - 1)
        if span < needed * (1.0 - 1e-6):
            sigma, spread = response.mesh_sigma_deg, response.reach * spread_deg
            remarks.append(
                f"{name}: the window of +/-{span / 2:.4g} deg is narrower than the sample's spread "
                f"+/- {WINDOW_SIGMAS:g} sigma of the instrument (+/-{needed / 2:.4g} deg); measured tilts will follow "
                f"true ones with slope {centroid_slope(span / 2, sigma):.3f} in its middle and "
                f"{centroid_slope(span / 2, sigma, spread):.3f} at the edge of the spread (+/-{spread:.4g} deg)"
            )
        fwhm = FWHM_PER_SIGMA * response.curve_sigma_deg
        if step > fwhm * (1.0 + 1e-6):
            remarks.append(
                f"{name}: the step of {step:.4g} deg is larger than the instrument's FWHM of {fwhm:.4g} deg; "
                "tilts between two points are not resolved"
            )
    return axis, remarks


def view_response(view: View, names: Sequence[str]) -> list[TiltResponse]:
    """Return what the motors of a mesh see at a setting of the microscope.

    Parameters
    ----------
    view : View
        The microscope at that setting.
    names : sequence of str
        Logical names of the motors that are scanned, one or two.

    Raises
    ------
    PhysicsError
        When an axis does not move the diffraction vector, or the microscope resolves nothing there.
    ParameterError
        As `tilt_response`.
    """
    if view.resolution is None:
        raise PhysicsError("no objective is in the beam, so there is no resolution function")
    return tilt_response(view.resolution, view.jacobian(names), names)
