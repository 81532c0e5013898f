"""The camera's noise against the numbers fitted to ID03 darks (dfxm-geo) and against Poisson's law."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from dfxrm_control.config import NoiseConfig
from dfxrm_control.errors import ConfigError
from simulators.noise import EXACT_BELOW, CameraNoise

ROWS = COLUMNS = 512
ONLY_PHOTONS = NoiseConfig(
    offset_adu=0,
    offset_rate_adu_per_s=0,
    gain_adu_per_photon=1.0,
    read_variance_adu2=0,
    dark_variance_rate_adu2_per_s=0,
    fixed_pattern_adu=0,
    warm_fraction=0,
    edge_rows=0,
)


def exposed(noise: CameraNoise, mean: float, number: int, exposure_s: float = 1.0, rows: int = ROWS) -> np.ndarray:
    gain = np.ones(COLUMNS, np.float32)
    flat = np.full((2, 2), mean, np.float32)
    return noise.frame(flat, np.full(rows, 0.5), np.full(COLUMNS, 0.5), gain[:rows], gain, exposure_s, number)


@pytest.mark.parametrize("mean", [0.003, 0.1, 0.5, 1.0, 3.7, 8.06, 12.5, 19.99])
def test_few_photons_follow_poissons_law_exactly(mean):
    noise = CameraNoise(ONLY_PHOTONS, ROWS, COLUMNS, 5, "far_field")
    counts = np.bincount(np.concatenate([exposed(noise, mean, n).ravel() for n in range(4)]))
    expected = stats.poisson.pmf(np.arange(len(counts)), mean) * counts.sum()
    kept = expected > 20
    observed = np.append(counts[kept], counts[~kept].sum())
    predicted = np.append(expected[kept], counts.sum() - expected[kept].sum())
    chi2 = ((observed - predicted) ** 2 / np.maximum(predicted, 1e-9)).sum()
    assert stats.chi2.sf(chi2, len(observed) - 1) > 1e-4


@pytest.mark.parametrize("mean", [20.0, 33.3, 150.0, 3000.0])
def test_many_photons_have_poissons_moments(mean):
    noise = CameraNoise(ONLY_PHOTONS, ROWS, COLUMNS, 6, "far_field")
    counts = np.concatenate([exposed(noise, mean, n).ravel() for n in range(16)]).astype(float)
    size = counts.size
    assert abs(counts.mean() - mean) < 4 * np.sqrt(mean / size)
    assert abs(counts.var() / mean - 1) < 4 * np.sqrt(2 / size) + 1e-3
    assert abs(stats.skew(counts) - mean**-0.5) < 4 * np.sqrt(6 / size) + 2e-3
    # and the tail a threshold would look at
    limit = stats.poisson.ppf(1 - 1e-4, mean)
    expected = stats.poisson.sf(limit, mean) * size
    assert abs((counts > limit).sum() - expected) < 5 * np.sqrt(expected)


def test_photon_noise_does_not_jump_where_the_method_changes():
    noise = CameraNoise(ONLY_PHOTONS, ROWS, COLUMNS, 6, "far_field")
    below, above = (exposed(noise, EXACT_BELOW + d, 1).astype(float) for d in (-1e-3, 1e-3))
    assert abs(below.mean() - above.mean()) < 0.05
    assert abs(below.var() - above.var()) < 0.3


@pytest.mark.parametrize("exposure_s", [0.1, 2.0])
def test_darks_have_the_measured_offset_and_variance(exposure_s):
    noise = CameraNoise(NoiseConfig(), ROWS, COLUMNS, 1, "far_field")
    darks = np.stack([exposed(noise, 0.0, n, exposure_s) for n in range(20)]).astype(float)
    middle = darks[:, 16:-16]
    assert np.median(middle) == pytest.approx(102.5 + 7.5 * exposure_s, abs=0.6)
    assert middle.var(axis=0, ddof=1).mean() == pytest.approx(6.3 + 11 * exposure_s, rel=0.01)


def test_fixed_pattern_warm_pixels_and_edges_stand_in_every_frame():
    noise = CameraNoise(NoiseConfig(), ROWS, COLUMNS, 1, "far_field")
    mean = np.mean([exposed(noise, 0.0, n, 0.1) for n in range(60)], axis=0)
    middle = mean[16:-16] - np.median(mean[16:-16])
    # half of the 16-84 % range is the sigma of the pattern, with what is left of 7.4 ADU^2 after 60 frames
    sigma = np.subtract(*np.percentile(middle, [84.13, 15.87])) / 2
    assert sigma == pytest.approx(np.hypot(1.8, np.sqrt(7.4 / 60)), rel=0.03)
    # measured: 0.57 % more than 10 ADU and 1.1e-4 more than 50 ADU above the median
    assert (middle > 10).mean() == pytest.approx(0.0057, rel=0.15)
    assert (middle > 50).mean() == pytest.approx(1.1e-4, rel=0.5)
    rows = np.median(mean, axis=1) - np.median(mean)
    assert 20 <= rows[0] <= 35
    assert 20 <= rows[-1] <= 35
    assert (np.diff(rows[:17]) < 0.5).all()
    assert abs(rows[16:-16]).max() < 1.0
    other = CameraNoise(NoiseConfig(), ROWS, COLUMNS, 1, "near_field")
    assert np.corrcoef(noise.pedestal[16:-16].ravel(), other.pedestal[16:-16].ravel())[0, 1] < 0.02


def test_photon_transfer_gives_the_gain():
    noise = CameraNoise(NoiseConfig(), ROWS, COLUMNS, 2, "far_field")
    signal, variance = [], []
    for number, photons in enumerate([0, 5, 50, 500, 2000]):
        first, second = (exposed(noise, photons, 2 * number + i, 0.5).astype(float)[16:-16] for i in (0, 1))
        signal.append((first - noise.pedestal[16:-16]).mean() - 106.25)
        variance.append((first - second).var() / 2)
    gain, read = np.polyfit(signal, variance, 1, w=1 / np.array(variance))
    assert gain == pytest.approx(2.14, rel=0.01)
    assert read == pytest.approx(6.3 + 11 * 0.5, rel=0.02)


def test_saturation_clips():
    noise = CameraNoise(NoiseConfig(saturation_adu=4095), ROWS, COLUMNS, 2, "far_field")
    assert (exposed(noise, 1e5, 0) == 4095).all()


def test_noise_is_never_used_twice():
    noise = CameraNoise(NoiseConfig(fixed_pattern_adu=0, warm_fraction=0, edge_rows=0), ROWS, COLUMNS, 9, "far_field")
    frames = [exposed(noise, 4.0, n).astype(float).ravel() for n in (0, 1, 2, 1000, 2**30)]
    for camera in ("near_field",):
        other = CameraNoise(NoiseConfig(fixed_pattern_adu=0, warm_fraction=0, edge_rows=0), ROWS, COLUMNS, 9, camera)
        frames.append(exposed(other, 4.0, 0).astype(float).ravel())
    correlation = np.corrcoef(frames)
    assert abs(correlation - np.eye(len(frames))).max() < 5 / np.sqrt(ROWS * COLUMNS)
    # nor shifted by a few pixels
    for shift in (1, 2, COLUMNS):
        assert abs(np.corrcoef(frames[0][shift:], frames[0][:-shift])[0, 1]) < 5 / np.sqrt(ROWS * COLUMNS)
    # nor between photons and read noise of one pixel, whose variances must add
    assert frames[0].var() == pytest.approx(4 * 2.14**2 + 6.3 + 11, rel=0.02)


def test_a_frame_does_not_depend_on_threads_or_order():
    noise = CameraNoise(NoiseConfig(), ROWS, COLUMNS, 9, "far_field")
    alone = [exposed(noise, 7.0, n) for n in range(6)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda n: exposed(noise, 7.0, n), reversed(range(6))))
    for first, second in zip(alone, reversed(together), strict=True):
        np.testing.assert_array_equal(first, second)
    # a camera with fewer rows, made in one band, has the same words for its first rows
    small = CameraNoise(NoiseConfig(), 32, COLUMNS, 9, "far_field")
    small.pedestal[:] = noise.pedestal[:32]
    np.testing.assert_array_equal(exposed(small, 7.0, 3, rows=32), alone[3][:32])


def test_a_camera_with_more_pixels_than_counters_is_refused():
    with pytest.raises(ConfigError, match="noise for 2"):
        CameraNoise(NoiseConfig(), 1 << 14, 1 << 13, 0, "far_field")
