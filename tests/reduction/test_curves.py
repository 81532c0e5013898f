"""Widths of single pixels' rocking curves."""

from __future__ import annotations

import numpy as np
import pytest

from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction._curves import curve_width, half_maximum

FWHM, SIGMA = 0.03, 0.03 / 2.3548
CAMERA = {"gain_adu_per_photon": 2.14, "frame_variance_adu2": 12.0, "saturation_adu": 65535}
NAMES = {"axis": "phi", "units": "deg"}


def scan(half: float = 0.09, step: float = FWHM / 10, centre: float = 0.0):
    count = int(round(2 * half / step)) + 1
    return centre + (np.arange(count) - (count - 1) / 2) * step


def frames(positions, middles, peak_adu: float, seed: int = 2, sigma: float = SIGMA, dark: float = 106.0):
    """Return noisy frames of pixels that peak at their middles."""
    random = np.random.default_rng(seed)
    mean = peak_adu * np.exp(-0.5 * ((positions[:, None] - middles[None, :]) / sigma) ** 2)
    photons = random.poisson(mean / 2.14) * 2.14
    return np.clip(np.round(photons + dark + random.normal(0, np.sqrt(12.0), mean.shape)), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("smooth", [False, True])
def test_half_maximum_of_exact_curves(smooth):
    x = scan()
    middles = np.linspace(-0.02, 0.02, 41)
    curves = np.exp(-0.5 * ((x[:, None] - middles) / SIGMA) ** 2)
    low, high, count = half_maximum(x, curves, smooth)
    np.testing.assert_allclose(high - low, FWHM, rtol=0.012)
    np.testing.assert_allclose((high + low) / 2, middles, atol=0.01 * FWHM)
    assert set(count) <= {9, 10, 11}


def test_only_what_is_contiguous_with_the_maximum_counts():
    x = scan()
    curve = np.exp(-0.5 * (x / SIGMA) ** 2) + 0.8 * np.exp(-0.5 * ((x - 0.075) / (SIGMA / 2)) ** 2)
    low, high, _ = half_maximum(x, curve[:, None])
    assert high[0] - low[0] == pytest.approx(FWHM, rel=0.02)


def test_median_pixel_under_noise_not_the_width_of_the_sum():
    """Pixels that peak at different places: the sum is 2.6 times as wide, the median pixel is not."""
    x = scan(half=0.12)
    middles = np.random.default_rng(1).uniform(-0.036, 0.036, 4000)
    data = frames(x, middles, 600.0)
    found = curve_width(x, data, dark=np.full(4000, 106.0), **NAMES, **CAMERA)
    assert found.fwhm == pytest.approx(FWHM, rel=0.03)
    assert found.centre == pytest.approx(0.0, abs=0.003)
    assert found.pixels == 4000 and not found.remarks
    total = (data.astype(float) - 106.0).sum(1)
    low, high, _ = half_maximum(x, total[:, None])
    assert high[0] - low[0] > 2.2 * FWHM
    # points in any order give the same
    shuffled = np.random.default_rng(3).permutation(len(x))
    assert curve_width(x[shuffled], data[shuffled], dark=np.full(4000, 106.0), **NAMES, **CAMERA) == found


def test_weak_pixels_are_not_counted_and_weak_peaks_are_not_biased():
    x = scan()
    bright, dim = frames(x, np.zeros(500), 260.0), frames(x, np.zeros(3000), 15.0, seed=5, sigma=3 * SIGMA)
    found = curve_width(x, np.hstack([bright, dim]), dark=np.full(3500, 106.0), **NAMES, **CAMERA)
    assert found.pixels <= 500
    assert found.fwhm == pytest.approx(FWHM, rel=0.05)


def test_without_darks_the_ends_of_the_curve_are_the_background_and_it_is_said():
    x = scan()
    found = curve_width(x, frames(x, np.zeros(500), 600.0), **NAMES, **CAMERA)
    assert found.fwhm == pytest.approx(FWHM, rel=0.03)
    assert any("no darks" in remark for remark in found.remarks)
    # what would come out if the pedestal were taken for light
    wrong = curve_width(x, frames(x, np.zeros(500), 600.0), dark=np.zeros(500), **NAMES, **CAMERA)
    assert wrong.fwhm > 1.05 * FWHM


@pytest.mark.parametrize(
    ("positions", "middle", "peak", "words"),
    [
        (scan()[:4], 0.0, 600.0, "4 points"),
        (scan(step=FWHM), 0.0, 600.0, "too few for a width"),
        (scan(), 0.09, 600.0, "misses the peak"),
        (scan(), 0.5, 600.0, "no pixel lights up"),
        (scan(), 0.0, 70000.0, "saturated"),
    ],
)
def test_what_gives_no_width_is_said_in_one_sentence(positions, middle, peak, words):
    data = frames(positions, np.full(200, middle), peak)
    with pytest.raises(ParameterError, match=words) as caught:
        curve_width(positions, data, dark=np.full(200, 106.0), **NAMES, **CAMERA)
    assert str(caught.value).startswith("phi: ") and "\n" not in str(caught.value)


def test_a_few_saturated_pixels_are_left_out_and_told():
    x = scan()
    data = np.hstack([frames(x, np.zeros(400), 600.0), frames(x, np.zeros(40), 90000.0, seed=7)])
    found = curve_width(x, data, dark=np.full(440, 106.0), **NAMES, **CAMERA)
    assert any("saturated" in remark for remark in found.remarks)
