import numpy as np
import pytest
from recording import mesh

from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction import Moments

SHAPE = (13, 37)


def plain(frames, points, weights, dark):
    """Moments as they stand in a textbook."""
    intensity = (frames - dark) * weights[:, None, None]
    total = intensity.sum(axis=0)
    mean = np.einsum("kij,ka->aij", intensity, points) / total
    second = np.einsum("kij,ka,kb->abij", intensity, points, points) / total
    return total, mean, second - mean[:, None] * mean[None], intensity


def scan(axes, seed=0):
    rng = np.random.default_rng(seed)
    steps = {1: (31,), 2: (9, 11), 3: (3, 4, 5)}[axes]
    points = mesh(*(np.linspace(2.0 + a, 2.6 + a, n) for a, n in enumerate(steps)))
    frames = rng.integers(90, 900, (len(points), *SHAPE), dtype=np.uint16)
    monitor = rng.uniform(0.8, 1.2, len(points)) * 3e5
    return points, frames, monitor, rng.uniform(80.0, 90.0, SHAPE)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("order", ["as planned", "shuffled"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_moments_are_those_of_the_textbook_in_any_order_and_any_batches(axes, order, batch):
    points, frames, monitor, dark = scan(axes)
    sequence = np.arange(len(points))
    if order == "shuffled":
        np.random.default_rng(1).shuffle(sequence)
    moments = Moments(SHAPE, axes, reference=dark)
    for start in range(0, len(points), batch):
        part = sequence[start : start + batch]
        moments.add(frames[part], points[part], monitor[part], part)
    found = moments.result(dark)
    total, mean, covariance, intensity = plain(frames, points, monitor.mean() / monitor, dark)
    np.testing.assert_allclose(found.integrated, total, rtol=2e-6)
    np.testing.assert_allclose(found.mean, mean, atol=3e-6)
    np.testing.assert_allclose(found.covariance, covariance, atol=5e-6)
    np.testing.assert_allclose(found.maximum, intensity.max(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found.argmax, intensity.argmax(axis=0))
    np.testing.assert_allclose(found.totals[np.argsort(found.points)], intensity.sum(axis=(1, 2)), rtol=1e-9)


def test_a_dark_chosen_afterwards_gives_what_subtracting_it_from_each_frame_gives():
    points, frames, _, dark = scan(2)
    moments = Moments(SHAPE, 2)
    moments.add(frames, points)
    total, mean, covariance, intensity = plain(frames, points, np.ones(len(points)), dark)
    found = moments.result(dark)
    np.testing.assert_allclose(found.integrated, total, rtol=2e-6)
    np.testing.assert_allclose(found.mean, mean, atol=3e-6)
    np.testing.assert_allclose(found.covariance, covariance, atol=5e-6)
    np.testing.assert_allclose(found.maximum, intensity.max(axis=0), rtol=1e-5)


def test_full_well_everywhere_overflows_nothing():
    points = mesh(np.linspace(-1.0, 1.0, 64), np.linspace(0.0, 1.0, 3))[:, ::-1]
    frames = np.full((len(points), 70, 130), 65535, np.uint16)
    moments = Moments((70, 130), 2)
    moments.add(frames, points)
    found = moments.result()
    np.testing.assert_allclose(found.integrated, 65535.0 * len(points))
    np.testing.assert_allclose(found.totals, 65535.0 * 70 * 130)
    np.testing.assert_allclose(found.mean[0], 0.5, atol=1e-6)


def test_pixels_without_light_have_no_center_and_a_point_without_beam_is_left_out():
    points, frames, monitor, _ = scan(2)
    frames[:, 0, 0] = 0
    monitor[5] = 0.0
    monitor[17] = np.nan
    moments = Moments(SHAPE, 2)
    moments.add(frames, points, monitor)
    found = moments.result()
    assert np.isnan(found.mean[:, 0, 0]).all()
    assert found.skipped == 2
    assert len(moments) == len(points) - 2
    good = np.isfinite(monitor) & (monitor > 0.0)
    total, mean, *_ = plain(frames[good][:, 1:], points[good], monitor[good].mean() / monitor[good], 0.0)
    np.testing.assert_allclose(found.mean[:, 1:], mean, atol=3e-6)


def test_clipping_is_that_of_darling():
    points, frames, *_ = scan(1)
    moments = Moments(SHAPE, 1, clip=400)
    moments.add(frames, points)
    clipped = frames.clip(400, None) - 400
    total, mean, *_ = plain(clipped.astype(float), points, np.ones(len(points)), 0.0)
    np.testing.assert_allclose(moments.result().mean, mean, atol=3e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": np.zeros((2, 4, 4), np.uint16)}, r"shape \(2, 4, 4\)"),
        ({"frames": np.zeros((2, *SHAPE), np.int32)}, "int32"),
        ({"positions": np.zeros((2, 3))}, "2 finite rows of 2"),
        ({"positions": np.full((2, 2), np.nan)}, "finite"),
        ({"monitor": np.ones(3)}, "3 readings were given for 2 frames"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change, words):
    given = {"frames": np.zeros((2, *SHAPE), np.uint16), "positions": np.zeros((2, 2)), **change}
    with pytest.raises(ParameterError, match=words):
        Moments(SHAPE, 2).add(**given)
    with pytest.raises(ParameterError, match="no frame"):
        Moments(SHAPE, 2).result()
