"""Frames of an arm that moves: each has its own magnification and 2theta, the maps have one grid."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from matplotlib.image import imread
from recording import OFFSET, POSITIONS, Recording, bliss_file, camera, instrument, mesh
from test_follow import arrays

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import pixel_to_detector
from dfxrm_control.microscope import Microscope
from dfxrm_control.reduction import (
    DarkFrames,
    Moments,
    maps_from_file,
    write_maps,
    write_pictures,
)
from dfxrm_control.reduction._pictures import plot_components
from dfxrm_control.reduction._regrid import FrameGrid, Regridding, Scale
from dfxrm_control.reduction.follow import Follower

SHAPE = (160, 120)
MIDDLE = 17.946
TWO_THETA, PHI = MIDDLE + np.linspace(-0.36, 0.36, 15), np.linspace(-0.05, 0.05, 11)
SIGMA = np.array([0.06, 0.011])


def layer(two_theta):
    """Return where on the layer the pixels of a frame lie, um, at one position of the arm."""
    config = InstrumentConfig.model_validate(instrument(SHAPE))
    arm = Microscope(config).arm(two_theta, 5000.0)
    moved = {"obx": arm.obx, "obz": arm.obz, "obpitch": arm.obpitch, "ffz": arm.ffz}
    view = Microscope(config).view({**POSITIONS, **moved}, "far_field", {})
    _, v = pixel_to_detector(np.arange(SHAPE[0]), 0, SHAPE, view.pixel_um)
    u, _ = pixel_to_detector(0, np.arange(SHAPE[1]), SHAPE, view.pixel_um)
    x = 1e3 * (v - view.offset_v_mm) / (view.magnification_v * np.sin(np.radians(two_theta)))
    y = -1e3 * (u - view.offset_u_mm) / view.magnification_h
    return x, y


def peaks_at(x, y):
    """Return where the axes find a crystal, that is strained and bent in waves of a few um, at points of the layer."""
    two_theta = MIDDLE + 0.1 + 0.03 * np.sin(2.0 * x)[:, None] * np.cos(1.5 * y)
    phi = 0.012 * np.cos(1.5 * x)[:, None] * np.sin(1.2 * y)
    return np.stack([two_theta, phi])


def expected_frames(points, height):
    frames = np.empty((len(points), *SHAPE))
    for two_theta in np.unique(points[:, 0]):
        centers = peaks_at(*layer(two_theta))
        for number in np.flatnonzero(points[:, 0] == two_theta):
            away = (points[number][:, None, None] - centers) / SIGMA[:, None, None]
            frames[number] = height * np.exp(-0.5 * (away**2).sum(axis=0))
    return frames


def recording(folder, height=2500.0, seed=3, pattern=0.0, **given):
    rng = np.random.default_rng(seed)
    points = mesh(TWO_THETA, PHI, snake=True)
    fixed = pattern * rng.exponential(1.0, SHAPE) * (rng.random(SHAPE) < 0.2)
    frames = camera(expected_frames(points, height), rng) + np.rint(fixed).astype(np.uint16)
    darks = tuple(camera(np.zeros((50, *SHAPE)), rng) + np.rint(fixed).astype(np.uint16) for _ in range(2))
    num = (len(TWO_THETA), len(PHI))
    return Recording(folder, frames, points, num, darks=darks, axes=("two_theta", "phi"), **given)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    made = recording(tmp_path_factory.mktemp("arm"))
    made.write()
    return made


def truth():
    return peaks_at(*layer(MIDDLE))[:, ::-1]


def test_maps_of_a_moving_arm_lie_on_the_grid_of_its_middle(record):
    maps = maps_from_file(record.master_path)
    assert [axis.name for axis in maps.axes] == ["two_theta", "phi"]
    x, y = layer(MIDDLE)
    np.testing.assert_allclose(maps.x, np.sort(x), atol=1e-6)
    np.testing.assert_allclose(maps.y, np.sort(y), atol=1e-6)
    for axis, true in zip(maps.axes, truth(), strict=True):
        error = (axis.com - true)[maps.valid]
        assert np.sqrt(np.mean((error / axis.noise_error[maps.valid]) ** 2)) == pytest.approx(1.0, abs=0.08), axis.name
        assert np.polyfit(true[maps.valid], axis.com[maps.valid], 1)[0] == pytest.approx(1.0, abs=0.01)


def test_without_it_the_maps_are_wrong_by_more_than_their_error(record):
    """What the test above would see if frames were summed as they are."""
    plain = Moments(SHAPE, 2)
    dark = DarkFrames(SHAPE)
    for stack in record.darks:
        dark.add(stack)
    plain.add(record.frames, record.points)
    found = plain.result(dark.result().level)
    maps = maps_from_file(record.master_path)
    rows = slice(2, 30)
    wrong = found.mean[0, ::-1][rows] - truth()[0, rows]
    assert np.sqrt(np.mean(wrong**2)) > 2.0 * np.median(maps["two_theta"].noise_error[maps.valid])


def test_pixels_that_left_the_frames_are_not_valid(record):
    maps = maps_from_file(record.master_path)
    rows, columns = maps.valid.any(axis=1), maps.valid.any(axis=0)
    np.testing.assert_array_equal(maps.valid, np.logical_and.outer(rows, columns))
    # sin 2theta changes by 2 % from the middle to either end: more than a row of 80
    lost = np.flatnonzero(~rows)
    assert 2 <= len(lost) <= 6
    assert set(lost) <= {0, 1, 2, 157, 158, 159}
    assert np.isnan(maps["phi"].com[~maps.valid]).all()
    assert np.isnan(maps.components["strain"].values[~maps.valid]).all()
    assert any("lay outside some of the frames" in note for note in maps.notes)


def test_the_dark_is_taken_off_where_each_frame_has_it(tmp_path):
    """Warm pixels stay where they are on the camera, and so wander over the grid."""
    made = recording(tmp_path, height=900.0, pattern=60.0)
    maps = maps_from_file(made.write())
    for axis, true in zip(maps.axes, truth(), strict=True):
        pull = ((axis.com - true) / axis.noise_error)[maps.valid]
        assert np.sqrt(np.mean(pull**2)) < 1.1, axis.name
    total = maps.distribution.intensity
    assert total.min() > -0.002 * total.max()


def test_live_maps_end_as_those_of_the_file(record):
    follower = Follower(record.journal_path)
    follower.read()
    for points in follower.lines():
        if points == len(PHI):
            # one line of one 2theta is a rocking curve on the grid of the middle
            np.testing.assert_allclose(follower.maps().x, np.sort(layer(MIDDLE)[0]), atol=1e-6)
    live, filed = follower.maps(), maps_from_file(record.master_path)
    for name, array in arrays(live).items():
        # a title has ten digits of a step, the plan all of them
        np.testing.assert_allclose(array, arrays(filed)[name], rtol=1e-7, atol=1e-9, err_msg=name)
    assert list(live.components) == list(filed.components) == ["strain", "tilt_rock", "H_13", "H_33"]
    for name, component in live.components.items():
        np.testing.assert_allclose(component.values, filed.components[name].values, atol=1e-10)
        np.testing.assert_allclose(component.error, filed.components[name].error, rtol=1e-6)


def test_saturation_shows_through_the_interpolation(tmp_path):
    made = recording(tmp_path, height=2500.0)
    spot = np.zeros(SHAPE, bool)
    spot[100:103, 40:44] = True
    made.frames[:, spot] = 65535
    maps = maps_from_file(made.write())
    saturated = maps.saturated[::-1]
    assert saturated[100:103, 40:44].all()
    # the image of a spot that stays on the camera wanders over the sample
    assert spot.sum() < saturated.sum() < 6 * spot.sum()


def test_a_scan_that_moves_no_part_of_the_image_is_summed_as_it_is(tmp_path):
    made = recording(tmp_path)
    made.axes = ("chi", "phi")
    made.points[:, 0] -= MIDDLE
    maps = maps_from_file(made.write())
    plain, dark = Moments(SHAPE, 2), DarkFrames(SHAPE)
    plain.add(made.frames, made.points)
    for stack in made.darks:
        dark.add(stack)
    assert maps.valid.all()
    np.testing.assert_allclose(maps.integrated[::-1], plain.result(dark.result().level).integrated, rtol=1e-9)


def test_a_grid_knows_its_neighbours_shares_and_edges():
    grid = FrameGrid.at((5, 4), (-0.5, 3.5), (0.25, 3.25))
    low, share = grid.rows
    np.testing.assert_array_equal(low, [0, 0, 1, 2, 3])
    np.testing.assert_allclose(share, [0.0, 0.5, 0.5, 0.5, 0.5])
    left, across = grid.columns
    np.testing.assert_array_equal(left, [0, 1, 2, 2])
    np.testing.assert_array_equal(grid.column_runs, [[0, 3, 0], [3, 4, -1]])
    np.testing.assert_allclose(across, [0.25, 0.25, 0.25, 1.0])
    np.testing.assert_array_equal(grid.inside[0], [False, True, True, True, True])
    np.testing.assert_array_equal(grid.inside[1], [True, True, True, False])
    np.testing.assert_allclose(grid.noise_factors[0], [1.0, 0.5, 0.5, 0.5, 0.5])
    assert not grid.still
    assert FrameGrid.at((5, 4), (0.004, 4.0), (0.0, 2.999)).still


def test_a_plane_is_interpolated_exactly_and_what_lies_outside_is_not_covered():
    """Counts that rise linearly over the camera; the grid is half a row lower and 1 % wider at one of two points."""
    shape = (40, 60)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    frames = np.broadcast_to(1000 + 40 * rows + 20 * columns, (2, *shape)).astype(np.uint16)
    scales = {0.0: Scale(1.0, 0.0, 1.0, 0.0, "um"), 1.0: Scale(1.0, -0.5, 1.0, -0.25, "um")}
    regridding = Regridding(shape, [0], {"two_theta": 0.0}, scales[0.0], lambda at: scales[at[0]], 65535)
    moments = Moments(shape, 1, regridding=regridding)
    moments.add(frames, [[0.0], [1.0]])
    found = moments.result(np.full(shape, 100.0))
    inside = found.covered
    np.testing.assert_array_equal(inside, np.logical_and.outer(np.arange(40) < 39, np.arange(60) < 59))
    level = (900 + 40 * rows + 20 * columns)[inside]
    np.testing.assert_allclose(found.integrated[inside], 2 * level + 25, atol=1.0)
    assert np.isnan(found.mean[0][~inside]).all()
    expected = (1.0 + 0.5 * (0.75**2 + 0.25**2)) / 2.0
    assert np.median(found.noise_factor) == pytest.approx(expected, rel=0.02)


def test_a_foreign_file_is_regridded_by_what_it_recorded(tmp_path):
    """obpitch in the title, obx and obz as arrays beside it: objective and camera moved with it."""
    points = mesh(TWO_THETA, PHI)
    rng = np.random.default_rng(8)
    angle = np.radians(points[:, 0])
    obx, obz = 276.63 * np.cos(angle), 276.63 * np.sin(angle)
    # ID03's own scale: |mainx| / obx - 1, 10x, 6.5 um, 2theta of the objective
    frames = np.empty((len(points), *SHAPE))
    for number, (two_theta, x_objective) in enumerate(zip(angle, obx, strict=True)):
        magnification = 5000.0 / x_objective - 1.0
        x = (np.arange(SHAPE[0]) - (SHAPE[0] - 1) / 2) * 0.65 / (magnification * np.sin(two_theta))
        y = (np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2) * 0.65 / magnification
        away = (points[number][:, None, None] - peaks_at(x[::-1], y)) / SIGMA[:, None, None]
        frames[number] = 2500.0 * np.exp(-0.5 * (away**2).sum(axis=0))
    motors = {"obpitch": points[:, 0], "phi": points[:, 1]}
    title = f"fscan2d obpitch {TWO_THETA[0]} {TWO_THETA[1] - TWO_THETA[0]} 15 phi -0.05 0.01 11 0.5 0.5"
    given = {"mainx": -5000.0, "mu": 8.97, "chi": 0.0, "omega": 0.0}
    moved = bliss_file(tmp_path / "moved.h5", title, camera(frames, rng), {**motors, "obx": obx, "obz": obz}, **given)
    maps = maps_from_file(moved, dark=OFFSET)
    true = peaks_at(maps.x, maps.y)
    error = (maps["obpitch"].com - true[0])[maps.valid]
    assert 0.9 < maps.valid.mean() < 1.0
    assert np.sqrt(np.mean(error**2)) < 1.2 * np.median(maps["obpitch"].noise_error[maps.valid])
    still = {**given, "obx": float(np.median(obx)), "obz": float(np.median(obz))}
    once = maps_from_file(bliss_file(tmp_path / "once.h5", title, camera(frames, rng), motors, **still), dark=OFFSET)
    assert once.valid.all()
    assert any("obx and obz are recorded once" in note for note in once.notes)


def test_the_written_maps_hold_the_components(record, tmp_path):
    maps = maps_from_file(record.master_path)
    write_maps(maps, tmp_path / "maps.h5")
    with h5py.File(tmp_path / "maps.h5") as file:
        strain = file["entry/components/strain"]
        np.testing.assert_allclose(strain["values"][()], maps.components["strain"].values.astype(np.float32))
        assert "median" in strain["values"].attrs["long_name"]
        assert list(strain.attrs["axes"]) == ["x", "y"]


def test_strain_relative_to_a_lattice_parameter_differs_by_a_factor_alone(record):
    relative = maps_from_file(record.master_path).components["strain"]
    given = maps_from_file(record.master_path, reference=4.0495).components["strain"]
    longer = ((1.0 + given.values) / (1.0 + relative.values) - 1.0)[np.isfinite(relative.values)]
    # the peaks lie 0.1 deg above where a = 4.0495 angstrom diffracts at 17 keV, 17.9464 deg
    expected = np.sin(np.radians(17.9464 / 2)) / np.sin(np.radians((MIDDLE + 0.1) / 2)) - 1.0
    assert longer.mean() == pytest.approx(expected, abs=1e-4)
    assert np.ptp(longer) < 1e-9
    assert "median" in relative.label
    assert "angstrom" in given.label
    with pytest.raises(ParameterError, match="lattice parameter"):
        maps_from_file(record.master_path, reference=-4.0)


def test_pictures_are_those_of_the_scan(record, tmp_path):
    """Strain, tilt and their errors in a strain scan; no mosaicity, which it does not tell."""
    maps = maps_from_file(record.master_path)
    names = [path.name for path in write_pictures(maps, tmp_path, "al")]
    assert names == ["al_strain.png", "al_orientations.png", "al_histograms.png"]
    shape = imread(tmp_path / "al_strain.png").shape
    assert shape[0] > 400
    assert shape[1] > 800
    bare = replace(maps, components={})
    with pytest.raises(ParameterError, match="neither strain nor tilts"):
        plot_components(bare, tmp_path / "none.png")
