"""Where the microscope stood during a scan, and what follows from it for the maps: scale, orientation, width, noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dfxrm_control.config import CameraConfig, InstrumentConfig, NoiseConfig, one_sentence
from dfxrm_control.crystal import Lattice, bragg_angle_deg
from dfxrm_control.errors import FileFormatError, ParameterError, PhysicsError
from dfxrm_control.geometry import detector_to_layer, goniometer_rotation, lab_to_sample, pixel_to_detector
from dfxrm_control.microscope import Microscope, View, declared_offsets
from dfxrm_control.reduction._moments import Dark
from dfxrm_control.reduction._regrid import Regridding, Scale
from dfxrm_control.reduction._statistics import Noise

__all__ = ["Placement", "Setting"]

_GONIOMETER = ("mu", "omega", "chi", "phi")
_ID03_NAMES = {"diffry": "mu", "diffrz": "omega", "ux": "samx", "uy": "samy", "uz": "samz"}
"""Names of ID03's diffractometer of 2024 and 2025, where a file does not say what its names mean."""
_MOVE_THE_IMAGE = frozenset(
    {"two_theta", "energy", "ccmth", "mainx", "obx", "oby", "obz", "obpitch", "obyaw", "ffy", "ffz"}
    | {"nfx", "nfy", "nfz"}
)
"""Axes that change where on a frame a point of the sample is seen."""
_FOREIGN_SCALE = frozenset({"mainx", "obx", "obz"})
"""Axes that the scale follows from where there is no description of the instrument."""


@dataclass(frozen=True)
class Placement:
    """How pixels of a frame lie on the sample.

    Attributes
    ----------
    x, y : ndarray, shapes (nx,), (ny,)
        Positions on the illuminated layer (laboratory z = 0) along the beam and across (y to the left as seen by a
        photon), increasing, from the rotation centre; in `units`.
    reverse_rows, reverse_columns : bool
        Whether rows (x) and columns (y) of a frame run the other way.
    units : {"um", "pixel"}
        ``pixel`` where nothing tells the scale; positions then count from the middle of the frame.
    affine : ndarray, shape (3, 3)
        Takes (x, y, 1) to the frame of the sample, same units.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    reverse_rows: bool
    reverse_columns: bool
    units: str
    affine: NDArray[np.float64]

    def canonical(self, frame: NDArray) -> NDArray:
        """Return maps with pixels in the last two axes (..., rows, columns) as (..., ix, iy)."""
        return frame[..., :: -1 if self.reverse_rows else 1, :: -1 if self.reverse_columns else 1]


@dataclass
class Setting:
    """Positions and description of the microscope during a scan, as far as they were recorded.

    Attributes
    ----------
    positions : dict
        Position by logical axis name, mm and deg; a scanned axis at its mean.
    channels : dict
        Channel by logical name.
    instrument : InstrumentConfig or None
        The recorded description; None in a file of another program.
    sample : dict or None
        The recorded description of the sample: ``lattice``, ``hkl``.
    camera : str or None
        Logical name of the camera.
    exposure_s : float or None
        Exposure of a frame.
    sensor_pixel_um : float or None
        Pixel of the sensor, where there is no description of the instrument.
    notes : list of str
        What was assumed, because it was not recorded.
    """

    positions: dict[str, float]
    channels: dict[str, Any] = field(default_factory=dict)
    instrument: InstrumentConfig | None = None
    sample: dict[str, Any] | None = None
    camera: str | None = None
    exposure_s: float | None = None
    sensor_pixel_um: float | None = None
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def described(content: Any, where: str) -> InstrumentConfig:
        """Return the description of the instrument that stands in a record.

        Raises
        ------
        FileFormatError
            When it is not understood.
        """
        try:
            return InstrumentConfig.model_validate(content)
        except ValidationError as error:
            raise FileFormatError(one_sentence(error, f"{where}: the recorded instrument")) from error

    def note(self, text: str) -> None:
        """Keep a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def logical(self, name: str) -> str:
        """Return the logical name of an axis that a file calls ``name``."""
        if self.instrument is not None:
            return {written: axis for axis, written in self.instrument.motor_names.items()}.get(name, name)
        if name in _ID03_NAMES:
            self.note(f"{name} is taken for {_ID03_NAMES[name]}, as at ID03")
        return _ID03_NAMES.get(name, name)

    def add_position(self, name: str, value: float) -> None:
        """Keep the position of an axis by the name it has in a file; a logical name prevails over an older one."""
        logical = self.logical(name)
        if logical == name or logical not in self.positions:
            self.positions[logical] = float(value)

    @cached_property
    def _microscope(self) -> Microscope | None:
        return Microscope(self.instrument) if self.instrument is not None else None

    @cached_property
    def view(self) -> View | None:
        """What the camera saw; None where the record does not tell, which is noted."""
        try:
            return self._view_at(self.positions)
        except PhysicsError as error:
            self.note(f"scale and instrument width are not known: {error}")
            return None

    def moved(self, positions: Mapping[str, float]) -> dict[str, float]:
        """Return the positions of all axes with some of them moved: the axes behind two_theta and energy follow.

        Parameters
        ----------
        positions : mapping of str to float
            Where axes were moved to, by logical name.
        """
        there = {**self.positions, **positions}
        microscope = self._microscope
        if microscope is None:
            return there
        if "two_theta" in positions and "mainx" in there:
            name = microscope.objective_name(self.channels)
            arm = microscope.arm(positions["two_theta"], there["mainx"], name)
            off = declared_offsets(self.channels)
            there |= {axis: getattr(arm, axis) + off[axis] for axis in ("obx", "obz", "obpitch", "ffz")}
        mono = microscope.instrument.monochromator
        if "energy" in positions and mono is not None:
            there["ccmth"] = bragg_angle_deg(mono.d_spacing_angstrom, positions["energy"])
        return there

    def stand_at(self, positions: Mapping[str, float]) -> None:
        """Move axes, by logical name, to where the maps are made for; before anything else is asked."""
        self.positions = self.moved(positions)

    def regridding(
        self,
        shape: tuple[int, int],
        names: Sequence[str],
        middle: Mapping[str, float],
        recorded: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> Regridding | None:
        """Return how frames of a scan are put on one grid, or None where nothing is known to have moved the image.

        Parameters
        ----------
        shape : tuple of int
            (rows, columns) of the frames.
        names : sequence of str
            The scanned axes.
        middle : mapping of str to float
            Where each stands in the middle of the scan: the grid is that of this setting. Others may be named as well.
        recorded : mapping of str to ndarray, shape (points,), optional
            Positions of other axes at each point, where they are known. One that ``middle`` does not name stands in
            the middle of these.
        """
        here = {self.logical(name): position for name, position in middle.items()}
        matter = _MOVE_THE_IMAGE
        if self.instrument is None:
            matter = _FOREIGN_SCALE if "obz" in {*self.positions, *(recorded or {})} else _FOREIGN_SCALE | {"obpitch"}
        moving = [number for number, name in enumerate(names) if self.logical(name) in matter]
        others = {name: column for name, column in (recorded or {}).items() if name in matter}
        if not moving and not others:
            if "obpitch" in here:
                self.note("obpitch was scanned, obx and obz are recorded once: frames are taken to lie on one grid")
            return None
        here |= {
            name: float((column.min() + column.max()) / 2.0) for name, column in others.items() if name not in here
        }
        logical = [*(self.logical(names[number]) for number in moving), *others]
        there = self.moved(here)
        try:
            reference = self._scale(shape, self._view_at(there), there)
        except PhysicsError as error:
            self.note(f"frames were not put back on one grid, though {', '.join(logical)} moved: {error}")
            return None
        if reference.units == "pixel":
            self.note(
                f"frames were not put back on one grid, though {', '.join(logical)} moved: the scale is not known"
            )
            return None

        def scale_at(where: Sequence[float]) -> Scale:
            positions = self.moved({**here, **dict(zip(logical, where, strict=True))})
            return self._scale(shape, self._view_at(positions), positions)

        by_point = np.stack(list(others.values()), axis=1) if others else None
        return Regridding(shape, moving, here, reference, scale_at, self.saturation_adu, by_point)

    @property
    def _camera_config(self) -> CameraConfig | None:
        return self.instrument.cameras.get(self.camera or "") if self.instrument is not None else None

    @property
    def saturation_adu(self) -> int:
        """Highest count that the camera gives."""
        camera = self._camera_config
        return (camera.noise if camera is not None else NoiseConfig()).saturation_adu

    def instrument_sigma(self, names: Sequence[str]) -> dict[str, float]:
        """Return the rms width of a perfect crystal along each axis of the mesh, in its unit; empty if unknown."""
        if self.view is None:
            self.note("the instrument's width is not known, so it is not taken off the local spread")
            return {}
        try:
            sigma = self.view.instrument_sigma([self.logical(name) for name in names])
        except PhysicsError as error:
            self.note(f"the instrument's width is not taken off the local spread: {error}")
            return {}
        return {name: sigma[self.logical(name)] for name in names}

    def unstrained_spacing(self, lattice_angstrom: float) -> float:
        """Return the spacing of the imaged planes for a lattice parameter a, angstrom; b and c in proportion.

        Raises
        ------
        ParameterError
            When the parameter is not positive, or the record does not tell lattice and reflection.
        """
        if not (math.isfinite(lattice_angstrom) and lattice_angstrom > 0.0):
            raise ParameterError(
                f"reference: a lattice parameter of {lattice_angstrom:g} angstrom was given; it is above 0"
            )
        described = self.sample or {}
        if not (described.get("lattice") and described.get("hkl")):
            raise ParameterError(
                "reference: this file does not tell lattice and reflection, so strain can only be relative"
            )
        lattice = Lattice.from_parameters(*described["lattice"])
        return lattice.d_spacing(described["hkl"]) * lattice_angstrom / described["lattice"][0]

    def noise(self, dark: Dark | None) -> Noise:
        """Return the noise of the camera: measured on the darks where there are enough, else as described."""
        camera = self._camera_config
        config = camera.noise if camera is not None else NoiseConfig()
        gain_from = f"camera {self.camera!r}" if camera is not None else "a pco.edge 4.2 at ID03 (assumed)"
        if camera is None:
            self.note(f"gain is that of {gain_from}, {config.gain_adu_per_photon:g} ADU per photon")
        frames = dark.frames if dark is not None else 0
        if dark is not None and dark.variance is not None:
            return Noise(
                config.gain_adu_per_photon,
                dark.variance,
                frames,
                f"gain of {gain_from}; variance measured on {frames} darks",
            )
        exposure = self.exposure_s or 0.0
        variance = config.read_variance_adu2 + config.dark_variance_rate_adu2_per_s * exposure
        return Noise(config.gain_adu_per_photon, variance, frames, f"gain and variance of {gain_from}")

    def placement(self, shape: tuple[int, int]) -> Placement:
        """Return how a frame of this shape lies on the sample."""
        camera = self._camera_config
        if camera is not None and shape != (camera.rows, camera.columns):
            self.note(
                f"frames of {shape[0]} x {shape[1]} pixels are taken for the middle of the camera's "
                f"{camera.rows} x {camera.columns}"
            )
        scale = self._scale(shape, self.view, self.positions)
        if self.view is None or not math.isfinite(self.view.pixel_x_um):
            self._note_foreign_scale(scale.units == "um")
        x = scale.x_first + scale.x_per_row * np.arange(shape[0], dtype=float)
        y = scale.y_first + scale.y_per_column * np.arange(shape[1], dtype=float)
        reverse_rows, reverse_columns = scale.x_per_row < 0.0, scale.y_per_column < 0.0
        return Placement(
            x[::-1] if reverse_rows else x,
            y[::-1] if reverse_columns else y,
            reverse_rows,
            reverse_columns,
            scale.units,
            self._affine(scale.units),
        )

    def _scale(self, shape: tuple[int, int], view: View | None, positions: Mapping[str, float]) -> Scale:
        """Return how a frame lies on the layer: by the optics, or else by the positions of ID03's motors."""
        camera = self._camera_config
        flips = (camera.flip_ud, camera.flip_lr) if camera is not None else (False, False)
        if view is not None and math.isfinite(view.pixel_x_um):
            pixel, two_theta = view.pixel_um, view.two_theta_deg
            m_h, m_v = -view.image_sign * view.magnification_h, -view.image_sign * view.magnification_v
            u0, v0, units = view.offset_u_mm, view.offset_v_mm, "um"
        else:
            pixel, two_theta, m_h = self._foreign_optics(positions)
            m_v, u0, v0, units = m_h, 0.0, 0.0, "um"
            if not math.isfinite(pixel):
                pixel, two_theta, m_h, m_v, units = 1.0, 90.0, 1.0, 1.0, "pixel"
        u, v = pixel_to_detector([0, 1], [0, 1], shape, pixel, *flips)
        x, y = detector_to_layer(u - u0, v - v0, two_theta, m_h, m_v)
        blur_x = blur_y = 0.0
        if view is not None and view.resolution is not None:
            blur_x = 1e3 * view.acceptance("v").rms_rad * abs(view.defocus_mm) / math.sin(math.radians(two_theta))
            blur_y = 1e3 * view.acceptance("h").rms_rad * abs(view.defocus_h_mm)
        # layer positions are micrometres for detector positions in mm, also where a pixel stands for a length of 1
        return Scale(float(x[1] - x[0]), float(x[0]), float(y[1] - y[0]), float(y[0]), units, blur_x, blur_y)

    def _view_at(self, positions: Mapping[str, float]) -> View | None:
        if self._microscope is None:
            return None
        return self._microscope.view(positions, self.camera or "", self.channels)

    def _foreign_optics(self, p: Mapping[str, float]) -> tuple[float, float, float]:
        """Return (detector pixel um, 2theta deg, magnification) from ID03's motors; NaN where they do not tell."""
        if "obx" not in p or "mainx" not in p or not ({"obz", "obpitch"} & set(p)) or not p["obx"] > 0.0:
            return math.nan, math.nan, math.nan
        two_theta = math.degrees(math.atan2(p["obz"], p["obx"])) if "obz" in p else p["obpitch"]
        magnification = abs(p["mainx"]) / p["obx"] - 1.0
        if not (two_theta > 0.0 and magnification > 0.0):
            return math.nan, math.nan, math.nan
        visible = 2.0 if p.get("ffsel", 0.0) < -30.0 else 10.0
        return (self.sensor_pixel_um or 6.5) / visible, two_theta, magnification

    def _note_foreign_scale(self, known: bool) -> None:
        p = self.positions
        self.note("the frame is taken to be unflipped, and its middle to show the rotation centre")
        if not known:
            self.note(
                "the scale is not known: positions are in pixels"
                + (
                    "; obx, obz and mainx are not in the file"
                    if "obx" not in p or "mainx" not in p
                    else "; obx, obz and mainx do not describe an objective that looks at the sample"
                )
            )
            return
        _, two_theta, magnification = self._foreign_optics(p)
        self.note(
            f"magnification {magnification:.3f} is the ratio of centre distances, |mainx|/obx - 1, about 1.5 % from "
            f"that of the thick lens; 2theta {two_theta:.3f} deg is that of the objective's centre"
        )
        if self.sensor_pixel_um is None:
            self.note("the sensor's pixel is taken to be 6.5 um")
        visible = 2 if p.get("ffsel", 0.0) < -30.0 else 10
        self.note(f"the visible-light objective is taken for the {visible}x" + (" (ffsel)" if "ffsel" in p else ""))

    def _affine(self, units: str) -> NDArray[np.float64]:
        """Return what takes (x, y, 1) on the layer to the sample at the mean goniometer setting, shape (3, 3)."""
        missing = [axis for axis in _GONIOMETER if axis not in self.positions]
        if missing:
            self.note(
                f"{', '.join(missing)}: not recorded, taken as 0 deg where maps are turned into the sample's frame"
            )
        angles = {axis: self.positions.get(axis, 0.0) for axis in _GONIOMETER}
        mu_sign = self.instrument.mu_sign if self.instrument is not None else -1
        stage = self.instrument.sample_stage if self.instrument is not None else "above"
        shift = np.array([self.positions.get(axis, 0.0) for axis in ("samx", "samy", "samz")]) * 1e3
        if units == "pixel":
            shift = np.zeros(3)
        corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        origin, along_x, along_y = lab_to_sample(corners, goniometer_rotation(**angles, mu_sign=mu_sign), shift, stage)
        return np.stack([along_x - origin, along_y - origin, origin], axis=1)


def scalars(readings: Mapping[str, Any]) -> dict[str, float]:
    """Return the readings that are plain finite numbers."""
    return {
        name: float(value)
        for name, value in readings.items()
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(float(value))
    }
