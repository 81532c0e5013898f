"""The sharp condenser cut of the vertical divergence, against counted rays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dfxrm_control.config import load_config
from dfxrm_control.errors import ConfigError, PhysicsError
from dfxrm_control.geometry import FWHM_PER_SIGMA, Resolution
from dfxrm_control.microscope import Microscope

CUT = 1.4e-4  # Carlsen et al. 2022
WIDTHS = {
    "theta_deg": 8.9765,
    "zv_rms_rad": 5.3e-4 / 2.355,
    "zh_rms_rad": 1e-5,
    "na_v_rms_rad": 7.31e-4 / 2.35,
    "na_h_rms_rad": 7.31e-4 / 2.35,
    "eps_rms": 6e-5,
}


def rays(resolution: Resolution, count: int, seed: int = 5) -> np.ndarray:
    """Return q of rays whose divergence is drawn again until it passes the cut, shape (count, 3)."""
    random = np.random.default_rng(seed)
    r = resolution
    zv = random.normal(0.0, r.zv_rms_rad, 4 * count)
    if r.zv_cut_rad is not None:
        zv = zv[np.abs(zv) < r.zv_cut_rad]
    zv = zv[:count]
    assert len(zv) == count
    others = [random.normal(0.0, w, count) for w in (r.eps_rms, r.zh_rms_rad, r.na_v_rms_rad, r.na_h_rms_rad)]
    return np.stack([others[0], zv, *others[1:]], axis=1) @ r.matrix.T


def test_no_cut_changes_nothing() -> None:
    plain = Resolution(**WIDTHS)
    assert plain.zv_effective_rms_rad == plain.zv_rms_rad
    np.testing.assert_array_equal(plain.covariance, plain.gaussian_covariance)
    q = np.random.default_rng(1).normal(0.0, plain.marginal_rad, (50, 3))
    exponent = np.einsum("ni,ij,nj->n", q, np.linalg.inv(plain.covariance), q)
    np.testing.assert_allclose(plain.weight(q), np.exp(-0.5 * exponent), rtol=1e-9)
    wide = Resolution(**WIDTHS, zv_cut_rad=10 * WIDTHS["zv_rms_rad"])
    np.testing.assert_allclose(wide.weight(q), plain.weight(q), rtol=1e-6, atol=1e-300)


def test_covariance_is_that_of_rays_that_pass() -> None:
    cut = Resolution(**WIDTHS, zv_cut_rad=CUT)
    found = np.cov(rays(cut, 400_000).T)
    scale = np.sqrt(np.diag(cut.covariance))
    np.testing.assert_allclose(found / np.outer(scale, scale), cut.covariance / np.outer(scale, scale), atol=8e-3)
    # and a cut of 0.14 mrad is far from doing nothing
    assert cut.zv_effective_rms_rad == pytest.approx(7.876e-5, rel=1e-3)
    narrow = Resolution(**WIDTHS, zv_cut_rad=1e-8)
    assert narrow.zv_effective_rms_rad == pytest.approx(1e-8 / math.sqrt(3.0), rel=1e-6)


def test_weight_is_the_density_of_rays_that_pass() -> None:
    """Over a grid of boxes in q, boxes at the edge of the cut included."""
    cut = Resolution(**WIDTHS, zv_cut_rad=CUT)
    count = 2_000_000
    # along the diffracted beam q tells zv and eps only: q_rock' = eps sin th - zv cos th
    theta = math.radians(cut.theta_deg)
    q = rays(cut, count)
    along = q[:, 0] * math.cos(theta) + q[:, 2] * math.sin(theta)
    across = -q[:, 0] * math.sin(theta) + q[:, 2] * math.cos(theta)
    near = (np.abs(q[:, 1]) < 0.2 * cut.marginal_rad[1]) & (np.abs(across) < 0.3 * cut.marginal_rad[2])
    edges = np.linspace(-2e-4, 2e-4, 41)
    found, _ = np.histogram(along[near], edges)
    middle = (edges[1:] + edges[:-1]) / 2

    # mean of the weight over the box by a fine midpoint rule
    def part(low: float, high: float, n: int) -> np.ndarray:
        return low + (np.arange(n) + 0.5) * (high - low) / n

    fine = part(edges[0], edges[-1], 400)
    side = part(-0.3 * cut.marginal_rad[2], 0.3 * cut.marginal_rad[2], 20)
    a, b = np.meshgrid(fine, side, indexing="ij")
    grid = np.stack([a * math.cos(theta) - b * math.sin(theta), 0 * a, a * math.sin(theta) + b * math.cos(theta)], -1)
    expected = cut.weight(grid).mean(1).reshape(40, 10).mean(1)
    expected *= found.sum() / expected.sum()
    deviation = (found - expected) / np.sqrt(np.maximum(expected, 10.0))
    assert np.abs(deviation).max() < 4.5 and deviation.std() < 1.3
    # the edge is there: inside it is bright, outside dark, and a Gaussian of the same second moments has it not
    bright = found[np.abs(middle) < 1.2e-4].mean()
    assert found[np.abs(middle) > 1.7e-4].mean() < 0.01 * bright
    assert cut.weight(np.zeros(3)) == pytest.approx(1.0)


def test_rocking_curve_gets_edges_and_its_tails_end() -> None:
    plain, cut = Resolution(**WIDTHS), Resolution(**WIDTHS, zv_cut_rad=CUT)
    rock = np.array([1.0, 0.0, 0.0])
    assert plain.curve_fwhm_rad(rock) == pytest.approx(FWHM_PER_SIGMA * plain.conditional_rad[0], rel=1e-6)
    narrow = cut.curve_fwhm_rad(rock)
    assert cut.weight(rock * narrow / 2) == pytest.approx(0.5, rel=1e-6)
    # rays of q_rock alone are those of zv = -q_rock within the bandwidth's blur: the curve ends near the cut
    assert 0.9 * 2 * CUT < narrow < 1.05 * 2 * CUT
    assert cut.weight(1.5 * CUT * rock) < 1e-6 < 0.1 < plain.weight(1.5 * CUT * rock)
    roll = np.array([0.0, 1.0, 0.0])
    assert cut.curve_fwhm_rad(roll) == pytest.approx(plain.curve_fwhm_rad(roll), rel=1e-6)


def test_refuses_a_cut_that_lets_nothing_through() -> None:
    with pytest.raises(PhysicsError, match="zv_cut_rad"):
        Resolution(**WIDTHS, zv_cut_rad=0.0)
    with pytest.raises(PhysicsError, match="does not move"):
        Resolution(**WIDTHS).curve_fwhm_rad(np.zeros(3))


def test_a_configuration_with_a_cut_gives_it_to_the_view() -> None:
    from importlib.resources import as_file, files

    from dfxrm_control.config import override

    with as_file(files("configs") / "simulated.yml") as path:
        config = load_config(path)
    assert config.instrument.beam.divergence_v_cut_rad is None
    cut = override(config, ["instrument.beam.divergence_v_cut_rad=1.4e-4"])
    positions = {
        axis: part.start for device in config.devices.values() for axis, part in device.axes.items() if part.start
    }
    resolution = Microscope(cut.instrument).view(positions, "far_field", {}).resolution
    assert resolution is not None and resolution.zv_cut_rad == 1.4e-4
    with pytest.raises(ConfigError, match="divergence_v_cut_rad"):
        override(config, ["instrument.beam.divergence_v_cut_rad=-1"])
