"""Streaming moments: what sums over frames tell of each pixel, in memory that does not grow."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction import _kernels
from dfxrm_control.reduction._regrid import FrameGrid, Regridding

__all__ = ["Dark", "DarkFrames", "Moments", "MomentMaps"]

# The kernels use all cores themselves, and numba's simplest threading layer dies when entered from two threads.
_one_at_a_time = threading.Lock()

_LONGEST_LINE = 64
"""Frames summed in single precision before they join the double-precision sums."""


@dataclass(frozen=True)
class Dark:
    """The mean of frames without beam.

    Attributes
    ----------
    level : ndarray of float64, shape (rows, columns)
        Mean, ADU.
    frames : int
        Frames averaged; 0 for a level that was simply given, whose error is not known.
    variance : ndarray of float64, shape (rows, columns), or None
        Variance of one frame, ADU^2; None where fewer than `MEASURED_VARIANCE` frames were averaged.
    """

    level: NDArray[np.float64]
    frames: int = 0
    variance: NDArray[np.float64] | None = None


MEASURED_VARIANCE = 30
"""Darks from which on the variance of each pixel is known well enough (to 26 %) to be used."""


class DarkFrames:
    """Averages dark frames one batch at a time.

    Parameters
    ----------
    shape : tuple of int
        (rows, columns).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.frames = 0
        self._sums = np.zeros(shape[0] * shape[1], np.uint64)
        self._squares = np.zeros(shape[0] * shape[1], np.uint64)

    def add(self, frames: NDArray) -> None:
        """Add frames, shape (frames, rows, columns), uint16."""
        flat = _flat(frames, self.shape)
        with _one_at_a_time:
            _kernels.add_squares(flat, self._sums, self._squares)
        self.frames += flat.shape[0]

    def result(self) -> Dark:
        """Return the average.

        Raises
        ------
        ParameterError
            When there were no frames.
        """
        if not self.frames:
            raise ParameterError("darks: there are no frames to average")
        level = self._sums / self.frames
        variance = None
        if self.frames >= MEASURED_VARIANCE:
            variance = np.maximum(self._squares / self.frames - level**2, 0.0) * (self.frames / (self.frames - 1))
            variance = variance.reshape(self.shape)
        return Dark(level.reshape(self.shape), self.frames, variance)


@dataclass(frozen=True)
class MomentMaps:
    """Moments of each pixel, in the orientation of the frames.

    Attributes
    ----------
    integrated : ndarray of float64, shape (rows, columns)
        Sum over the points of intensity above dark at the mean monitor, ADU.
    mean : ndarray of float64, shape (axes, rows, columns)
        Centre of mass of each axis, in the axis' unit; NaN where the integrated intensity is not positive.
    covariance : ndarray of float64, shape (axes, axes, rows, columns)
        Covariance of the axes, weighted by intensity; negative variances occur where noise around zero prevails.
    maximum : ndarray of float64, shape (rows, columns)
        Highest intensity above dark at the mean monitor, ADU.
    argmax : ndarray of int32, shape (rows, columns)
        Number of the point where it was.
    positions : ndarray of float64, shape (points, axes)
        Where the frames that were added were taken.
    weights : ndarray of float64, shape (points,)
        Mean monitor over each frame's monitor; 1 without a monitor.
    points : ndarray of int32, shape (points,)
        Number of the point of each frame.
    totals : ndarray of float64, shape (points,)
        Sum over the detector of each frame's intensity above dark at the mean monitor, ADU.
    skipped : int
        Frames left out because their monitor had no positive reading.
    covered : ndarray of bool, shape (rows, columns), or None
        Where the common grid lay on every frame; moments are NaN elsewhere. None where frames were not regridded.
    noise_factor : ndarray of float64, shape (rows, columns), or float
        Variance of what was summed over that of raw counts: interpolation averages neighbours. 1 without.
    blur_px : tuple of float
        Rms blur of the maps along rows and columns that comes from interpolation and from a focus that moved during the
        scan, pixels.
    """

    integrated: NDArray[np.float64]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    maximum: NDArray[np.float64]
    argmax: NDArray[np.int32]
    positions: NDArray[np.float64]
    weights: NDArray[np.float64]
    points: NDArray[np.int32]
    totals: NDArray[np.float64]
    skipped: int
    covered: NDArray[np.bool_] | None = None
    noise_factor: NDArray[np.float64] | float = 1.0
    blur_px: tuple[float, float] = (0.0, 0.0)


def _flat(frames: NDArray, shape: tuple[int, int]) -> NDArray[np.uint16]:
    if frames.ndim != 3 or frames.shape[1:] != shape:
        raise ParameterError(
            f"frames: an array of shape {frames.shape} was given; (frames, {shape[0]}, {shape[1]}) is needed"
        )
    if not np.can_cast(frames.dtype, np.uint16):
        raise ParameterError(f"frames: counts of type {frames.dtype} were given; uint16 is needed")
    return np.ascontiguousarray(frames, dtype=np.uint16).reshape(len(frames), -1)


def _block(pixels: int, **kinds: tuple[type, int]) -> dict[str, NDArray]:
    """Return arrays of shape (count, pixels) by name, given type and count, that lie side by side in memory.

    One large block gets large pages from the system, which hands out its first touch many times faster than that of
    several small ones.
    """
    sizes = {name: np.dtype(kind).itemsize * count * pixels for name, (kind, count) in kinds.items()}
    block = np.empty(sum(sizes.values()), np.uint8)
    start, arrays = 0, dict[str, NDArray]()
    for name, (kind, count) in kinds.items():
        arrays[name] = block[start : start + sizes[name]].view(kind).reshape(count, pixels)
        start += sizes[name]
    return arrays


def _brightness(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much each frame counts: its intensity, or the same for all where there is none."""
    return np.maximum(totals, 0.0) if totals.max() > 0.0 else np.ones(len(totals))


def _lines(positions: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Cut points into rows of neighbours between which one axis moves: (start, stop, axis) of each."""
    lines, start, axis = [], 0, -1
    for point, row in enumerate((positions[1:] != positions[:-1]).tolist(), start=1):
        axes = [a for a, moved in enumerate(row) if moved]
        if len(axes) > 1 or (axes and axis >= 0 and axes[0] != axis) or point - start >= _LONGEST_LINE:
            lines.append((start, point, max(axis, 0)))
            start, axis = point, -1
        elif axes:
            axis = axes[0]
    lines.append((start, len(positions), max(axis, 0)))
    return lines


class Moments:
    """Accumulates zeroth, first and second moments and the maximum of every pixel over the points of a scan.

    Points may come in any order, with repetitions and gaps, from a scan of any number of axes. Memory is that of the
    maps, whatever the number of frames. Sums are kept of raw counts times monitor weight, so that the dark can be
    chosen when the result is asked for; only the maximum needs to know one before (``reference``), and only where a
    monitor varies.

    Parameters
    ----------
    shape : tuple of int
        (rows, columns) of the frames.
    axes : int
        Number of scanned axes.
    reference : ndarray, shape (rows, columns), optional
        Dark level subtracted where frames are compared for the maximum, ADU.
    clip : int, optional
        Take this off each pixel of each frame and set what would be negative to zero, as ``darling.DataSet.subtract``
        does. This pulls centres of mass of weak pixels; the default subtraction (a dark in `result`) is linear.
    regridding : Regridding, optional
        Put each frame on a common grid before it is added, for scans during which the image moves. The dark that
        `result` takes off is put on the grid of each frame, too.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        axes: int,
        reference: NDArray | None = None,
        clip: int | None = None,
        regridding: Regridding | None = None,
    ) -> None:
        if axes < 1:
            raise ParameterError(f"axes: {axes} was given; a scan has at least one axis")
        self.shape = (int(shape[0]), int(shape[1]))
        self.axes = axes
        self.clip = clip
        self.regridding = regridding
        pixels = self.shape[0] * self.shape[1]
        if reference is not None and np.size(reference) != pixels:
            raise ParameterError(f"reference: a dark of {np.size(reference)} pixels does not fit frames of {shape}")
        self._terms: list[tuple[int, ...]] = [
            (),
            *((a,) for a in range(axes)),
            *combinations_with_replacement(range(axes), 2),
        ]
        self._exponents = np.array([[term.count(axis) for axis in range(axes)] for term in self._terms])
        kept = _block(
            pixels, sums=(np.float64, len(self._terms)), top=(np.float32, 1), at=(np.int32, 1), dark=(np.float32, 1)
        )
        self._sums, self._top, self._at, self._reference = kept["sums"], kept["top"][0], kept["at"][0], kept["dark"][0]
        self._sums[:], self._top[:], self._at[:] = 0.0, -np.inf, -1
        self._reference[:] = 0.0 if reference is None else np.reshape(reference, -1)
        self._origin: NDArray[np.float64] | None = None
        self._first_monitor: float | None = None
        self._positions: list[NDArray[np.float64]] = []
        self._monitors: list[NDArray[np.float64]] = []
        self._totals: list[NDArray[np.uint64]] = []
        self._points: list[NDArray[np.int32]] = []
        self._grids: list[FrameGrid] = []
        self._blur: list[NDArray[np.float64]] = []
        self._onto = np.empty((0, *self.shape), np.uint16)
        self.skipped = 0

    def __len__(self) -> int:
        """Return the number of frames added."""
        return sum(len(points) for points in self._points)

    def mean_position(self) -> NDArray[np.float64]:
        """Return the mean position of the frames added, shape (axes,)."""
        return np.concatenate(self._positions).mean(axis=0)

    def add(
        self, frames: NDArray, positions: ArrayLike, monitor: ArrayLike | None = None, points: ArrayLike | None = None
    ) -> None:
        """Add frames.

        Parameters
        ----------
        frames : ndarray of uint16, shape (n, rows, columns)
            Raw counts.
        positions : array_like, shape (n, axes)
            Where each was taken.
        monitor : array_like, shape (n,), optional
            Flux monitor of each; for all frames of a scan or for none. A frame whose monitor is not positive is left
            out.
        points : array_like of int, shape (n,), optional
            Number of each frame's point; default: counted on.

        Raises
        ------
        ParameterError
            When shapes, types or numbers do not fit.
        """
        flat = _flat(frames, self.shape)
        n = len(flat)
        where = np.array(positions, dtype=float).reshape(n, -1)
        if where.shape[1] != self.axes or not np.isfinite(where).all():
            raise ParameterError(f"positions: {n} finite rows of {self.axes} are needed for {n} frames")
        if monitor is not None and np.shape(monitor) != (n,):
            raise ParameterError(f"monitor: {np.size(monitor)} readings were given for {n} frames")
        if len(self) and (monitor is None) != (self._first_monitor is None):
            raise ParameterError("monitor: it must be given for all frames of a scan or for none")
        flux = np.ones(n) if monitor is None else np.array(monitor, dtype=float)
        first = len(self) + self.skipped
        number = np.arange(first, first + n, dtype=np.int32) if points is None else np.array(points, dtype=np.int32)
        good = np.isfinite(flux) & (flux > 0.0)
        if not good.all():
            self.skipped += int(n - good.sum())
            flat, where, flux, number = flat[good], where[good], flux[good], number[good]
        if not len(flat):
            return
        if self.clip is not None:
            level = np.uint16(self.clip)
            flat = np.maximum(flat, level) - level
        if self._origin is None:
            self._origin = where[0].copy()
        if self._first_monitor is None and monitor is not None:
            self._first_monitor = float(flux[0])
        weight = (self._first_monitor or 1.0) / flux
        if self.regridding is not None:
            grids, blur = self.regridding.grids(where, number)
            self._blur += blur
            flat = self._regridded(flat, grids)
        lines = _lines(where)
        with _one_at_a_time:
            if len(lines) * 3 > len(flat) and self.axes > 1:
                totals = self._add_scattered(flat, where - self._origin, weight, number)
            else:
                totals = self._add_lines(flat, where - self._origin, weight, number, lines)
        self._positions.append(where)
        self._monitors.append(flux)
        self._points.append(number)
        self._totals.append(totals)

    def _regridded(self, flat: NDArray[np.uint16], grids: list[FrameGrid]) -> NDArray[np.uint16]:
        """Return frames on the common grid; they stay as they are until the next ones come."""
        assert self.regridding is not None  # it gave the grids
        self._grids += grids
        if all(grid.still for grid in grids):
            return flat
        if len(self._onto) < len(flat):
            self._onto = np.empty((len(flat), *self.shape), np.uint16)
        frames, first = flat.reshape(-1, *self.shape), 0
        for last in range(1, len(grids) + 1):
            if last < len(grids) and grids[last] is grids[first]:
                continue
            part = slice(first, last)
            if grids[first].still:
                self._onto[part] = frames[part]
            else:
                with _one_at_a_time:
                    _kernels.regrid(
                        frames[part],
                        self._onto[part],
                        *grids[first].rows,
                        grids[first].column_runs,
                        grids[first].columns[1],
                        self.regridding.full_well,
                    )
            first = last
        return self._onto[: len(flat)].reshape(flat.shape)

    def _powers(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the product of coordinates of each sum, shape (sums, n), for positions of shape (n, axes)."""
        return np.prod(x ** self._exponents[:, np.newaxis], axis=2)

    def _add_scattered(
        self, flat: NDArray, x: NDArray[np.float64], weight: NDArray[np.float64], number: NDArray[np.int32]
    ) -> NDArray[np.uint64]:
        found = []
        for start in range(0, len(flat), _LONGEST_LINE):
            part = slice(start, start + _LONGEST_LINE)
            totals = np.empty((_kernels.tiles(flat.shape[1]), len(flat[part])), np.int32)
            coefficients = (self._powers(x[part]) * weight[part]).astype(np.float32)
            _kernels.add_frames(
                flat[part],
                weight[part].astype(np.float32),
                coefficients,
                number[part],
                self._reference,
                self._sums,
                self._top,
                self._at,
                totals,
            )
            found.append(totals.sum(axis=0, dtype=np.uint64))
        return np.concatenate(found)

    def _add_lines(
        self,
        flat: NDArray,
        x: NDArray[np.float64],
        weight: NDArray[np.float64],
        number: NDArray[np.int32],
        lines: list[tuple[int, int, int]],
    ) -> NDArray[np.uint64]:
        slots, real, starts = [], [], [0]
        axis_of = np.array([axis for *_, axis in lines])
        moving = np.empty(len(flat))
        for start, stop, axis in lines:
            padding = -(stop - start) % _kernels.BLOCK
            slots += [*range(start, stop), *[stop - 1] * padding]
            real += [True] * (stop - start) + [False] * padding
            starts.append(len(slots))
            moving[start:stop] = x[start:stop, axis]
        # what the slow axes contribute to each sum is one factor for the whole line
        source = np.ascontiguousarray(self._exponents[:, axis_of].T)
        slow = x[[start for start, *_ in lines]]
        slow[np.arange(len(lines)), axis_of] = 1.0
        scale = np.prod(slow[:, np.newaxis] ** self._exponents, axis=2)
        slot, used = np.array(slots), np.array(real)
        one = np.where(used, weight[slot], 0.0)
        coefficients = np.stack([one, one * moving[slot], one * moving[slot] ** 2]).astype(np.float32)
        totals = np.empty((_kernels.tiles(flat.shape[1]), len(slot)), np.int32)
        _kernels.add_lines(
            flat,
            slot,
            weight[slot].astype(np.float32),
            coefficients,
            number[slot],
            np.array(starts),
            source,
            scale,
            self._reference,
            self._sums,
            self._top,
            self._at,
            totals,
        )
        return totals.sum(axis=0, dtype=np.uint64)[used]

    def result(self, dark: float | NDArray | None = None) -> MomentMaps:
        """Return the moments of what was added so far.

        Parameters
        ----------
        dark : float or ndarray, shape (rows, columns), optional
            Level taken off every frame, ADU, without clipping.

        Raises
        ------
        ParameterError
            Before the first frame, or when the dark does not fit.
        """
        if self._origin is None:
            raise ParameterError("moments: no frame was added yet")
        level = np.zeros(1) if dark is None else np.asarray(dark, dtype=float).reshape(-1)
        if level.size not in (1, self._sums.shape[1]):
            raise ParameterError(f"dark: shape {np.asarray(dark).shape} does not fit frames of {self.shape}")
        positions = np.concatenate(self._positions)
        monitors = np.concatenate(self._monitors)
        points = np.concatenate(self._points)
        # the frames were weighted relative to the first monitor reading; the mean one is what is meant
        to_mean = monitors.mean() / (self._first_monitor or 1.0)
        weights = monitors.mean() / monitors
        x = positions - self._origin
        of_dark = (self._powers(x) * weights).sum(axis=1)
        pixels = self._sums.shape[1]
        count = self.axes
        found = _block(
            pixels,
            integrated=(np.float64, 1),
            mean=(np.float64, count),
            covariance=(np.float64, count * count),
            maximum=(np.float64, 1),
            argmax=(np.int32, 1),
        )
        integrated, maximum, argmax = found["integrated"][0], found["maximum"][0], found["argmax"][0]
        mean, covariance = found["mean"], found["covariance"].reshape(count, count, pixels)
        argmax[:] = self._at
        weight_of = np.zeros(points.max() + 1)
        weight_of[points] = weights
        sums = self._sums
        moved = any(not grid.still for grid in self._grids)
        if moved:
            dark_level, factor = level, to_mean
            sums, level_sums = self._without_dark(x, weights, level, to_mean)
            to_mean, of_dark, level = 1.0, np.zeros_like(of_dark), np.zeros(1)
        with _one_at_a_time:
            _kernels.finish(
                sums,
                to_mean,
                of_dark,
                level,
                self._origin,
                self._top,
                self._at,
                weight_of,
                self._reference,
                integrated,
                mean,
                covariance,
                maximum,
            )
        counts = np.concatenate(self._totals).astype(float)
        level_total: float | NDArray[np.float64] = level.sum() * (pixels if level.size == 1 else 1)
        covered: NDArray[np.bool_] | None = None
        noise_factor: NDArray[np.float64] | float = 1.0
        if moved:
            level_total = level_sums
            maximum[:] = self._top * factor + weight_of[self._at] * (self._reference - dark_level)
            covered, noise_factor = self._coverage(weights * (counts - level_total))
            integrated[~covered.ravel()], maximum[~covered.ravel()] = 0.0, 0.0
            mean[:, ~covered.ravel()], covariance[:, :, ~covered.ravel()] = np.nan, np.nan
        return MomentMaps(
            integrated=integrated.reshape(self.shape),
            mean=mean.reshape(self.axes, *self.shape),
            covariance=covariance.reshape(self.axes, self.axes, *self.shape),
            maximum=maximum.reshape(self.shape),
            argmax=argmax.reshape(self.shape),
            positions=positions,
            weights=weights,
            points=points,
            totals=weights * (counts - level_total),
            skipped=self.skipped,
            blur_px=self._mean_blur(weights * (counts - level_total)),
            covered=covered,
            noise_factor=noise_factor,
        )

    def _members(self) -> list[tuple[FrameGrid, NDArray[np.int64]]]:
        """Return each grid and the numbers of the frames that were put on it."""
        frames: dict[int, list[int]] = {}
        for number, grid in enumerate(self._grids):
            frames.setdefault(id(grid), []).append(number)
        return [(self._grids[numbers[0]], np.array(numbers)) for numbers in frames.values()]

    def _without_dark(
        self, x: NDArray[np.float64], weights: NDArray[np.float64], level: NDArray[np.float64], to_mean: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sums at the mean monitor without the dark, and the dark's own sum on the grid of each frame."""
        sums = self._sums * to_mean
        full = np.full(sums.shape[1], level, dtype=np.float64).reshape(self.shape)
        members, powers = self._members(), self._powers(x) * weights
        of_rows = np.empty((self.shape[0], len(members)))
        row, row_share = (np.stack(part) for part in zip(*(grid.rows for grid, _ in members), strict=True))
        column, column_share = (np.stack(part) for part in zip(*(grid.columns for grid, _ in members), strict=True))
        factors = np.stack([powers[:, numbers].sum(axis=1) for _, numbers in members])
        with _one_at_a_time:
            _kernels.take_off_regridded(
                full, factors, row, row_share, column, column_share, sums.reshape(-1, *self.shape), of_rows
            )
        totals = np.empty(len(weights))
        for (_, numbers), total in zip(members, of_rows.sum(axis=0), strict=True):
            totals[numbers] = total
        return sums, totals

    def _mean_blur(self, totals: NDArray[np.float64]) -> tuple[float, float]:
        """Return the rms blur along rows and columns, weighted by the frames' intensities, pixels."""
        if not self._blur:
            return 0.0, 0.0
        rows, columns = np.sqrt(np.average(self._blur, axis=0, weights=_brightness(totals))).tolist()
        return rows, columns

    def _coverage(self, totals: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return where the grid lay on every frame, and the mean noise factor, weighted by the frames' intensities."""
        bright, members = _brightness(totals), self._members()
        weight = np.array([bright[numbers].sum() for _, numbers in members])
        rows, columns = (np.stack([grid.noise_factors[axis] for grid, _ in members]) for axis in (0, 1))
        inside = [np.logical_and.reduce([grid.inside[axis] for grid, _ in members]) for axis in (0, 1)]
        return np.logical_and.outer(*inside), (rows.T * (weight / weight.sum())) @ columns
