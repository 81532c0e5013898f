from __future__ import annotations

import numpy as np
import pytest

from dfxrm_control.errors import ConfigError
from simulators import Sample, build_sample


def test_annealed_aluminium_has_subgrains_of_the_size_and_walls_that_were_asked():
    options = {"size_um": [40, 40, 8], "voxel_um": [0.4, 0.4, 0.4], "subgrain_um": 4.0, "wall_deg": 0.05}
    sample = build_sample("annealed_aluminium", options, seed=2)
    volume = 40 * 40 * 8
    inside = np.unique(sample.index).size
    # cells at the surface are cut: more cells than volume / size^3, by the surface they have
    assert volume / 4**3 < inside < 2.2 * volume / 4**3
    tilts = sample.field("tilt_deg")
    steps = np.concatenate([np.diff(tilts, axis=axis).reshape(-1, 3) for axis in range(3)])
    walls = np.linalg.norm(steps[steps.any(axis=1)], axis=1)
    assert np.sqrt((walls**2).mean()) == pytest.approx(0.05, rel=0.1)
    # most neighbours are in the same sub-grain: it is no noise
    assert len(walls) / len(steps) < 0.2


def test_neighbours_differ_by_as_much_as_was_asked():
    options = {"size_um": [30, 20, 8], "voxel_um": [0.4, 0.4, 0.4], "subgrain_um": 4.0, "wall_range_deg": [0.03, 0.08]}
    tilts = build_sample("annealed_aluminium", options, seed=2).field("tilt_deg")[..., :2]
    steps = np.concatenate([np.diff(tilts, axis=axis).reshape(-1, 2) for axis in range(3)])
    walls = np.linalg.norm(steps[steps.any(axis=1)], axis=1)
    assert 0.03 - 1e-12 <= walls.min() and walls.max() <= 0.08 + 1e-12
    # walls of 0.05 deg, and not the same orientations again and again
    assert np.sqrt((walls**2).mean()) == pytest.approx(0.05, rel=0.1)
    tilts = tilts.reshape(-1, 2)
    assert len(np.unique(tilts.round(6), axis=0)) > 40
    with pytest.raises(ConfigError, match=r"wall_range_deg is \[0.05, 0.06\]"):
        build_sample("annealed_aluminium", {**options, "wall_range_deg": [0.05, 0.06]}, seed=2)


def test_the_seed_decides_the_crystal():
    options = {"size_um": [10, 10, 3]}
    same, again, other = (build_sample("annealed_aluminium", options, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(same.field("tilt_deg"), again.field("tilt_deg"))
    assert abs(same.field("tilt_deg") - other.field("tilt_deg")).max() > 0.01


def test_smooth_fields_have_the_amplitude_that_was_asked():
    options = {"size_um": [40, 20, 6], "wall_deg": 0.0, "strain": 1e-4, "bend_deg": 0.03, "spread_deg": 0.01}
    sample = build_sample("annealed_aluminium", options, seed=2)
    strain = sample.field("strain")
    assert 0.8e-4 < abs(strain).max() <= 1e-4
    assert abs(np.diff(strain, axis=0)).max() < 3e-5
    assert 0.02 < abs(sample.field("tilt_deg")).max() <= 0.03
    spread = sample.field("spread_deg")
    assert 0.0 <= spread.min() < 0.002
    assert 0.008 < spread.max() <= 0.01


def test_letter_f_reads_upright_with_x_right_and_y_up():
    sample = build_sample("f_letter", {"height_um": 8.0, "voxel_um": [0.5, 0.5, 0.5], "thickness_um": 1.0}, seed=0)
    drawn = ["".join("#" if value else "." for value in row) for row in sample.field("intensity")[:, ::-1, 0].T]
    picture = [drawn[row] for row in (0, 4, 8, 15)]
    assert picture == ["##########", "###.......", "########..", "###......."]
    assert len(np.unique(sample.tilt_deg[1:], axis=0)) == 3


def test_a_field_is_what_was_put_in():
    rng = np.random.default_rng(0)
    tilts = rng.normal(size=(24, 3))
    sample = Sample.from_states(
        np.arange(24).reshape(2, 3, 4), [1.0, 2.0, 3.0], tilt_deg=tilts, strain=rng.normal(size=24)
    )
    np.testing.assert_array_equal(sample.field("tilt_deg"), tilts.reshape(2, 3, 4, 3))
    np.testing.assert_array_equal(sample.size_um, [2.0, 6.0, 12.0])
    assert [axis.tolist() for axis in sample.axes_um()] == [[-0.5, 0.5], [-2.0, 0.0, 2.0], [-4.5, -1.5, 1.5, 4.5]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"index": np.zeros((2, 2))}, "3-D array"),
        ({"index": np.full((1, 1, 1), 5)}, "table of 1 states"),
        ({"intensity": -1.0}, "must not be below 0"),
        ({"voxel_um": 0.0}, "must be above 0 um"),
    ],
)
def test_an_impossible_sample_is_refused(change, says):
    arguments = {"index": np.zeros((1, 1, 1)), "voxel_um": 1.0, "tilt_deg": np.zeros((1, 3))} | change
    index, voxel = arguments.pop("index"), arguments.pop("voxel_um")
    with pytest.raises(ConfigError, match=says):
        Sample.from_states(index, voxel, **arguments)


def test_an_enormous_sample_is_refused_before_it_fills_the_memory():
    with pytest.raises(ConfigError, match="do not fit in memory"):
        build_sample("perfect_crystal", {"size_um": [1e4, 1e4, 1e4]}, seed=0)
