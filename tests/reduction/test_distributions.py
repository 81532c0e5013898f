"""The shape of distributions within pixels, against known ones, against noise, and against darfix."""

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from recording import OFFSET, Recording, camera, mesh, peaks

from dfxrm_control.cli._maps import maps as maps_command
from dfxrm_control.reduction import distributions_from_file, maps_from_file

SHAPE = (24, 30)
SIGMA = (0.08, 0.012)
CHI, PHI = np.linspace(-0.5, 0.5, 17), np.linspace(-0.06, 0.06, 13)
POINTS = mesh(CHI, PHI)
_, COLUMN = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")


def mixed(second_share, distance, height):
    """Return expected frames of pixels with two orientations, ``distance`` apart in chi."""
    first = np.zeros((2, *SHAPE))
    second = np.stack([np.broadcast_to(distance, SHAPE), np.zeros(SHAPE)])
    share = np.broadcast_to(second_share, SHAPE)
    return height * ((1.0 - share) * peaks(POINTS, first, SIGMA, 1.0) + share * peaks(POINTS, second, SIGMA, 1.0))


def scan(folder, frames):
    return Recording(folder, frames, POINTS, (CHI.size, PHI.size)).write()


def exact(weights, x, order):
    mean = (weights * x).sum() / weights.sum()
    variance = (weights * (x - mean) ** 2).sum() / weights.sum()
    return (weights * ((x - mean) / np.sqrt(variance)) ** order).sum() / weights.sum()


@pytest.fixture(scope="module")
def two_peaks(tmp_path_factory):
    """Return a scan of pixels of which the right half hold two orientations, and its distributions."""
    frames = mixed(0.3 * (COLUMN >= 15), 0.32, 15000.0)
    path = scan(tmp_path_factory.mktemp("two"), camera(frames, np.random.default_rng(2)))
    made = maps_from_file(path, dark=OFFSET)
    return path, frames, made, distributions_from_file(path, made, dark=OFFSET)


def test_pixels_with_two_orientations_have_a_second_peak_and_a_skewness(two_peaks):
    _, frames, made, found = two_peaks
    chi, phi = found.axes
    # x of a frame that is not flipped runs against the rows, y along the columns
    right = made.y > made.y[14]
    assert (chi.secondary_peaks[:, right] == 1).mean() > 0.99
    assert (chi.secondary_peaks[:, ~right] == 0).all() and (phi.secondary_peaks == 0).all()
    marginal = frames.reshape(CHI.size, PHI.size, *SHAPE).sum(axis=1)
    for side, column in ((right, 20), (~right, 3)):
        for order, values, error, less in (
            (3, chi.skewness, chi.skewness_error, 0.0),
            (4, chi.kurtosis, chi.kurtosis_error, 3.0),
        ):
            expected = exact(marginal[:, 5, column], CHI, order) - less
            of_mean = np.median(error[:, side]) / np.sqrt(side.sum() * len(made.x))
            assert of_mean < 0.02
            assert values[:, side].mean() == pytest.approx(expected, abs=4.0 * of_mean)
    assert chi.skewness[:, right].mean() > 0.5


def test_errors_are_those_that_noise_makes(two_peaks):
    _, _, made, found = two_peaks
    left = made.y <= made.y[14]
    for values, error in (
        (found.axes[0].skewness, found.axes[0].skewness_error),
        (found.axes[0].kurtosis, found.axes[0].kurtosis_error),
        (found.axes[1].skewness, found.axes[1].skewness_error),
    ):
        assert values[:, left].std() == pytest.approx(np.median(error[:, left]), rel=0.2)


def test_noise_alone_makes_no_peaks(tmp_path):
    weak = scan(tmp_path, camera(mixed(0.0, 0.0, 60.0), np.random.default_rng(3)))
    found = distributions_from_file(weak, maps_from_file(weak, dark=OFFSET), dark=OFFSET)
    for axis in found.axes:
        assert (axis.secondary_peaks > 0).sum() <= 1


def test_bands_of_rows_give_the_same(two_peaks):
    path, _, made, whole = two_peaks
    parts = distributions_from_file(path, made, dark=OFFSET, most_bytes=4 * 30 * 30 * 5)
    assert whole.passes == 1 and parts.passes == 5
    for one, other in zip(whole.axes, parts.axes, strict=True):
        np.testing.assert_array_equal(one.secondary_peaks, other.secondary_peaks)
        np.testing.assert_allclose(one.kurtosis, other.kurtosis, rtol=1e-6)


def test_skewness_and_kurtosis_are_those_of_darfix(two_peaks):
    moments = pytest.importorskip("darfix._processing.moments")
    path, _, made, _ = two_peaks
    with h5py.File(path) as file:
        frames = np.maximum(file["1.1/instrument/pco_ff/data"][()].astype(float) - OFFSET, 0.0)
    found = distributions_from_file(path, made, clip=int(OFFSET))
    _, _, skewness, kurtosis = moments.compute_moments(POINTS[:, 0], frames, frames.sum(axis=0), smooth=False)
    np.testing.assert_allclose(found.axes[0].skewness, skewness[::-1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.axes[0].kurtosis, kurtosis[::-1], rtol=1e-3, atol=1e-3)


def test_axes_whose_mesh_is_too_coarse_are_absent_and_said(tmp_path):
    points = mesh(np.linspace(-0.3, 0.3, 5), np.linspace(-0.36, 0.36, 9))
    frames = camera(peaks(points, np.zeros((2, *SHAPE)), [0.15, 0.012], 2000.0), np.random.default_rng(1))
    path = Recording(tmp_path, frames, points, (5, 9)).write()
    found = distributions_from_file(path, maps_from_file(path, dark=OFFSET), dark=OFFSET)
    assert found.axes == ()
    assert "5 points are too few" in found.notes[0] and "wider than the peak" in found.notes[1]


def test_the_command_writes_them(two_peaks, tmp_path):
    path, _, _, found = two_peaks
    arguments = [str(path), "--dark", str(int(OFFSET)), "--distributions", "--out", str(tmp_path)]
    result = CliRunner().invoke(maps_command, arguments)
    assert result.exit_code == 0, result.output
    with h5py.File(tmp_path / f"{path.stem}_distributions.h5") as file:
        skewness = file["entry/chi/skewness/data"][()]
        np.testing.assert_allclose(skewness, found.axes[0].skewness, atol=1e-3)
        assert file["entry/chi/skewness/data_errors"].shape == skewness.shape
        assert 0.0 < np.nanmedian(file["entry/chi/instrument_share/data"][()]) <= 1.0
    assert (tmp_path / f"{path.stem}_distributions.png").stat().st_size > 10_000
