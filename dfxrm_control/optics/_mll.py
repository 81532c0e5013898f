"""Two crossed multilayer Laue lenses, as thin lenses that obey the zone law.

``x_n^2 = n lambda f``, hence ``f = 2 x_max dr_N / lambda``, ``NA = lambda / (2 dr_N)`` and f proportional to the energy
(textbook zone-plate law, e.g. Attwood, Soft X-rays and Extreme Ultraviolet Radiation, ch. 9).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dfxrm_control.crystal import wavelength_angstrom
from dfxrm_control.errors import PhysicsError
from dfxrm_control.optics._objective import Acceptance, Axis, Objective, RayMatrix

__all__ = ["MultilayerLaueLens"]

# half the FWHM of sinc^2(x), over pi: the point spread of a slit pupil is 0.8859 lambda / (2 NA) wide
_SLIT_FWHM = 0.885893


@dataclass(frozen=True)
class MultilayerLaueLens(Objective):
    """Two crossed multilayer Laue lenses, one focusing across (h), one in the scattering plane (v).

    The lens with the shorter focal length stands nearer to the sample; with equal ones it is the v lens. Each focuses
    one axis only, so that the magnifications differ unless the focal lengths make up for the distance between the
    lenses.

    Attributes
    ----------
    focal_length_h_mm, focal_length_v_mm : float
        Focal lengths at the design energy, mm.
    design_energy_kev : float
        Energy, keV.
    outermost_zone_nm : float
        dr_N, width of the thinnest zone, nm.
    aperture_h_um, aperture_v_um : float
        Width of the deposited zones, um. Zones beyond ``x_max = f lambda / (2 dr_N)`` either side do not exist.
    efficiency_h, efficiency_v : float
        Diffraction efficiency of each lens at its design tilt.
    tilt_acceptance_rad : float
        Rms tilt error: the efficiency is down to ``exp(-1/2)`` there.
    separation_mm : float
        Distance between the two lenses, mm; the centre of the objective is half way.
    aberration_um : float
        FWHM blur by aberrations, on the sample, um.

    Raises
    ------
    PhysicsError
        For sizes or efficiencies that cannot be.
    """

    focal_length_h_mm: float
    focal_length_v_mm: float
    design_energy_kev: float
    outermost_zone_nm: float
    aperture_h_um: float
    aperture_v_um: float
    efficiency_h: float
    efficiency_v: float
    tilt_acceptance_rad: float = 2e-3
    separation_mm: float = 0.0
    aberration_um: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "focal_length_h_mm",
            "focal_length_v_mm",
            "design_energy_kev",
            "outermost_zone_nm",
            "aperture_h_um",
            "aperture_v_um",
            "tilt_acceptance_rad",
        ):
            if not getattr(self, name) > 0.0:
                raise PhysicsError(f"MLL: {name} is {getattr(self, name):g}; it must be above zero")
        for name in ("efficiency_h", "efficiency_v"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise PhysicsError(f"MLL: {name} is {getattr(self, name):g}; it lies above 0 and at most at 1")
        if self.separation_mm < 0.0:
            raise PhysicsError(f"MLL: separation_mm is {self.separation_mm:g}; it is zero or more")

    def _design_focal_mm(self, axis: Axis) -> float:
        return self.focal_length_h_mm if axis == "h" else self.focal_length_v_mm

    def _offset_mm(self, axis: Axis) -> float:
        v_first = self.focal_length_v_mm <= self.focal_length_h_mm
        upstream = v_first if axis == "v" else not v_first
        return (-0.5 if upstream else 0.5) * self.separation_mm

    def numerical_aperture(self, energy_kev: float) -> float:
        """Return ``NA = lambda / (2 dr_N)``, the sine of the largest angle at which zones deflect."""
        return wavelength_angstrom(energy_kev) * 0.1 / (2.0 * self.outermost_zone_nm)

    def half_aperture_mm(self, axis: Axis = "v") -> float:
        """Return half the width that deflects to the focus, mm: the deposit, but no more than ``x_max`` either side."""
        x_max = self._design_focal_mm(axis) * self.numerical_aperture(self.design_energy_kev)
        aperture_um = self.aperture_h_um if axis == "h" else self.aperture_v_um
        return min(0.5e-3 * aperture_um, x_max)

    def ray_matrix(self, energy_kev: float, axis: Axis = "v") -> RayMatrix:
        """Return (A, B, C, D) of the thin lens of one axis: ``f = f_design E / E_design``, mm and rad."""
        f = self._design_focal_mm(axis) * energy_kev / self.design_energy_kev
        return 1.0, 0.0, -1.0 / f, 1.0

    def extent_mm(self, energy_kev: float, axis: Axis = "v") -> tuple[float, float]:
        """Return the plane of the lens of one axis, twice, relative to the centre of the objective, mm."""
        return self._offset_mm(axis), self._offset_mm(axis)

    def acceptance(self, energy_kev: float, d1_mm: float, axis: Axis = "v") -> Acceptance:
        """Return the hard-edged pupil: half width ``x / d1``, rms ``x / (d1 sqrt 3)``, chief ray through its middle.

        Parameters
        ----------
        energy_kev : float
            Without effect at given distance: the zones stay where they are.
        d1_mm : float
            Sample to the lens of this axis, mm.
        axis : {"v", "h"}
            Transverse axis.
        """
        half = self.half_aperture_mm(axis) / d1_mm
        return Acceptance(half / math.sqrt(3.0), 2.0 * half, -1.0 / d1_mm, math.inf)

    def diffraction_um(self, energy_kev: float, d1_mm: float, axis: Axis = "v") -> float:
        """Return the FWHM of the point spread of a slit, ``0.886 lambda d1 / (2 x)``, um."""
        width = self.acceptance(energy_kev, d1_mm, axis).fwhm_rad
        return _SLIT_FWHM * wavelength_angstrom(energy_kev) * 1e-4 / width

    def axial_transmission(self, energy_kev: float) -> float:
        """Return the product of the two diffraction efficiencies."""
        return self.efficiency_h * self.efficiency_v

    def transmission(self, energy_kev: float, d1_mm: float) -> float:
        """Return the product of the two diffraction efficiencies: the same over the whole aperture."""
        return self.efficiency_h * self.efficiency_v

    def alignment_efficiency(self, energy_kev: float, pitch_error_rad: float, yaw_error_rad: float) -> float:
        """Return the factor by which a tilt off the design angle lowers the two efficiencies.

        The v lens feels the pitch and the h lens the yaw, each as ``exp(-tilt^2 / (2 tilt_acceptance^2))``: zones are
        set to the Bragg condition at the design tilt, and a Gaussian stands for their rocking curve (model).
        """
        return math.exp(-0.5 * (pitch_error_rad**2 + yaw_error_rad**2) / self.tilt_acceptance_rad**2)
