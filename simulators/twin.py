"""The physics twin: a simulated microscope with a sample in it, as the backend of in-memory devices."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.backend import ChannelValue, Frame, FrameRequest
from dfxrm_control.config import CameraConfig, MicroscopeConfig
from dfxrm_control.crystal import Lattice as CrystalLattice
from dfxrm_control.crystal import wavelength_angstrom
from dfxrm_control.errors import ConfigError, DeviceError, PhysicsError
from dfxrm_control.geometry import FWHM_PER_SIGMA, Resolution, goniometer_rotation, imaging_basis, pixel_to_detector
from dfxrm_control.microscope import Microscope, View

from .builders import build_sample
from .clock import Clock, FrameClock, make_clock
from .furnace import Heat
from .imaging import Blur, Illumination, Lattice, Projection, RenderedImage, render
from .noise import CameraNoise
from .sample import Sample
from .state import Axes, Channels, Choice, Range, ReadOnly

if TYPE_CHECKING:
    from .truth import KnownField, KnownLine

__all__ = ["Twin"]

_PSEUDO_AXES = frozenset({"two_theta", "energy"})
_DARK = RenderedImage(np.zeros((2, 2), np.float32), 0.0, 0.0, 1.0, 1.0)
# acceptance of a camera without a lens before it: so wide that only Bragg's law selects
_NO_LENS_RMS_RAD = 0.1
# without a lens, a beam as divergent as a condensed one is spread over a millimetre on the far-field camera: nothing
# to see
_SHADOW_REACH_MM = 1000.0


class Twin:
    """A simulated dark-field X-ray microscope (`dfxrm_control.backend.Backend`).

    A frame follows from the positions of all motors, the channels, the clock and the sample, and from nothing else:
    the same state, seed and frame number give the same frame. What is modelled and what is not stands in
    ``docs/explanation/twin.md``.

    Parameters
    ----------
    config : MicroscopeConfig
        The configuration: instrument, reflection, and the axes with their starts.
    sample : str
        Name of a builder of `simulators.SAMPLES`.
    sample_options : Mapping, optional
        Arguments of the builder.
    seed : int
        Seed of sample and noise.
    clock : str
        ``fast``, ``real``, ``stepped``, or ``frames``: time passes with exposures only, and moves take none.
    resolution : float
        What every axis counts in, mm or deg: a target is rounded to the next whole number of it. 0: it is not rounded.
    photons_per_s : float
        Photons that a pixel of a magnified image detects per second of a perfect crystal that fills the beam, on its
        peak, at nominal ring current and slits. It does not depend on camera or lens: a visible-light objective of
        smaller magnification has larger pixels and, in proportion, less of an aperture.
    monitor_per_s : float
        Counts of the flux monitor per second at nominal ring current and slits.
    flux_drift_per_h : float
        Relative change of the flux per hour of the clock.
    misalignment : Mapping, optional
        Hidden offsets by axis name, mm or deg: the axis is truly at its position plus this. ``two_theta`` turns the
        arm, objective and far-field camera together, about the sample.
    noise : bool
        Whether photon and read noise are drawn. Without, a frame is the rounded mean.
    coarsening : Mapping, optional
        Arguments of `simulators.coarsening.GrowthLaw`, by which sub-grains grow while the sample is hot; {} for its
        defaults, None for a sample that stays as it is.
    thermal_drift_um_per_k : tuple of float
        How far heating by one kelvin carries the sample along samx, samy, samz, um/K.
    heater_error_k : float
        By how much heating ends off its target, K: a heater too weak below 0, one that runs away above.

    Raises
    ------
    ConfigError
        For an option that is not one of these or has a value it cannot have.
    """

    def __init__(
        self,
        config: MicroscopeConfig,
        *,
        sample: str = "annealed_aluminium",
        sample_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        clock: str = "fast",
        resolution: float = 0.0,
        photons_per_s: float = 2000.0,
        monitor_per_s: float = 1e6,
        flux_drift_per_h: float = 0.0,
        misalignment: Mapping[str, float] | None = None,
        noise: bool = True,
        coarsening: Mapping[str, Any] | None = None,
        thermal_drift_um_per_k: tuple[float, float, float] = (0.0, 0.0, 0.0),
        heater_error_k: float = 0.0,
    ) -> None:
        for option, value in (("photons_per_s", photons_per_s), ("monitor_per_s", monitor_per_s)):
            if not value > 0:
                raise ConfigError(f"backend.options.{option}: {value!r} must be above 0")
        if not (isinstance(resolution, int | float) and 0 <= resolution < math.inf):
            raise ConfigError(f"backend.options.resolution: {resolution!r} must be a number, 0 or above")
        self.config = config
        self.clock: Clock = make_clock(clock)
        self._resolution = resolution
        self.microscope = Microscope(config.instrument)
        self._heat = Heat(
            config.sample,
            build_sample(sample, sample_options or {}, seed),
            coarsening,
            thermal_drift_um_per_k,
            heater_error_k,
        )
        self._crystal = (self._heat.sample, Lattice(self._heat.sample))
        self._photons_per_s = photons_per_s
        self._monitor_per_s = monitor_per_s
        self._drift_per_h = flux_drift_per_h
        self._noisy = noise
        cell = config.sample
        lattice = CrystalLattice.from_parameters(*cell.lattice, space_group=cell.space_group, atoms=list(cell.atoms))
        self._g0 = 1.0 / lattice.d_spacing(cell.hkl)
        self._addresses = _addresses(config)
        starts = _starts(config, self.microscope, self._g0)
        self._nominal_gap_um = 1e3 * starts["s8vg"]
        self._condenser_focus_mm = starts["cdx"]
        self._axes = Axes(starts)
        self._misalignment = dict(misalignment or {})
        # the arm is no motor: what is hidden of it turns all that stands on it
        self._arm_turned_deg = float(self._misalignment.pop("two_theta", 0.0))
        for axis in self._misalignment:
            if axis not in starts:
                raise ConfigError(
                    f"backend.options.misalignment: there is no axis {axis!r}; there are two_theta, "
                    f"{', '.join(sorted(starts))}"
                )
        self._channels = _channels(config)
        self._cameras = {
            name: CameraNoise(camera.noise, camera.rows, camera.columns, seed, name)
            for name, camera in config.instrument.cameras.items()
        }
        self._counter = threading.Lock()
        self._frames = 0
        self._compile()

    # -- time -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time of the clock in seconds."""
        return self.clock.now()

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Wait, in the way of the clock, until a time in seconds or until ``cancelled()`` is true."""
        self.clock.wait_until(time_s, cancelled)

    # -- axes -------------------------------------------------------------------------------------------------

    def axes(self) -> Mapping[str, float]:
        """Return the present position of every axis by address, mm or deg."""
        positions = self._axes.positions(self.now())
        return {address: positions[logical] for address, logical in self._addresses.items()}

    def position(self, axis: str) -> float:
        """Return the present position of one axis by address; raises DeviceError for an axis that does not exist."""
        return self._axes.position(self._logical(axis), self.now())

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float) -> float:
        """Start a move and return when it will end, in seconds; raises DeviceError for an axis that does not exist."""
        logical, now = self._logical(axis), self.now()
        if self._resolution and math.isfinite(target):
            target = round(target / self._resolution) * self._resolution
        if isinstance(self.clock, FrameClock):
            velocity = math.inf
        if logical != "temperature":
            return self._axes.start_move(logical, target, velocity, acceleration_s, now)
        self._heat.pass_time(self._axes, now)
        reached = self._heat.reached(self._axes.position(logical, now), target)
        end_s = self._axes.start_move(logical, reached, velocity, acceleration_s, now)
        return end_s if reached == target else math.inf

    def stop(self, axis: str) -> float:
        """Stop an axis where it is and return that position; raises DeviceError for an axis that does not exist."""
        logical, now = self._logical(axis), self.now()
        if logical == "temperature":
            self._heat.pass_time(self._axes, now)
        return self._axes.stop(logical, now)

    def _logical(self, axis: str) -> str:
        if axis not in self._addresses:
            raise DeviceError(
                f"the simulated microscope has no axis {axis!r}; it has {', '.join(sorted(self._addresses))}"
            )
        return self._addresses[axis]

    # -- channels ---------------------------------------------------------------------------------------------

    def get(self, channel: str) -> ChannelValue:
        """Return the value of a channel; raises DeviceError for one that does not exist."""
        return self._channels.get(channel)

    def put(self, channel: str, value: ChannelValue) -> None:
        """Set a channel; raises DeviceError for an unknown or read-only one or a value it cannot take."""
        self._channels.put(channel, value)

    def happen(self, channel: str, value: ChannelValue) -> None:
        """Let the machine change a channel, also a read-only one: a beam dump is ``happen("ring_current", 0.0)``."""
        self._channels.happen(channel, value)

    # -- what is there ----------------------------------------------------------------------------------------

    def true_positions(self) -> dict[str, float]:
        """Return where every axis truly is, by logical name: its position plus its hidden misalignment, mm or deg.

        Heat drifts the sample, which is a misalignment of its translations.
        """
        now = self.now()
        positions = self._axes.positions(now)
        drift_mm = self._heat.drift_mm(self._heat.temperature(self._axes, now))
        drift = dict(zip(("samx", "samy", "samz"), drift_mm, strict=True))
        true = {
            axis: position + self._misalignment.get(axis, 0.0) + float(drift.get(axis, 0.0))
            for axis, position in positions.items()
        }
        return true | _turned_arm(true, self._arm_turned_deg) if self._arm_turned_deg else true

    def channels(self) -> dict[str, ChannelValue]:
        """Return the value of every channel."""
        return self._channels.values()

    @property
    def sample(self) -> Sample:
        """The sample as it is now: what is hot long enough coarsens."""
        return self._now()[0]

    @property
    def temperature(self) -> float:
        """Temperature of the sample, degC; the reference temperature where there is no furnace."""
        return self._heat.temperature(self._axes, self.now())

    @property
    def thermal_strain(self) -> float:
        """Strain of the lattice by its temperature, the same in all directions: ``expansion_per_k (T - T0)``."""
        return self._heat.strain(self.temperature)

    @property
    def g0_per_angstrom(self) -> float:
        """Length of the undistorted diffraction vector at the present temperature, 1/angstrom without 2 pi.

        It stands along z of the sample.
        """
        return self._g0 / (1.0 + self.thermal_strain)

    def _now(self) -> tuple[Sample, Lattice]:
        """Return the sample and its lattice at this time."""
        self._heat.pass_time(self._axes, self.now())
        if (sample := self._heat.sample) is not self._crystal[0]:
            self._crystal = (sample, Lattice(sample))
        return self._crystal

    def view(self, camera: str) -> View:
        """Return the optics as they truly are, for a camera."""
        return self.microscope.view(self.true_positions(), camera, self.channels())

    def illumination(self) -> Illumination:
        """Return the illuminated layer at the present condenser and slits.

        The line beam's focus moves off the sample with ``cdx``: its height grows by the beam's divergence times the
        distance from where ``cdx`` stood at the start.
        """
        positions, beam = self.true_positions(), self.config.instrument.beam
        half_gap = 500.0 * max(positions["s8hg"], 0.0)
        across = (1e3 * positions["s8ho"] - half_gap, 1e3 * positions["s8ho"] + half_gap)
        if self.get("condenser") == "box":
            height = max(min(beam.box_height_um, 1e3 * positions["s8vg"]), 1e-3)
            return Illumination(height, True, 1e3 * positions["s8vo"], across)
        grown = FWHM_PER_SIGMA * beam.divergence_v_rms_rad * 1e3 * (positions["cdx"] - self._condenser_focus_mm)
        return Illumination(math.hypot(beam.line_height_um, grown), False, 0.0, across)

    def flux(self) -> float:
        """Return the flux on the sample relative to the nominal one."""
        if self.get("shutter") != "open":
            return 0.0
        beam = self.config.instrument.beam
        gap = min(max(1e3 * self.true_positions()["s8vg"], 0.0), beam.box_height_um)
        return (
            float(self.get("ring_current"))
            / beam.ring_current_ma
            * float(self.get("attenuator"))
            * (1.0 + self._drift_per_h * self.now() / 3600.0)
            * (gap / min(self._nominal_gap_um, beam.box_height_um))
        )

    # -- what maps must show ----------------------------------------------------------------------------------

    def known_field(self, axes: Sequence[str], camera: str = "far_field") -> KnownField:
        """Return what a scan of some motors about the present setting must find; see `simulators.known_field`."""
        # truth is made from a twin, and must not be needed to make one
        from .truth import known_field

        return known_field(self, axes, camera)

    def known_domains(self, camera: str = "far_field") -> NDArray[np.int64]:
        """Return the domain that each pixel of a map looks at; see `simulators.known_domains`."""
        from .truth import known_domains

        return known_domains(self, camera)

    def known_lines(self, camera: str = "far_field") -> list[KnownLine]:
        """Return where each dislocation crosses the layer, in um and pixels; see `simulators.known_lines`."""
        from .truth import known_lines

        return known_lines(self, camera)

    # -- cameras ----------------------------------------------------------------------------------------------

    def frame_shape(self, camera: str) -> tuple[int, int]:
        """Return (rows, columns) of a camera's frames; raises DeviceError for a camera that does not exist."""
        described = self._camera(camera)
        return described.rows, described.columns

    def expose(self, request: FrameRequest) -> Frame:
        """Expose one frame in the present state, let its exposure and its read-out pass, and return it.

        Raises
        ------
        DeviceError
            For a camera that does not exist, or an exposure outside its bounds.
        """
        camera = self._camera(request.camera)
        if not camera.min_exposure_s <= request.exposure_s <= camera.max_exposure_s:
            raise DeviceError(
                f"camera {request.camera!r} cannot expose for {request.exposure_s:g} s; it takes "
                f"{camera.min_exposure_s:g} to {camera.max_exposure_s:g} s"
            )
        start = self.now()
        with self._counter:
            number = request.number if request.number >= 0 else self._frames
            self._frames = max(self._frames, number + 1)
        current, flux = float(self.get("ring_current")), self.flux()
        data = self._frame(request.camera, flux * request.exposure_s, request.exposure_s, number)
        monitor = flux * self._monitor_per_s * request.exposure_s
        if self._noisy:
            monitor = self._cameras[request.camera].flux(monitor, number)
        end = start + request.exposure_s
        if isinstance(self.clock, FrameClock):
            self.clock.expose_until(end)
        else:
            self.wait_until(end + camera.readout_s)
        self._channels.happen("monitor", monitor)
        return Frame(data, number, monitor, current, start, end)

    @property
    def frames_taken(self) -> int:
        """How many frames have been numbered: the next one that the twin itself numbers gets this number."""
        return self._frames

    def photons(self, camera: str, exposure_s: float) -> NDArray:
        """Return the mean photons that each pixel would detect now, without noise, shape (rows, columns).

        The array is oriented as the camera's frames are.
        """
        image, row, column, row_gain, column_gain = self._image(camera)
        low, left = np.clip(row.astype(int), 0, len(image) - 2), np.clip(column.astype(int), 0, image.shape[1] - 2)
        up, right = (row - low)[:, np.newaxis], (column - left)[np.newaxis, :]
        inside = ((row >= 0) & (row < len(image) - 1))[:, np.newaxis] & ((column >= 0) & (column < image.shape[1] - 1))
        corner = [[image[np.ix_(low + i, left + j)] for j in (0, 1)] for i in (0, 1)]
        mean = (1 - up) * ((1 - right) * corner[0][0] + right * corner[0][1]) + up * (
            (1 - right) * corner[1][0] + right * corner[1][1]
        )
        return np.where(inside, mean, 0.0) * row_gain[:, np.newaxis] * column_gain * (self.flux() * exposure_s)

    def _frame(self, camera: str, dose_s: float, exposure_s: float, number: int) -> NDArray:
        image, row, column, row_gain, column_gain = self._image(camera) if dose_s else self._dark(camera)
        scaled = image * np.float32(dose_s)
        return self._cameras[camera].frame(
            scaled, row, column, row_gain, column_gain, exposure_s, number, noisy=self._noisy
        )

    def _dark(self, camera: str) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
        rows, columns = self.frame_shape(camera)
        nowhere = np.full(rows, -1.0)
        return _DARK.values, nowhere, np.full(columns, -1.0), np.ones(rows, np.float32), np.ones(columns, np.float32)

    def _image(self, camera: str) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
        """Return photons/s at nominal flux on a grid, where on it each row and column looks, and their vignetting."""
        try:
            view = self.view(camera)
        except PhysicsError:
            # axes that stand where no image can be, e.g. a lens on the wrong side of the camera
            return self._dark(camera)
        if view.resolution is None:
            return self._shadow(view)
        u_um, v_um = _object_plane(view, view.offset_u_mm, view.offset_v_mm)
        projection = self._projection(view.two_theta_deg)
        scale = self.g0_per_angstrom / float(np.linalg.norm(view.q0))
        sample, lattice = self._now()
        brightness = lattice.brightness(
            scale * view.basis @ projection.rotation,
            view.basis @ view.q0 / float(np.linalg.norm(view.q0)),
            view.resolution,
        )
        across, upward = view.blur("h"), view.blur("v")
        blur = Blur(
            sigma_u_um=math.hypot(across.diffraction_um, across.aberration_um) / FWHM_PER_SIGMA,
            sigma_v_um=math.hypot(upward.diffraction_um, upward.aberration_um) / FWHM_PER_SIGMA,
            acceptance_u_rad=view.acceptance("h").rms_rad,
            acceptance_v_rad=view.acceptance("v").rms_rad,
            focus_u_um=1e3 * view.defocus_h_mm,
            focus_v_um=1e3 * view.defocus_mm,
        )
        pixel = (view.pixel_um / view.magnification_h, view.pixel_um / view.magnification_v)
        image = self._render(sample, brightness, projection, blur, u_um, v_um, pixel)
        gain = self._photons_per_s * view.alignment_efficiency
        return (
            image.values * np.float32(gain),
            (v_um - image.v_um) / image.step_v_um,
            (u_um - image.u_um) / image.step_u_um,
            _vignetting(v_um, 1e3 * view.acceptance("v").field_rms_mm),
            _vignetting(u_um, 1e3 * view.acceptance("h").field_rms_mm),
        )

    def _shadow(self, view: View) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
        """Return the image without a lens: the diffracted beam as it falls on the camera, magnification 1.

        Only Bragg's law selects what diffracts; the beam goes where the mean lattice sends it and is blurred by its
        divergence.
        """
        if view.total_mm > _SHADOW_REACH_MM:
            return self._dark(view.camera)
        beam, wavelength = self.config.instrument.beam, wavelength_angstrom(view.energy_kev)
        g0 = self.g0_per_angstrom
        sine = wavelength * g0 / 2
        if not 0 < sine < 1:
            return self._dark(view.camera)
        two_theta = 2 * math.degrees(math.asin(sine))
        projection = self._projection(two_theta)
        basis = imaging_basis(two_theta)
        resolution = Resolution(
            theta_deg=two_theta / 2,
            zv_rms_rad=beam.divergence_v_rms_rad,
            zh_rms_rad=beam.divergence_h_rms_rad,
            na_v_rms_rad=_NO_LENS_RMS_RAD,
            na_h_rms_rad=_NO_LENS_RMS_RAD,
            eps_rms=beam.bandwidth_rms,
            zv_cut_rad=beam.divergence_v_cut_rad,
        )
        sample, lattice = self._now()
        asked = basis @ projection.rotation, np.array([0.0, 0.0, 1.0]), resolution
        brightness = lattice.brightness(*asked)
        outgoing = np.array([1.0, 0.0, 0.0]) + wavelength * g0 * projection.rotation @ lattice.direction(*asked)
        facing = float(outgoing @ view.direction)
        if facing <= 0:
            return self._dark(view.camera)
        meets = outgoing * (view.total_mm / facing)
        away = meets - view.direction * view.total_mm
        offset_u, offset_v = float(away[1]), float(away @ imaging_basis(2 * view.two_theta_deg)[2])
        u_um, v_um = _object_plane(view, offset_u, offset_v)
        reach_um = 1e3 * view.total_mm
        blur = Blur(reach_um * beam.divergence_h_rms_rad, reach_um * beam.divergence_v_rms_rad)
        image = self._render(sample, brightness, projection, blur, u_um, v_um, (view.pixel_um, view.pixel_um))
        gain = self._photons_per_s * self._without_lens(view)
        ones = np.ones(len(v_um), np.float32), np.ones(len(u_um), np.float32)
        return (
            image.values * np.float32(gain),
            (v_um - image.v_um) / image.step_v_um,
            (u_um - image.u_um) / image.step_u_um,
            *ones,
        )

    def _without_lens(self, view: View) -> float:
        """Return by how much more a pixel gets without the lens: it covers a larger area and nothing is absorbed."""
        far = [name for name, camera in self.config.instrument.cameras.items() if camera.position == "far_field"]
        if not far:
            return 1.0
        try:
            lens = self.microscope.view(self.true_positions(), far[0], {**self.channels(), "objective_in": "in"})
        except PhysicsError:
            return 1.0
        area = view.pixel_um**2 * lens.magnification_h * lens.magnification_v / lens.pixel_um**2
        return area / lens.transmission if lens.transmission > 0 else 1.0

    def _projection(self, two_theta_deg: float) -> Projection:
        positions, instrument = self.true_positions(), self.config.instrument
        mu, omega, chi, phi = (positions[axis] for axis in ("mu", "omega", "chi", "phi"))
        rotation = goniometer_rotation(mu, omega, chi, phi, mu_sign=instrument.mu_sign)
        translation = 1e3 * np.array([positions[axis] for axis in ("samx", "samy", "samz")])
        origin = rotation @ translation if instrument.sample_stage == "above" else translation
        return Projection(rotation, origin, two_theta_deg)

    def _render(
        self,
        sample: Sample,
        brightness: NDArray,
        projection: Projection,
        blur: Blur,
        u_um: NDArray,
        v_um: NDArray,
        pixel_um: tuple[float, float],
    ) -> RenderedImage:
        field = (float(u_um.min()), float(u_um.max()), float(v_um.min()), float(v_um.max()))
        return render(sample, brightness, projection, self.illumination(), blur, field, pixel_um)

    def _camera(self, camera: str) -> CameraConfig:
        cameras = self.config.instrument.cameras
        if camera not in cameras:
            raise DeviceError(f"the simulated microscope has no camera {camera!r}; it has {', '.join(cameras)}")
        return cameras[camera]

    def _compile(self) -> None:
        """Compile what makes frames now, so that the first exposure takes as long as the others."""
        for camera in self._cameras:
            self._frame(camera, 1.0, 1.0, 0)


def _object_plane(view: View, offset_u_mm: float, offset_v_mm: float) -> tuple[NDArray, NDArray]:
    """Return u of every column and v of every row of a frame, um on the sample."""
    rows, columns = view.shape
    _, v_mm = pixel_to_detector(np.arange(rows), 0, view.shape, view.pixel_um, view.flip_ud, view.flip_lr)
    u_mm, _ = pixel_to_detector(0, np.arange(columns), view.shape, view.pixel_um, view.flip_ud, view.flip_lr)
    u_um = 1e3 * view.image_sign * (u_mm - offset_u_mm) / view.magnification_h
    v_um = 1e3 * view.image_sign * (v_mm - offset_v_mm) / view.magnification_v
    return u_um, v_um


def _turned_arm(positions: Mapping[str, float], turned_deg: float) -> dict[str, float]:
    """Return where objective and far-field camera stand when the arm is turned about the sample; mainx stays."""
    obx, obz, mainx = positions["obx"], positions["obz"], abs(positions["mainx"])
    turn, camera = math.radians(turned_deg), math.atan2(positions["ffz"], mainx)
    return {
        "obx": obx * math.cos(turn) - obz * math.sin(turn),
        "obz": obx * math.sin(turn) + obz * math.cos(turn),
        "obpitch": positions["obpitch"] + turned_deg,
        "ffz": mainx * math.tan(camera + turn),
    }


def _vignetting(height_um: NDArray, rms_um: float) -> NDArray:
    return np.exp(-0.5 * (height_um / rms_um) ** 2).astype(np.float32)


def _addresses(config: MicroscopeConfig) -> dict[str, str]:
    """Return the logical name of every axis by the address in-memory devices use for it."""
    addresses = {}
    for device in config.devices.values():
        for logical, axis in device.axes.items():
            if logical not in _PSEUDO_AXES:
                addresses[axis.address or logical if axis.control == "memory" else logical] = logical
    return addresses


def _starts(config: MicroscopeConfig, microscope: Microscope, g0: float) -> dict[str, float]:
    """Return where every axis stands at the start: as configured, else aligned on the configured reflection."""
    energy = config.instrument.beam.energy_kev
    sine = wavelength_angstrom(energy) * g0 / 2
    if not 0 < sine < math.sin(math.radians(44)):
        raise ConfigError(
            f"sample.hkl: {config.sample.hkl} at {energy:g} keV needs sin(theta) = {sine:.3f}; "
            "the camera reaches theta below 44 deg"
        )
    theta = math.degrees(math.asin(sine))
    arm = microscope.arm(2 * theta, 5000.0)
    mono = config.instrument.monochromator
    starts = dict.fromkeys(("omega", "chi", "phi", "samx", "samy", "samz", "oby", "obyaw", "ffy", "nfy"), 0.0)
    starts |= {"s8vo": 0.0, "s8ho": 0.0, "s8vg": 1.0, "s8hg": 1.0, "cdx": 0.0}
    starts |= {"mu": -config.instrument.mu_sign * theta, "obx": arm.obx, "obz": arm.obz, "obpitch": arm.obpitch}
    starts |= {"mainx": arm.mainx, "ffz": arm.ffz, "nfx": 100.0, "nfz": 100.0 * math.tan(math.radians(2 * theta))}
    if mono is not None:
        starts["ccmth"] = math.degrees(math.asin(wavelength_angstrom(energy) / (2 * mono.d_spacing_angstrom)))
    for device in config.devices.values():
        for logical, axis in device.axes.items():
            if logical not in _PSEUDO_AXES:
                idle = config.sample.reference_temperature if logical == "temperature" else 0.0
                starts[logical] = axis.start if axis.start is not None else starts.get(logical, idle)
    return starts


def _channels(config: MicroscopeConfig) -> Channels:
    instrument = config.instrument
    objectives = tuple(instrument.objectives)
    channels: dict[str, tuple[ChannelValue, Choice | Range | ReadOnly]] = {
        "shutter": ("closed", Choice(("open", "closed"))),
        "condenser": ("line", Choice(("line", "box"))),
        "attenuator": (1.0, Range(0.0, 1.0)),
        "objective_in": ("in", Choice(("in", "out"))),
        "objective_kind": (objectives[0], Choice(objectives)),
        "mono": ("in", Choice(("in", "out"))) if instrument.monochromator else ("out", Choice(("out",))),
        "ring_current": (instrument.beam.ring_current_ma, ReadOnly()),
        "monitor": (0.0, ReadOnly()),
    }
    for name, camera in instrument.cameras.items():
        visible = tuple(camera.objectives)
        channels[f"{name}_camera_objective"] = (visible[0], Choice(visible))
    return Channels(channels)
