"""Rocking curves of single pixels: their width and middle, as weak-beam offsets are chosen by.

The width is that of the contiguous range about the maximum above half of it, per pixel: a region's sum is 2.6 times as
wide, because its pixels peak at different places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.errors import ParameterError

__all__ = ["CurveWidth", "curve_width", "half_maximum"]

MIN_SNR = 10.0
"""A pixel whose maximum is below this many times its noise is not lit."""
MIN_SHARE = 0.1
"""Nor is one below this part of the median of such pixels."""
MIN_PIXELS = 30
MIN_POINTS = 3.0
"""Points above half maximum below which a width is guessed rather than measured."""
SMOOTH_FROM = 5
_MANY = 0.5
_SOME = 0.02
# quadratic through five points (Savitzky & Golay 1964, Anal. Chem. 36, 1627): half the variance, and no bias on a
# maximum that is sampled ten times per width
_FIVE = np.array([-3.0, 12.0, 17.0, 12.0, -3.0]) / 35.0


@dataclass(frozen=True)
class CurveWidth:
    """The rocking curve of the median pixel.

    Attributes
    ----------
    fwhm, centre : float
        Medians over pixels of the full width at half maximum and of its middle, in the axis' unit.
    centre_spread : float
        Half of the range that holds the middles of 68 % of the pixels, in the axis' unit.
    pixels : int
        Pixels that were used.
    points : float
        Median number of points above half maximum.
    remarks : tuple of str
        What limits the numbers.
    """

    fwhm: float
    centre: float
    centre_spread: float
    pixels: int
    points: float
    remarks: tuple[str, ...] = ()


def half_maximum(
    positions: NDArray[np.float64], curves: NDArray[np.floating], smooth: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the contiguous range above half maximum of each curve.

    Parameters
    ----------
    positions : ndarray, shape (points,)
        Increasing.
    curves : ndarray, shape (points, n)
        Above background.
    smooth : bool
        Take the height of the maximum from a quadratic through five points.

    Returns
    -------
    low, high : ndarray, shape (n,)
        Where the curve passes half of its maximum, interpolated linearly; NaN where it does not within the window.
    count : ndarray of int, shape (n,)
        Points between the two.
    """
    points = len(positions)
    heights = curves
    if smooth and points >= 5:
        heights = curves.copy()
        heights[2:-2] = sum(weight * curves[shift : points - 4 + shift] for shift, weight in enumerate(_FIVE))
    at = heights.argmax(0)
    half = np.take_along_axis(heights, at[np.newaxis], 0)[0] / 2.0
    number = np.arange(points)[:, np.newaxis]
    below = curves < half
    # the maximum itself counts as above, also where smoothing put it above the point
    left = np.where(below & (number < at), number, -1).max(0)
    right = np.where(below & (number > at), number, points).min(0)

    def crossing(outside: NDArray, inside: NDArray) -> NDArray[np.float64]:
        known = (outside >= 0) & (outside < points)
        out, into = np.where(known, outside, 0), np.where(known, inside, 0)
        column = np.arange(curves.shape[1])
        low, high = curves[out, column].astype(float), curves[into, column].astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip((half - low) / (high - low), 0.0, 1.0)
        return np.where(known, positions[out] + share * (positions[into] - positions[out]), np.nan)

    return crossing(left, left + 1), crossing(right, right - 1), right - left - 1


def curve_width(
    positions: ArrayLike,
    frames: NDArray,
    *,
    axis: str,
    units: str,
    gain_adu_per_photon: float,
    frame_variance_adu2: float,
    saturation_adu: int,
    dark: NDArray | None = None,
) -> CurveWidth:
    """Return the width of the median pixel's rocking curve.

    Parameters
    ----------
    positions : array_like, shape (points,)
        Of the axis, in any order.
    frames : ndarray, shape (points, ...)
        Raw counts of some or all pixels.
    axis, units : str
        For messages.
    gain_adu_per_photon, frame_variance_adu2 : float
        Noise of a frame: ``variance = gain * signal + frame_variance``.
    saturation_adu : int
        Highest count the camera gives.
    dark : ndarray, shape (...), optional
        Mean frame without beam, ADU; without it the ends of each pixel's own curve are taken for its background.

    Raises
    ------
    ParameterError
        In one sentence: when nothing is lit, most lit pixels are saturated, the window misses their peaks, or there are
        too few points for a width.
    """
    where = np.asarray(positions, dtype=float)
    order = np.argsort(where, kind="stable")
    where = where[order]
    raw = np.asarray(frames).reshape(len(where), -1)[order]
    remarks = []
    if len(where) < 5:
        raise ParameterError(
            f"{axis}: a curve of {len(where)} points has no width; at least 5 are needed, and 10 per width are meant"
        )
    if dark is not None:
        curves = raw.astype(np.float32) - np.asarray(dark, dtype=np.float32).reshape(-1)
    else:
        ends = max(1, len(where) // 20)
        curves = raw.astype(np.float32)
        curves -= np.minimum(curves[:ends].mean(0), curves[-ends:].mean(0))
        remarks.append(
            "no darks were taken with the curve: half of the maximum counts from the lower end of the pixel's own curve"
        )
    top = curves.max(0)
    noise = np.sqrt(gain_adu_per_photon * np.maximum(top, 0.0) + frame_variance_adu2)
    lit: NDArray[np.bool_] = np.asarray(top > MIN_SNR * noise, dtype=np.bool_)
    lit &= top > MIN_SHARE * (np.median(top[lit]) if lit.any() else 0.0)
    if lit.sum() < MIN_PIXELS:
        raise ParameterError(
            f"{axis}: no pixel lights up in the window {where[0]:.5g} .. {where[-1]:.5g} {units} (only {lit.sum()} "
            f"reach {MIN_SNR:g} times their noise); the peak lies elsewhere, or the exposure is too short"
        )
    full: NDArray[np.bool_] = np.asarray((raw >= saturation_adu).any(0))
    saturated = full[lit]
    if saturated.mean() > _MANY:
        raise ParameterError(
            f"{axis}: {100 * saturated.mean():.0f} % of the lit pixels are saturated at {saturation_adu} ADU, so half "
            "of their maximum is not known; expose for shorter or put an attenuator in"
        )
    if saturated.mean() > _SOME:
        remarks.append(f"{100 * saturated.mean():.0f} % of the lit pixels are saturated and were left out of the width")
    curves = curves[:, lit][:, ~saturated]
    low, high, count = half_maximum(where, curves)
    closed = np.isfinite(low) & np.isfinite(high)
    if closed.any() and np.median(count[closed]) >= SMOOTH_FROM:
        low, high, count = half_maximum(where, curves, smooth=True)
        closed = np.isfinite(low) & np.isfinite(high)
    if closed.mean() < _MANY or closed.sum() < MIN_PIXELS:
        middle = float(np.median(where[curves.argmax(0)]))
        raise ParameterError(
            f"{axis}: the window {where[0]:.5g} .. {where[-1]:.5g} {units} misses the peak of "
            f"{100 * (1 - closed.mean()):.0f} % of the lit pixels, which are brightest about {middle:.5g} {units}; "
            "centre it there or make it wider"
        )
    if closed.mean() < 1.0 - _SOME:
        remarks.append(f"the window misses the peak of {100 * (1 - closed.mean()):.0f} % of the lit pixels")
    points = float(np.median(count[closed]))
    if points < MIN_POINTS:
        raise ParameterError(
            f"{axis}: only {points:.0f} points lie above half maximum, too few for a width; make the step, now "
            f"{abs(where[-1] - where[0]) / (len(where) - 1):.3g} {units}, several times smaller"
        )
    middles = (low + high)[closed] / 2.0
    spread = np.percentile(middles, [15.87, 84.13])
    return CurveWidth(
        fwhm=float(np.median((high - low)[closed])),
        centre=float(np.median(middles)),
        centre_spread=float(spread[1] - spread[0]) / 2.0,
        pixels=int(closed.sum()),
        points=points,
        remarks=tuple(remarks),
    )
