"""Compound refractive lens: N identical bi-parabolic lenslets as a thick lens.

Simons, Ahl, Poulsen, Detlefs 2017, J. Synchrotron Rad. 24, 392, with the exact angle of the cell
[T/2, thin lens, T/2]: ``cos phi = 1 - T/(2f)``, ``f = R / (2 delta)``, ``a = f sin phi``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dfxrm_control.crystal import wavelength_angstrom
from dfxrm_control.errors import PhysicsError
from dfxrm_control.optics._materials import attenuation_per_m, refractive_decrement
from dfxrm_control.optics._objective import Acceptance, Axis, Objective, RayMatrix

__all__ = ["CompoundRefractiveLens"]

_FWHM = math.sqrt(8.0 * math.log(2.0))


@dataclass(frozen=True)
class CompoundRefractiveLens(Objective):
    """A compound refractive lens.

    Attributes
    ----------
    lenslets : int
        N.
    radius_mm : float
        R, radius of curvature at the apex of each of the two parabolas of a lenslet, mm.
    pitch_mm : float
        T, distance between the centres of neighbouring lenslets, mm.
    material : str
        Chemical formula.
    web_mm : float
        Material left between the two apices, mm.
    density_g_cm3 : float, optional
        Default: the database's.
    delta : float, optional
        Refractive decrement in place of the database's. It is taken at ``delta_energy_kev`` and scaled with ``1/E^2``,
        which holds far above the absorption edges; without that energy it is used unscaled.
    delta_energy_kev : float, optional
        Energy at which ``delta`` was given, keV.
    attenuation_per_m : float, optional
        Attenuation coefficient in place of the database's, 1/m, used at every energy.
    aberration_um : float
        FWHM blur by aberrations, on the sample, um.

    Raises
    ------
    PhysicsError
        For sizes that are not positive.
    """

    lenslets: int
    radius_mm: float
    pitch_mm: float
    material: str = "Be"
    web_mm: float = 0.03
    density_g_cm3: float | None = None
    delta: float | None = None
    delta_energy_kev: float | None = None
    attenuation_per_m: float | None = None
    aberration_um: float = 0.0

    def __post_init__(self) -> None:
        if self.lenslets < 1 or self.radius_mm <= 0.0 or self.pitch_mm <= 0.0:
            raise PhysicsError(
                f"CRL: {self.lenslets} lenslets of radius {self.radius_mm:g} mm at a pitch of {self.pitch_mm:g} mm "
                "were asked; each must be positive"
            )

    def refractive_decrement(self, energy_kev: float) -> float:
        """Return delta at an energy in keV."""
        if self.delta is None:
            return refractive_decrement(self.material, energy_kev, self.density_g_cm3)
        if self.delta_energy_kev is None:
            return self.delta
        return self.delta * (self.delta_energy_kev / energy_kev) ** 2

    def attenuation_per_mm(self, energy_kev: float) -> float:
        """Return the attenuation coefficient mu at an energy in keV, 1/mm."""
        if self.attenuation_per_m is not None:
            return self.attenuation_per_m * 1e-3
        return attenuation_per_m(self.material, energy_kev, self.density_g_cm3) * 1e-3

    @property
    def length_mm(self) -> float:
        """N T, entrance plane to exit plane, mm."""
        return self.lenslets * self.pitch_mm

    @property
    def half_aperture_mm(self) -> float:
        """Physical half aperture ``Y = sqrt(R T)``: where neighbouring parabolas meet, mm."""
        return math.sqrt(self.radius_mm * self.pitch_mm)

    def lenslet_focal_length_mm(self, energy_kev: float) -> float:
        """Return ``f = R / (2 delta)`` of one lenslet, mm."""
        return self.radius_mm / (2.0 * self.refractive_decrement(energy_kev))

    def cell_angle_rad(self, energy_kev: float) -> float:
        """Return phi, the phase a ray's oscillation about the axis gains per lenslet, rad.

        Raises
        ------
        PhysicsError
            When the lenslets are so strong that no ray stays in the lens.
        """
        f = self.lenslet_focal_length_mm(energy_kev)
        if not self.pitch_mm < 4.0 * f:
            raise PhysicsError(
                f"CRL: a lenslet of focal length {f:.3g} mm is too strong for a pitch of {self.pitch_mm:g} mm"
            )
        return math.acos(1.0 - self.pitch_mm / (2.0 * f))

    def _a_mm(self, energy_kev: float) -> float:
        return self.lenslet_focal_length_mm(energy_kev) * math.sin(self.cell_angle_rad(energy_kev))

    def ray_matrix(self, energy_kev: float, axis: Axis = "v") -> RayMatrix:
        """Return (A, B, C, D) of N cells: ``[[cos N phi, a sin N phi], [-sin N phi / a, cos N phi]]``, mm, rad."""
        angle, a = self.lenslets * self.cell_angle_rad(energy_kev), self._a_mm(energy_kev)
        return math.cos(angle), a * math.sin(angle), -math.sin(angle) / a, math.cos(angle)

    def extent_mm(self, energy_kev: float, axis: Axis = "v") -> tuple[float, float]:
        """Return entrance and exit plane, half a pitch outside the outer lenslets, relative to the centre, mm."""
        return -0.5 * self.length_mm, 0.5 * self.length_mm

    def _height_sums(self, energy_kev: float, d1_mm: float) -> tuple[float, float, float]:
        """Sum p^2, p b and b^2 over the lenslets: the height of a ray at lenslet n is ``p_n y0 + b_n alpha``.

        p_n = cos(k phi) / cos(phi/2), s_n = 2 f sin(phi/2) sin(k phi) with k = n - 1/2, and b_n = d1 p_n + s_n; the
        sums over n of products of sines and cosines at equal steps are elementary.
        """
        n, phi = self.lenslets, self.cell_angle_rad(energy_kev)
        f = self.lenslet_focal_length_mm(energy_kev)
        p_scale, s_scale = 1.0 / math.cos(phi / 2.0), 2.0 * f * math.sin(phi / 2.0)
        swing = math.sin(2.0 * n * phi) / (4.0 * math.sin(phi))
        pp = p_scale**2 * (n / 2.0 + swing)
        ss = s_scale**2 * (n / 2.0 - swing)
        ps = p_scale * s_scale * math.sin(n * phi) ** 2 / (2.0 * math.sin(phi))
        return pp, d1_mm * pp + ps, d1_mm**2 * pp + 2.0 * d1_mm * ps + ss

    def acceptance(self, energy_kev: float, d1_mm: float, axis: Axis = "v") -> Acceptance:
        """Return the Gaussian pupil that absorption makes of the lens.

        A ray is attenuated by ``exp(-mu/R sum_n y_n^2)`` with ``y_n = p_n y0 + b_n alpha``: a quadratic form in the
        height y0 and the angle alpha that a ray has at the sample. On the axis ``sigma_a = sqrt(R / (2 mu sum
        b_n^2))``; the middle of the accepted angles is ``-y0 sum(p b) / sum(b^2)``; the integral over angles falls with
        the rms height ``sqrt(R / (2 mu (sum p^2 - sum(p b)^2 / sum(b^2))))``.

        The physical aperture is several sigma wide and is left out here.

        Parameters
        ----------
        energy_kev : float
            Energy, keV.
        d1_mm : float
            Sample to entrance plane, mm.
        axis : {"v", "h"}
            Without effect: the lens is round.
        """
        scale = self.radius_mm / (2.0 * self.attenuation_per_mm(energy_kev))
        pp, pb, bb = self._height_sums(energy_kev, d1_mm)
        rms = math.sqrt(scale / bb)
        residual = pp - pb**2 / bb
        # one lenslet has no vignetting: the residual is then zero up to rounding
        field = math.sqrt(scale / residual) if residual > 1e-12 * pp else math.inf
        return Acceptance(rms, _FWHM * rms, -pb / bb, field)

    def diffraction_um(self, energy_kev: float, d1_mm: float, axis: Axis = "v") -> float:
        """Return the FWHM of the point spread of a Gaussian pupil, ``2.3548 lambda / (4 pi sigma_a)``, um (derived)."""
        rms = self.acceptance(energy_kev, d1_mm, axis).rms_rad
        return _FWHM * wavelength_angstrom(energy_kev) * 1e-4 / (4.0 * math.pi * rms)

    def axial_transmission(self, energy_kev: float) -> float:
        """Return the transmission of the webs, ``exp(-mu N t_web)``."""
        return math.exp(-self.attenuation_per_mm(energy_kev) * self.lenslets * self.web_mm)

    def transmission(self, energy_kev: float, d1_mm: float) -> float:
        """Return the transmission averaged over the round physical aperture, seen from a point on the axis.

        ``T_web (2 s^2 / h^2) (1 - exp(-h^2 / (2 s^2)))`` with ``h = Y / d1`` and s the rms acceptance.
        """
        ratio = 0.5 * (self.half_aperture_mm / d1_mm / self.acceptance(energy_kev, d1_mm).rms_rad) ** 2
        return self.axial_transmission(energy_kev) * -math.expm1(-ratio) / ratio

    def alignment_efficiency(self, energy_kev: float, pitch_error_rad: float, yaw_error_rad: float) -> float:
        """Return the factor by which the extra material costs intensity when the lens is tilted about its centre.

        A straight ray meets lenslet n at the height ``tilt (n - (N+1)/2) T``, hence
        ``exp(-mu/R tilt^2 T^2 N (N^2 - 1) / 12)`` (derived; refraction inside the lens is left out).
        """
        n = self.lenslets
        spread = self.pitch_mm**2 * n * (n * n - 1) / 12.0
        tilt2 = pitch_error_rad**2 + yaw_error_rad**2
        return math.exp(-self.attenuation_per_mm(energy_kev) / self.radius_mm * tilt2 * spread)
