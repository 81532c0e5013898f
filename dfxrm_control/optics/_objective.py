"""What every objective can say about itself, derived from its ray matrices and its pupil.

An objective is, per transverse axis, a ray matrix ``[[A, B], [C, D]]`` from its entrance plane to its exit plane and a
pupil: how the transmitted intensity falls with the angle of a ray and with the height of the point it leaves. All
distances, magnifications, blurs and vignetting follow from these two.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from dfxrm_control.crystal import wavelength_angstrom
from dfxrm_control.errors import PhysicsError

__all__ = ["Acceptance", "Axis", "Blur", "Image", "Objective", "Planes"]

Axis = Literal["h", "v"]
"""``v``: in the scattering plane, up; ``h``: across it."""

RayMatrix = tuple[float, float, float, float]


@dataclass(frozen=True)
class Planes:
    """Where sample and detector stand for a sharp image, for one transverse axis.

    Attributes
    ----------
    d1_mm : float
        Sample to the entrance plane of the lens.
    d2_mm : float
        Exit plane of the lens to the detector.
    centre_mm : float
        Sample to the centre of the objective: what an objective's translation is set to.
    total_mm : float
        Sample to detector.
    magnification : float
        Of the thick lens between these planes, positive; the image is inverted.
    """

    d1_mm: float
    d2_mm: float
    centre_mm: float
    total_mm: float
    magnification: float


@dataclass(frozen=True)
class Image:
    """The image of the sample at given distances, sharp or not, for one transverse axis.

    Attributes
    ----------
    d1_mm, d2_mm : float
        Sample to entrance plane, exit plane to detector.
    magnification : float
        Of the chief ray, the ray through the middle of the pupil: how far apart on the detector the blurred images of
        two points lie, over their distance. In focus it is the thick-lens magnification. Positive; the image is
        inverted.
    in_focus_magnification : float
        Thick-lens magnification if the sample were moved to the plane that is sharp on this detector.
    defocus_mm : float
        Distance of the sample from that plane, positive when the sample is too far from the lens.
    image_error_mm : float
        Distance of the detector beyond the plane where this sample is sharp.
    """

    d1_mm: float
    d2_mm: float
    magnification: float
    in_focus_magnification: float
    defocus_mm: float
    image_error_mm: float


@dataclass(frozen=True)
class Acceptance:
    """The pupil of an objective as seen from the sample, for one transverse axis.

    Attributes
    ----------
    rms_rad : float
        Rms angle accepted from a point on the axis.
    fwhm_rad : float
        Full width of that acceptance: FWHM of a Gaussian pupil, full opening of a hard one.
    chief_ray_rad_per_mm : float
        Middle of the accepted angles per height of the point above the axis; negative: towards the axis.
    field_rms_mm : float
        Rms height at which intensity falls by vignetting, from the integral over all angles; inf where there is none.
    """

    rms_rad: float
    fwhm_rad: float
    chief_ray_rad_per_mm: float
    field_rms_mm: float


@dataclass(frozen=True)
class Blur:
    """Effective resolution on the sample for one transverse axis: a quadrature of stated terms, each a FWHM in um.

    Attributes
    ----------
    diffraction_um : float
        Point spread of the pupil.
    sampling_um : float
        One detector pixel, as the Gaussian of equal variance.
    defocus_um : float
        Angular acceptance times the distance from focus.
    aberration_um : float
        Configured blur of the lens itself.
    """

    diffraction_um: float
    sampling_um: float
    defocus_um: float
    aberration_um: float

    @property
    def total_um(self) -> float:
        """Root of the sum of the squares."""
        return math.hypot(self.diffraction_um, self.sampling_um, self.defocus_um, self.aberration_um)

    @property
    def optical_um(self) -> float:
        """The same without the sampling: the blur of the image that falls on the detector."""
        return math.hypot(self.diffraction_um, self.defocus_um, self.aberration_um)


class Objective(ABC):
    """An objective lens between sample and detector."""

    aberration_um: float

    @abstractmethod
    def ray_matrix(self, energy_kev: float, axis: Axis = "v") -> RayMatrix:
        """Return (A, B, C, D) from the entrance plane to the exit plane, in mm and rad."""

    @abstractmethod
    def extent_mm(self, energy_kev: float, axis: Axis = "v") -> tuple[float, float]:
        """Return the entrance and the exit plane relative to the centre of the objective, mm along the beam."""

    @abstractmethod
    def acceptance(self, energy_kev: float, d1_mm: float, axis: Axis = "v") -> Acceptance:
        """Return the pupil as seen from a sample ``d1_mm`` before the entrance plane."""

    @abstractmethod
    def diffraction_um(self, energy_kev: float, d1_mm: float, axis: Axis = "v") -> float:
        """Return the FWHM on the sample of the point spread by diffraction at the pupil, um."""

    @abstractmethod
    def transmission(self, energy_kev: float, d1_mm: float) -> float:
        """Return intensity with the objective over intensity without, from a point on the axis.

        Averaged over the physical aperture: what a lens absorbs towards its edge counts as lost.
        """

    @abstractmethod
    def axial_transmission(self, energy_kev: float) -> float:
        """Return the transmission of the ray along the axis: what is left when the pupil is accounted for elsewhere."""

    @abstractmethod
    def alignment_efficiency(self, energy_kev: float, pitch_error_rad: float, yaw_error_rad: float) -> float:
        """Return the factor, at most 1, by which a tilt of the lens about its centre lowers the intensity."""

    def focal_length_mm(self, energy_kev: float, axis: Axis = "v") -> float:
        """Return the distance from the exit plane at which a parallel beam is focused, ``-A / C``, mm."""
        a, _, c, _ = self._converging(energy_kev, axis)
        return -a / c

    def effective_focal_length_mm(self, energy_kev: float, axis: Axis = "v") -> float:
        """Return ``-1 / C``, mm: a ray of angle alpha crosses the back focal plane at ``alpha f_eff``."""
        return -1.0 / self._converging(energy_kev, axis)[2]

    def _converging(self, energy_kev: float, axis: Axis) -> RayMatrix:
        matrix = self.ray_matrix(energy_kev, axis)
        if not matrix[2] < 0.0:
            raise PhysicsError(
                f"objective: at {energy_kev:g} keV it does not bring a parallel beam to a focus behind it"
            )
        return matrix

    def planes(self, energy_kev: float, magnification: float, axis: Axis = "v") -> Planes:
        """Return the distances that give a sharp image at a magnification.

        ``d1 = -(1/M + D) / C, d2 = -(M + A) / C``: for a CRL, Simons et al. 2017, J. Synchrotron Rad. 24, 392,
        ``d1 = a (1 + M cos N phi) / (M sin N phi), d2 = a (M + cos N phi) / sin N phi``.

        Parameters
        ----------
        energy_kev : float
            Energy, keV.
        magnification : float
            M, positive.
        axis : {"v", "h"}
            Transverse axis.

        Raises
        ------
        PhysicsError
            For a magnification that is not positive, or one that this lens cannot give behind itself.
        """
        if not 0.0 < magnification < math.inf:
            raise PhysicsError(f"magnification: {magnification:g} was asked; it is a positive number")
        a, _, c, d = self._converging(energy_kev, axis)
        d1, d2 = -(1.0 / magnification + d) / c, -(magnification + a) / c
        if d1 < 0.0 or d2 < 0.0:
            raise PhysicsError(
                f"magnification: {magnification:g} was asked; it needs sample or detector inside the lens"
            )
        entrance, exit_ = self.extent_mm(energy_kev, axis)
        return Planes(d1, d2, d1 - entrance, d1 + exit_ - entrance + d2, magnification)

    def magnification(self, energy_kev: float, total_mm: float, axis: Axis = "v") -> float:
        """Return the magnification above 1 at which sample and detector are a given distance apart, in focus.

        The total distance ``L = length - (M + 1/M + A + D) / C`` is quadratic in M; this is the larger root.

        Parameters
        ----------
        energy_kev : float
            Energy, keV.
        total_mm : float
            L, sample to detector along the diffracted beam, mm.
        axis : {"v", "h"}
            Transverse axis.

        Raises
        ------
        PhysicsError
            When the distance is too short for any sharp image; the message says the shortest.
        """
        a, _, c, d = self._converging(energy_kev, axis)
        entrance, exit_ = self.extent_mm(energy_kev, axis)
        length = exit_ - entrance
        total = -c * (total_mm - length) - a - d  # M + 1/M
        if not total >= 2.0:
            shortest = length - (2.0 + a + d) / c
            raise PhysicsError(
                f"total distance: {total_mm:g} mm was asked at {energy_kev:g} keV; a sharp image needs "
                f"{shortest:.1f} mm or more"
            )
        return 0.5 * (total + math.sqrt(total * total - 4.0))

    def focused(self, energy_kev: float, total_mm: float, axis: Axis = "v") -> Planes:
        """Return the sharp planes between sample and detector at a given distance; see `magnification`."""
        return self.planes(energy_kev, self.magnification(energy_kev, total_mm, axis), axis)

    def image(self, energy_kev: float, centre_mm: float, total_mm: float, axis: Axis = "v") -> Image:
        """Return the image at given distances, whether they are conjugate or not.

        With ``K`` the ray matrix from sample to detector, the chief ray of slope ``g`` per height meets the detector at
        ``A_K + B_K g`` per height, and ``B_K / A_K`` is how far the sample is from the plane that is sharp.

        Parameters
        ----------
        energy_kev : float
            Energy, keV.
        centre_mm : float
            Sample to the centre of the objective, mm.
        total_mm : float
            Sample to detector, mm.
        axis : {"v", "h"}
            Transverse axis.

        Raises
        ------
        PhysicsError
            When sample or detector would stand inside the lens, or the detector where a parallel beam is focused.
        """
        entrance, exit_ = self.extent_mm(energy_kev, axis)
        d1, d2 = centre_mm + entrance, total_mm - centre_mm - exit_
        if not (d1 > 0.0 and d2 > 0.0):
            raise PhysicsError(
                f"objective: with its centre at {centre_mm:.3f} mm of {total_mm:.3f} mm it overlaps sample or "
                f"detector; it reaches from {entrance:.2f} to {exit_:.2f} mm about its centre"
            )
        a, b, c, d = self._converging(energy_kev, axis)
        a_k = a + d2 * c
        d_k = c * d1 + d
        b_k = (a * d1 + b) + d2 * d_k
        if not a_k < 0.0:
            raise PhysicsError(
                f"objective: the detector stands {d2:.1f} mm behind it, where no real image can be; "
                f"it must be farther than the focal length of {-a / c:.1f} mm"
            )
        chief = self.acceptance(energy_kev, d1, axis).chief_ray_rad_per_mm
        return Image(
            d1_mm=d1,
            d2_mm=d2,
            magnification=-(a_k + b_k * chief),
            in_focus_magnification=-a_k,
            defocus_mm=b_k / a_k,
            image_error_mm=b_k / d_k if d_k != 0.0 else math.inf,
        )

    def acceptance_rms_rad(self, energy_kev: float, d1_mm: float) -> tuple[float, float]:
        """Return the rms angular acceptance on the axis, (vertical, horizontal), rad; see `acceptance`."""
        v = self.acceptance(energy_kev, d1_mm, "v").rms_rad
        h = self.acceptance(energy_kev, d1_mm, "h").rms_rad
        return v, h

    def depth_of_field_um(self, energy_kev: float, d1_mm: float, axis: Axis = "v") -> float:
        """Return how far from focus, either way, the image stays sharp: ``lambda / width^2``, um.

        The width is the full angular acceptance; the geometric blur, width times distance, is then ``lambda / width``
        (derived estimate).
        """
        width = self.acceptance(energy_kev, d1_mm, axis).fwhm_rad
        return wavelength_angstrom(energy_kev) * 1e-4 / width**2

    def effective_resolution(
        self, energy_kev: float, d1_mm: float, pixel_um: float, defocus_mm: float = 0.0, axis: Axis = "v"
    ) -> Blur:
        """Return the effective resolution on the sample, term by term.

        Parameters
        ----------
        energy_kev : float
            Energy, keV.
        d1_mm : float
            Sample to entrance plane, mm.
        pixel_um : float
            Detector pixel over the magnification, um on the sample.
        defocus_mm : float
            Distance of the sample from focus, mm; the sign does not matter.
        axis : {"v", "h"}
            Transverse axis.
        """
        # a box of width p has the variance p^2/12, as has a Gaussian of FWHM 2.3548 p / sqrt(12)
        box = math.sqrt(8.0 * math.log(2.0) / 12.0)
        rms = self.acceptance(energy_kev, d1_mm, axis).rms_rad
        return Blur(
            diffraction_um=self.diffraction_um(energy_kev, d1_mm, axis),
            sampling_um=box * pixel_um,
            defocus_um=math.sqrt(8.0 * math.log(2.0)) * rms * abs(defocus_mm) * 1e3,
            aberration_um=self.aberration_um,
        )
