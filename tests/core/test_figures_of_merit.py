"""Figures of merit of an alignment: right, with errors that mean what they say, and doubtful where they should be."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from dfxrm_control.alignment import (
    Found,
    find_spot,
    fit_middle,
    fit_peak,
    fit_top,
    growing_windows,
    image_shift,
    sharpness,
)
from dfxrm_control.errors import ParameterError


def peak(x, centre=0.3, sigma=0.1, height=1000.0, background=50.0):
    return background + height * np.exp(-0.5 * ((x - centre) / sigma) ** 2)


# -- peaks -----------------------------------------------------------------------------------------------------


def test_a_peak_is_fitted_with_errors_that_mean_what_they_say():
    x = np.linspace(-0.2, 0.8, 25)
    random = np.random.default_rng(1)
    pulls, widths = [], []
    for _ in range(200):
        noise = np.sqrt(peak(x))
        fit = fit_peak(x, peak(x) + noise * random.normal(size=x.size), noise)
        pulls.append((fit.centre - 0.3) / fit.centre_error)
        widths.append(fit.fwhm)
    assert np.mean(widths) == pytest.approx(0.1 * math.sqrt(8 * math.log(2)), rel=0.01)
    assert abs(np.mean(pulls)) < 0.25
    # never smaller than they are; a little larger, since misfit beyond the noise only adds to them
    assert 0.75 < np.std(pulls) < 1.1


def test_errors_do_not_depend_on_the_scale_of_the_intensity():
    x = np.linspace(-0.2, 0.8, 25)
    small = fit_peak(x, peak(x), np.full(x.size, 10.0))
    large = fit_peak(x, 1e7 * peak(x), np.full(x.size, 1e8))
    assert large.centre == pytest.approx(small.centre, abs=1e-6)
    assert large.centre_error == pytest.approx(small.centre_error, rel=1e-3)
    assert large.height_error == pytest.approx(1e7 * small.height_error, rel=1e-3)


def test_a_good_peak_is_believed():
    x = np.linspace(-0.2, 0.8, 25)
    assert fit_peak(x, peak(x), 5.0).doubt(narrowest=0.2, widest=0.3) == ""


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        (lambda x, noise: 50 + noise, "times the noise|no single peak"),
        (lambda x, noise: peak(x, centre=0.9) + noise, "not inside the window"),
        (lambda x, noise: peak(x, centre=0.0) + peak(x, centre=0.6) + noise, "no single peak"),
        (lambda x, noise: peak(x, sigma=0.02) + noise, "narrower than the instrument"),
        (lambda x, noise: peak(x, sigma=0.3) + noise, "not inside the window|wider than"),
    ],
    ids=["nothing", "at the edge", "two peaks", "a spike", "too wide"],
)
def test_a_bad_curve_is_doubted_and_the_reason_said(curve, says):
    x = np.linspace(-0.2, 0.8, 41)
    noise = 5.0 * np.random.default_rng(3).normal(size=x.size)

    doubt = fit_peak(x, curve(x, noise), 5.0).doubt(narrowest=0.2, widest=0.25)
    assert re.search(says, doubt), doubt


def test_a_curve_that_cannot_be_fitted_is_refused():
    with pytest.raises(ParameterError, match="at least 5 points, not 4"):
        fit_peak(range(4), range(4), 1.0)
    with pytest.raises(ParameterError, match="finite"):
        fit_peak(range(6), [1, 2, math.nan, 2, 1, 0], 1.0)


def mosaic(x, shift=0.0):
    """Return a rocking curve of sub-grains, and its centre of mass."""
    centres, heights = np.array([0.1, 0.22, 0.42]) + shift, np.array([1000.0, 300.0, 700.0])
    curve = sum(peak(x, centre, 0.03, height, 0.0) for centre, height in zip(centres, heights, strict=True))
    return curve + 20.0, float(heights @ centres / heights.sum())


def test_several_peaks_have_a_centre_of_mass_with_an_error_that_means_what_it_says():
    x = np.linspace(-0.2, 0.8, 41)
    curve, true = mosaic(x)
    random = np.random.default_rng(5)
    noise = np.full(x.size, 5.0)
    pulls = []
    for _ in range(200):
        seen = curve + noise * random.normal(size=x.size)
        single = fit_peak(x, seen, noise)
        # one of the peaks
        assert abs(single.centre - true) > 0.1
        fit = fit_middle(x, seen, noise, single)
        assert fit.doubt(0.07, 0.3) == "" and fit.ends is not None
        pulls.append((fit.centre - true) / fit.centre_error)
    # the level is that of the lower end, which noise makes a little too low
    assert abs(np.mean(pulls)) < 0.5 and 0.4 < np.std(pulls) < 1.2
    # a single peak stays one
    one = fit_peak(x, peak(x), noise)
    assert fit_middle(x, peak(x), noise, one) is one


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        (lambda x: mosaic(x, 0.36)[0], "goes on beyond its window"),
        (lambda x: mosaic(x, -0.27)[0], "goes on beyond its window"),
        (lambda x: 800.0 + 100.0 * np.sin(40.0 * x), "goes on beyond its window"),
        (lambda x: 0.02 * mosaic(x)[0], "times the noise"),
    ],
    ids=["cut off above", "cut off below", "wider than the window", "not above the noise"],
)
def test_several_peaks_that_are_not_seen_whole_are_doubted(curve, says):
    x = np.linspace(-0.2, 0.8, 41)
    seen = curve(x) + 5.0 * np.random.default_rng(3).normal(size=x.size)
    doubt = fit_middle(x, seen, 5.0, fit_peak(x, seen, 5.0)).doubt(0.07, 0.6)
    assert re.search(says, doubt), doubt


def test_the_top_of_a_skew_curve_is_found_beside_its_middle():
    x = np.linspace(-0.3, 0.7, 41)
    random = np.random.default_rng(3)
    skew = peak(x, centre=0.1, sigma=0.08) + peak(x, centre=0.28, sigma=0.12, height=500.0, background=0.0)
    true = x[0] + np.argmax(np.interp(np.linspace(x[0], x[-1], 10001), x, skew)) * 1e-4
    noise = np.full(x.size, 5.0)
    curve = skew + noise * random.normal(size=x.size)
    middle = fit_peak(x, curve, noise)
    top = fit_top(x, curve, noise, middle)
    assert abs(middle.centre - true) > 0.02
    assert top.centre == pytest.approx(true, abs=0.012)
    assert 0 < top.centre_error < 0.01
    # of an even curve they are the same
    even = peak(x, centre=0.2) + noise * random.normal(size=x.size)
    fit = fit_peak(x, even, noise)
    assert fit_top(x, even, noise, fit).centre == pytest.approx(fit.centre, abs=5e-3)


def test_windows_grow_and_never_repeat_a_point():
    windows = growing_windows(0.02, 0.2, 1.0)
    visited = [k for below, above in windows for k in (*below, *above)]
    assert len(visited) == len(set(visited))
    assert set(visited) == set(range(-25, 26))
    reaches = [above[-1] for _, above in windows]
    assert reaches == [5, 10, 20, 25]


# -- spots -----------------------------------------------------------------------------------------------------


def disc(row, column, radius=6.0, height=100.0, shape=(96, 128)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return height * np.exp(-0.5 * ((rows - row) ** 2 + (columns - column) ** 2) / radius**2)


def test_a_spot_is_found_where_it_is():
    noise = 4.0 * np.random.default_rng(5).normal(size=(96, 128))
    spot = find_spot(disc(30.3, 70.6) + noise, 4.0)
    assert spot is not None
    assert (spot.row, spot.column) == (pytest.approx(30.3, abs=0.3), pytest.approx(70.6, abs=0.3))
    assert not spot.at_edge
    assert 0 < spot.row_error < 0.3


def test_a_spot_that_hardly_shows_is_found_by_its_size():
    noise = 4.0 * np.random.default_rng(6).normal(size=(96, 128))
    assert find_spot(disc(40, 60, radius=8, height=8.0) + noise, 4.0) is not None


def test_noise_is_no_spot():
    random = np.random.default_rng(7)
    assert all(find_spot(4.0 * random.normal(size=(128, 128)), 4.0) is None for _ in range(100))


def test_single_bright_pixels_are_no_spot():
    frame = 4.0 * np.random.default_rng(8).normal(size=(96, 128))
    frame[20, 30] = frame[70, 90] = 60_000.0
    assert find_spot(frame, 4.0) is None


def test_a_spot_on_the_border_says_so():
    spot = find_spot(disc(1.0, 60.0), 1.0)
    assert spot is not None
    assert spot.at_edge


# -- sharpness -------------------------------------------------------------------------------------------------


def grains(blur=0.0, shift=(0.0, 0.0), size=128, seed=2):
    from scipy import ndimage

    random = np.random.default_rng(seed)
    cells = ndimage.zoom((random.random((size // 4, size // 4)) > 0.5).astype(float), 8, order=0)
    moved = ndimage.shift(cells, shift, order=3, mode="wrap")
    return 400.0 * ndimage.gaussian_filter(moved, max(blur, 0.8))[size // 2 : -size // 2, size // 2 : -size // 2]


def test_blur_takes_sharpness_down_and_exposure_does_not_change_it():
    values = [sharpness(grains(blur), 0.5) for blur in (0.8, 1.5, 2.5, 4.0, 6.0)]
    assert all(left > 1.1 * right for left, right in zip(values, values[1:], strict=False))
    assert sharpness(3.0 * grains(1.5), 1.5) == pytest.approx(sharpness(grains(1.5), 0.5), rel=0.01)


def test_noise_is_not_taken_for_sharpness():
    random = np.random.default_rng(4)
    clean = sharpness(grains(3.0), 1e-3)
    photons = random.poisson(grains(3.0) / 2.0) * 2.0 + 3.0 * random.normal(size=(128, 128))
    assert sharpness(photons, 3.0, gain_adu_per_photon=2.0) == pytest.approx(clean, rel=0.15)
    flat = random.poisson(np.full((128, 128), 200.0)).astype(float)
    assert abs(sharpness(flat, 0.01)) < 0.1 * clean


# -- shifts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0.0, 0.0), (6.4, 0.0), (-12.8, 3.3), (25.3, -17.7)])
def test_a_shift_is_measured_to_a_fraction_of_a_pixel(shift):
    random = np.random.default_rng(9)
    before, after = (random.poisson(np.clip(each, 0, None)) for each in (grains(1.0), grains(1.0, shift)))
    found = image_shift(before, after)
    assert (found.rows, found.columns) == pytest.approx(shift, abs=0.1)
    assert found.error < 0.2
    assert found.agreement > 0.8


def test_images_of_different_things_do_not_agree():
    assert image_shift(grains(seed=1), grains(seed=5)).agreement < 0.3


def test_a_field_without_outline_has_no_shift():
    random = np.random.default_rng(9)
    flat = [random.poisson(np.full((96, 96), 400.0)) for _ in range(2)]
    assert image_shift(*flat).agreement < 0.3


# -- findings --------------------------------------------------------------------------------------------------


def test_a_finding_reads_as_one_line():
    found = Found("find_peak", "phi", 0.1234567, 0.0004, "deg", True, "FWHM 0.023", extra={"yaw_deg": 0.1})
    assert found.line() == "find_peak phi: 0.123457 +/- 0.0004 deg, sure: FWHM 0.023"
    assert found.record()["yaw_deg"] == 0.1
    assert "extra" not in found.record()
    lost = Found("find_peak", "phi", math.nan, math.nan, "deg", False, "all is dark")
    assert lost.line() == "find_peak phi: nothing found; all is dark"
