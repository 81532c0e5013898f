"""What a sharp condenser cut does to the brightness of crystals and to frames of the twin."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dfxrm_control.config import override
from dfxrm_control.geometry import Resolution, imaging_basis
from simulators import Twin
from simulators.imaging import Lattice
from simulators.sample import Sample

CUT = 1.4e-4
WIDTHS = {
    "theta_deg": 8.97,
    "zv_rms_rad": 2.25e-4,
    "zh_rms_rad": 0.0,
    "na_v_rms_rad": 3.1e-4,
    "na_h_rms_rad": 3.1e-4,
    "eps_rms": 6e-5,
}
TILTS_DEG = np.linspace(-0.03, 0.03, 13)


def crystals(spread_deg: float = 0.0) -> Lattice:
    """Return crystals turned about y, the rocking axis, with a spread about it within each."""
    count = len(TILTS_DEG)
    return Lattice(
        Sample.from_states(
            np.arange(count).reshape(count, 1, 1),
            1.0,
            tilt_deg=np.stack([np.zeros(count), TILTS_DEG, np.zeros(count)], axis=1),
            spread_deg=(spread_deg, 0.0),
        )
    )


def brightness(lattice: Lattice, resolution: Resolution) -> np.ndarray:
    """Return the brightness of each crystal where the undistorted one stands on its peak."""
    basis = imaging_basis(2 * resolution.theta_deg)
    mean = np.array([0.0, 0.0, 1.0])
    stands = basis.T  # sample x, y, z along rock, roll, par
    return lattice.brightness(basis @ stands, mean, resolution).astype(float)


@pytest.mark.parametrize("cut", [None, CUT, 3e-4])
def test_sharp_crystals_are_as_bright_as_the_resolution_says(cut: float | None) -> None:
    resolution = Resolution(**WIDTHS, zv_cut_rad=cut)
    angle = np.radians(TILTS_DEG)
    q = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle) - 1.0], axis=1)
    np.testing.assert_allclose(brightness(crystals(), resolution), resolution.weight(q), rtol=1e-4, atol=1e-9)


def test_a_spread_crystal_is_the_mean_over_its_spread() -> None:
    """The kernel adds the spread to the covariance; here it is summed over the crystal's orientations instead."""
    spread_deg = 0.004
    resolution = Resolution(**WIDTHS, zv_cut_rad=CUT)
    found = brightness(crystals(spread_deg), resolution)
    steps = np.linspace(-5.0, 5.0, 401)
    weights = np.exp(-0.5 * steps**2) / np.exp(-0.5 * steps**2).sum()
    for tilt, value in zip(TILTS_DEG, found, strict=True):
        angle = np.radians(tilt + spread_deg * steps)
        q = np.stack([angle, 0 * angle, 0 * angle], axis=1)  # the kernel's spread is linear
        q[:, 2] = math.cos(math.radians(tilt)) - 1.0
        assert value == pytest.approx(float(weights @ resolution.weight(q)), rel=2e-3, abs=1e-6)


def test_frames_rock_to_darkness_beyond_the_cut(config, make_twin, move) -> None:
    plain = make_twin()
    size = [
        f"instrument.cameras.{camera}.{side}=32" for camera in config.instrument.cameras for side in ("rows", "columns")
    ]
    cut = Twin(
        override(config, [f"instrument.beam.divergence_v_cut_rad={CUT}", *size]),
        sample="perfect_crystal",
        seed=3,
        noise=False,
    )
    cut.put("shutter", "open")
    curve = {}
    for name, twin in (("plain", plain), ("cut", cut)):
        peak = twin.photons("far_field", 1.0).max()
        values = []
        for phi in (0.004, 0.014):  # 0.07 mrad, inside the cut, and 0.24 mrad, outside
            move(twin, phi=phi)
            values.append(twin.photons("far_field", 1.0).max() / peak)
        curve[name] = values
    assert curve["cut"][0] == pytest.approx(curve["plain"][0], rel=0.02)
    assert curve["plain"][1] > 0.3 and curve["cut"][1] < 1e-3
