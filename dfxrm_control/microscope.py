"""The microscope at one setting: what a camera sees, and how finely, from the positions of all axes.

`Microscope` holds what does not move (the instrument's description); `Microscope.view` turns positions and channels
into a `View`. Everything that needs a magnification, a pixel size or a resolution asks a `View`, so that the twin, the
maps, the default windows of a scan and the record agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.config import CameraConfig, CRLConfig, InstrumentConfig, MLLConfig
from dfxrm_control.crystal import energy_kev, wavelength_angstrom
from dfxrm_control.errors import PhysicsError
from dfxrm_control.geometry import (
    FWHM_PER_SIGMA,
    ArmPositions,
    Resolution,
    arm_positions,
    imaging_basis,
    motor_jacobian,
)
from dfxrm_control.optics import Acceptance, Axis, Blur, CompoundRefractiveLens, Image, MultilayerLaueLens, Objective

__all__ = ["Microscope", "View", "declared_offsets"]

ChannelValue = float | int | str
Vector = NDArray[np.float64]

_DECLARED = ("obx", "oby", "obz", "obpitch", "obyaw", "ffy", "ffz")
"""Axes of objective and far-field camera, whose zeros an alignment finds."""

_IN_PLANE_DEG = 1e-9
"""A lens nearer than this to the x-z plane is moved in it."""


def declared_offsets(channels: Mapping[str, Any]) -> dict[str, float]:
    """Return by how much axes of objective and camera read more than they stand at, mm and deg.

    That is what an alignment declared (channel ``two_theta_zero`` of the arm): where the arm was said to be at an
    angle, objective and camera stood in their ideal places, whatever their axes read.

    Parameters
    ----------
    channels : mapping
        Channels by name; without a declaration all offsets are 0.
    """
    return {axis: float(channels.get(f"two_theta_zero_{axis}", 0.0)) for axis in _DECLARED}


@dataclass(frozen=True)
class View:
    """What one camera sees at one setting.

    The magnifications are those of the thick lens between the sample and the detector as they stand: the chief-ray
    ratio, which in focus is ``M = d2 sin(N phi)/a - cos(N phi)``. They are neither the ratio of the centre distances
    nor darfix's ``-mainx/obx - 1``, which differ from it by about 1.5 %. The sample-detector path is ``L = X / cos
    2theta`` on the arm, so that moving the arm at constant ``X = |mainx|`` changes L and with it magnification and
    focus.

    Attributes
    ----------
    camera : str
        Logical name of the camera.
    energy_kev : float
        From the monochromator's angle and d spacing, or the beam's own energy without a monochromator.
    two_theta_deg, yaw_deg : float
        Direction from the sample to the centre of the objective: angle above the beam in the x-z plane, and towards +y
        out of it. Without a lens in the path, the direction to the camera.
    arm_two_theta_deg : float
        Angle above the beam at which the camera stands.
    objective_name : str or None
        Name of the objective in the path, None without.
    objective : Objective or None
        The lens in the path.
    centre_mm, total_mm : float
        Sample to the centre of the lens (0 without) and to the detector plane, along the diffracted beam.
    image_v, image_h : Image or None
        Image in and out of the scattering plane; None without a lens.
    offset_u_mm, offset_v_mm : float
        Where the image of the rotation centre lies on the detector, from its centre: U to the left as seen by a photon,
        V up.
    pitch_error_rad, yaw_error_rad : float
        Tilt of the lens against its direction from the sample.
    pixel_um : float
        Pixel in the detector plane: sensor pixel over the visible-light objective.
    shape : tuple of int
        (rows, columns) of a frame.
    flip_ud, flip_lr : bool
        Flips of the camera.
    instrument : InstrumentConfig
        The description the view was made from.
    positions : mapping of str to float
        The positions it was made from.
    """

    camera: str
    energy_kev: float
    two_theta_deg: float
    yaw_deg: float
    arm_two_theta_deg: float
    objective_name: str | None
    objective: Objective | None
    centre_mm: float
    total_mm: float
    image_v: Image | None
    image_h: Image | None
    offset_u_mm: float
    offset_v_mm: float
    pitch_error_rad: float
    yaw_error_rad: float
    pixel_um: float
    shape: tuple[int, int]
    flip_ud: bool
    flip_lr: bool
    instrument: InstrumentConfig
    positions: Mapping[str, float]

    @property
    def wavelength_angstrom(self) -> float:
        """Wavelength, angstrom."""
        return wavelength_angstrom(self.energy_kev)

    @property
    def image_sign(self) -> int:
        """-1 with a lens (``U = -M_h u``), 1 without (a shadow is upright)."""
        return 1 if self.objective is None else -1

    @property
    def magnification_v(self) -> float:
        """Magnification in the scattering plane, positive; 1 without a lens."""
        return 1.0 if self.image_v is None else self.image_v.magnification

    @property
    def magnification_h(self) -> float:
        """Magnification across the scattering plane, positive; 1 without a lens."""
        return 1.0 if self.image_h is None else self.image_h.magnification

    @property
    def in_focus_magnification_v(self) -> float:
        """Thick-lens magnification of the plane that is sharp on this detector; 1 without a lens."""
        return 1.0 if self.image_v is None else self.image_v.in_focus_magnification

    @property
    def d1_mm(self) -> float:
        """Sample to the entrance plane of the lens (the v lens of an MLL); without a lens, to the detector."""
        return self.total_mm if self.image_v is None else self.image_v.d1_mm

    @property
    def d2_mm(self) -> float:
        """Exit plane of the lens (of the v lens of an MLL) to the detector; 0 without a lens."""
        return 0.0 if self.image_v is None else self.image_v.d2_mm

    @property
    def defocus_mm(self) -> float:
        """Sample beyond the plane that is sharp on this detector, in the scattering plane, mm; 0 without a lens."""
        return 0.0 if self.image_v is None else self.image_v.defocus_mm

    @property
    def defocus_h_mm(self) -> float:
        """As `defocus_mm` for the focus across the scattering plane."""
        return 0.0 if self.image_h is None else self.image_h.defocus_mm

    @property
    def pixel_y_um(self) -> float:
        """Pixel on the sample across the beam, ``p / M_h``, um."""
        return self.pixel_um / self.magnification_h

    @property
    def pixel_x_um(self) -> float:
        """Pixel on the illuminated layer along the beam, ``p / (M_v sin 2theta)``, um; inf in the direct beam."""
        sine = abs(math.sin(math.radians(self.two_theta_deg)))
        return self.pixel_um / (self.magnification_v * sine) if sine > 0.0 else math.inf

    @property
    def field_of_view_um(self) -> tuple[float, float]:
        """Size on the sample of a frame, along the beam and across, um."""
        return self.shape[0] * self.pixel_x_um, self.shape[1] * self.pixel_y_um

    def acceptance(self, axis: Axis) -> Acceptance:
        """Return the pupil as seen from the sample, for ``v`` or ``h``.

        Raises
        ------
        PhysicsError
            Without a lens in the path.
        """
        lens, image = self._lens(axis)
        return lens.acceptance(self.energy_kev, image.d1_mm, axis)

    def blur(self, axis: Axis) -> Blur:
        """Return the effective resolution on the sample at the present distances, term by term, for ``v`` or ``h``.

        Across the object plane; on the illuminated layer the v terms count ``1 / sin 2theta`` times.

        Raises
        ------
        PhysicsError
            Without a lens in the path.
        """
        lens, image = self._lens(axis)
        pixel = self.pixel_um / image.magnification
        return lens.effective_resolution(self.energy_kev, image.d1_mm, pixel, image.defocus_mm, axis)

    def _lens(self, axis: Axis) -> tuple[Objective, Image]:
        image = self.image_v if axis == "v" else self.image_h
        if self.objective is None or image is None:
            raise PhysicsError(f"camera {self.camera!r}: there is no objective in the path, so it forms no image")
        return self.objective, image

    @property
    def transmission(self) -> float:
        """Intensity with the objective over intensity without, over its physical aperture, its tilt included."""
        if self.objective is None:
            return 1.0
        return self.alignment_efficiency * self.objective.transmission(self.energy_kev, self.d1_mm)

    @property
    def axial_transmission(self) -> float:
        """Transmission along the axis, tilt included: what multiplies `resolution`, whose peak is 1."""
        if self.objective is None:
            return 1.0
        return self.alignment_efficiency * self.objective.axial_transmission(self.energy_kev)

    @property
    def alignment_efficiency(self) -> float:
        """Factor by which the tilt of the lens lowers the intensity; 1 without a lens."""
        if self.objective is None:
            return 1.0
        return self.objective.alignment_efficiency(self.energy_kev, self.pitch_error_rad, self.yaw_error_rad)

    @property
    def in_focus_half_length_um(self) -> float:
        """How far from the middle, along the beam, the inclined layer stays within the depth of field, um.

        The layer z = 0 lies ``x cos 2theta`` out of the object plane. Inf without a lens.
        """
        if self.objective is None:
            return math.inf
        cosine = abs(math.cos(math.radians(self.two_theta_deg)))
        depth = self.objective.depth_of_field_um(self.energy_kev, self.d1_mm, "v")
        return depth / cosine if cosine > 0.0 else math.inf

    @cached_property
    def basis(self) -> Vector:
        """Imaging basis at `two_theta_deg`: rows e_rock, e_roll, e_par in the laboratory, shape (3, 3)."""
        return imaging_basis(self.two_theta_deg)

    @cached_property
    def direction(self) -> Vector:
        """Unit vector from the sample to the objective (to the camera without one), laboratory, shape (3,)."""
        return _direction(self.two_theta_deg, self.yaw_deg)

    @cached_property
    def q0(self) -> Vector:
        """``Q0 = k_obj - k_in``, at the middle of the acceptance, laboratory, 1/angstrom, shape (3,)."""
        return (self.direction - np.array([1.0, 0.0, 0.0])) / self.wavelength_angstrom

    def relative_q(self, g_lab: NDArray) -> Vector:
        """Return ``(G_lab - Q0) / |Q0|`` along e_rock, e_roll, e_par.

        Parameters
        ----------
        g_lab : ndarray, shape (..., 3)
            Diffraction vectors in the laboratory, 1/angstrom without 2 pi.

        Returns
        -------
        ndarray, shape (..., 3)
        """
        length = float(np.linalg.norm(self.q0))
        if length == 0.0:
            raise PhysicsError("two_theta: the objective stands in the direct beam; there is no diffraction vector")
        return (np.asarray(g_lab, dtype=float) - self.q0) @ self.basis.T / length

    @cached_property
    def resolution(self) -> Resolution | None:
        """Resolution with the objective's acceptance at its distance; None without a lens or at 2theta <= 0."""
        if self.objective is None or self.image_v is None or self.image_h is None or not self.two_theta_deg > 0.0:
            return None
        beam = self.instrument.beam
        return Resolution(
            theta_deg=self.two_theta_deg / 2.0,
            zv_rms_rad=beam.divergence_v_rms_rad,
            zh_rms_rad=beam.divergence_h_rms_rad,
            na_v_rms_rad=self.acceptance("v").rms_rad,
            na_h_rms_rad=self.acceptance("h").rms_rad,
            eps_rms=beam.bandwidth_rms,
            zv_cut_rad=beam.divergence_v_cut_rad,
        )

    def jacobian(self, motors: Sequence[str]) -> Vector:
        """Return d(q_rock, q_roll, q_par) / d(motor) at this setting; see `geometry.motor_jacobian`, shape (3, n)."""
        p = self.positions
        return motor_jacobian(
            motors,
            self.two_theta_deg,
            mu=p.get("mu", 0.0),
            omega=p.get("omega", 0.0),
            chi=p.get("chi", 0.0),
            phi=p.get("phi", 0.0),
            mu_sign=self.instrument.mu_sign,
            ccmth_deg=p.get("ccmth"),
        )

    def instrument_sigma(self, motors: Sequence[str]) -> dict[str, float]:
        """Return the rms width of a perfect crystal along each motor of a mesh, in the motor's own unit (deg, or keV).

        One motor alone: the conditional width. Several: each with the others integrated.

        Parameters
        ----------
        motors : sequence of str
            The motors scanned together, one to three; as for `geometry.motor_jacobian`.

        Raises
        ------
        PhysicsError
            Without a resolution (no lens in the path), for a motor that does not move the diffraction vector, or for
            two that move it the same way.
        """
        if self.resolution is None:
            raise PhysicsError(
                f"camera {self.camera!r}: there is no objective in the path at a scattering angle above zero, so "
                "scans have no instrument width"
            )
        sigma = self.resolution.motor_sigma_rad(self.jacobian(motors))
        per_unit = [self.energy_kev if motor == "energy" else math.degrees(1.0) for motor in motors]
        return {motor: float(value) * unit for motor, value, unit in zip(motors, sigma, per_unit, strict=True)}

    def instrument_fwhm(self, motors: Sequence[str]) -> dict[str, float]:
        """Return `instrument_sigma` as full widths at half maximum."""
        return {motor: FWHM_PER_SIGMA * sigma for motor, sigma in self.instrument_sigma(motors).items()}

    def refocused(self, energy_kev: float) -> dict[str, float]:
        """Return where the objective stands, at another energy, as sharply focused as here on the camera as it stands.

        The focal length goes with the energy (as E^2 for a CRL), and the sharp planes with it (`Objective.focused`,
        Simons et al. 2017, J. Synchrotron Rad. 24, 392). The lens moves by their difference along the diffracted beam,
        so that scattering angle, yaw and what an alignment by hand changed stay as they are; the magnification goes as
        that of the sharp image between sample and camera does. The mean of both transverse axes counts.

        Parameters
        ----------
        energy_kev : float
            The other energy, keV.

        Returns
        -------
        dict of str to float
            Positions of obx and obz, and of oby where the diffracted beam leaves the x-z plane, mm.

        Raises
        ------
        PhysicsError
            Without a lens in the path, or when it has no sharp image on the camera at one of the two energies.
        """
        lens, _ = self._lens("v")
        axes: tuple[Axis, ...] = ("v", "h")
        now, then = (
            sum(lens.focused(energy, self.total_mm, axis).centre_mm for axis in axes) / len(axes)
            for energy in (self.energy_kev, energy_kev)
        )
        moves = zip(("obx", "oby", "obz"), (then - now) * self.direction, strict=True)
        return {
            axis: _position(self.positions, axis) + float(move)
            for axis, move in moves
            if axis != "oby" or abs(self.yaw_deg) > _IN_PLANE_DEG
        }

    def record(self) -> dict[str, float | str]:
        """Return the optics of this view as plain numbers for the metadata of a run."""
        entries: dict[str, float | str] = {
            "camera": self.camera,
            "energy_kev": self.energy_kev,
            "two_theta_deg": self.two_theta_deg,
            "yaw_deg": self.yaw_deg,
            "arm_two_theta_deg": self.arm_two_theta_deg,
            "total_mm": self.total_mm,
            "magnification_h": self.magnification_h,
            "magnification_v": self.magnification_v,
            "magnification_model": "none" if self.objective is None else "thick lens, chief ray",
            "objective": self.objective_name or "none",
            "pixel_um": self.pixel_um,
            "pixel_x_um": self.pixel_x_um,
            "pixel_y_um": self.pixel_y_um,
            "defocus_mm": self.defocus_mm,
            "transmission": self.transmission,
        }
        if self.objective is not None:
            entries |= {"d1_mm": self.d1_mm, "d2_mm": self.d2_mm, "objective_centre_mm": self.centre_mm}
            for axis in ("v", "h"):
                entries |= {
                    f"acceptance_{axis}_rms_rad": self.acceptance(axis).rms_rad,
                    f"effective_resolution_{axis}_um": self.blur(axis).total_um,
                }
        # JSON has no infinity: a pixel of the direct beam has no length along it
        return {key: value for key, value in entries.items() if isinstance(value, str) or math.isfinite(value)}


class Microscope:
    """The parts of an instrument, ready to be asked what they show at given positions.

    Parameters
    ----------
    instrument : InstrumentConfig
        Description of beam, monochromator, objectives and cameras.
    """

    def __init__(self, instrument: InstrumentConfig) -> None:
        self.instrument = instrument
        self.objectives: dict[str, Objective] = {
            name: _objective(config, instrument.beam.energy_kev) for name, config in instrument.objectives.items()
        }

    def energy_kev(self, positions: Mapping[str, float], channels: Mapping[str, ChannelValue]) -> float:
        """Return the energy on the sample, keV.

        With the channel ``mono`` in: ``hc / (2 d sin ccmth)`` with the configured d; out, or where there is none: the
        beam's own energy.

        Raises
        ------
        PhysicsError
            When the monochromator is in and its angle is not given or not above zero.
        """
        mono = self.instrument.monochromator
        if mono is None or channels.get("mono", "in") == "out":
            return self.instrument.beam.energy_kev
        return energy_kev(_position(positions, "ccmth"), mono.d_spacing_angstrom)

    def objective_name(self, channels: Mapping[str, ChannelValue]) -> str:
        """Return the name of the mounted objective: the channel ``objective_kind``, or the first configured.

        Raises
        ------
        PhysicsError
            For a name that is not configured.
        """
        name = str(channels.get("objective_kind", next(iter(self.objectives))))
        if name not in self.objectives:
            raise PhysicsError(f"objective {name!r} is not configured; there are {', '.join(self.objectives)}")
        return name

    def arm(self, two_theta_deg: float, horizontal_distance_mm: float, objective: str | None = None) -> ArmPositions:
        """Return objective and camera positions for a scattering angle, with the objective's configured distance.

        Parameters
        ----------
        two_theta_deg : float
            Scattering angle, deg.
        horizontal_distance_mm : float
            X, mm; a negative mainx may be given.
        objective : str, optional
            Name of the objective; default: the first configured.
        """
        name = self.objective_name({} if objective is None else {"objective_kind": objective})
        return arm_positions(two_theta_deg, self.instrument.objectives[name].distance_mm, horizontal_distance_mm)

    def focused_arm(
        self,
        two_theta_deg: float,
        horizontal_distance_mm: float,
        objective: str | None = None,
        energy_kev: float | None = None,
    ) -> ArmPositions:
        """Return objective and camera positions for a sharp image, from the lens equation at ``L = X / cos 2theta``.

        Parameters
        ----------
        two_theta_deg : float
            Scattering angle, deg.
        horizontal_distance_mm : float
            X, mm; a negative mainx may be given.
        objective : str, optional
            Name of the objective; default: the first configured.
        energy_kev : float, optional
            Energy, keV; default: the beam's.

        Raises
        ------
        PhysicsError
            When no sharp image exists at that distance.
        """
        name = self.objective_name({} if objective is None else {"objective_kind": objective})
        total = abs(horizontal_distance_mm) / math.cos(math.radians(two_theta_deg))
        planes = self.objectives[name].focused(energy_kev or self.instrument.beam.energy_kev, total)
        return arm_positions(two_theta_deg, planes.centre_mm, horizontal_distance_mm)

    def view(self, positions: Mapping[str, float], camera: str, channels: Mapping[str, ChannelValue]) -> View:
        """Return what a camera sees.

        Parameters
        ----------
        positions : mapping of str to float
            Positions by logical axis name, mm and deg. Needed are obx, obz, mainx, ffz for the far field (nfx, nfy, nfz
            for the near field) and ccmth with a monochromator; oby, ffy, obyaw default to 0, obpitch to the objective's
            angle.
        camera : str
            Logical name of the camera.
        channels : mapping of str to str or number
            ``objective_in`` (default in), ``objective_kind``, ``mono`` (default in), and ``<camera>_camera_objective``,
            the visible-light objective (default: the first configured); ``two_theta_zero_<axis>``, what an axis of
            objective and camera is off by (default 0, `declared_offsets`).

        Returns
        -------
        View
            A near-field camera stands before the objective and never looks through it. A camera without a lens before
            it sees a shadow: magnification 1, no resolution function; its plane is perpendicular to its direction from
            the sample.

        Raises
        ------
        PhysicsError
            For an unknown camera, objective or visible-light objective, a position that is missing, and distances at
            which the lens forms no image.
        """
        cameras = self.instrument.cameras
        if camera not in cameras:
            raise PhysicsError(f"camera {camera!r} is not configured; there are {', '.join(cameras)}")
        config = cameras[camera]
        recorded = positions
        off = declared_offsets(channels)
        positions = {axis: position - off.get(axis, 0.0) for axis, position in positions.items()}
        energy = self.energy_kev(positions, channels)
        far = config.position == "far_field"
        if far:
            along, across, up = (
                abs(_position(positions, "mainx")),
                positions.get("ffy", 0.0),
                _position(positions, "ffz"),
            )
        else:
            along, across, up = (_position(positions, name) for name in ("nfx", "nfy", "nfz"))
        detector = np.array([along, across, up])
        if not np.any(detector):
            raise PhysicsError(f"camera {camera!r} stands at the sample (0, 0, 0 mm); it sees nothing from there")
        arm_two_theta, arm_yaw = _angles(detector)
        name: str | None = None
        lens: Objective | None = None
        image_v = image_h = None
        two_theta, yaw, centre, total = arm_two_theta, arm_yaw, 0.0, float(np.linalg.norm(detector))
        offset_u = offset_v = pitch_error = yaw_error = 0.0
        if far and channels.get("objective_in", "in") != "out":
            name = self.objective_name(channels)
            lens = self.objectives[name]
            place = np.array([_position(positions, "obx"), positions.get("oby", 0.0), _position(positions, "obz")])
            centre = float(np.linalg.norm(place))
            if centre == 0.0:
                raise PhysicsError("objective: its centre stands at the sample (obx, oby, obz are 0 mm)")
            two_theta, yaw = _angles(place)
            looking = place / centre
            total = float(detector @ looking)
            image_v = lens.image(energy, centre, total, "v")
            image_h = lens.image(energy, centre, total, "h")
            pitch, turn = positions.get("obpitch", two_theta), positions.get("obyaw", yaw)
            pitch_error, yaw_error = math.radians(pitch - two_theta), math.radians(turn - yaw)
            # the optical axis runs through the centre of the lens along its own pitch and yaw; the rotation centre,
            # seen from that axis, lies at ``height``, and its image at -M height from where the axis meets the detector
            axis = _direction(pitch, turn)
            height = (place @ axis) * axis - place
            meets = place + axis * (total - centre) / float(axis @ looking)
            up_direction = imaging_basis(2.0 * two_theta)[2]
            offset_u = float((meets - detector)[1] - image_h.magnification * height[1])
            offset_v = float((meets - detector) @ up_direction - image_v.magnification * (height @ up_direction))
        return View(
            camera=camera,
            energy_kev=energy,
            two_theta_deg=two_theta,
            yaw_deg=yaw,
            arm_two_theta_deg=arm_two_theta,
            objective_name=name,
            objective=lens,
            centre_mm=centre,
            total_mm=total,
            image_v=image_v,
            image_h=image_h,
            offset_u_mm=offset_u,
            offset_v_mm=offset_v,
            pitch_error_rad=pitch_error,
            yaw_error_rad=yaw_error,
            pixel_um=config.pixel_um / _visible_magnification(config, camera, channels),
            shape=(config.rows, config.columns),
            flip_ud=config.flip_ud,
            flip_lr=config.flip_lr,
            instrument=self.instrument,
            positions=dict(recorded),
        )


def _objective(config: CRLConfig | MLLConfig, energy_kev: float) -> Objective:
    if isinstance(config, CRLConfig):
        return CompoundRefractiveLens(
            lenslets=config.lenslets,
            radius_mm=config.radius_mm,
            pitch_mm=config.pitch_mm,
            material=config.material,
            web_mm=config.web_mm,
            density_g_cm3=config.density_g_cm3,
            delta=config.delta,
            delta_energy_kev=energy_kev if config.delta is not None else None,
            attenuation_per_m=config.attenuation_per_m,
            aberration_um=config.aberration_um,
        )
    return MultilayerLaueLens(
        focal_length_h_mm=config.focal_length_h_mm,
        focal_length_v_mm=config.focal_length_v_mm,
        design_energy_kev=config.design_energy_kev,
        outermost_zone_nm=config.outermost_zone_nm,
        aperture_h_um=config.aperture_h_um,
        aperture_v_um=config.aperture_v_um,
        efficiency_h=config.efficiency_h,
        efficiency_v=config.efficiency_v,
        tilt_acceptance_rad=config.tilt_acceptance_rad,
        separation_mm=config.separation_mm,
        aberration_um=config.aberration_um,
    )


def _position(positions: Mapping[str, float], axis: str) -> float:
    if axis not in positions:
        raise PhysicsError(
            f"axis {axis!r}: its position is needed to know what the microscope sees, and it is not given"
        )
    return float(positions[axis])


def _direction(two_theta_deg: float, yaw_deg: float) -> Vector:
    two_theta, yaw = math.radians(two_theta_deg), math.radians(yaw_deg)
    return np.array([math.cos(two_theta) * math.cos(yaw), math.sin(yaw), math.sin(two_theta) * math.cos(yaw)])


def _angles(place: Vector) -> tuple[float, float]:
    x, y, z = (float(component) for component in place)
    return math.degrees(math.atan2(z, x)), math.degrees(math.atan2(y, math.hypot(x, z)))


def _visible_magnification(config: CameraConfig, camera: str, channels: Mapping[str, ChannelValue]) -> float:
    name = str(channels.get(f"{camera}_camera_objective", next(iter(config.objectives))))
    if name not in config.objectives:
        raise PhysicsError(f"camera {camera!r} has no objective {name!r}; it has {', '.join(config.objectives)}")
    return config.objectives[name]
