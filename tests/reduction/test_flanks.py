"""Displacement of the peak from intensities on its flanks, and the picture of lines."""

from __future__ import annotations

import numpy as np
import pytest

from dfxrm_control.geometry import FWHM_PER_SIGMA, Resolution, motor_jacobian
from dfxrm_control.reduction import flank_displacement, inverse_intensity
from dfxrm_control.reduction._weak_beam import LIT_LEVEL, lit_level

FWHM = 0.0246  # deg, silicon 111 with the default resolution
SIGMA = FWHM / FWHM_PER_SIGMA
ALONG = np.array([[1 / SIGMA**2]])


def images(offsets, displacement, precision, noise=1e-5):
    m = np.asarray(offsets, dtype=float)
    away = m[:, :, None] - np.asarray(displacement)[None]
    values = np.exp(-0.5 * np.einsum("nip,ij,njp->np", away, precision, away))
    return values, np.full_like(values, noise)


def test_two_flanks_tell_the_displacement_of_a_gaussian_peak_exactly():
    truth = np.linspace(-0.006, 0.006, 13)[None]
    offsets = np.array([[-1.5 * FWHM], [1.5 * FWHM]])
    found, error, valid = flank_displacement(offsets, *images(offsets, truth, ALONG), ALONG)
    assert valid.sum() == 13
    np.testing.assert_allclose(found, truth, atol=1e-9)
    # three half widths out the ratio of the flanks is steep: 1 % of intensity is far less than 1 % of the width
    assert np.nanmax(error) < 0.01 * FWHM


def test_a_series_on_both_flanks_is_as_good_as_it_says():
    """Against the scatter of many noisy pixels, all with the same displacement."""
    random = np.random.default_rng(5)
    offsets = np.array([[k * FWHM / 2] for k in (-3, -2, -1.5, 1.5, 2, 3)])
    truth = np.full((1, 4000), 0.002)
    clean, _ = images(offsets, truth, ALONG)
    error = np.sqrt(clean / 3000 + 1e-7)
    noisy = clean + random.normal(0, 1, clean.shape) * error
    found, predicted, valid = flank_displacement(offsets, noisy, error, ALONG)
    assert valid.mean() > 0.95
    assert np.nanmean(found) == pytest.approx(0.002, abs=2e-5)
    assert np.nanstd(found) == pytest.approx(np.nanmedian(predicted), rel=0.15)


def test_pixels_that_lack_a_flank_are_masked():
    offsets = np.array([[-1.5 * FWHM], [1.5 * FWHM]])
    # far from the middle one flank is in the noise
    truth = np.array([[0.0, 0.02, -0.02]])
    found, error, valid = flank_displacement(offsets, *images(offsets, truth, ALONG, noise=2e-4), ALONG)
    assert valid.tolist() == [True, False, False]
    assert np.isnan(found[:, 1:]).all() and np.isnan(error[:, 1:]).all() and np.isfinite(found[:, 0]).all()
    # nor do two images on the same side tell anything
    same = np.array([[0.01], [0.02]])
    assert not flank_displacement(same, *images(same, truth, ALONG), ALONG)[2].any()


def test_rock_and_arm_tell_tilt_from_strain():
    resolution = Resolution(6.678, 2.25e-4, 0.0, 3.11e-4, 3.11e-4, 6e-5)
    jacobian = motor_jacobian(["two_theta", "phi"], 13.357, mu=6.678)
    precision = jacobian.T @ resolution.inverse_covariance @ jacobian * np.radians(1.0) ** 2
    tilt, strain = np.radians(0.002), 5e-5
    q = np.array([[tilt, 0.0], [0.0, 0.0], [0.0, -strain]])  # one crystal tilted, one strained
    truth = -np.linalg.lstsq(jacobian, q, rcond=None)[0]
    truth = np.degrees(truth)
    # flanks of the rock at three positions of the arm, where the rock's peak then is
    offsets = []
    for arm in (-0.03, 0.0, 0.03):
        middle = np.degrees(resolution.peak_rad(jacobian[:, 1:], jacobian[:, 0] * np.radians(arm))[0])
        offsets += [[arm, middle + k * FWHM / 2] for k in (-2.5, 2.5)]
    found, _, valid = flank_displacement(offsets, *images(offsets, truth, precision, noise=1e-6), precision)
    assert valid.all()
    back = -jacobian @ np.radians(found)
    np.testing.assert_allclose(back, q, atol=1e-9)


def test_inverse_intensity_shows_lines_dark_on_a_bright_ground():
    random = np.random.default_rng(1)
    image = random.normal(0.002, 0.0002, (60, 80))
    image[30, 10:70] += 0.03
    picture = inverse_intensity(image)
    assert picture.shape == image.shape and picture.min() >= 0 and picture.max() <= 1
    assert picture[30, 10:70].mean() < 0.1
    assert np.median(picture) == 1.0 and picture[np.arange(60) != 30].mean() > 0.98


@pytest.mark.parametrize("k", [1.0, 1.5, 2.0, 2.4, 3.0, 4.0])
def test_a_perfect_crystal_is_never_lit_and_what_lies_nearer_by_as_much_always_is(k):
    (tail,), _ = images([[0.5 * k * FWHM]], [[0.0]], ALONG)
    level = lit_level(-k, float(tail[0]))
    assert level > 1.5 * tail[0]
    (nearer,), _ = images([[0.5 * k * FWHM]], [[0.5 * 0.66 * FWHM]], ALONG)
    assert nearer[0] > level or k > 3.0
    # a field that is lit all over does not hide itself
    assert lit_level(k, 0.9) == pytest.approx(level)


def test_the_level_is_two_per_cent_far_out_and_where_a_condenser_has_cut_the_tail():
    assert lit_level(3.0, 2.0**-9) == pytest.approx(LIT_LEVEL) and lit_level(5.0, 0.0) == LIT_LEVEL
    assert lit_level(1.5, 1e-3) == LIT_LEVEL and lit_level(1.5, -1e-6) == LIT_LEVEL
