"""How well moments are known, and what a window that is too narrow did to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import map_coordinates

from dfxrm_control.reduction._moments import MomentMaps

__all__ = [
    "Noise",
    "centroid_covariance",
    "centroid_error",
    "centroid_slope_map",
    "position_error",
    "significance",
    "variance_error",
]


@dataclass(frozen=True)
class Noise:
    """Noise of one frame: ``variance = gain * signal + frame_variance`` in ADU^2, signal in ADU.

    Attributes
    ----------
    gain_adu_per_photon : float
        Counts per detected photon.
    frame_variance_adu2 : float or ndarray, shape (rows, columns)
        Variance without light (read-out and dark current), ADU^2.
    dark_frames : int
        Frames averaged into the dark that was subtracted; 0: no error is counted for it.
    source : str
        Where these numbers come from.
    """

    gain_adu_per_photon: float
    frame_variance_adu2: float | NDArray[np.float64]
    dark_frames: int
    source: str

    @property
    def dark_variance_adu2(self) -> float | NDArray[np.float64]:
        """Variance of the averaged dark, common to all frames of the scan."""
        return self.frame_variance_adu2 / self.dark_frames if self.dark_frames else 0.0


def _central_sums(
    weights: NDArray[np.float64], x: NDArray[np.float64], about: NDArray[np.float64], order: int
) -> list[NDArray[np.float64]]:
    """Return ``sum(weights * (x - about)**p)`` for p from 0 to ``order``, for each element of ``about``."""
    center = x.mean()
    sums = [float((weights * (x - center) ** p).sum()) for p in range(order + 1)]
    shift = center - about
    return [np.asarray(sum(comb(p, q) * shift ** (p - q) * sums[q] for q in range(p + 1))) for p in range(order + 1)]


def significance(maps: MomentMaps, noise: Noise) -> NDArray[np.float64]:
    """Return the integrated intensity over its own error, shape (rows, columns)."""
    w = maps.weights
    variance = maps.noise_factor * (
        noise.gain_adu_per_photon * np.maximum(maps.integrated, 0.0)
        + noise.frame_variance_adu2 * (w**2).sum()
        + noise.dark_variance_adu2 * w.sum() ** 2
    )
    # a dead pixel, always the same count, has neither signal nor noise
    return np.divide(maps.integrated, np.sqrt(variance), out=np.zeros_like(maps.integrated), where=variance > 0.0)


def centroid_covariance(maps: MomentMaps, first: int, second: int, noise: Noise) -> NDArray[np.float64]:
    """Return the covariance that noise gives the centres of mass of two axes, shape (rows, columns).

    ``d(com) = sum (x_k - com) dI_k / S`` with S the integrated intensity, hence for axes x and y (derived)::

        cov = gain cov_xy / S  +  v sum w_k^2 (x_k - com_x) (y_k - com_y) / S^2
              +  (v / n_dark) (sum w_k (x_k - com_x)) (sum w_k (y_k - com_y)) / S^2

    photon noise, read-out of each frame, and the error of the averaged dark, which all frames share: it grows with the
    number of frames and with the peak's distance from the middle of the window, and is why >= 100 darks are taken.
    Monitor weights w are taken as 1 in the first term. Interpolation of frames onto a grid lowers all of it by
    `MomentMaps.noise_factor`.
    """
    s = np.where(maps.integrated > 0.0, maps.integrated, np.nan)
    x, y, w = maps.positions[:, first], maps.positions[:, second], maps.weights
    com_x, com_y = maps.mean[first], maps.mean[second]
    of_photons = maps.covariance[first, second]
    if first == second:
        of_photons = np.maximum(of_photons, 0.0)
        read = _central_sums(w**2, x, com_x, 2)[2]
    else:
        w2, (mid_x, mid_y) = w**2, (x.mean(), y.mean())
        dx, dy = com_x - mid_x, com_y - mid_y
        x, y = x - mid_x, y - mid_y
        read = (w2 * x * y).sum() - dx * (w2 * y).sum() - dy * (w2 * x).sum() + dx * dy * w2.sum()
    shared = [
        _central_sums(w, maps.positions[:, axis], maps.mean[axis], 1)[1] for axis in dict.fromkeys((first, second))
    ]
    return maps.noise_factor * (
        noise.gain_adu_per_photon * of_photons / s
        + noise.frame_variance_adu2 * read / s**2
        + noise.dark_variance_adu2 * shared[0] * shared[-1] / s**2
    )


def centroid_error(maps: MomentMaps, axis: int, noise: Noise) -> NDArray[np.float64]:
    """Return the rms error that noise gives the centre of mass of one axis, in its unit: see `centroid_covariance`."""
    return np.sqrt(centroid_covariance(maps, axis, axis, noise))


def position_error(values: NDArray[np.float64], blur_px: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float64]:
    """Return the rms error that a pixel's extent gives a value, shape (rows, columns).

    Where on the sample a value belongs is known to within a pixel, rms 1/sqrt(12) of one, so that a value beside a wall
    is known to within that times the gradient (derived). It vanishes inside sub-grains and is the larger part at their
    walls once many photons were counted. What blurs the map beyond that, interpolation or a focus that moved, adds to
    the pixel's extent in quadrature.
    """
    along = [
        np.gradient(values, axis=axis) * np.sqrt(1.0 / 12.0 + blur**2)
        for axis, blur in enumerate(blur_px)
        if values.shape[axis] > 1
    ]
    # beside a pixel without a value there is no gradient to go by
    return np.nan_to_num(np.sqrt(sum(part**2 for part in along))) if along else np.zeros_like(values)


def variance_error(maps: MomentMaps, axis: int, noise: Noise) -> NDArray[np.float64]:
    """Return the rms error of the variance of one axis, in the axis' unit squared, shape (rows, columns).

    As `centroid_error` with ``(x - com)^2 - var`` in place of ``x - com``; the fourth moment of the photon term is
    that of a Gaussian.
    """
    s = np.where(maps.integrated > 0.0, maps.integrated, np.nan)
    x, com = maps.positions[:, axis], maps.mean[axis]
    spread = np.maximum(maps.covariance[axis, axis], 0.0)
    squared = _central_sums(maps.weights**2, x, com, 4)
    read = squared[4] - 2.0 * spread * squared[2] + spread**2 * squared[0]
    plain = _central_sums(maps.weights, x, com, 2)
    shared = plain[2] - spread * plain[0]
    return np.sqrt(
        maps.noise_factor
        * (
            noise.gain_adu_per_photon * 2.0 * spread**2 / s
            + noise.frame_variance_adu2 * read / s**2
            + noise.dark_variance_adu2 * shared**2 / s**2
        )
    )


_TABLE = 257
_WIDEST = 0.62
"""rms of anything within a window of half width 1 that is no wider than flat is at most 0.577."""


@cache
def _slopes() -> NDArray[np.float64]:
    """Tabulate the slope by |mean| (rows, 0 to 1) and rms (columns, 0 to `_WIDEST`) seen in a window from -1 to 1."""
    x = np.linspace(-1.0, 1.0, 801)
    points, values = [], []
    for sigma in np.geomspace(0.02, 30.0, 140):
        center = np.linspace(0.0, 1.0, 60)[:, np.newaxis] * (1.0 + 3.0 * sigma + 20.0 * sigma**2)
        log = -0.5 * ((x - center) / sigma) ** 2
        density = np.exp(log - log.max(axis=1, keepdims=True))
        density[:, [0, -1]] *= 0.5
        density /= density.sum(axis=1, keepdims=True)
        mean = density @ x
        variance = np.maximum(density @ x**2 - mean**2, 0.0)
        points.append(np.stack([mean, np.sqrt(variance)], axis=1))
        values.append(np.minimum(variance / sigma**2, 1.0))
    seen = LinearNDInterpolator(np.concatenate(points), np.concatenate(values))
    mean, rms = np.meshgrid(np.linspace(0.0, 1.0, _TABLE), np.linspace(0.0, _WIDEST, _TABLE), indexing="ij")
    table = seen(mean, rms)
    narrow = rms < 0.025
    table[np.isnan(table) & narrow & (mean < 0.95)] = 1.0
    table[np.isnan(table)] = 0.0
    return table


def centroid_slope_map(mean: ArrayLike, variance: ArrayLike, window: tuple[float, float]) -> NDArray[np.float64]:
    """Return by how much a centre of mass moves per unit its peak moves, judged from the moments seen in the window.

    A Gaussian of rms s cut by a window has a centre of mass that moves by ``variance seen / s^2`` per unit
    (`dfxrm_control.windows.centroid_slope`). The two moments that are seen determine the two of the uncut peak; the
    table that inverts them is good to 0.01. What no cut Gaussian can look like (wider than flat) gets slope 0.

    Parameters
    ----------
    mean, variance : array_like
        Moments seen, in the unit of the axis and its square.
    window : tuple of float
        Where the window begins and ends: half a step beyond its first and last point.

    Returns
    -------
    ndarray
        1 where the window brackets the peak; 0.77 for a peak in the middle of +/-2 rms, 0.973 for +/-3; NaN for NaN.
    """
    half = (window[1] - window[0]) / 2.0
    seen = np.shape(mean)
    offset = np.abs(np.atleast_1d(np.asarray(mean, dtype=float)) - (window[0] + window[1]) / 2.0) / half
    rms = np.atleast_1d(np.sqrt(np.maximum(np.asarray(variance, dtype=float), 0.0)) / half)
    known = np.isfinite(offset) & np.isfinite(rms)
    at = np.stack([np.where(known, offset, 0.0), np.where(known, rms, 0.0) / _WIDEST]) * (_TABLE - 1)
    slope = map_coordinates(_slopes(), at, order=1, mode="constant", cval=0.0)
    return np.where(known, slope, np.nan).reshape(seen)
