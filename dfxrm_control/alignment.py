"""Figures of merit of an alignment, and how sure they make one: peaks, spots, sharpness, shifts.

Pure: arrays in, numbers with errors out. The plans decide by these, and move nothing when `PeakFit.doubt` or its like
gives a reason not to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize

from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import FWHM_PER_SIGMA

__all__ = [
    "Found",
    "PeakFit",
    "Shift",
    "Spot",
    "find_spot",
    "fit_middle",
    "fit_peak",
    "fit_top",
    "growing_windows",
    "image_shift",
    "sharpness",
]

LEAST_SIGNAL_TO_NOISE = 6.0
"""Height of a peak over its error by noise from which it is believed."""
LARGEST_RESIDUAL = 0.2
"""Rms misfit, as a fraction of the height, up to which a curve is called a peak."""
SINGLE_RESIDUAL = 0.05
"""Rms misfit, as a fraction of the height, up to which a curve that may have several peaks counts as one."""
LARGEST_END = 0.2
"""Intensity at the ends of a curve of several peaks, as a fraction of its largest, up to which it is seen whole."""
TOP_FRACTION = 0.6
MOST_REGISTRATIONS = 6
SMALLEST_OVERLAP_PX = 16
SPOT_SIGMAS = 6.0
"""How far above the noise of the smoothed frame a spot must stand."""


@dataclass(frozen=True)
class Found:
    """What one step of an alignment found, and how sure it is.

    Attributes
    ----------
    step : str
        Name of the step, e.g. ``find_peak``.
    axis : str
        Logical axis, or what was measured.
    position : float
        Where the axis is best, in its unit; NaN when nothing was found.
    error : float
        Standard error of the position.
    units : str
        Unit of both.
    sure : bool
        Whether the result is believed. When not, the axes are back where they started.
    reason : str
        Why not; or what speaks for it.
    before : float
        Where the axis stood before.
    signal : float
        Figure of merit at the best position: intensity in ADU of the frame, or sharpness.
    exposure_s : float
        Exposure time of the frames it goes by, s.
    predicted : bool
        Whether this is the outcome a dry run assumes, nothing having been seen.
    extra : mapping of str to float
        What else was found, by name with its unit.
    """

    step: str
    axis: str
    position: float
    error: float
    units: str
    sure: bool
    reason: str
    before: float = math.nan
    signal: float = math.nan
    exposure_s: float = math.nan
    predicted: bool = False
    extra: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the result as plain values, with what else was found beside the rest."""
        values = asdict(self)
        extra = values.pop("extra")
        return {**values, **extra}

    def line(self) -> str:
        """Return the result as one line of a report."""
        what = f"{self.step} {self.axis}".strip()
        if not math.isfinite(self.position):
            return f"{what}: nothing found; {self.reason}"
        error = f" +/- {self.error:.2g}" if math.isfinite(self.error) else ""
        return f"{what}: {self.position:.6g}{error} {self.units}, {'sure' if self.sure else 'NOT SURE'}: {self.reason}"


@dataclass(frozen=True)
class PeakFit:
    """A Gaussian on a constant, fitted to a curve.

    Attributes
    ----------
    centre, centre_error : float
        In the unit of the positions.
    fwhm, fwhm_error : float
        Full width at half maximum.
    height, height_error : float
        Above the background, in the unit of the intensities.
    background : float
        The constant.
    significance : float
        Height over its error by the given noise alone.
    residual : float
        Rms misfit over the height.
    step : float
        Largest distance between two neighbouring positions.
    window : tuple of float
        Lowest and highest position.
    ends : float or None
        For a curve of several peaks, see `fit_middle`: intensity at the higher end of the window over the largest. None
        for a single peak.
    """

    centre: float
    centre_error: float
    fwhm: float
    fwhm_error: float
    height: float
    height_error: float
    background: float
    significance: float
    residual: float
    step: float
    window: tuple[float, float]
    ends: float | None = None

    def doubt(self, narrowest: float = 0.0, widest: float = math.inf) -> str:
        """Return why the peak is not believed; empty when it is.

        Parameters
        ----------
        narrowest, widest : float
            FWHM between which a true peak lies, from the instrument and the sample.
        """
        low, high = self.window
        if not self.significance > LEAST_SIGNAL_TO_NOISE:
            return f"the peak is {self.significance:.1f} times the noise"
        if not low + 0.25 * self.fwhm <= self.centre <= high - 0.25 * self.fwhm:
            return f"its centre {self.centre:.6g} is not inside the window {low:.6g} .. {high:.6g}"
        if self.ends is not None and self.ends > LARGEST_END:
            return f"the curve goes on beyond its window: at an end it is {100 * self.ends:.0f} % of its largest"
        if self.ends is None and self.residual > LARGEST_RESIDUAL:
            return f"the curve is no single peak: the misfit is {100 * self.residual:.0f} % of its height"
        if self.fwhm < 0.5 * narrowest:
            return f"it is {self.fwhm:.3g} wide (FWHM), narrower than the instrument's {narrowest:.3g}"
        if self.fwhm > 2.0 * widest:
            return f"it is {self.fwhm:.3g} wide (FWHM), wider than the {widest:.3g} that instrument and sample make"
        return ""


def fit_peak(positions: ArrayLike, intensities: ArrayLike, sigma: ArrayLike) -> PeakFit:
    """Fit a Gaussian on a constant to a curve by weighted least squares.

    The errors are those of the fit's covariance with the given noise; where the misfit is larger than the noise, they
    grow with it (the square root of the reduced chi square), so that a curve that is no Gaussian has honest errors.

    Parameters
    ----------
    positions, intensities : array_like, shape (n,)
        The curve, n at least 5.
    sigma : array_like, shape (n,) or scalar
        Standard deviation of each intensity.

    Raises
    ------
    ParameterError
        With fewer than five points, or a value that is no number.
    """
    order = np.argsort(np.asarray(positions, float))
    x = np.asarray(positions, float)[order]
    y = np.asarray(intensities, float)[order]
    noise = np.broadcast_to(np.asarray(sigma, float), x.shape)[order]
    if x.size < 5:
        raise ParameterError(f"a peak is fitted to at least 5 points, not {x.size}")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (noise > 0).all()):
        raise ParameterError("a curve to be fitted must consist of finite numbers with noise above zero")
    span = x[-1] - x[0]
    floor = float(np.percentile(y, 10))
    top = int(np.argmax(y))
    height = max(float(y[top] - floor), float(noise[top]))
    above = np.clip(y - floor - 0.3 * height, 0, None)
    middle = float(above @ x / above.sum()) if above.sum() > 0 else float(x[top])
    step = float(np.diff(x).max())
    spread = math.sqrt(float(above @ (x - middle) ** 2 / above.sum())) if above.sum() > 0 else 0.0
    # the whole of what stands out, and the tallest point alone: one of them leads to the best fit
    guesses = [(middle, max(1.5 * spread, 0.5 * step), height, floor), (float(x[top]), step, height, floor)]

    def misfit(p: NDArray) -> NDArray:
        return (p[3] + p[2] * np.exp(-0.5 * ((x - p[0]) / p[1]) ** 2) - y) / noise

    low = (x[0] - span, 0.2 * step, 0.0, -np.inf)
    high = (x[-1] + span, 3.0 * span, np.inf, np.inf)
    scale = np.array([step, step, height, height])
    fits = [optimize.least_squares(misfit, guess, bounds=(low, high), x_scale=scale) for guess in guesses]
    found = min(fits, key=lambda fit: float(fit.cost))
    # in units of the scale, since angles and intensities differ by many orders of magnitude
    jacobian = found.jac * scale
    chi2 = 2.0 * found.cost / max(x.size - 4, 1)
    from_noise = scale * np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
    errors = from_noise * math.sqrt(max(chi2, 1.0))
    peak = float(found.x[2])
    residual = float(np.sqrt(np.mean((found.fun * noise) ** 2)))
    return PeakFit(
        centre=float(found.x[0]),
        centre_error=float(errors[0]),
        fwhm=FWHM_PER_SIGMA * float(found.x[1]),
        fwhm_error=FWHM_PER_SIGMA * float(errors[1]),
        height=peak,
        height_error=max(float(errors[2]), 1e-300),
        background=float(found.x[3]),
        significance=peak / max(float(from_noise[2]), 1e-300),
        residual=residual / peak if peak > 0 else math.inf,
        step=step,
        window=(float(x[0]), float(x[-1])),
    )


def fit_middle(positions: ArrayLike, intensities: ArrayLike, sigma: ArrayLike, fit: PeakFit) -> PeakFit:
    """Return a fit of a curve that may have several peaks, as the rocking curve of a mosaic crystal has.

    A curve that a single peak describes keeps its fit. The centre of any other is its centre of mass above the lower
    of its ends, and its width is that of a Gaussian of the same variance. The error is made of the noise and of that of
    the level, at least half the difference of the two ends.

    Parameters
    ----------
    positions, intensities, sigma : array_like
        As for `fit_peak`.
    fit : PeakFit
        Fit of a single peak to it.
    """
    if fit.residual <= SINGLE_RESIDUAL:
        return fit
    order = np.argsort(np.asarray(positions, float))
    x, y = np.asarray(positions, float)[order], np.asarray(intensities, float)[order]
    noise = np.broadcast_to(np.asarray(sigma, float), x.shape)[order]
    level = min(float(y[0]), float(y[-1]))
    level_error = max(float(np.hypot(noise[0], noise[-1])) / 2.0, abs(float(y[-1] - y[0])) / 2.0)
    top = int(np.argmax(y))
    height = float(y[top]) - level
    # trapezoids: the points need not be evenly spaced
    weight = np.gradient(x)
    total = float(weight @ (y - level))
    if not (height > 0.0 and total > 0.0):
        return fit
    centre = float(weight @ ((y - level) * x)) / total
    lever = weight * (x - centre) / total
    variance = max(float(weight @ ((y - level) * (x - centre) ** 2)) / total, (fit.step / FWHM_PER_SIGMA) ** 2)
    error = math.hypot(float(np.sqrt((lever**2) @ noise**2)), float(lever.sum()) * level_error)
    own = max(float(noise[top]), 1e-300)
    return replace(
        fit,
        centre=centre,
        centre_error=error,
        fwhm=FWHM_PER_SIGMA * math.sqrt(variance),
        fwhm_error=math.nan,
        height=height,
        height_error=own,
        background=level,
        significance=height / own,
        ends=max(float(y[0]), float(y[-1]), 0.0) / float(y[top]),
    )


def fit_top(positions: ArrayLike, intensities: ArrayLike, sigma: ArrayLike, fit: PeakFit) -> PeakFit:
    """Return a fit whose centre is where the curve is largest, rather than the middle of the whole curve.

    The curve of a mosaic crystal is skew: its middle, by which a scan is centred, and its maximum, where it is
    brightest, differ. A parabola goes through the points about the largest that stand above 60 % of its height.

    Parameters
    ----------
    positions, intensities, sigma : array_like
        As for `fit_peak`.
    fit : PeakFit
        Fit of the whole curve; all but centre and its error is kept. It is returned as it is where the top has no
        maximum within its points.
    """
    order = np.argsort(np.asarray(positions, float))
    x, y = np.asarray(positions, float)[order], np.asarray(intensities, float)[order]
    noise = np.broadcast_to(np.asarray(sigma, float), x.shape)[order]
    top = int(np.argmax(y))
    level = fit.background + TOP_FRACTION * (y[top] - fit.background)
    low = high = top
    while low > 0 and y[low - 1] > level:
        low -= 1
    while high < x.size - 1 and y[high + 1] > level:
        high += 1
    chosen = slice(max(low - 1, 0), high + 2)
    if x[chosen].size < 4:
        return fit
    scaled = (x[chosen] - x[top]) / fit.fwhm
    parabola, covariance = np.polyfit(scaled, y[chosen], 2, w=1.0 / noise[chosen], cov="unscaled")
    curvature, slope, _ = parabola
    if curvature >= 0:
        return fit
    misfit = (np.polyval(parabola, scaled) - y[chosen]) / noise[chosen]
    chi2 = max(float(misfit @ misfit) / (scaled.size - 3), 1.0)
    # of -b / 2a
    gradient = np.array([slope / (2 * curvature**2), -1.0 / (2 * curvature), 0.0])
    error = fit.fwhm * math.sqrt(float(gradient @ covariance @ gradient) * chi2)
    centre = float(x[top] - fit.fwhm * slope / (2 * curvature))
    if not x[chosen][0] <= centre <= x[chosen][-1]:
        return fit
    return replace(fit, centre=centre, centre_error=error)


@dataclass(frozen=True)
class Spot:
    """What is lit in a frame.

    Attributes
    ----------
    row, column : float
        Centre of mass, pixels.
    row_error, column_error : float
        Standard errors from the noise of the frame, pixels.
    total, total_error : float
        Summed intensity of the lit pixels, ADU.
    pixels : int
        Number of lit pixels.
    at_edge : bool
        Whether the frame's border cuts it, so that its centre lies elsewhere.
    """

    row: float
    column: float
    row_error: float
    column_error: float
    total: float
    total_error: float
    pixels: int
    at_edge: bool


def find_spot(image: NDArray, sigma: float, smooth_px: float = 1.5, least_pixels: int = 4) -> Spot | None:
    """Return what is lit in a frame, or None.

    Lit are the pixels that stand `SPOT_SIGMAS` above the noise after a Gaussian smoothing, in patches of at least
    ``least_pixels``, so that a hot pixel or a cosmic ray is no spot.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
        Frame with its dark subtracted, ADU.
    sigma : float
        Noise of a dark pixel of it, ADU.
    smooth_px : float
        Rms width of the smoothing, pixels.
    least_pixels : int
        Smallest patch that counts.
    """
    # one bright pixel must not light a patch: a 3 x 3 median takes single pixels out
    calm = ndimage.median_filter(image, size=3)
    smooth = ndimage.gaussian_filter(calm.astype(float), smooth_px)
    # what smoothing leaves of white noise is 1 / (2 sqrt(pi) s); after a median of 3 x 3 it is between 0.87 and 1.09 of
    # that (computed for s of 1 to 3)
    level = SPOT_SIGMAS * sigma * 1.1 / (2.0 * math.sqrt(math.pi) * smooth_px)
    patches, number = ndimage.label(smooth > level)
    if not number:
        return None
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0
    lit = (sizes >= least_pixels)[patches]
    if not lit.any():
        return None
    light = np.where(lit, np.clip(image, 0, None), 0.0)
    total = float(light.sum())
    if total <= 0:
        return None
    rows, columns = np.arange(image.shape[0]), np.arange(image.shape[1])
    row, column = float(light.sum(1) @ rows / total), float(light.sum(0) @ columns / total)
    variance = np.where(lit, sigma**2 + np.clip(image, 0, None), 0.0)
    row_error = math.sqrt(float(variance.sum(1) @ (rows - row) ** 2)) / total
    column_error = math.sqrt(float(variance.sum(0) @ (columns - column) ** 2)) / total
    on_border = int(lit[0].sum() + lit[-1].sum() + lit[1:-1, 0].sum() + lit[1:-1, -1].sum())
    return Spot(
        row,
        column,
        row_error,
        column_error,
        total,
        math.sqrt(float(variance.sum())),
        int(lit.sum()),
        # a chord of it, not a mere touch
        on_border > 0.5 * math.sqrt(int(lit.sum())),
    )


def sharpness(image: NDArray, sigma: float, gain_adu_per_photon: float = 1.0, smooth_px: float = 1.0) -> float:
    """Return how sharp an image is: the energy of its gradient over the square of its intensity, noise taken off.

    The gradient is that of the image smoothed by a Gaussian (the normalised Tenengrad measure; Groen, Young & Ligthart
    1985, Cytometry 6, 81). What photon and read noise contribute on average is subtracted, so that a bright blurred
    image does not win over a dim sharp one. Blur takes it down monotonically.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
        Frame with its dark subtracted, ADU.
    sigma : float
        Noise of a dark pixel, ADU.
    gain_adu_per_photon : float
        ADU per photon: the photon noise of a pixel of ``a`` ADU has variance ``gain a``.
    smooth_px : float
        Rms width of the smoothing, pixels.
    """
    total = float(image.sum())
    if total <= 0:
        return 0.0
    energy = 0.0
    for axis in (0, 1):
        order = [0, 0]
        order[axis] = 1
        gradient = ndimage.gaussian_filter(image.astype(float), smooth_px, order=order)
        energy += float((gradient**2).sum())
    # white noise of unit variance leaves 1 / (8 pi s^4) in each component of the gradient of a Gaussian of width s
    noise = float(image.size) * sigma**2 + gain_adu_per_photon * total
    energy -= 2.0 * noise / (8.0 * math.pi * smooth_px**4)
    return energy * image.size / total**2


@dataclass(frozen=True)
class Shift:
    """By how much an image has moved on the camera.

    Attributes
    ----------
    rows, columns : float
        Towards larger indices, pixels.
    error : float
        Standard error of each, pixels.
    agreement : float
        Correlation of the two images once one is shifted back, 0 to 1.
    """

    rows: float
    columns: float
    error: float
    agreement: float


def image_shift(before: NDArray, after: NDArray, upsample: int = 50) -> Shift:
    """Return how far the content of a frame moved, to a fraction of a pixel.

    By phase correlation with an upsampled matrix Fourier transform (Guizar-Sicairos, Thurman & Fienup 2008, Opt. Lett.
    33, 156), as scikit-image has it; unnormalised, since noise outweighs the signal in most of the spectrum. What both
    frames show is cut out of each and weighted by a Hann window, again after each better estimate: the border and what
    does not move would draw the shift towards zero. The error is estimated from what each of four quarters gives by
    itself.

    Parameters
    ----------
    before, after : ndarray, shape (rows, columns)
        Frames with their dark subtracted.
    upsample : int
        Fraction of a pixel that is resolved.

    Raises
    ------
    ParameterError
        For frames of different size.
    """
    # a third of a second to import, which only this step of an alignment should cost
    from skimage.registration import phase_cross_correlation

    first, second = (np.asarray(image, float) for image in (before, after))
    if first.shape != second.shape:
        raise ParameterError(f"images of {first.shape} and {second.shape} pixels have no shift between them")

    def register(a: NDArray, b: NDArray) -> NDArray:
        window = np.outer(np.hanning(a.shape[0] + 2)[1:-1], np.hanning(a.shape[1] + 2)[1:-1])
        parts = [window * (part - np.average(part, weights=window)) for part in (a, b)]
        shift, *_ = phase_cross_correlation(*parts, upsample_factor=upsample, normalization=None)
        return -np.asarray(shift, float)

    moved = np.zeros(2)
    for _ in range(MOST_REGISTRATIONS):
        whole = np.rint(moved).astype(int)
        a, b = _overlap(first, second, whole)
        if min(a.shape) < SMALLEST_OVERLAP_PX or a.std() == 0 or b.std() == 0:
            return Shift(float(moved[0]), float(moved[1]), math.inf, 0.0)
        moved = whole + register(a, b)
        if (np.rint(moved) == whole).all():
            break
    agreement = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    half = [size // 2 for size in a.shape]
    quarters = [
        register(a[rows, columns], b[rows, columns])
        for rows in (slice(None, half[0]), slice(half[0], None))
        for columns in (slice(None, half[1]), slice(half[1], None))
        if a[rows, columns].std() > 0 and b[rows, columns].std() > 0
    ]
    spread = np.std(quarters, axis=0, ddof=1) if len(quarters) > 1 else np.array([math.inf])
    error = max(float(spread.max()) / math.sqrt(len(quarters) or 1), 1.0 / upsample)
    return Shift(float(moved[0]), float(moved[1]), error, agreement)


def _overlap(first: NDArray, second: NDArray, moved: NDArray) -> tuple[NDArray, NDArray]:
    """Return what two images have in common when the second shows the first moved by whole pixels."""
    here, there = [], []
    for shift, size in zip(moved, first.shape, strict=True):
        here.append(slice(max(-shift, 0), size - max(shift, 0)))
        there.append(slice(max(shift, 0), size - max(-shift, 0)))
    return first[tuple(here)], second[tuple(there)]


def growing_windows(step: float, first: float, last: float) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Return the grid indices that each of several windows of doubling width adds below and above the ones before.

    Parameters
    ----------
    step : float
        Distance of the grid points.
    first, last : float
        Full width of the smallest and of the largest window.

    Returns
    -------
    list of (below, above)
        Indices in increasing order; multiplied by ``step``, offsets from the centre. The first window is all in
        ``above``.
    """
    end = max(math.ceil(last / 2.0 / step - 1e-9), 2)
    reach = min(max(math.ceil(first / 2.0 / step - 1e-9), 2), end)
    windows: list[tuple[Sequence[int], Sequence[int]]] = [((), range(-reach, reach + 1))]
    while reach < end:
        further = min(2 * reach, end)
        windows.append((range(-further, -reach), range(reach + 1, further + 1)))
        reach = further
    return windows
