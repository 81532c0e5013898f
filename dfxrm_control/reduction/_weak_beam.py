"""Weak-beam images: what a series of exposures about the peak shows, and how far off the peak it was taken.

Off the peak the crystal is dark but for what is distorted by about the offset: at a distance r from a dislocation the
distortion is about ``b / (2 pi r)``, so it lights up ``b / (2 pi offset)`` away from its line, on one side with one
flank of the peak and on the other side with the other.

With both flanks the intensities tell the place of the peak, pixel by pixel: for a Gaussian peak with precision P,
``ln I(m) + m^T P m / 2`` is linear in the displacement m of the motors from the middle, with slope ``P m0`` (derived).
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.crystal import DynamicalWidths, Lattice, dynamical_widths
from dfxrm_control.errors import FileFormatError, ParameterError, PhysicsError, RecordError
from dfxrm_control.geometry import FWHM_PER_SIGMA
from dfxrm_control.reduction._components import MOST_LEAK, ComponentMap
from dfxrm_control.reduction._lines import Line, find_lines
from dfxrm_control.reduction._moments import Dark
from dfxrm_control.reduction._scan import ScanFile, open_scan, read_darks, recorded_darks
from dfxrm_control.reduction._setting import Placement, Setting
from dfxrm_control.reduction.series import Series, SeriesRun, SeriesWarning
from dfxrm_control.windows import apparent_q, coupling

__all__ = [
    "WeakBeam",
    "WeakBeamImage",
    "WeakBeamReport",
    "flank_displacement",
    "inverse_intensity",
    "lit_level",
    "read_weak_beam",
    "reduce_weak_beam",
]

LIT_LEVEL = 0.02
"""A pixel far off the peak is lit at this part of the intensity on the peak: ten times a perfect crystal's at k = 3."""
LIT_SHIFT = 3.0 - math.sqrt(-math.log2(LIT_LEVEL))
"""Half widths by which the peak of a pixel lies nearer when it has `LIT_LEVEL` at k = 3; see `lit_level`."""
SIGNIFICANT = 3.0
"""Times its error, from where on an intensity counts."""
CRYSTAL_LEVEL = 0.1
"""Part of the median intensity on the peak above which a pixel shows crystal."""
AT_THE_PEAK = 0.1
"""Frames of the rock within this many FWHM of the middle make the strong-beam image; the last have 0.97 of the peak."""
MANY_SATURATED = 0.01
PIXELS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class WeakBeamReport:
    """What one image off the peak amounts to.

    Attributes
    ----------
    axis : str
        The axis along which it was taken off the peak.
    k, offset_deg, two_theta_offset_deg : float
        Half widths off the peak, the same in deg, and the arm's distance from where it stood.
    frames, exposure_s : float
        Frames averaged, and exposure time of each.
    lit_fraction : float
        Part of the crystal's pixels that have ``lit_level`` of the intensity on the peak.
    lit_level : float
        From where on a pixel counts as lit, in parts of the intensity on the peak: see the function of this name.
    line_level, background : float
        Median intensity of the lit pixels and of the whole crystal, in parts of that on the peak; the first is NaN
        where nothing is lit.
    contrast, contrast_strong : float
        ``(lit - background) / (lit + background)`` off the peak, and of the same pixels on the peak.
    saturated_fraction : float
        Part of the pixels that reached the camera's full well.
    offset_rad, matching_radius_um : float or None
        Change of the diffraction vector that the offset asks for, and the distance ``b/(2 pi offset)`` from a
        dislocation with ``g . b = 1`` where it is found.
    psf_um : float or None
        FWHM of the image of a point.
    deviation_darwin_widths : float or None
        Turn of the crystal away from its Bragg angle, in Darwin widths; None for an axis that does not turn it so.
    """

    axis: str
    k: float
    offset_deg: float
    two_theta_offset_deg: float
    frames: int
    exposure_s: float
    lit_fraction: float
    lit_level: float
    line_level: float
    background: float
    contrast: float
    contrast_strong: float
    saturated_fraction: float
    offset_rad: float | None
    matching_radius_um: float | None
    psf_um: float | None
    deviation_darwin_widths: float | None

    def sentence(self) -> str:
        """Return the report as one line for people."""
        parts = [
            f"{self.axis} {self.offset_deg:+.4f} deg (k = {self.k:+.3g}): {100 * self.lit_fraction:.1f} % lit "
            f"(above {100 * self.lit_level:.2g} % of the peak)",
            f"background {100 * self.background:.2g} % of the peak",
        ]
        if math.isfinite(self.line_level):
            parts.append(
                f"lines {100 * self.line_level:.3g} %, contrast {self.contrast:.2f} (on the peak "
                f"{self.contrast_strong:+.2f})"
            )
        if self.matching_radius_um is not None:
            parts.append(f"met {1e3 * self.matching_radius_um:.3g} nm from a dislocation")
        if self.deviation_darwin_widths is not None:
            parts.append(f"{self.deviation_darwin_widths:.3g} Darwin widths off")
        return ", ".join(parts)


@dataclass(frozen=True)
class WeakBeamImage:
    """The mean of the exposures at one point off the peak.

    Attributes
    ----------
    values, error : ndarray, shape (nx, ny)
        Intensity above dark at equal flux and time, in parts of the intensity on the peak, and its rms error.
    displacement_deg : dict of str to float
        Of each axis from the middle of the peak.
    report : WeakBeamReport
        What it amounts to.
    """

    values: NDArray[np.float64]
    error: NDArray[np.float64]
    displacement_deg: dict[str, float]
    report: WeakBeamReport


@dataclass(frozen=True)
class WeakBeam:
    """A series about the peak; maps are ``map[ix, iy]`` on the illuminated layer, as in `MapSet`.

    Attributes
    ----------
    sample, axis : str
        Sample, and the axis that was rocked.
    fwhm_deg, centre_deg : float
        Of the median pixel's peak, as measured by the plan.
    strong, strong_error : ndarray, shape (nx, ny)
        Image on the peak, divided by its median over the crystal.
    crystal : ndarray of bool, shape (nx, ny)
        Where there is crystal that diffracts on the peak.
    images : tuple of WeakBeamImage
        In the order of the series.
    components : dict of str to ComponentMap
        Tilt (and strain, with three positions of the arm) where both flanks show something; empty with one flank.
    x, y : ndarray
        Positions along the beam and across, increasing.
    length_units : {"um", "pixel"}
        Of x and y.
    dynamical : DynamicalWidths or None
        Darwin width and extinction length, where atoms are known.
    layer_um, thickness_um : float or None
        Thickness, along the normal of a symmetric Laue case, of the crystal that the beams cross in the layer, and
        length of the whole crystal along the beam.
    notes : tuple of str
        What is missing, and what limits the images.
    """

    sample: str
    axis: str
    fwhm_deg: float
    centre_deg: float
    strong: NDArray[np.float64]
    strong_error: NDArray[np.float64]
    crystal: NDArray[np.bool_]
    images: tuple[WeakBeamImage, ...]
    components: dict[str, ComponentMap]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    length_units: str
    dynamical: DynamicalWidths | None
    layer_um: float | None
    thickness_um: float | None
    notes: tuple[str, ...] = field(default=())

    def image(self) -> NDArray[np.float64]:
        """Return the mean of the images at the largest offset, of all flanks: lines lie in the middle of it."""
        furthest = max(abs(image.report.k) for image in self.images)
        chosen = [image.values for image in self.images if abs(image.report.k) == furthest]
        return np.mean(chosen, axis=0)

    def lines(self, **options: Any) -> list[Line]:
        """Return the lines of `image`; options as for `find_lines`.

        A line of a dislocation is lit out to about twice the matching radius on either side.
        """
        report = max((image.report for image in self.images), key=lambda report: abs(report.k))
        if self.length_units == "um" and report.matching_radius_um is not None:
            options.setdefault("width_um", 4.0 * report.matching_radius_um + (report.psf_um or 0.0))
        return find_lines(self.image(), self.x, self.y, mask=self.crystal, **options)

    def thicknesses(self) -> dict[str, float]:
        """Return layer and crystal in extinction lengths, as far as they are known."""
        known = {"layer": self.layer_um, "crystal": self.thickness_um}
        if self.dynamical is None:
            return {}
        return {name: um / self.dynamical.extinction_length_um for name, um in known.items() if um is not None}

    def summary(self) -> list[str]:
        """Return what a user wants to know, one line each."""
        lines = [f"peak along {self.axis}: FWHM {self.fwhm_deg:.4f} deg at {self.centre_deg:.4f} deg (median pixel)"]
        if self.dynamical is not None:
            d = self.dynamical
            lines.append(
                f"Darwin width {1e6 * d.darwin_width_rad:.3g} urad, extinction length {d.extinction_length_um:.3g} um"
                + "".join(f"; {name} {value:.2g} extinction lengths" for name, value in self.thicknesses().items())
            )
        return [*lines, *(image.report.sentence() for image in self.images), *self.notes]


def flank_displacement(
    offsets: ArrayLike, images: ArrayLike, errors: ArrayLike, precision: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return by how much each pixel's peak is displaced, from images about it.

    A weighted least-squares fit of a plane to ``ln I + m^T P m / 2``, with the images that stand out of their noise.

    Parameters
    ----------
    offsets : array_like, shape (n, d)
        Displacements m of the motors from the middle of the peak, one row per image.
    images, errors : array_like, shape (n, ...)
        Intensities and their rms errors.
    precision : array_like, shape (d, d)
        P, the inverse covariance of a pixel's peak along the motors, in the inverse squared unit of the offsets.

    Returns
    -------
    displacement : ndarray, shape (d, ...)
        Of the peak, in the unit of the offsets; NaN where not valid.
    error : ndarray, shape (d, ...)
        Predicted rms error.
    valid : ndarray of bool, shape (...)
        Where, along each motor, images on both sides of the middle show something.
    """
    m, p = np.atleast_2d(np.asarray(offsets, dtype=float)), np.asarray(precision, dtype=float)
    values, sigma = np.asarray(images, dtype=float), np.asarray(errors, dtype=float)
    count, d = m.shape
    shape = values.shape[1:]
    values, sigma = values.reshape(count, -1), sigma.reshape(count, -1)
    found, error = np.full((2, d, values.shape[1]), np.nan)
    for first in range(0, values.shape[1], PIXELS_AT_ONCE):
        part = slice(first, first + PIXELS_AT_ONCE)
        found[:, part], error[:, part] = _fit_flanks(m, values[:, part], sigma[:, part], p)
    valid = np.isfinite(found).all(0)
    return found.reshape(d, *shape), error.reshape(d, *shape), valid.reshape(shape)


def _fit_flanks(
    m: NDArray[np.float64], values: NDArray[np.float64], sigma: NDArray[np.float64], p: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return displacement and error of some pixels, shapes (d, pixels); see `flank_displacement`."""
    count, d = m.shape
    seen = values > SIGNIFICANT * sigma
    valid = np.ones(values.shape[1], dtype=bool)
    for column in m.T:
        valid &= seen[column < 0.0].any(0) & seen[column > 0.0].any(0)
    safe = np.where(seen, values, 1.0)
    weight = np.where(seen, (safe / np.where(seen, sigma, 1.0)) ** 2, 0.0)
    flat = np.log(safe) + 0.5 * np.einsum("ni,ij,nj->n", m, p, m)[:, np.newaxis]
    design = np.hstack([np.ones((count, 1)), m @ p])
    normal = np.einsum("np,ni,nj->pij", weight, design, design)
    # in units of the diagonal the determinant tells whether the images fix a plane, whatever their brightness
    scale = np.sqrt(np.maximum(np.einsum("pii->pi", normal), 1e-300))
    outer = scale[:, :, np.newaxis] * scale[:, np.newaxis, :]
    solvable = np.where(valid[:, np.newaxis, np.newaxis], normal / outer, np.eye(d + 1))
    valid &= np.linalg.det(solvable) > 1e-9
    solvable[~valid] = np.eye(d + 1)
    covariance = np.linalg.inv(solvable) / outer
    right = np.einsum("np,ni->pi", weight * flat, design)
    found = np.einsum("pij,pj->pi", covariance, right)[:, 1:].T
    error = np.sqrt(np.einsum("pii->pi", covariance)[:, 1:]).T
    return np.where(valid, found, np.nan), np.where(valid, error, np.nan)


def lit_level(k: float, background: float) -> float:
    """Return from where on a pixel counts as lit, in parts of the intensity on the peak.

    A perfect crystal is left with ``exp(-k^2 ln 2)``, 6 % at k = 2, and must not count. So what counts is a pixel
    whose peak lies `LIT_SHIFT` half widths nearer: it has ``exp(-(k - LIT_SHIFT)^2 ln 2)``, which is `LIT_LEVEL` at
    k = 3; from there on that level stands, since what is fainter need not be the crystal's.

    Parameters
    ----------
    k : float
        Half widths off the peak, of either sign.
    background : float
        Median intensity of the crystal there, in parts of that on the peak. Where a condenser cuts the divergence the
        tail is darker than that of a Gaussian, and k counts as what it is as dark as.
    """
    tail = min(2.0 ** -(k * k), background)
    if not tail > 0.0:
        return LIT_LEVEL
    nearer = max(math.sqrt(-math.log2(tail)) - LIT_SHIFT, 0.0)
    return max(LIT_LEVEL, 2.0 ** -(nearer * nearer))


def inverse_intensity(image: NDArray[np.float64], crystal: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return an image for the eye: lines dark on a bright ground, between 0 and 1.

    Mean and two standard deviations of the ground are taken off and what is below set to zero, as dfxm-geo does; the
    ground is the crystal without its brightest tenth.
    """
    values = image[crystal] if crystal is not None and crystal.any() else image.ravel()
    ground = values[values <= np.percentile(values, 90.0)]
    above = np.maximum(image - (ground.mean() + 2.0 * ground.std()), 0.0)
    top = np.percentile(above[above > 0.0], 99.0) if (above > 0.0).any() else 1.0
    return 1.0 - np.clip(above / top, 0.0, 1.0)


@dataclass(frozen=True)
class _Rate:
    """Intensity per monitor count: mean of frames on the reference grid, its error, and how much was saturated."""

    values: NDArray[np.float64]
    error: NDArray[np.float64]
    saturated: float
    frames: int


def read_weak_beam(series: Series) -> WeakBeam:
    """Reduce the runs of a series that `weak_beam_scan` made.

    What had to be left out is said by a `SeriesWarning` and kept in the notes.

    Raises
    ------
    ParameterError
        When the rock or all exposures are missing.
    FileFormatError
        When a run cannot be read.
    """
    notes: list[str] = []

    def say(text: str) -> None:
        notes.append(text)
        warnings.warn(text, SeriesWarning, stacklevel=3)

    done = series.complete
    rock = next((run for run in done if run.series.get("role") == "rock"), None)
    exposures = [run for run in done if run.series.get("role") == "exposure"]
    if rock is None or not exposures:
        what = "its rock" if rock is None else "any exposure off the peak"
        raise ParameterError(f"weak beam: the series {series.stem} lacks {what}, so there is nothing to compare")
    if series.of is not None and len(done) < series.of:
        say(
            f"{series.of - len(done)} of {series.of} runs are missing or did not end well; the images are of the others"
        )
    axis, about = series.axis, exposures[0].series
    fwhm, centre = float(about["fwhm"]), float(about["centre"])
    with open_scan(rock.master, "1.1", "auto") as scan:
        scan.setting.stand_at({axis: centre})
        setting = scan.setting
        place = setting.placement(scan.shape)
        at = scan.positions[:, scan.names.index(axis)]
        near = np.abs(at - centre) <= AT_THE_PEAK * fwhm
        near[np.argmin(np.abs(at - centre))] = True
        strong = _rate(scan, _dark(rock, say), near, place, place)
    dark = next((found for run in exposures if (found := _dark(run)) is not None), None)
    if dark is None:
        say("no darks were taken at the exposure of the images, so their lowest level is taken for the dark")
    rates, where = [], []
    for run in exposures:
        with open_scan(run.master, "1.1", "auto") as scan:
            there = dict(zip(scan.names, scan.positions.mean(0), strict=True))
            scan.setting.stand_at(there)
            rates.append(
                _rate(scan, dark, np.ones(len(scan.positions), bool), scan.setting.placement(scan.shape), place)
            )
            where.append(there)
            if rates[-1].saturated > MANY_SATURATED:
                say(
                    f"{100 * rates[-1].saturated:.0f} % of the pixels {run.value:+.4f} deg off the peak are saturated: "
                    "expose for shorter, or take more frames"
                )
    bright = strong.values > SIGNIFICANT * strong.error
    if not bright.any():
        raise ParameterError(f"weak beam: no pixel of {series.stem} is lit on the peak, so there is nothing to compare")
    crystal = bright & (strong.values > CRYSTAL_LEVEL * np.median(strong.values[bright]))
    peak = float(np.median(strong.values[crystal]))
    dynamical = _dynamical(setting.sample, setting.view.energy_kev if setting.view is not None else None)
    images = []
    for run, rate, there in zip(exposures, rates, where, strict=True):
        arm = float(run.series.get("two_theta_offset") or 0.0)
        displacement = {axis: float(there[axis]) - centre}
        if arm or len(where[0]) > 1:
            displacement = {"two_theta": arm, **displacement}
        values, error = rate.values / peak, rate.error / peak
        report = _report(run, axis, rate, values, error, strong.values / peak, crystal, setting, dynamical)
        images.append(WeakBeamImage(values, error, displacement, report))
    components = _components(images, axis, fwhm, setting, say)
    return WeakBeam(
        sample=rock.sample_name,
        axis=axis,
        fwhm_deg=fwhm,
        centre_deg=centre,
        strong=strong.values / peak,
        strong_error=strong.error / peak,
        crystal=crystal,
        images=tuple(images),
        components=components,
        x=place.x,
        y=place.y,
        length_units=place.units,
        dynamical=dynamical,
        layer_um=_layer_um(setting),
        thickness_um=about.get("thickness_um"),
        notes=(*about.get("remarks", ()), *notes),
    )


def _dark(run: SeriesRun, say: Callable[[str], None] | None = None) -> Dark | None:
    entries = recorded_darks(run.master)
    if not entries:
        if say is not None:
            say("no darks were taken with the rock, so the lowest level of its frames is taken for the dark")
        return None
    return read_darks(run.master, entries)[-1]


def _rate(
    scan: ScanFile, dark: Dark | None, chosen: NDArray[np.bool_], place: Placement, reference: Placement
) -> _Rate:
    """Return the mean of chosen frames per unit of the monitor (of time where there is none), as a map."""
    total = np.zeros(scan.shape)
    full = np.zeros(scan.shape, dtype=bool)
    for points, frames in scan.batches():
        taken = frames[chosen[points]]
        total += taken.sum(0, dtype=np.float64)
        full |= (taken >= scan.setting.saturation_adu).any(0)
    count = int(chosen.sum())
    level = dark.level if dark is not None else np.full(scan.shape, np.percentile(total, 1.0) / count)
    noise = scan.setting.noise(dark)
    signal = total - count * level
    variance = (
        noise.gain_adu_per_photon * np.maximum(signal, 0.0)
        + count * noise.frame_variance_adu2
        + count**2 * noise.dark_variance_adu2
    )
    flux = float(scan.monitor[chosen].sum()) if scan.monitor is not None else count * (scan.setting.exposure_s or 1.0)
    if not flux > 0.0:
        raise FileFormatError(f"weak beam: the flux monitor of {scan.title!r} reads nothing above zero")
    maps = [_on_grid(place.canonical(frame), place, reference) for frame in (signal / flux, np.sqrt(variance) / flux)]
    return _Rate(maps[0], maps[1], float(full.mean()), count)


def _on_grid(image: NDArray[np.float64], place: Placement, reference: Placement) -> NDArray[np.float64]:
    """Return an image at the points of another grid: the arm's angle changes scale and place of the field a little."""
    same = np.allclose(place.x, reference.x, atol=1e-6) and np.allclose(place.y, reference.y, atol=1e-6)
    if same:
        return image
    for axis, (here, there) in enumerate(((place.x, reference.x), (place.y, reference.y))):
        at = np.clip(np.interp(there, here, np.arange(len(here))), 0, len(here) - 1)
        low = np.minimum(at.astype(int), len(here) - 2)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        image = np.take(image, low, axis) * (1.0 - share) + np.take(image, low + 1, axis) * share
    return image


def _report(
    run: SeriesRun,
    axis: str,
    rate: _Rate,
    values: NDArray[np.float64],
    error: NDArray[np.float64],
    strong: NDArray[np.float64],
    crystal: NDArray[np.bool_],
    setting: Setting,
    dynamical: DynamicalWidths | None,
) -> WeakBeamReport:
    background = float(np.median(values[crystal]))
    level = lit_level(float(run.series["k"]), background)
    lit = crystal & (values > level) & (values > SIGNIFICANT * error)
    line, contrast, contrast_strong = math.nan, math.nan, math.nan
    if lit.any():
        line = float(np.median(values[lit]))
        on_peak, ground = float(np.median(strong[lit])), float(np.median(strong[crystal]))
        contrast = (line - background) / (line + background)
        contrast_strong = (on_peak - ground) / (on_peak + ground)
    deviation = None
    if dynamical is not None and setting.view is not None and axis in ("mu", "omega", "chi", "phi"):
        turned = abs(math.radians(run.value) * float(setting.view.jacobian([axis])[0, 0]))
        # about an axis along the beam the Bragg angle stays: a deviation of nothing is none
        deviation = turned / dynamical.darwin_width_rad if turned > 1e-3 * abs(math.radians(run.value)) else None
    about = run.series
    return WeakBeamReport(
        axis=axis,
        k=float(about["k"]),
        offset_deg=run.value,
        two_theta_offset_deg=float(about.get("two_theta_offset") or 0.0),
        frames=rate.frames,
        exposure_s=float(run.dfxrm.get("exposure_s", math.nan)),
        lit_fraction=float(lit.sum() / crystal.sum()),
        lit_level=level,
        line_level=line,
        background=background,
        contrast=contrast,
        contrast_strong=contrast_strong,
        saturated_fraction=rate.saturated,
        offset_rad=about.get("offset_rad"),
        matching_radius_um=about.get("matching_radius_um"),
        psf_um=about.get("psf_um"),
        deviation_darwin_widths=deviation,
    )


def _dynamical(sample: dict[str, Any] | None, energy_kev: float | None) -> DynamicalWidths | None:
    if not sample or not sample.get("atoms") or energy_kev is None:
        return None
    try:
        a, b, c, alpha, beta, gamma = sample["lattice"]
        atoms = [tuple(atom) for atom in sample["atoms"]]
        lattice = Lattice.from_parameters(a, b, c, alpha, beta, gamma, sample.get("space_group", "P 1"), atoms)
        return dynamical_widths(lattice, sample["hkl"], energy_kev)
    except (PhysicsError, KeyError, TypeError, ValueError):
        return None  # a sample that is not fully described has no widths, and its images are none the worse


def _layer_um(setting: Setting) -> float | None:
    """Return how thick the lit layer is for the two beams, along the bisector that is the normal of a Laue case, um.

    The diffracted beam leaves a layer of height h after ``h / sin 2theta``; ``cos theta`` of that lies along the
    normal: ``h / (2 sin theta)``.
    """
    if setting.view is None or setting.instrument is None or setting.channels.get("condenser", "line") != "line":
        return None
    theta = math.radians(setting.view.two_theta_deg / 2.0)
    return float(setting.instrument.beam.line_height_um / (2.0 * math.sin(theta))) if theta > 0.0 else None


def _components(
    images: Sequence[WeakBeamImage], axis: str, fwhm: float, setting: Setting, say: Callable[[str], None]
) -> dict[str, ComponentMap]:
    """Return tilt, or tilt and strain, of the pixels that both flanks show."""
    view = setting.view
    if view is None or view.resolution is None:
        return {}
    names = list(images[0].displacement_deg)
    offsets = np.array([[image.displacement_deg[name] for name in names] for image in images])
    both = [(column < 0).any() and (column > 0).any() for column in offsets.T]
    if not both[-1]:
        return {}
    if not all(both):
        names, offsets = [axis], offsets[:, -1:]
        chosen = [number for number, image in enumerate(images) if not image.report.two_theta_offset_deg]
    else:
        chosen = list(range(len(images)))
    if len(chosen) < len(names) + 1:
        return {}
    if view.resolution.zv_cut_rad is not None:
        say("the condenser's cut gives the peak sharp edges, so the flanks do not tell tilt or strain")
        return {}
    jacobian = view.jacobian(names)
    if len(names) == 1 and abs(jacobian[2, 0]) > 0.1:
        return {}  # along one such axis strain is not told from tilt
    precision = jacobian.T @ view.resolution.inverse_covariance @ jacobian
    # what was measured along the axis stands; the shape of the peak is the instrument's
    measured = (FWHM_PER_SIGMA / math.radians(fwhm)) ** 2
    precision *= measured / precision[-1, -1] * math.radians(1.0) ** 2
    found, error, valid = flank_displacement(
        offsets[chosen], [images[n].values for n in chosen], [images[n].error for n in chosen], precision
    )
    if not valid.any():
        say("no pixel shows on both flanks of the peak, so there are no maps of tilt or strain")
        return {}
    # J m + q = 0 at the peak: a lattice displaced by q peaks at -q
    q = -np.tensordot(jacobian, np.radians(found), 1)
    q_error = np.sqrt(np.tensordot(jacobian**2, np.radians(error) ** 2, 1))
    leak = apparent_q(view.resolution, jacobian) - np.eye(3)
    of_peak = "relative to the middle of the peak, from the flanks"
    made: dict[str, ComponentMap] = {}
    kinds = (
        ("tilt_rock", 0, math.degrees(1.0), "deg", "tilt about y"),
        ("tilt_roll", 1, -math.degrees(1.0), "deg", "tilt across y and Q"),
        ("strain", 2, -1.0, "", "strain along the diffraction vector"),
    )
    for name, row, factor, units, label in kinds:
        if np.abs(leak[row]).max() > MOST_LEAK:
            continue
        alone = ""
        if name == "tilt_rock" and len(names) == 1:
            shared = abs(coupling(view.resolution, jacobian)["tilt_rad_per_strain"])
            alone = f"; strain counts as tilt, {shared:.3f} rad per unit"
        made[name] = ComponentMap(
            name=name,
            label=f"{label}, {of_peak}{alone}",
            units=units,
            values=factor * q[row],
            error=abs(factor) * q_error[row],
            noise_error=abs(factor) * q_error[row],
        )
    return made


def reduce_weak_beam(series: Series, folder: Path) -> list[Path]:
    """Reduce a series about the peak and write images, maps, report and picture; see `read_weak_beam` for the errors.

    Returns
    -------
    list of Path
        HDF5 file, picture, report.

    Raises
    ------
    RecordError
        When a file cannot be written.
    """
    found = read_weak_beam(series)
    written = folder / f"{series.stem}.h5", folder / f"{series.stem}.png", folder / f"{series.stem}.txt"
    try:
        _write(found, written[0])
        _draw(found, written[1])
        _put(written[2], lambda path: path.write_text("\n".join(found.summary()) + "\n", encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"weak-beam images cannot be written to {folder}: {error.strerror or error}") from error
    return list(written)


def _put(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(found: WeakBeam, path: Path) -> None:
    def fill(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file.attrs.update({"NX_class": "NXroot", "default": "entry"})
            entry = file.create_group("entry")
            entry.attrs.update({"NX_class": "NXentry", "default": "strong_beam"})
            entry["title"] = f"weak-beam images of {found.sample}"
            entry["report_json"] = json.dumps(
                {
                    "axis": found.axis,
                    "fwhm_deg": found.fwhm_deg,
                    "centre_deg": found.centre_deg,
                    "dynamical": vars(found.dynamical) if found.dynamical is not None else None,
                    "extinction_lengths": found.thicknesses(),
                    "images": [
                        {key: None if value != value else value for key, value in vars(image.report).items()}
                        for image in found.images
                    ],
                    "notes": list(found.notes),
                }
            )
            _signal(entry, "strong_beam", found.strong, found.strong_error, found, "intensity on the peak, median 1")
            _signal(entry, "crystal", found.crystal.astype(np.uint8), None, found, "1 where crystal diffracts")
            for number, image in enumerate(found.images):
                group = _signal(
                    entry, f"weak_beam_{number}", image.values, image.error, found, "in parts of that on the peak"
                )
                for name, value in image.displacement_deg.items():
                    group.attrs[f"{name}_off_peak_deg"] = value
            if found.components:
                parent = entry.create_group("components")
                parent.attrs["NX_class"] = "NXcollection"
                for name, component in found.components.items():
                    group = _signal(parent, name, component.values, component.error, found, component.label)
                    group["data"].attrs["units"] = component.units

    _put(path, fill)


def _signal(
    parent: h5py.Group,
    name: str,
    values: NDArray,
    errors: NDArray[np.float64] | None,
    found: WeakBeam,
    text: str,
) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["x", "y"]})
    group["data"] = values.astype(np.float32) if values.dtype.kind == "f" else values
    group["data"].attrs["description"] = text
    if errors is not None:
        group["data_errors"] = errors.astype(np.float32)
    for key, along in (("x", found.x), ("y", found.y)):
        group[key] = along
        group[key].attrs["units"] = found.length_units
    return group


def _draw(found: WeakBeam, path: Path) -> None:
    panels: list[tuple[str, NDArray[np.float64], dict[str, Any]]] = [
        ("on the peak", found.strong, {"cmap": "gray", "vmin": 0.0}),
        ("off the peak, inverse intensity", inverse_intensity(found.image(), found.crystal), {"cmap": "gray"}),
        ("off the peak, parts of the peak", found.image(), {"cmap": "magma", "norm": PowerNorm(0.5, vmin=0.0)}),
    ]
    for component in found.components.values():
        known = component.values[np.isfinite(component.values)]
        reach = float(np.percentile(np.abs(known), 99.0)) if known.size else 1.0
        units = f" ({component.units})" if component.units else ""
        panels.append((f"{component.name}{units}", component.values, {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}))
    figure = Figure(figsize=(4.2 * len(panels), 2.6), layout="constrained")
    extent = (found.x[0], found.x[-1], found.y[0], found.y[-1])
    for ax, (title, image, options) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        drawn = ax.imshow(image.T, origin="lower", extent=extent, aspect="equal", interpolation="nearest", **options)
        # as high as the image, whose shape follows from the field
        figure.colorbar(drawn, cax=ax.inset_axes((1.03, 0.0, 0.04, 1.0)))
        ax.set_title(title, fontsize=9)
        units = found.length_units.replace("um", "µm")
        ax.set_xlabel(f"x along the beam ({units})")
        ax.set_ylabel(f"y across it ({units})")
    figure.suptitle(f"{found.sample}: {found.images[-1].report.sentence()}", fontsize=8)
    _put(path, lambda temporary: figure.savefig(temporary, dpi=150))
