"""Maps: what a scan tells of each point of the sample, and how well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import FileFormatError, ParameterError
from dfxrm_control.geometry import FWHM_PER_SIGMA
from dfxrm_control.reduction import _kernels
from dfxrm_control.reduction._command import CommandAxis, ScanCommand
from dfxrm_control.reduction._components import ComponentMap, Components, components_of
from dfxrm_control.reduction._moments import Dark, MomentMaps, Moments
from dfxrm_control.reduction._scan import ScanFile, open_scan, read_darks, recorded_darks
from dfxrm_control.reduction._setting import Setting
from dfxrm_control.reduction._statistics import (
    Noise,
    centroid_covariance,
    centroid_error,
    centroid_slope_map,
    position_error,
    significance,
    variance_error,
)

__all__ = [
    "AxisMaps",
    "MapSet",
    "OrientationDistribution",
    "axis_step",
    "chosen_dark",
    "counted_from",
    "kernel_average_misorientation",
    "make_maps",
    "maps_from_file",
]

MIN_SIGNIFICANCE = 5.0
"""Pixels whose integrated intensity is below this many times its own error are not valid."""

MIN_SLOPE = 0.95
"""Below this slope a window counts as not bracketing the peak: a centre of mass is 5 % too close to the middle."""

MANY_NOT_BRACKETED = 0.01
"""A larger share of pixels whose peak a window does not bracket is worth a note."""

DETECTION_SIGMAS = 3.0
"""A spread counts as detected where it widens the peak's variance by this many times the variance's error."""

_TILTS = ("mu", "omega", "chi", "phi", "diffrx", "diffry", "diffrz")


@dataclass(frozen=True)
class AxisMaps:
    """Maps of one scanned axis; arrays have shape (nx, ny) and the axis' unit.

    Attributes
    ----------
    name, units : str
        Logical name and unit.
    window : tuple of float
        From half a step before the lowest position to half a step beyond the highest.
    com : ndarray
        Centre of mass: the position of the motor at which the pixel diffracts. A crystal turned by +w is met by -w of
        the motor, see `tilt`.
    error : ndarray
        Predicted rms error of the centre of mass: noise and the extent of the pixel, in quadrature.
    noise_error : ndarray
        The part of noise alone (`_statistics.centroid_error`); the other is `_statistics.position_error`.
    fwhm : ndarray
        2.3548 times the rms width.
    spread_raw : ndarray
        rms width as measured, the instrument's included.
    spread : ndarray
        rms width of the lattice within the pixel: the instrument's taken off in quadrature, 0 where nothing is left;
        NaN everywhere where the instrument's width is not known.
    spread_limit : ndarray
        Detection limit: a smaller spread is not distinguished from noise.
    slope : ndarray
        By how much the centre of mass moves per unit the peak moves; 1 where the window brackets the peak.
    instrument_sigma : float or None
        rms width of a perfect crystal along this axis, in this mesh.
    """

    name: str
    units: str
    window: tuple[float, float]
    com: NDArray[np.float64]
    error: NDArray[np.float64]
    noise_error: NDArray[np.float64]
    fwhm: NDArray[np.float64]
    spread_raw: NDArray[np.float64]
    spread: NDArray[np.float64]
    spread_limit: NDArray[np.float64]
    slope: NDArray[np.float64]
    instrument_sigma: float | None

    @property
    def not_bracketed(self) -> NDArray[np.bool_]:
        """Where the window did not bracket the peak: the slope is below `MIN_SLOPE`."""
        return self.slope < MIN_SLOPE


@dataclass(frozen=True)
class OrientationDistribution:
    """Intensity of the whole detector at each point of the scan.

    Attributes
    ----------
    positions : tuple of ndarray
        Mean positions of each axis' steps, increasing, one array per axis.
    intensity : ndarray
        Sum over the detector above dark, at the mean monitor, ADU; one dimension per axis; NaN where no frame was
        taken.
    """

    positions: tuple[NDArray[np.float64], ...]
    intensity: NDArray[np.float64]


@dataclass(frozen=True)
class MapSet:
    """All maps of one scan, as ``map[ix, iy]``: x along the beam and y across it increase with the index.

    Attributes
    ----------
    axes : tuple of AxisMaps
        Slow first.
    covariance : ndarray, shape (axes, axes, nx, ny)
        Of the axes, weighted by intensity.
    integrated, maximum : ndarray, shape (nx, ny)
        Summed and highest intensity above dark, at the mean monitor, ADU.
    argmax : ndarray of int, shape (nx, ny)
        Point of the scan with the highest intensity, from 0.
    photons : ndarray, shape (nx, ny)
        Photons detected over the scan.
    kam : ndarray, shape (nx, ny)
        Kernel average misorientation of the tilt axes, deg; see `kernel_average_misorientation`.
    valid : ndarray of bool, shape (nx, ny)
        Where the integrated intensity is at least `MIN_SIGNIFICANCE` times its error.
    saturated : ndarray of bool, shape (nx, ny)
        Where a frame reached the camera's full well. The top of the peak is cut off there: widths come out too large,
        and predicted errors do not hold.
    x, y : ndarray
        Positions on the illuminated layer, from the rotation centre.
    length_units : {"um", "pixel"}
        Of x and y.
    affine : ndarray, shape (3, 3)
        Takes (x, y, 1) to the sample's frame: its columns are the directions of x and y there, and the origin.
    distribution : OrientationDistribution
        Intensity of the detector over the scan.
    title, sample, source : str
        Command, sample and file or journal of the scan.
    points, frames : int
        Points planned, and frames used.
    noise : Noise
        What the errors were predicted with.
    notes : tuple of str
        What was assumed, and what limits the maps.
    settings : dict
        How the maps were made.
    components : dict of str to ComponentMap
        What the centres of mass say of the lattice: ``strain``, ``tilt_rock``, ``tilt_roll``, ``H_13``, ``H_23``,
        ``H_33``, as far as this scan tells them, or ``relative_contrast``; see `components_of`.
    reference_g : ndarray, shape (3,), or None
        Diffraction vector that the components are counted from, sample frame, 1/angstrom without 2 pi.
    """

    axes: tuple[AxisMaps, ...]
    covariance: NDArray[np.float64]
    integrated: NDArray[np.float64]
    maximum: NDArray[np.float64]
    argmax: NDArray[np.int32]
    photons: NDArray[np.float64]
    kam: NDArray[np.float64]
    valid: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    length_units: str
    affine: NDArray[np.float64]
    distribution: OrientationDistribution
    title: str
    sample: str
    source: str
    points: int
    frames: int
    noise: Noise
    notes: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    components: dict[str, ComponentMap] = field(default_factory=dict)
    reference_g: NDArray[np.float64] | None = None

    def __getitem__(self, name: str) -> AxisMaps:
        """Return the maps of an axis by name.

        Raises
        ------
        KeyError
            For an axis that was not scanned; the message names those that were.
        """
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise KeyError(f"{name!r} was not scanned; the scan moved {', '.join(axis.name for axis in self.axes)}")

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """Where a pixel is valid and not saturated: there predicted errors hold, and derived numbers are made of it."""
        return self.valid & ~self.saturated

    def tilt(self, name: str) -> NDArray[np.float64]:
        """Return the reduced tilt of the lattice about an axis: minus its centre of mass, plus the median, deg.

        A crystal turned by +w about the motor's axis is met by a motor position lower by w.
        """
        com = self[name].com
        reference = np.nanmedian(com[self.valid]) if self.valid.any() else 0.0
        return reference - com

    def summary(self) -> list[str]:
        """Return what the maps tell, in a few lines: pixels, spread of each component with its error, and notes.

        Saturated pixels are left out of spreads and errors.
        """
        valid, trusted = int(self.valid.sum()), self.trusted
        lines = [f"{self.title}: {self.frames} of {self.points} points, {valid} of {self.valid.size} pixels valid"]
        found = {name: (map_.units, map_.values, map_.error) for name, map_ in self.components.items()}
        if not found:
            found = {axis.name: (axis.units, axis.com, axis.error) for axis in self.axes}
        for name, (units, values, error) in found.items() if trusted.any() else ():
            unit = f" {units}" if units else ""
            spread, wrong = np.nanstd(values[trusted]), np.nanmedian(error[trusted])
            label = self.components[name].label if name in self.components else "centre of mass"
            lines.append(f"{name}: {label}; rms {spread:.2g}{unit}, error {wrong:.2g}{unit}")
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def to_sample(self, x: NDArray, y: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return sample coordinates of points of the layer, same shape and unit."""
        a = self.affine
        return a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]


def counted_from(first: MapSet, maps: MapSet, name: str) -> NDArray[np.float64]:
    """Return a component of one of several scans of a sample, counted from the reference of the first.

    Each scan counts from its own median, which follows a gradient along a stack or what a sample does in time; together
    they have one reference. Differences of the references count to first order.

    Parameters
    ----------
    first, maps : MapSet
        The first scan, and the one to count anew.
    name : str
        A component of ``maps``.

    Returns
    -------
    ndarray, shape (nx, ny)
        In the unit of the component; as it is where a reference is not known.
    """
    values = maps.components[name].values
    if first.reference_g is None or maps.reference_g is None or maps is first:
        return values
    length = float(np.linalg.norm(first.reference_g))
    if name in ("strain", "relative_contrast"):
        return (1.0 + values) * length / float(np.linalg.norm(maps.reference_g)) - 1.0
    e3 = first.reference_g / length
    e1 = np.array([1.0, 0.0, 0.0]) - e3[0] * e3
    e1 /= np.linalg.norm(e1)
    roll = first.affine[:, 1]
    directions = {
        "H_13": e1,
        "H_23": np.cross(e3, e1),
        "H_33": e3,
        "tilt_rock": math.degrees(1.0) * np.cross(roll, e3),
        "tilt_roll": -math.degrees(1.0) * roll,
    }
    return values + float(directions[name] @ (maps.reference_g - first.reference_g)) / length


def kernel_average_misorientation(
    com: Sequence[NDArray[np.float64]], valid: NDArray[np.bool_], size: int = 5
) -> NDArray[np.float64]:
    """Return the mean distance of each pixel's centre of mass to those of its neighbours.

    darling's definition: the Euclidean distance of the vectors of motor angles, averaged over an odd square kernel
    without its centre. It is a *projected* misorientation: rotations about the diffraction vector do not show, nor,
    in a scan of one axis, the other tilt. Pixels that are not valid are left out; at the border the kernel is cut
    (darling leaves 0 there).

    Parameters
    ----------
    com : sequence of ndarray, shape (nx, ny)
        Centre of mass of each tilt axis.
    valid : ndarray of bool, shape (nx, ny)
        Pixels that count.
    size : int
        Pixels on a side of the kernel, odd; darling's default is 5.

    Returns
    -------
    ndarray, shape (nx, ny)
        In the unit of the axes; NaN where there is no valid pair.
    """
    if size < 3 or size % 2 == 0:
        raise ParameterError(f"size: a kernel of {size} pixels was asked; it must be odd and at least 3")
    out = np.full(valid.shape, np.nan)
    if len(com):
        field_ = np.ascontiguousarray(np.stack(com, axis=-1), dtype=np.float64)
        good = np.ascontiguousarray(valid & np.isfinite(field_).all(axis=-1))
        _kernels.misorientation(field_, good, size // 2, out)
    return out


def make_maps(
    moments: Moments,
    *,
    names: Sequence[str],
    units: Sequence[str],
    command: ScanCommand,
    title: str,
    sample: str,
    source: str,
    setting: Setting,
    dark: Dark | None,
    kam_size: int = 5,
    reference: float | None = None,
    settings: dict[str, Any] | None = None,
) -> MapSet:
    """Make maps of what was accumulated so far.

    Parameters
    ----------
    moments : Moments
        Sums over the frames.
    names, units : sequence of str
        Of the axes.
    command : ScanCommand
        The plan of the scan: steps and numbers of points.
    title, sample, source : str
        For the record.
    setting : Setting
        Where the microscope stood.
    dark : Dark or None
        What is taken off each frame.
    kam_size : int
        Pixels on a side of the kernel of the KAM.
    reference : float, optional
        Lattice parameter a of the unstrained crystal, angstrom; default: strain is relative to the median.
    settings : dict, optional
        How the maps are made, for the record.

    Raises
    ------
    ParameterError
        When the lattice parameter cannot be used.
    """
    found = moments.result(dark.level if dark is not None else None)
    taken_off = moments.clip if moments.clip is not None else dark.level if dark is not None else 0.0
    # of a saturated frame only its monitor's reading changes, so that one of the lowest weight sets the limit
    full_well = setting.saturation_adu
    saturated = found.maximum >= found.weights.min() * (full_well - taken_off) - 0.5
    notes = _notes(found, dark, moments, command)
    if saturated.any():
        notes.append(
            f"{int(saturated.sum())} pixels reached the camera's full well of {full_well} ADU: their widths are too "
            "large, their errors are not those predicted, and they are left out of what is derived from the maps"
        )
    stood = dict(zip(map(setting.logical, names), moments.mean_position().tolist(), strict=True))
    # while a scan goes on, the mean wanders; the grid of the maps does not
    setting.stand_at(stood | (moments.regridding.middle if moments.regridding is not None else {}))
    noise = setting.noise(dark)
    place = setting.placement(moments.shape)
    sigma = setting.instrument_sigma(names)
    valid = significance(found, noise) >= MIN_SIGNIFICANCE
    if found.covered is not None:
        valid &= found.covered
        lost = 1.0 - found.covered.mean()
        if lost > 0.0:
            notes.append(
                f"{100.0 * lost:.1f} % of the pixels are not valid: what they show lay outside some of the frames, "
                "because the image moved during the scan"
            )
    axes = tuple(
        _axis_maps(found, index, name, unit, _window(found, command, index), noise, sigma.get(name), place.canonical)
        for index, (name, unit) in enumerate(zip(names, units, strict=True))
    )
    valid = np.ascontiguousarray(place.canonical(valid))
    notes += _window_notes(axes, valid)
    components = _components(found, noise, setting, names, axes, valid, place.canonical, reference)
    return MapSet(
        axes=axes,
        covariance=np.ascontiguousarray(place.canonical(found.covariance)),
        integrated=np.ascontiguousarray(place.canonical(found.integrated)),
        maximum=np.ascontiguousarray(place.canonical(found.maximum)),
        argmax=np.ascontiguousarray(place.canonical(found.argmax)),
        photons=np.ascontiguousarray(place.canonical(found.integrated / noise.gain_adu_per_photon)),
        kam=kernel_average_misorientation([axis.com for axis in axes if axis.name in _TILTS], valid, kam_size),
        valid=valid,
        saturated=np.ascontiguousarray(place.canonical(saturated)),
        x=place.x,
        y=place.y,
        length_units=place.units,
        affine=place.affine,
        distribution=_distribution(found, command),
        title=title,
        sample=sample,
        source=source,
        points=command.points,
        frames=len(moments),
        noise=noise,
        notes=(*notes, *components.notes, *setting.notes),
        settings=dict(settings or {}, kam_size=kam_size),
        components=components.maps,
        reference_g=components.reference_g,
    )


def _components(
    found: MomentMaps,
    noise: Noise,
    setting: Setting,
    names: Sequence[str],
    axes: Sequence[AxisMaps],
    valid: NDArray[np.bool_],
    canonical: Any,
    reference: float | None,
) -> Components:
    spacing = setting.unstrained_spacing(reference) if reference is not None else None
    if setting.view is None:
        return Components({})
    pairs = [(a, b) for a in range(len(names)) for b in range(a, len(names))]
    return components_of(
        setting.view,
        [setting.logical(name) for name in names],
        [axis.com for axis in axes],
        {(a, b): canonical(centroid_covariance(found, a, b, noise)) for a, b in pairs},
        valid,
        spacing,
        found.blur_px,
    )


def _notes(found: MomentMaps, dark: Dark | None, moments: Moments, command: ScanCommand) -> list[str]:
    notes = []
    if dark is None and moments.clip is None:
        notes.append("no dark was subtracted: the camera's offset pulls centres of mass to the middle of the window")
    elif dark is not None and dark.frames == 0:
        notes.append("the dark was given as a level: predicted errors count none for it")
    if found.skipped:
        notes.append(f"{found.skipped} frames were left out because their monitor had no positive reading")
    if max(found.blur_px) > 1.0:
        notes.append(
            f"the focus moved during the scan: maps are blurred by {found.blur_px[0]:.1f} pixels along the beam and "
            f"{found.blur_px[1]:.1f} across (rms), which predicted errors at walls include"
        )
    if len(moments) + found.skipped < command.points:
        notes.append(f"{len(moments) + found.skipped} of {command.points} points were taken")
    return notes


def _window_notes(axes: Sequence[AxisMaps], valid: NDArray[np.bool_]) -> list[str]:
    """Say which windows did not bracket the peak, and of how many pixels."""
    if not valid.any():
        return [
            "no pixel stands out of the noise: the window missed the peak, or there was no beam or no crystal; move "
            "the window, or expose longer"
        ]
    notes = []
    for axis in axes:
        missed = float(axis.not_bracketed[valid].mean())
        if missed > MANY_NOT_BRACKETED:
            seen = float(np.nanmedian(axis.com[valid]))
            low, high = axis.window
            notes.append(
                f"{axis.name}: the window of {low:.6g} to {high:.6g} {axis.units} does not bracket the peak of "
                f"{100.0 * missed:.0f} % of the pixels (the median centre of mass is {seen:.6g}); there centres of "
                "mass, and strain and tilts with them, are pulled to its middle"
            )
    return notes


def _window(found: MomentMaps, command: ScanCommand, axis: int) -> tuple[float, float]:
    """Return the window of an axis as planned where the scan is not over, else as measured, half a step wider."""
    x = found.positions[:, axis]
    plan = command.axes[axis]
    half = axis_step(plan, x) / 2.0
    low, high = float(x.min()), float(x.max())
    planned = sorted((plan.start, plan.start + plan.step * (plan.num - 1)))
    if len(x) < command.points and not command.command.startswith("d") and np.isfinite(planned).all():
        low, high = min(low, planned[0]), max(high, planned[1])
    return low - half, high + half


def axis_step(plan: CommandAxis, x: NDArray[np.float64]) -> float:
    """Return the step of an axis: as planned, or where the plan does not say, from the positions."""
    if np.isfinite(plan.step) and plan.step:
        return abs(plan.step)
    return float(np.ptp(x)) / max(plan.num - 1, 1) or 1.0


def _axis_maps(
    found: MomentMaps,
    index: int,
    name: str,
    units: str,
    window: tuple[float, float],
    noise: Noise,
    sigma: float | None,
    canonical: Any,
) -> AxisMaps:
    variance = found.covariance[index, index]
    width = np.sqrt(np.where(variance >= 0.0, variance, np.nan))
    spread = np.full(variance.shape, np.nan)
    if sigma is not None:
        spread = np.sqrt(np.maximum(variance - sigma**2, 0.0))
    from_noise = centroid_error(found, index, noise)
    maps = {
        "com": found.mean[index],
        "error": np.hypot(from_noise, position_error(found.mean[index], found.blur_px)),
        "noise_error": from_noise,
        "fwhm": FWHM_PER_SIGMA * width,
        "spread_raw": width,
        "spread": spread,
        "spread_limit": np.sqrt(DETECTION_SIGMAS * variance_error(found, index, noise)),
        "slope": centroid_slope_map(found.mean[index], variance, window),
    }
    turned = {key: np.ascontiguousarray(canonical(value)) for key, value in maps.items()}
    return AxisMaps(name=name, units=units, window=window, instrument_sigma=sigma, **turned)


def _distribution(found: MomentMaps, command: ScanCommand) -> OrientationDistribution:
    """Sort the detector's sums into steps of each axis; a scan of axes that move together has one dimension."""
    count = 1 if command.together else len(command.axes)
    steps, centers = [], []
    for axis in range(count):
        x, plan = found.positions[:, axis], command.axes[axis]
        step = axis_step(plan, x)
        number = np.clip(np.rint((x - x.min()) / step).astype(int), 0, None)
        steps.append(number)
        taken = np.bincount(number)
        with np.errstate(invalid="ignore"):
            center = np.bincount(number, x) / taken
        centers.append(np.where(taken > 0, center, x.min() + step * np.arange(len(taken))))
    shape = tuple(len(center) for center in centers)
    flat = np.ravel_multi_index(tuple(steps), shape)
    size = int(np.prod(shape))
    taken = np.bincount(flat, minlength=size)
    with np.errstate(invalid="ignore"):
        intensity = np.bincount(flat, found.totals, minlength=size) / taken
    return OrientationDistribution(tuple(centers), intensity.reshape(shape))


def maps_from_file(
    path: str | Path,
    scan: str = "1.1",
    *,
    dark: str | float | Path | NDArray | None = "auto",
    monitor: str | None = "auto",
    clip: int | None = None,
    kam_size: int = 5,
    reference: float | None = None,
) -> MapSet:
    """Make the maps of a recorded scan.

    Frames of a scan that moves the image (2theta, energy) are put back on the grid of the middle of the scan.

    Parameters
    ----------
    path : path
        HDF5 file: the master of a run of ours, or a file of ID03 in the layout of BLISS.
    scan : str
        Entry of the scan.
    dark : str, float, Path, ndarray or None
        What is taken off each frame. ``auto``: the mean of the darks in our own record (none in another's file); an
        entry of the file (``2.1``, or ``2.1+3.1`` for the mean of two); a path to another file, with an entry after
        ``::`` (``2.1`` if none); a level in ADU; an array of shape (rows, columns); None: nothing.
    monitor : str or None
        What intensities are divided by. ``auto``: the flux monitor of our own record (none in another's file); its
        name or path in the entry; None: nothing.
    clip : int, optional
        Instead of a dark: take this off and set what would be negative to zero, as darling's ``subtract`` does.
    kam_size : int
        Pixels on a side of the kernel of the KAM.
    reference : float, optional
        Lattice parameter a of the unstrained crystal, angstrom: strain is then relative to it, as far as 2theta and
        energy are calibrated. Default: strain is relative to the median of the valid pixels.

    Raises
    ------
    FileFormatError
        When the file is absent, truncated, foreign or lacks what the scan's title promises.
    ParameterError
        When the dark or the monitor asked for is not there or does not fit.
    """
    path = Path(path)
    if clip is not None:
        if dark not in ("auto", None):
            raise ParameterError("clip: it takes the place of a dark; give one of the two")
        if not 0 <= clip <= 65535:
            raise ParameterError(f"clip: {clip} was given; it is a number of counts between 0 and 65535")
        dark = None
    with open_scan(path, scan, monitor) as source:
        before, level = chosen_dark(dark, path, source.ours, source.shape)
        regridding = source.setting.regridding(source.shape, source.names, source.middle(), source.beside)
        moments = Moments(
            source.shape, len(source.names), before.level if before is not None else None, clip, regridding
        )
        _accumulate(source, moments)
        if not len(moments):
            raise FileFormatError(f"{path}: no frame of scan {scan} has a positive monitor reading")
        return make_maps(
            moments,
            names=source.names,
            units=source.units,
            command=source.command,
            title=source.title,
            sample=source.sample,
            source=f"{path}::/{scan}",
            setting=source.setting,
            dark=level,
            kam_size=kam_size,
            reference=reference,
            settings={
                "reference": "median" if reference is None else f"a = {reference:g} angstrom",
                "dark": _describe(dark, level),
                "monitor": "none" if source.monitor is None else str(monitor),
                "clip": "none" if clip is None else clip,
            },
        )


def _accumulate(source: ScanFile, moments: Moments) -> None:
    """Add all frames of a scan; none of them stays in memory when the maps are made."""
    flux = source.monitor
    for points, frames in source.batches():
        moments.add(
            frames,
            source.positions[points],
            None if flux is None else flux[points],
            np.arange(points.start, points.stop),
        )


def _describe(asked: Any, dark: Dark | None) -> str:
    if dark is None:
        return "none"
    if dark.frames:
        return f"mean of {dark.frames} frames ({asked})"
    return f"level {asked:g} ADU" if isinstance(asked, (int, float)) else "given array"


def chosen_dark(
    wanted: str | float | Path | NDArray | None, path: Path, ours: bool, shape: tuple[int, int]
) -> tuple[Dark | None, Dark | None]:
    """Return the dark that is known while frames are added, and the one that is subtracted in the end."""
    if wanted is None:
        return None, None
    if isinstance(wanted, np.ndarray):
        found = (Dark(wanted.astype(float)),) * 2
    elif isinstance(wanted, (int, float)):
        found = (Dark(np.full(shape, float(wanted))),) * 2
    elif wanted == "auto":
        entries = recorded_darks(path) if ours else ""
        if not entries:
            return None, None
        found = read_darks(path, entries)
    else:
        file, _, entry = str(wanted).partition("::")
        inside = not isinstance(wanted, Path) and all(part.replace(".", "", 1).isdigit() for part in file.split("+"))
        found = read_darks(path, file) if inside else read_darks(Path(file), entry or "2.1")
    if found[1].level.shape != shape:
        raise ParameterError(f"dark: its frames have shape {found[1].level.shape}, those of the scan {shape}")
    return found
