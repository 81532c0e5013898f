"""Bragg's law, and strain from where a peak is found."""

from __future__ import annotations

import math
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.errors import PhysicsError

__all__ = [
    "HC_KEV_ANGSTROM",
    "bragg_angle_deg",
    "energy_kev",
    "strain_from_ccmth",
    "strain_from_energy",
    "strain_from_two_theta",
    "strain_from_two_theta_and_ccmth",
    "two_theta_deg",
    "wavelength_angstrom",
]

HC_KEV_ANGSTROM = 12.398419843
"""Planck's constant times the speed of light, keV angstrom (CODATA 2018)."""


def wavelength_angstrom(energy_kev: float) -> float:
    """Return the wavelength in angstrom of an energy in keV.

    Raises
    ------
    PhysicsError
        For an energy that is not positive.
    """
    if not energy_kev > 0.0:
        raise PhysicsError(f"energy: {energy_kev:g} keV was asked; it must be above zero")
    return HC_KEV_ANGSTROM / energy_kev


def bragg_angle_deg(d_angstrom: float, energy_kev: float) -> float:
    """Return the Bragg angle theta in deg: ``lambda = 2 d sin(theta)``.

    Parameters
    ----------
    d_angstrom : float
        Spacing of the lattice planes, angstrom.
    energy_kev : float
        Energy, keV.

    Raises
    ------
    PhysicsError
        When the wavelength is above 2 d: such planes do not reflect.
    """
    wavelength = wavelength_angstrom(energy_kev)
    if not (d_angstrom > 0.0 and wavelength <= 2.0 * d_angstrom):
        raise PhysicsError(
            f"Bragg angle: planes {d_angstrom:g} angstrom apart do not reflect {energy_kev:g} keV "
            f"({wavelength:.4f} angstrom); the wavelength must be at most twice the spacing"
        )
    return math.degrees(math.asin(wavelength / (2.0 * d_angstrom)))


def two_theta_deg(d_angstrom: float, energy_kev: float) -> float:
    """Return the scattering angle 2theta in deg; see `bragg_angle_deg`."""
    return 2.0 * bragg_angle_deg(d_angstrom, energy_kev)


def energy_kev(bragg_deg: float, d_angstrom: float) -> float:
    """Return the energy in keV that planes reflect at a Bragg angle: what a monochromator lets through.

    Parameters
    ----------
    bragg_deg : float
        Bragg angle, deg, above 0 and at most 90 (ccmth for a channel-cut).
    d_angstrom : float
        Spacing of the monochromator's planes, angstrom.

    Raises
    ------
    PhysicsError
        For an angle outside that range.
    """
    if not 0.0 < bragg_deg <= 90.0:
        raise PhysicsError(f"Bragg angle: {bragg_deg:g} deg was asked; it lies above 0 and at most at 90 deg")
    return HC_KEV_ANGSTROM / (2.0 * d_angstrom * math.sin(math.radians(bragg_deg)))


@overload
def strain_from_two_theta(delta_two_theta_deg: float, two_theta0_deg: float) -> float: ...
@overload
def strain_from_two_theta(delta_two_theta_deg: NDArray, two_theta0_deg: float) -> NDArray[np.float64]: ...
def strain_from_two_theta(delta_two_theta_deg: ArrayLike, two_theta0_deg: float) -> float | NDArray[np.float64]:
    """Return the strain along Q from the shift of the scattering angle at fixed energy.

    Exact: ``sin(theta0) / sin(theta) - 1``; to first order ``-D2theta / (2 tan(theta0))``, which is darfix's
    ``strain_obpitch_scan``.

    Parameters
    ----------
    delta_two_theta_deg : array_like
        Measured minus reference 2theta, deg.
    two_theta0_deg : float
        Reference 2theta of the unstrained lattice, deg.

    Returns
    -------
    float or ndarray
        Relative change of the lattice spacing, of the shape of ``delta_two_theta_deg``.
    """
    return strain_from_two_theta_and_ccmth(delta_two_theta_deg, two_theta0_deg, 0.0, 90.0)


@overload
def strain_from_ccmth(delta_ccmth_deg: float, ccmth0_deg: float) -> float: ...
@overload
def strain_from_ccmth(delta_ccmth_deg: NDArray, ccmth0_deg: float) -> NDArray[np.float64]: ...
def strain_from_ccmth(delta_ccmth_deg: ArrayLike, ccmth0_deg: float) -> float | NDArray[np.float64]:
    """Return the strain along Q from the shift of the monochromator angle at fixed 2theta.

    Exact: ``sin(ccmth) / sin(ccmth0) - 1``; to first order ``Dccmth / tan(ccmth0)``, which is darfix's
    ``strain_ccmth_scan``.

    Parameters
    ----------
    delta_ccmth_deg : array_like
        Measured minus reference monochromator angle, deg.
    ccmth0_deg : float
        Reference angle, deg.
    """
    return strain_from_two_theta_and_ccmth(0.0, 90.0, delta_ccmth_deg, ccmth0_deg)


@overload
def strain_from_energy(energy_kev: float, energy0_kev: float) -> float: ...
@overload
def strain_from_energy(energy_kev: NDArray, energy0_kev: float) -> NDArray[np.float64]: ...
def strain_from_energy(energy_kev: ArrayLike, energy0_kev: float) -> float | NDArray[np.float64]:
    """Return the strain along Q from the energy at which the peak is found at fixed 2theta: ``E0 / E - 1``."""
    strain = energy0_kev / np.asarray(energy_kev, dtype=float) - 1.0
    return float(strain) if strain.ndim == 0 else strain


def strain_from_two_theta_and_ccmth(
    delta_two_theta_deg: ArrayLike, two_theta0_deg: float, delta_ccmth_deg: ArrayLike, ccmth0_deg: float
) -> float | NDArray[np.float64]:
    """Return the strain along Q when scattering angle and monochromator both moved.

    Exact form of ``cot(ccmth) Dccmth - cot(theta) Dtheta``: d is proportional to wavelength over sin(theta), and the
    wavelength to sin(ccmth).

    Parameters
    ----------
    delta_two_theta_deg, delta_ccmth_deg : array_like
        Measured minus reference angles, deg, broadcast together.
    two_theta0_deg, ccmth0_deg : float
        Reference angles, deg.

    Raises
    ------
    PhysicsError
        For a reference angle at which nothing diffracts.
    """
    if not (0.0 < two_theta0_deg < 180.0 and 0.0 < ccmth0_deg <= 90.0):
        raise PhysicsError(
            f"strain: reference angles 2theta {two_theta0_deg:g} deg and ccmth {ccmth0_deg:g} deg were given; they lie "
            "between 0 and 180 deg and between 0 and 90 deg"
        )
    half = np.radians(np.asarray(delta_two_theta_deg, dtype=float)) / 2.0
    mono = np.radians(np.asarray(delta_ccmth_deg, dtype=float))
    theta0, ccmth0 = math.radians(two_theta0_deg / 2.0), math.radians(ccmth0_deg)
    ratio = np.sin(ccmth0 + mono) / math.sin(ccmth0) * math.sin(theta0) / np.sin(theta0 + half)
    strain = np.asarray(ratio - 1.0)
    return float(strain) if strain.ndim == 0 else strain
