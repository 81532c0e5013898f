"""Bright lines in an image: where dislocations cross or run in the imaged layer.

A ridge filter (the smaller eigenvalue of the Hessian at the scale of a line's width: Sato et al. 1998, Med. Image Anal.
2, 143) in micrometres, since pixels are several times longer along the beam than across; hysteresis thresholds by the
strong ridges and by the noise; and the skeleton of each connected ridge (scikit-image).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter, label, maximum_filter
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import skeletonize

from dfxrm_control.errors import ParameterError

__all__ = ["Line", "find_lines"]

SIGMA_PER_FWHM = 1.0 / math.sqrt(8.0 * math.log(2.0))
MAD_PER_SIGMA = 0.6745
FOLLOWED = 0.6


@dataclass(frozen=True)
class Line:
    """A bright line.

    Attributes
    ----------
    points_um : ndarray, shape (n, 2)
        Its centre line as (x, y) on the layer, from one end to the other, in the unit of the image's axes.
    centre_um : ndarray, shape (2,)
        Its middle, weighted by intensity. Of a line that crosses the layer, which shows as a streak along x as long as
        the beam is high, that is where it crosses the middle of the beam.
    length_um : float
        Length of its centre line.
    level : float
        Highest intensity on it above the ground, in the unit of the image.
    """

    points_um: NDArray[np.float64]
    centre_um: NDArray[np.float64]
    length_um: float
    level: float


def find_lines(
    image: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    width_um: float | None = None,
    share: float = 0.5,
    significance: float = 8.0,
    shortest_um: float = 0.0,
    mask: NDArray[np.bool_] | None = None,
) -> list[Line]:
    """Return the bright lines of an image, the brightest first.

    Parameters
    ----------
    image : ndarray, shape (nx, ny)
        Intensity; NaN counts as the ground.
    x, y : ndarray, shapes (nx,), (ny,)
        Positions along both sides, increasing, um (or any unit, then also that of the lengths).
    width_um : float, optional
        Full width of a line's image; default: three pixels across the finer side. Two lines closer than that are one.
    share : float
        A ridge is a line from this part of the strong ones' height on (the 90th percentile of all maxima that stand out
        of the noise), and is followed down to 0.6 of that. Half of it leaves out dislocations with ``g . b = 0``, whose
        residual contrast is about a third.
    significance : float
        And it stands out of the noise of the filtered image by so many sigma.
    shortest_um : float
        Least length of a centre line.
    mask : ndarray of bool, shape (nx, ny), optional
        Where lines may lie, and what ground and noise are measured on.

    Raises
    ------
    ParameterError
        When image and axes do not fit, or a width is not positive.
    """
    values = np.asarray(image, dtype=float)
    if values.ndim != 2 or values.shape != (len(x), len(y)) or min(values.shape) < 3:
        raise ParameterError(
            f"lines: an image of shape {values.shape} was given with axes of {len(x)} and {len(y)}; they fit, and each "
            "side has at least 3 pixels"
        )
    if width_um is not None and not width_um > 0.0:
        raise ParameterError(f"lines: a width of {width_um:g} um was asked; it must be above zero")
    pixel = np.array([(along[-1] - along[0]) / (len(along) - 1) for along in (x, y)])
    width = width_um if width_um is not None else 3.0 * float(pixel.min())
    inside = np.isfinite(values) if mask is None else np.isfinite(values) & mask
    if not inside.any():
        return []
    ground = float(np.median(values[inside]))
    values = np.where(np.isfinite(values), values, ground)
    ridge = np.where(inside, _ridge(values, width * SIGMA_PER_FWHM, pixel), 0.0)
    noise = _noise(values, inside) * _gain(width * SIGMA_PER_FWHM, pixel)
    neighbourhood = [max(round(float(width / side)), 1) | 1 for side in pixel]
    maxima = ridge[(ridge == maximum_filter(ridge, neighbourhood)) & (ridge > max(significance * noise, 0.0))]
    if not maxima.size:
        return []
    high = max(share * float(np.percentile(maxima, 90.0)), significance * noise)
    kept = apply_hysteresis_threshold(ridge, max(FOLLOWED * high, significance / 2.0 * noise), high)
    regions, _ = label(kept, structure=np.ones((3, 3)))
    found = []
    for number, place in enumerate(find_objects(regions), start=1):
        region = regions[place] == number
        above = np.where(region, np.maximum(values[place] - ground, 0.0), 0.0)
        top = float(above.max())
        if top <= 0.0:
            continue
        along_x, along_y = x[place[0]], y[place[1]]
        points = _in_order(np.argwhere(skeletonize(region)), along_x, along_y)
        length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        if length < shortest_um:
            continue
        total = above.sum()
        centre = np.array([(above.sum(1) @ along_x) / total, (above.sum(0) @ along_y) / total])
        found.append(Line(points, centre, length, top))
    return sorted(found, key=lambda line: -line.level)


def _ridge(values: NDArray[np.float64], sigma_um: float, pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much brighter each point is than what lies beside it, in the unit of the image; 0 where it is not."""
    sigma = _sigma(sigma_um, pixel)
    # each curvature counts per length of the blur, which a coarse pixel may make longer along one side
    xx, yy, xy = (
        gaussian_filter(values, sigma, order=order, mode="nearest") * factor
        for order, factor in (((2, 0), sigma[0] ** 2), ((0, 2), sigma[1] ** 2), ((1, 1), sigma[0] * sigma[1]))
    )
    smaller = (xx + yy) / 2.0 - np.sqrt(((xx - yy) / 2.0) ** 2 + xy**2)
    return np.maximum(-smaller, 0.0)


def _sigma(sigma_um: float, pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rms blur of the filter along x and y, pixels."""
    return np.maximum(sigma_um / pixel, 0.5)


def _gain(sigma_um: float, pixel: NDArray[np.float64]) -> float:
    """Return the noise of the filtered image over that of a pixel: the norm of the filter across a line."""
    sigma = _sigma(sigma_um, pixel)
    reach = 2 * np.ceil(4.0 * sigma).astype(int) + 1
    impulse = np.zeros(reach)
    impulse[tuple(reach // 2)] = 1.0
    return float(np.linalg.norm(gaussian_filter(impulse, sigma, order=(0, 2)) * sigma[1] ** 2))


def _noise(values: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Return the rms noise of a pixel, from differences of three neighbours, which smooth features do not have."""
    rough = (values[:, 2:] - 2.0 * values[:, 1:-1] + values[:, :-2]) / math.sqrt(6.0)
    chosen = np.abs(rough[inside[:, 1:-1]])
    return float(np.median(chosen)) / MAD_PER_SIGMA if chosen.size else 0.0


def _in_order(pixels: NDArray, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points of a skeleton from one end to the other, by their place along its longest direction.

    A skeleton that branches keeps its branches as detours; a line of a dislocation has none.
    """
    points = np.stack([x[pixels[:, 0]], y[pixels[:, 1]]], axis=1)
    if len(points) < 3:
        return points
    middle = points - points.mean(0)
    direction = np.linalg.svd(middle, full_matrices=False)[2][0]
    return points[np.argsort(middle @ direction, kind="stable")]
