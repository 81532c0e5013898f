"""The shape of each pixel's distribution along each scanned axis: moments to the fourth order, and secondary peaks.

The marginal curve of a pixel along an axis is its intensity summed over the other axes. Its skewness and excess
kurtosis are those of darfix (``sum(I z^3) / sum(I)`` and ``sum(I z^4) / sum(I) - 3``, z the position less the centre of
mass over the rms width). Curves are kept for as many rows of the camera as fit in the memory allowed, and the frames
are read again for the next ones.

The instrument broadens every distribution. Its resolution function is nearly Gaussian, which has no skewness and no
excess kurtosis, so that with its share r of the variance those of the lattice are ``skewness / (1 - r)^1.5`` and
``kurtosis / (1 - r)^2`` (cumulants of a convolution add up).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction import _kernels
from dfxrm_control.reduction._maps import MapSet, axis_step, chosen_dark
from dfxrm_control.reduction._nexus import new_file, new_group, program_version
from dfxrm_control.reduction._pictures import draw, new_figure, panel_shape, save_figure
from dfxrm_control.reduction._regrid import FrameGrid, Regridding
from dfxrm_control.reduction._scan import ScanFile, open_scan

__all__ = ["AxisDistribution", "Distributions", "distributions_from_file", "plot_distributions", "write_distributions"]

LEAST_STEPS = 7
"""Points of an axis from which on a fourth moment means something."""

LEAST_SHARE = 0.03
"""A secondary peak must stand out by this share of the main one's height."""

_TILE = 4096


@dataclass(frozen=True)
class AxisDistribution:
    """Shape of the distributions along one axis; arrays have shape (nx, ny), NaN where a pixel is not valid.

    Attributes
    ----------
    name : str
        Logical name of the axis.
    skewness, skewness_error : ndarray
        Third standardised moment and its rms error by noise.
    kurtosis, kurtosis_error : ndarray
        Fourth standardised moment less 3, and its rms error by noise.
    secondary_peaks : ndarray of int16
        Maxima of the marginal curve besides the highest that stand out of the valley between by so many times the
        noise; -1 where a pixel is not valid.
    instrument_share : ndarray
        Share of the instrument in the variance; NaN where its width is not known.
    """

    name: str
    skewness: NDArray[np.float64]
    skewness_error: NDArray[np.float64]
    kurtosis: NDArray[np.float64]
    kurtosis_error: NDArray[np.float64]
    secondary_peaks: NDArray[np.int16]
    instrument_share: NDArray[np.float64]


@dataclass(frozen=True)
class Distributions:
    """Shapes of all axes whose mesh allows it.

    Attributes
    ----------
    axes : tuple of AxisDistribution
        Slow first; axes with too few or too wide steps are not there.
    maps : MapSet
        The maps of the same scan.
    significance : float
        Times its noise by which a secondary peak stands out.
    passes : int
        How often the frames were read.
    notes : tuple of str
        Which axes are missing, and why.
    """

    axes: tuple[AxisDistribution, ...]
    maps: MapSet
    significance: float
    passes: int
    notes: tuple[str, ...]


def distributions_from_file(
    path: str | Path,
    maps: MapSet,
    scan: str = "1.1",
    *,
    dark: str | float | Path | NDArray | None = "auto",
    monitor: str | None = "auto",
    clip: int | None = None,
    significance: float = 5.0,
    most_bytes: int = 1 << 29,
) -> Distributions:
    """Return the shape of each pixel's distribution along each axis of a recorded scan.

    Parameters
    ----------
    path : path
        The file.
    maps : MapSet
        Its maps, of `maps_from_file` with the same arguments.
    scan, dark, monitor, clip
        As for `maps_from_file`.
    significance : float
        Times the noise by which a secondary peak must stand out of the valley between.
    most_bytes : int
        Memory for the curves; at least one row of the camera is taken at a time.

    Raises
    ------
    FileFormatError, ParameterError
        As for `maps_from_file`.
    """
    if not significance > 0.0:
        raise ParameterError(f"significance: {significance!r} was given; it is a number above 0")
    path = Path(path)
    with open_scan(path, scan, monitor) as source:
        level = None if clip is not None else chosen_dark(dark, path, source.ours, source.shape)[1]
        used, notes = _axes(source, maps)
        middle = source.middle()
        regridding = source.setting.regridding(source.shape, source.names, middle, source.beside)
        source.setting.stand_at(middle)
        canonical = source.setting.placement(source.shape).canonical
        flux = np.ones(source.command.points) if source.monitor is None else source.monitor
        good = np.isfinite(flux) & (flux > 0.0)
        weight = np.where(good, flux[good].mean() / np.where(good, flux, 1.0), 0.0)
        steps = [_numbered(source, axis, good) for axis in used]
        found = [np.empty((5, *source.shape)) for _ in used]
        below = np.full(source.shape, float(clip or 0)) if level is None else level.level
        curves = sum(int(number.max()) + 1 for number, _ in steps)
        rows = max(1, min(source.shape[0], most_bytes // max(1, 4 * curves * source.shape[1])))
        bands = [slice(first, min(first + rows, source.shape[0])) for first in range(0, source.shape[0], rows)]
        for band in bands if used else ():
            marginals = [
                np.zeros((int(number.max()) + 1, (band.stop - band.start) * source.shape[1]), np.float32)
                for number, _ in steps
            ]
            for points, frames, under in _frames(source, regridding, below):
                flat = np.ascontiguousarray(frames[:, band]).reshape(len(frames), -1)
                for (number, _), curve in zip(steps, marginals, strict=True):
                    _add(
                        flat,
                        np.ascontiguousarray(under[band], dtype=np.float32).ravel(),
                        weight[points].astype(np.float32),
                        number[points],
                        np.float32(0.0 if clip is not None else -np.inf),
                        curve,
                    )
            for axis, (number, positions), curve in zip(range(len(used)), steps, marginals, strict=True):
                pixels = _band_noise(maps, source.shape, band)
                taken = np.bincount(number, (weight > 0.0), minlength=len(curve))
                out = np.empty((5, pixels.size))
                _shapes(
                    curve,
                    positions,
                    taken,
                    maps.noise.gain_adu_per_photon,
                    pixels,
                    1.0 / maps.noise.dark_frames if maps.noise.dark_frames else 0.0,
                    significance,
                    LEAST_SHARE,
                    out,
                )
                found[axis][:, band] = out.reshape(5, band.stop - band.start, -1)
    axes = []
    for axis, values in zip(used, found, strict=True):
        skewness, skewness_error, kurtosis, kurtosis_error, peaks = (
            np.where(maps.trusted, canonical(one), np.nan) for one in values
        )
        one = maps.axes[axis]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.full(maps.valid.shape, np.nan)
            if one.instrument_sigma is not None:
                share = np.where(maps.trusted, np.minimum((one.instrument_sigma / one.spread_raw) ** 2, 1.0), np.nan)
        counted = np.where(np.isfinite(peaks), peaks, -1).astype(np.int16)
        axes.append(AxisDistribution(one.name, skewness, skewness_error, kurtosis, kurtosis_error, counted, share))
    return Distributions(tuple(axes), maps, significance, len(bands) if used else 0, tuple(notes))


def _axes(source: ScanFile, maps: MapSet) -> tuple[list[int], list[str]]:
    """Return the numbers of the axes whose mesh allows it, and why others are missing."""
    used, notes = [], []
    if source.command.together:
        return [], ["axes that move together span no mesh: there are no distributions"]
    for axis, plan in enumerate(source.command.axes):
        step = axis_step(plan, source.positions[:, axis])
        fwhm = maps.axes[axis].fwhm[maps.valid]
        typical = float(np.nanmedian(fwhm)) if fwhm.size else np.nan
        name, units = maps.axes[axis].name, maps.axes[axis].units
        if plan.num < LEAST_STEPS:
            notes.append(f"{name}: {plan.num} points are too few for a distribution; it takes {LEAST_STEPS}")
        elif not step <= typical:
            notes.append(
                f"{name}: steps of {step:.4g} {units} are wider than the peak of a pixel, {typical:.4g} {units} FWHM, "
                "and tell nothing of its shape"
            )
        else:
            used.append(axis)
    return used, notes


def _numbered(source: ScanFile, axis: int, good: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the step of each point along an axis, and the mean position of each step."""
    x = source.positions[:, axis]
    number = np.rint((x - x.min()) / axis_step(source.command.axes[axis], x)).astype(np.int64)
    taken = np.bincount(number[good], minlength=int(number.max()) + 1)
    middle = np.bincount(number[good], x[good], minlength=taken.size) / np.maximum(taken, 1)
    return number, np.where(
        taken > 0, middle, np.interp(np.arange(taken.size), np.flatnonzero(taken), middle[taken > 0])
    )


def _frames(
    source: ScanFile, regridding: Regridding | None, below: NDArray[np.float64]
) -> Iterator[tuple[slice, NDArray, NDArray[np.float64]]]:
    """Yield points, their frames on the grid of the maps, and what is to be taken off them."""
    if regridding is None:
        for points, frames in source.batches():
            yield points, frames, below
        return
    known: dict[int, tuple[FrameGrid, NDArray[np.float64]]] = {}
    for points, frames in source.batches():
        grids, _ = regridding.grids(source.positions[points], np.arange(points.start, points.stop))
        first = 0
        for last in range(1, len(grids) + 1):
            if last < len(grids) and grids[last] is grids[first]:
                continue
            grid, part = grids[first], frames[first:last]
            where = slice(points.start + first, points.start + last)
            first = last
            if grid.still:
                yield where, part, below
                continue
            onto = np.empty_like(part)
            _kernels.regrid(part, onto, *grid.rows, grid.column_runs, grid.columns[1], regridding.full_well)
            if id(grid) not in known:
                (row, down), (column, right) = grid.rows, grid.columns
                lines = below[row] + down[:, np.newaxis] * (below[row + 1] - below[row])
                known[id(grid)] = (grid, lines[:, column] + right * (lines[:, column + 1] - lines[:, column]))
            yield where, onto, known[id(grid)][1]


def _band_noise(maps: MapSet, shape: tuple[int, int], band: slice) -> NDArray[np.float64]:
    """Return the variance of a frame without light of each pixel of a band of rows."""
    whole = np.broadcast_to(np.asarray(maps.noise.frame_variance_adu2, dtype=float), shape)
    return np.ascontiguousarray(whole[band]).ravel()


@njit(parallel=True, nogil=True, cache=True)
def _add(frames, below, weight, number, least, curve):  # type: ignore[no-untyped-def]
    """Add frames, shape (n, pixels), to the point of each in curves of shape (points, pixels), in place."""
    pixels = frames.shape[1]
    for tile in prange((pixels + _TILE - 1) // _TILE):
        a, b = tile * _TILE, min((tile + 1) * _TILE, pixels)
        for k in range(frames.shape[0]):
            into = curve[number[k]]
            for i in range(a, b):
                into[i] += weight[k] * max(np.float32(frames[k, i]) - below[i], least)


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _shapes(  # type: ignore[no-untyped-def]
    curve, x, taken, gain, frame_variance, per_dark, significance, least_share, out
):
    """Fill ``out``, shape (5, pixels): skewness, its error, excess kurtosis, its error, number of secondary peaks.

    Errors are propagated with the influence functions of the standardised moments: what an extra count at z does to
    the skewness g is ``z^3 - 3 z - g - 3 g (z^2 - 1) / 2``, to the fourth moment k ``z^4 - k - 4 g z - 2 k (z^2 - 1)``,
    over the sum of all counts (derived).

    Parameters
    ----------
    curve : ndarray of float32, shape (points, pixels)
    x, taken : ndarray, shape (points,)
        Positions, and frames summed in each.
    gain : float
        ADU per photon.
    frame_variance : ndarray, shape (pixels,)
    per_dark : float
        Variance of the averaged dark over that of a frame.
    significance, least_share : float
        What a secondary peak needs: times its noise, and share of the main one.
    """
    points, pixels = curve.shape
    for p in prange(pixels):
        total, first = 0.0, 0.0
        for k in range(points):
            total += curve[k, p]
            first += curve[k, p] * x[k]
        out[:, p] = np.nan
        if not total > 0.0:
            continue
        mean = first / total
        second, third, fourth = 0.0, 0.0, 0.0
        for k in range(points):
            d = x[k] - mean
            second += curve[k, p] * d**2
            third += curve[k, p] * d**3
            fourth += curve[k, p] * d**4
        if not second > 0.0:
            continue
        sigma = np.sqrt(second / total)
        g, q = third / total / sigma**3, fourth / total / sigma**4
        of_g, of_q, dark_g, dark_q = 0.0, 0.0, 0.0, 0.0
        for k in range(points):
            z = (x[k] - mean) / sigma
            variance = gain * max(curve[k, p], 0.0) + taken[k] * frame_variance[p]
            on_g = z**3 - 3.0 * z - g - 1.5 * g * (z**2 - 1.0)
            on_q = z**4 - q - 4.0 * g * z - 2.0 * q * (z**2 - 1.0)
            of_g += on_g**2 * variance
            of_q += on_q**2 * variance
            dark_g += on_g * taken[k]
            dark_q += on_q * taken[k]
        shared = frame_variance[p] * per_dark
        out[0, p], out[2, p] = g, q - 3.0
        out[1, p] = np.sqrt(of_g + shared * dark_g**2) / total
        out[3, p] = np.sqrt(of_q + shared * dark_q**2) / total
        main = 0
        for k in range(points):
            if curve[k, p] > curve[main, p]:
                main = k
        count = 0
        for k in range(1, points - 1):
            top = curve[k, p]
            if k == main or not (top > curve[k - 1, p] and top >= curve[k + 1, p]):
                continue
            # the valley towards the main peak, or towards any higher one before it
            valley, j = k, k
            step = 1 if main > k else -1
            while j != main and curve[j, p] <= top:
                if curve[j, p] < curve[valley, p]:
                    valley = j
                j += step
            # and on the other side down to the end, or to a higher peak
            other, j = k, k - step
            while 0 <= j < points and curve[j, p] <= top:
                if curve[j, p] < curve[other, p]:
                    other = j
                j -= step
            if 0 <= j < points and curve[other, p] > curve[valley, p]:
                valley = other
            noise = gain * (max(top, 0.0) + max(curve[valley, p], 0.0)) + (taken[k] + taken[valley]) * frame_variance[p]
            if top - curve[valley, p] >= max(significance * np.sqrt(noise), least_share * curve[main, p]):
                count += 1
        out[4, p] = count


def write_distributions(found: Distributions, path: Path) -> None:
    """Write the shapes; a file that is there is replaced in one step.

    ``/entry/<axis>/<quantity>`` are NXdata groups with the signal ``data``, and ``data_errors`` where there are errors.

    Raises
    ------
    RecordError
        When the file cannot be written.
    """
    maps = found.maps
    with new_file(path) as file:
        entry = new_group(file, "entry", "NXentry")
        entry["title"] = maps.title
        for axis in found.axes:
            group = new_group(entry, axis.name, "NXcollection")
            for name, values, errors, text in (
                ("skewness", axis.skewness, axis.skewness_error, "third standardised moment"),
                ("excess_kurtosis", axis.kurtosis, axis.kurtosis_error, "fourth standardised moment less 3"),
                ("secondary_peaks", axis.secondary_peaks, None, "peaks besides the main one; -1: not valid"),
                ("instrument_share", axis.instrument_share, None, "share of the instrument in the variance"),
            ):
                _map(group, name, values, errors, text, maps)
        process = new_group(entry, "process", "NXprocess")
        process["program"] = "dfxrm-control"
        process["version"] = program_version()
        process["date"] = datetime.datetime.now().astimezone().isoformat()
        process["source"] = maps.source
        process["significance"] = found.significance
        process["notes"] = np.array(list(found.notes) or [""], dtype=h5py.string_dtype())


def _map(
    parent: h5py.Group, name: str, values: NDArray, errors: NDArray[np.float64] | None, text: str, maps: MapSet
) -> None:
    group = new_group(parent, name, "NXdata")
    group["data"] = values.astype(np.float32) if values.dtype.kind == "f" else values
    group["data"].attrs["description"] = text
    if errors is not None:
        group["data_errors"] = errors.astype(np.float32)
    for key, positions in (("x", maps.x), ("y", maps.y)):
        group[key] = positions
        group[key].attrs.update({"units": maps.length_units, "long_name": f"{key} on the layer ({maps.length_units})"})
    group.attrs.update({"signal": "data", "axes": ["x", "y"]})


def plot_distributions(found: Distributions, path: Path) -> None:
    """Draw skewness, excess kurtosis and the number of secondary peaks of each axis, in the frame of the sample.

    Raises
    ------
    RecordError
        When the picture cannot be written.
    ParameterError
        When there is no axis to draw.
    """
    if not found.axes:
        raise ParameterError("distributions: " + "; ".join(found.notes))
    width, height = panel_shape(found.maps, 4.5)
    figure = new_figure(3.0 * width, height * len(found.axes))
    figure.suptitle(f"{found.maps.sample or 'sample'}: shape of the distribution within each pixel", fontsize=9)
    for row, axis in zip(figure.subplots(len(found.axes), 3, squeeze=False), found.axes, strict=True):
        for ax, label, values in zip(
            row,
            ("skewness", "excess kurtosis", "secondary peaks"),
            (axis.skewness, axis.kurtosis, np.where(axis.secondary_peaks < 0, np.nan, axis.secondary_peaks)),
            strict=True,
        ):
            ax.set_facecolor("black")
            known = np.abs(values[np.isfinite(values)])
            limit = float(np.percentile(known, 99.0)) or 1.0 if known.size else 1.0
            counted = label == "secondary peaks"
            drawn = draw(
                found.maps,
                ax,
                values,
                cmap="viridis" if counted else "RdBu_r",
                vmin=0.0 if counted else -limit,
                vmax=max(limit, 1.0) if counted else limit,
            )
            figure.colorbar(drawn, ax=ax, label=f"{axis.name}: {label}")
    save_figure(figure, path)
