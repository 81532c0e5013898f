"""Bright lines, found in images whose lines are known."""

from __future__ import annotations

import numpy as np
import pytest

from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction import find_lines

DX, DY = 0.17, 0.04  # um: pixels along the beam are several times longer


def field(nx: int = 160, ny: int = 400):
    return (np.arange(nx) - nx / 2) * DX, (np.arange(ny) - ny / 2) * DY


def streak(x, y, centre, length=2.5, width=0.25, height=1.0, angle_deg=3.0):
    """Return the image of a short line about a centre, Gaussian along and across."""
    a = np.radians(angle_deg)
    u, v = x[:, None] - centre[0], y[None, :] - centre[1]
    along, across = u * np.cos(a) + v * np.sin(a), -u * np.sin(a) + v * np.cos(a)
    return height * np.exp(-4 * np.log(2) * ((along / length) ** 2 + (across / width) ** 2))


def test_streaks_are_found_where_they_are():
    random = np.random.default_rng(4)
    x, y = field()
    centres = np.array([(a, b) for a in (-9.0, -3.0, 3.0, 9.0) for b in (-6.0, -3.0, 0.0, 3.0, 6.0)])
    centres += random.uniform(-0.7, 0.7, centres.shape)
    image = sum(streak(x, y, centre, angle_deg=random.uniform(-8, 8)) for centre in centres)
    image = 0.1 + image + random.normal(0, 0.05, image.shape)
    lines = find_lines(image, x, y, width_um=0.3)
    assert len(lines) == len(centres)
    found = np.array([line.centre_um for line in lines])
    apart = np.abs((found[:, None] - centres[None]) / (DX, DY)).max(2)
    assert sorted(apart.argmin(1)) == list(range(len(centres)))
    assert np.median(apart.min(1)) < 1.0 and apart.min(1).max() < 2.0
    for line in lines:
        assert 1.0 < line.length_um < 5.0
        assert line.level == pytest.approx(1.0, abs=0.25)
    assert [line.level for line in lines] == sorted((line.level for line in lines), reverse=True)


def test_a_long_line_is_one_and_its_points_run_along_it():
    x, y = field()
    slope = 0.35
    away = np.abs(y[None, :] - slope * x[:, None]) / np.hypot(1, slope)
    image = np.exp(-4 * np.log(2) * (away / 0.3) ** 2) + np.random.default_rng(1).normal(0, 0.05, away.shape)
    (line,) = find_lines(image, x, y, width_um=0.3)
    points = line.points_um
    assert np.abs(points[:, 1] - slope * points[:, 0]).max() < 2 * DY + slope * DX
    ends = points[[0, -1], 0]
    assert abs(ends[1] - ends[0]) > 0.9 * (x[-1] - x[0])
    assert (np.diff(points[:, 0]) >= 0).all() or (np.diff(points[:, 0]) <= 0).all()
    assert line.length_um == pytest.approx((x[-1] - x[0]) * np.hypot(1, slope), rel=0.1)


def test_noise_and_broad_hills_are_no_lines():
    x, y = field()
    random = np.random.default_rng(2)
    assert find_lines(random.normal(1.0, 0.2, (len(x), len(y))), x, y, width_um=0.3) == []
    hill = 5.0 * np.exp(-((x[:, None] / 8) ** 2) - (y[None, :] / 5) ** 2)
    assert find_lines(hill + random.normal(0, 0.05, hill.shape), x, y, width_um=0.3) == []
    assert find_lines(np.full((20, 30), 3.0), x[:20], y[:30]) == []


def test_weak_lines_are_left_out_by_their_share_and_what_is_masked_is_not_looked_at():
    x, y = field()
    image = streak(x, y, (-6.0, 0.0)) + streak(x, y, (6.0, 2.0), height=0.3)
    image += np.random.default_rng(3).normal(0, 0.01, image.shape)
    assert len(find_lines(image, x, y, width_um=0.3)) == 1
    assert len(find_lines(image, x, y, width_um=0.3, share=0.1)) == 2
    right = np.broadcast_to(x[:, None] > 0, image.shape)
    (weak,) = find_lines(image, x, y, width_um=0.3, mask=right)
    np.testing.assert_allclose(weak.centre_um, (6.0, 2.0), atol=0.1)
    holed = np.where(right, image, np.nan)
    assert len(find_lines(holed, x, y, width_um=0.3)) == 1
    assert find_lines(image, x, y, width_um=0.3, share=0.1, shortest_um=20.0) == []


def test_refuses_what_does_not_fit():
    x, y = field()
    with pytest.raises(ParameterError, match="shape"):
        find_lines(np.zeros((4, 5)), x, y)
    with pytest.raises(ParameterError, match="width"):
        find_lines(np.zeros((len(x), len(y))), x, y, width_um=0.0)
