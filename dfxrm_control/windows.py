"""How wide and how finely an axis is to be scanned, from the resolution of the microscope and the spread of the sample.

A perfect crystal's peak in a mesh of motors is a Gaussian whose precision matrix is ``J^T C^-1 J``: C the covariance of
the resolution function in (q_rock, q_roll, q_par) (Poulsen et al. 2017, J. Appl. Cryst. 50, 1441, Eqs. 58-63) and J the
Jacobian of q to the motors (goniometer, arm, energy) at the actual setting. A crystal displaced by q has its peak at
``m = -(J^T C^-1 J)^-1 J^T C^-1 q``. A window that cuts the tails of that peak pulls the centre of mass towards the
window's middle; a step that is too coarse makes it wobble.

The same formula says what a scan of too few axes takes for something else (`coupling`, `contrast`).
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
    from numpy.typing import ArrayLike, NDArray

    from dfxrm_control.geometry import Resolution
    from dfxrm_control.microscope import View

__all__ = [
    "WINDOW_SIGMAS",
    "AxisResponse",
    "ScanAxis",
    "Spread",
    "WindowWarning",
    "apparent_q",
    "axis_response",
    "centroid_slope",
    "contrast",
    "coupling",
    "plan_window",
    "view_response",
]

WINDOW_SIGMAS = 3.5
"""Default window: this many sigma of the instrument beyond the expected spread on either side (slope 0.994)."""
STEP_PER_FWHM = 2.0 / 3.0
"""Default step, s = 1.57 sigma: the centre of mass of a sampled Gaussian then wobbles with the place of the peak
between two points by ``4 pi sigma^2/s exp(-2 pi^2 sigma^2/s^2)`` = 0.0027 sigma (Poisson summation); at s = FWHM by
0.15 sigma. In a mesh sigma is that of the curve along one motor, which bounds the wobble for any correlation: the
exponent is ``-2 pi^2 k^T S k`` with S the peak's covariance and k an integer over the step for each axis, and
``k^T S k >= k_i^2 / (S^-1)_ii``."""
SMALLEST_MOVE = 0.05
"""Relative motion of q per rad, or sine between the motions of two axes, below which they count as none."""


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
class Spread:
    """What is expected to differ over the field of view.

    Attributes
    ----------
    tilt_deg : float
        Half width of the tilts, deg.
    strain : float
        Half width of the axial strains.
    """

    tilt_deg: float
    strain: float = 0.0


@dataclass(frozen=True)
class AxisResponse:
    """What one motor of a mesh sees of the instrument and of the sample, in the unit of the motor.

    Attributes
    ----------
    mesh_sigma : float
        rms width of a perfect crystal's peak along this motor in the whole mesh (the other motors summed over).
    curve_sigma : float
        rms width of its curve along this motor with the others at the peak; never larger than the one above.
    spread : float
        Half width over which the sample's tilts and strains spread the peaks along this motor.
    units : str
        Unit of the motor.
    """

    mesh_sigma: float
    curve_sigma: float
    spread: float
    units: str = "deg"


def axis_response(
    resolution: Resolution, jacobian: ArrayLike, names: Sequence[str], spread: Spread, energy_kev: float | None = None
) -> list[AxisResponse]:
    """Return how a mesh of motors sees a perfect crystal and a spread of tilts and strains.

    Parameters
    ----------
    resolution : Resolution
        Resolution function at the setting.
    jacobian : array_like, shape (3, k)
        d(q_rock, q_roll, q_par) / d(motor), rad per rad, one column per motor; k from 1 to 3.
    names : sequence of str, length k
        Logical names.
    spread : Spread
        Of the sample. Tilts and strains are taken to go together in the worst way.
    energy_kev : float, optional
        Needed for the motor ``energy``, whose column is per relative change.

    Raises
    ------
    ParameterError
        When a motor does not move the diffraction vector here, or two motors move it the same way.
    PhysicsError
        When the resolution function has no volume.
    """
    columns = np.asarray(jacobian, dtype=float).reshape(3, len(names))
    lengths = np.linalg.norm(columns, axis=0)
    for name, length in zip(names, lengths, strict=True):
        if length < SMALLEST_MOVE:
            raise ParameterError(
                f"axis {name!r} does not move the diffraction vector at this setting; scan another axis"
            )
    if np.linalg.svd(columns / lengths, compute_uv=False)[-1] < SMALLEST_MOVE:
        raise ParameterError(f"axes {' and '.join(names)} move the diffraction vector the same way at this setting")
    mesh = resolution.motor_sigma_rad(columns)
    meets = -resolution.peak_rad(columns, np.eye(3)).T
    moved = np.linalg.norm(meets[:, :2], axis=1) * math.radians(spread.tilt_deg) + np.abs(meets[:, 2]) * spread.strain
    responses = []
    for index, name in enumerate(names):
        per_rad, units = math.degrees(1.0), "deg"
        if name == "energy":
            if energy_kev is None:
                raise PhysicsError("energy: the energy is needed to say how wide a peak is in keV")
            per_rad, units = energy_kev, "keV"
        responses.append(
            AxisResponse(
                mesh_sigma=float(mesh[index]) * per_rad,
                curve_sigma=float(resolution.motor_sigma_rad(columns[:, [index]])[0]) * per_rad,
                spread=float(moved[index]) * per_rad,
                units=units,
            )
        )
    return responses


def apparent_q(resolution: Resolution, jacobian: ArrayLike) -> NDArray[np.float64]:
    """Return what a mesh of motors takes a displacement of the lattice for.

    The peak of a crystal at q stands at m; ``-J m`` is the displacement that is read off it. A mesh of three
    independent motors gives q back; with fewer, what they cannot meet leaks into what they can.

    Parameters
    ----------
    resolution : Resolution
        Resolution function at the setting.
    jacobian : array_like, shape (3, k)
        d(q_rock, q_roll, q_par) / d(motor), one column per motor; k from 1 to 3.

    Returns
    -------
    ndarray, shape (3, 3)
        Column j: apparent (q_rock, q_roll, q_par) of a crystal displaced by a unit of component j.
    """
    columns = np.asarray(jacobian, dtype=float)
    return -columns @ resolution.peak_rad(columns, np.eye(3)).T


def coupling(resolution: Resolution, jacobian: ArrayLike) -> dict[str, float]:
    """Return what a scan of tilts at fixed 2theta and energy takes from strain.

    Parameters
    ----------
    resolution : Resolution
        Resolution function at the setting.
    jacobian : array_like, shape (3, k)
        Columns of the tilt motors.

    Returns
    -------
    dict
        ``tilt_rad_per_strain``: rock tilt, in rad that the crystal seems turned about +y, per unit of axial strain
        (positive strain: larger d spacing, ``q_par = -strain``).
    """
    return {"tilt_rad_per_strain": -float(apparent_q(resolution, jacobian)[0, 2])}


def contrast(resolution: Resolution, jacobian: ArrayLike) -> dict[str, float | str]:
    """Return what a one-dimensional scan of 2theta or energy would call strain, and why it is none.

    The peak's position along one such axis follows strain and rock tilt together; only a mesh with the rock tells them
    apart.

    Parameters
    ----------
    resolution : Resolution
        Resolution function at the setting.
    jacobian : array_like, shape (3, k)
        Columns of the scanned motors.

    Returns
    -------
    dict
        ``label``, always "relative contrast"; ``strain_slope``, what comes out per unit of strain, and
        ``strain_per_rad_tilt``, what comes out per rad that the crystal is turned about +y, where the position of the
        peak is turned into a strain as if nothing else moved it: by ``-D2theta / (2 tan theta)``, ``Dccmth cot ccmth``
        or ``-DE/E``.
    """
    apparent = apparent_q(resolution, jacobian)
    return {
        "label": "relative contrast",
        "strain_slope": float(apparent[2, 2]),
        "strain_per_rad_tilt": -float(apparent[2, 0]),
    }


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
    response: AxisResponse | None,
    reason: str = "",
) -> tuple[ScanAxis, list[str]]:
    """Return the positions of one axis, and what is to be said about them.

    Parameters
    ----------
    name : str
        Logical name of the axis.
    center : float
        Middle of the window, in the unit of the axis.
    width, step : float or None
        Full width and step; None: from ``response``.
    num : int or None
        Number of points, instead of a step.
    response : AxisResponse or None
        What the motor sees of the instrument and the sample; None where it cannot be known.
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
    needed = None if response is None else 2.0 * (response.spread + WINDOW_SIGMAS * response.mesh_sigma)
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
        step = _three_digits_down(STEP_PER_FWHM * FWHM_PER_SIGMA * response.curve_sigma)
        num = max(2, math.ceil(full / step - 1e-6) + 1)
    axis = ScanAxis(name, round(center - step * (num - 1) / 2.0, 6), step, num)
    if response is not None and needed is not None:
        span, unit = step * (num - 1), response.units
        if span < needed * (1.0 - 1e-6):
            sigma, spread = response.mesh_sigma, response.spread
            remarks.append(
                f"{name}: the window of +/-{span / 2:.4g} {unit} is narrower than the sample's spread "
                f"+/- {WINDOW_SIGMAS:g} sigma of the instrument (+/-{needed / 2:.4g} {unit}); measured centres will "
                f"follow true ones with slope {centroid_slope(span / 2, sigma):.3f} in its middle and "
                f"{centroid_slope(span / 2, sigma, spread):.3f} at the edge of the spread (+/-{spread:.4g} {unit})"
            )
        fwhm = FWHM_PER_SIGMA * response.curve_sigma
        if step > fwhm * (1.0 + 1e-6):
            remarks.append(
                f"{name}: the step of {step:.4g} {unit} is larger than the instrument's FWHM of {fwhm:.4g} {unit}; "
                "centres between two points are not resolved"
            )
    return axis, remarks


def view_response(view: View, names: Sequence[str], spread: Spread) -> list[AxisResponse]:
    """Return what the motors of a mesh see at a setting of the microscope.

    Parameters
    ----------
    view : View
        The microscope at that setting.
    names : sequence of str
        Logical names of the motors that are scanned, one to three.
    spread : Spread
        Of the sample.

    Raises
    ------
    PhysicsError
        When an axis does not move the diffraction vector, or the microscope resolves nothing there.
    ParameterError
        As `axis_response`.
    """
    if view.resolution is None:
        raise PhysicsError("no objective is in the beam, so there is no resolution function")
    return axis_response(view.resolution, view.jacobian(names), names, spread, view.energy_kev)
