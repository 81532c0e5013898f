import tracemalloc

import h5py
import numpy as np
import pytest
from recording import GAIN, OFFSET, POSITIONS, READ_VARIANCE, SHAPE, Recording, camera, instrument, mesh, peaks

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.errors import ParameterError
from dfxrm_control.microscope import Microscope
from dfxrm_control.reduction import kernel_average_misorientation, maps_from_file

CHI_SIGMA, PHI_SIGMA = (
    Microscope(InstrumentConfig.model_validate(instrument()))
    .view(POSITIONS, "far_field", {})
    .instrument_sigma(["chi", "phi"])
    .values()
)


def darks(count, rng, level=OFFSET):
    return camera(np.full((count, *SHAPE), level - OFFSET), rng)


def tilts(spread, seed=3):
    """Return smooth maps of where chi and phi find the crystal, within +/- spread."""
    rows, columns = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    waves = np.sin(0.31 * rows + 0.1 * columns + seed), np.cos(0.17 * columns - 0.09 * rows + seed)
    return np.stack([spread[0] * waves[0], spread[1] * waves[1]])


def recorded(
    folder, *, height=300.0, spread=(0.05, 0.015), window=3.5, num=(21, 21), rng=None, dark=(100, 100), **given
):
    """Record a mesh over a crystal whose tilts are known; return the master and the true centres."""
    rng = rng or np.random.default_rng(11)
    centers = given.pop("centers", tilts(spread))
    sigma = given.pop("sigma", (CHI_SIGMA, PHI_SIGMA))
    axes = [np.linspace(-1, 1, n) * (s + window * width) for n, s, width in zip(num, spread, sigma, strict=True)]
    points = mesh(*axes, snake=True)
    expected = peaks(points, centers, np.array(sigma), height)
    if "monitor" in given:
        expected *= (given["monitor"] / given["monitor"].mean())[:, None, None]
    record = Recording(
        folder,
        camera(expected, rng),
        points,
        num,
        darks=(darks(dark[0], rng), darks(dark[1], rng)) if dark else None,
        **given,
    )
    return record, record.write(), centers[:, ::-1, :]


def regression(measured, true):
    return np.polyfit(true.ravel(), measured.ravel(), 1)[0]


@pytest.fixture(scope="module")
def well_measured(tmp_path_factory):
    _, master, centers = recorded(tmp_path_factory.mktemp("scan"), height=600.0)
    return maps_from_file(master), centers


def test_tilts_are_where_the_crystal_was_and_errors_as_predicted(well_measured):
    maps, centers = well_measured
    assert maps.valid.all()
    assert [axis.name for axis in maps.axes] == ["chi", "phi"]
    for axis, true in zip(maps.axes, centers, strict=True):
        assert regression(axis.com, true) == pytest.approx(1.0, abs=0.01)
        assert 0.9 < np.sqrt(np.mean(((axis.com - true) / axis.noise_error) ** 2)) < 1.1
        assert not axis.not_bracketed.any()
        assert axis.units == "deg"
    assert np.sqrt(np.mean((maps["chi"].com - centers[0]) ** 2)) < 1e-3
    np.testing.assert_allclose(maps.tilt("chi"), np.median(maps["chi"].com) - maps["chi"].com)


def test_photons_and_intensities_are_those_that_came(well_measured):
    maps, _ = well_measured
    volume = (
        600.0
        * 2.0
        * np.pi
        * CHI_SIGMA
        * PHI_SIGMA
        / (np.diff(maps["chi"].window)[0] / 21 * np.diff(maps["phi"].window)[0] / 21)
    )
    assert np.median(maps.integrated) == pytest.approx(volume, rel=0.01)
    assert np.median(maps.photons) == pytest.approx(volume / GAIN, rel=0.01)
    assert np.median(maps.maximum) == pytest.approx(600.0, rel=0.12)
    row, column = np.unravel_index(maps.argmax, (21, 21))
    position = maps.distribution.positions[0][row]
    assert np.abs(position - maps["chi"].com).mean() < np.diff(maps["chi"].window)[0] / 21
    assert maps.distribution.intensity.sum() == pytest.approx(maps.integrated.sum(), rel=1e-6)


def test_widths_are_the_instruments_and_no_spread_is_found_where_there_is_none(well_measured):
    maps, _ = well_measured
    for axis, width in zip(maps.axes, (CHI_SIGMA, PHI_SIGMA), strict=True):
        assert np.median(axis.fwhm) == pytest.approx(2.3548 * width, rel=0.01)
        assert axis.instrument_sigma == pytest.approx(width, rel=1e-4)
        assert (axis.spread < axis.spread_limit).mean() > 0.98


def test_the_error_of_the_dark_is_counted(tmp_path):
    """Few darks, and the peak off centre: the dark's error, common to all frames, prevails."""
    spread = (1.2 * CHI_SIGMA, 1.2 * PHI_SIGMA)
    off = np.stack([np.full(SHAPE, s) for s in spread])
    _, master, centers = recorded(tmp_path, height=150.0, spread=spread, centers=off, dark=(5, 5))
    maps = maps_from_file(master)
    for axis, true in zip(maps.axes, centers, strict=True):
        pull = (axis.com - true) / axis.noise_error
        assert 0.85 < np.sqrt(np.mean(pull**2)) < 1.2
    shared = READ_VARIANCE / 10 * (441 * maps["chi"].com) ** 2 / maps.integrated**2
    assert np.median(shared) > 0.5 * np.median(maps["chi"].noise_error ** 2)


def test_a_local_spread_is_found_and_freed_of_the_instruments_width(tmp_path):
    added = 0.02
    sigma = (CHI_SIGMA, np.hypot(PHI_SIGMA, added))
    _, master, _ = recorded(tmp_path, height=600.0, sigma=sigma)
    phi = maps_from_file(master)["phi"]
    assert np.median(phi.spread) == pytest.approx(added, rel=0.03)
    assert np.median(phi.spread_raw) == pytest.approx(sigma[1], rel=0.02)
    assert (phi.spread > phi.spread_limit).mean() > 0.98


@pytest.mark.parametrize(("window", "slope"), [(2.0, 0.774), (3.0, 0.973)])
def test_a_window_that_clips_the_peak_is_flagged_with_its_slope(tmp_path, window, slope):
    sigma = (CHI_SIGMA, PHI_SIGMA)
    centers = tilts((0.002, 0.0004))
    # half a step less, because every point stands for a step
    _, master, true = recorded(
        tmp_path, height=4000.0, spread=(0.0, 0.0), window=window * 20 / 21, sigma=sigma, centers=centers
    )
    maps = maps_from_file(master)
    for axis, center in zip(maps.axes, true, strict=True):
        assert regression(axis.com, center) == pytest.approx(slope, abs=0.02)
        assert np.median(axis.slope) == pytest.approx(slope, abs=0.02)
        assert axis.not_bracketed.all() if window < 3.0 else not axis.not_bracketed.any()


def test_a_peak_beside_the_window_is_flagged(tmp_path):
    centers = np.stack([np.full(SHAPE, 4.2 * CHI_SIGMA), np.zeros(SHAPE)])
    _, master, _ = recorded(tmp_path, height=4000.0, spread=(0.0, 0.0), centers=centers)
    maps = maps_from_file(master)
    assert maps["chi"].not_bracketed.mean() > 0.99
    assert not maps["phi"].not_bracketed.any()
    missed = [note for note in maps.notes if "does not bracket the peak" in note]
    assert len(missed) == 1
    assert missed[0].startswith("chi: the window of")
    assert "of 100 % of the pixels" in missed[0]


def test_a_window_without_any_peak_is_said_in_one_sentence(tmp_path):
    _, master, _ = recorded(tmp_path, height=0.0, num=(5, 5))
    maps = maps_from_file(master)
    assert maps.valid.mean() < 0.01
    assert any("no pixel stands out" in note or "does not bracket" in note for note in maps.notes)
    assert maps.summary()[0].startswith(maps.title)


def test_a_drifting_beam_shifts_tilts_unless_frames_are_divided_by_the_monitor(tmp_path):
    num = (21, 21)
    monitor = 1e5 * np.linspace(0.95, 1.05, 441)
    _, master, centers = recorded(
        tmp_path,
        height=3000.0,
        spread=(0.3 - 3.5 * CHI_SIGMA, 0.0),
        centers=np.zeros((2, *SHAPE)),
        num=num,
        monitor=monitor,
    )
    corrected, raw = maps_from_file(master), maps_from_file(master, monitor=None)
    assert np.mean(raw["chi"].com) == pytest.approx(0.6e-3, abs=0.1e-3)
    assert np.mean(corrected["chi"].com) == pytest.approx(0.0, abs=0.05e-3)
    assert "monitor" not in raw.settings["dark"]
    assert (raw.settings["monitor"], corrected.settings["monitor"]) == ("none", "auto")


def test_without_a_dark_tilts_are_many_times_too_small_and_the_maps_say_so(tmp_path):
    _, master, centers = recorded(tmp_path, height=300.0, num=(15, 15), dark=None)
    maps = maps_from_file(master)
    assert regression(maps["chi"].com, centers[0]) < 0.25
    assert any("no dark" in note for note in maps.notes)
    given = maps_from_file(master, dark=OFFSET)
    assert regression(given["chi"].com, centers[0]) == pytest.approx(1.0, abs=0.02)


def test_dark_pixels_are_not_valid_and_bright_ones_are(tmp_path):
    height = np.where(np.arange(SHAPE[1]) < 20, 0.0, 200.0)[None, None, :]
    _, master, _ = recorded(tmp_path, height=height, num=(11, 11))
    maps = maps_from_file(master)
    assert not maps.valid[:, :20].any()
    assert maps.valid[:, 20:].all()
    assert np.isnan(maps.kam[:, :20]).all()


def test_memory_beyond_the_maps_is_that_of_64_frames_at_most(tmp_path):
    shape, points = (200, 300), mesh(np.linspace(-0.1, 0.1, 18), np.linspace(-0.02, 0.02, 9))
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["1.1/title"] = "fscan2d chi -0.1 0.0118 18 phi -0.02 0.005 9 0.5 0.5"
        file["1.1/instrument/pco_ff/data"] = np.full((len(points), *shape), 150, np.uint16)
        for axis, name in enumerate(("chi", "phi")):
            file[f"1.1/instrument/positioners/{name}"] = points[:, axis]
    # the first time compiles
    maps_from_file(path, dark=100.0)
    tracemalloc.start()
    try:
        maps = maps_from_file(path, dark=100.0)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert maps.frames == len(points)
    # six sums in double precision, maximum, its point, and the dark it is taken above: the maps as they grow
    sums = maps.integrated.size * (6 * 8 + 3 * 4)
    assert most - kept - sums <= 64 * 2 * maps.integrated.size


def test_a_pixel_that_never_changes_is_not_valid(tmp_path):
    """A dead pixel gives the same count with and without beam: no signal, and no noise either."""
    rng = np.random.default_rng(4)
    record = Recording(
        tmp_path,
        camera(np.full((9, *SHAPE), 400.0), rng),
        mesh(np.linspace(-0.1, 0.1, 3), np.linspace(-0.02, 0.02, 3)),
        (3, 3),
        darks=(darks(40, rng), darks(40, rng)),
    )
    for frames in (record.frames, *record.darks):
        frames[:, 5, 7] = 0
    maps = maps_from_file(record.write())
    assert not maps.valid[SHAPE[0] - 1 - 5, 7]
    assert np.count_nonzero(~maps.valid) == 1
    assert np.isnan(maps["phi"].com[SHAPE[0] - 1 - 5, 7])


@pytest.mark.parametrize("drifting", [False, True])
def test_saturated_pixels_are_flagged_and_counted(tmp_path, drifting):
    height = np.where(np.arange(SHAPE[1]) < 20, 90_000.0, 40_000.0)[None, None, :]
    monitor = {"monitor": np.linspace(0.95, 1.05, 121) * 1e5} if drifting else {}
    _, master, _ = recorded(tmp_path, height=height, num=(11, 11), spread=(0.0, 0.0), **monitor)
    maps = maps_from_file(master)
    assert maps.saturated[:, :20].all()
    assert not maps.saturated[:, 20:].any()
    assert any(f"{20 * SHAPE[0]} pixels reached" in note for note in maps.notes)
    # why it matters: the peak looks wider than the instrument's, well beyond the stated limit
    assert np.median(maps["phi"].spread[:, :20]) > 2.0 * np.median(maps["phi"].spread_limit[:, :20])
    bright = maps_from_file(master, clip=106, monitor="auto" if drifting else None)
    np.testing.assert_array_equal(bright.saturated, maps.saturated)
    # they stay in the maps, and no number is made of them
    assert maps.valid.all() and not maps.trusted[:, :20].any() and maps.trusted[:, 20:].all()
    said = maps.summary()
    for one in maps.components.values():
        one.values[:, :20] += 1.0
        one.error[:, :20] = 1.0
    assert maps.components and maps.summary() == said


def test_an_aborted_scan_gives_maps_of_its_whole_lines(tmp_path):
    _, master, _ = recorded(tmp_path, num=(11, 9), stop_after=75)
    maps = maps_from_file(master)
    assert maps.frames == 72
    assert maps.distribution.intensity.shape == (8, 9)


def test_misorientation_is_the_mean_distance_to_the_neighbours_in_a_square():
    com = [np.zeros((7, 9)), np.zeros((7, 9))]
    com[0][:, 5:] = 0.03
    com[1][:, 5:] = 0.04
    valid = np.ones((7, 9), bool)
    valid[3, 8] = False
    found = kernel_average_misorientation(com, valid, size=3)
    assert found[3, 4] == pytest.approx(0.05 * 3 / 8)
    assert found[3, 2] == 0.0
    assert found[0, 4] == pytest.approx(0.05 * 2 / 5)
    assert np.isnan(found[3, 8])
    wide = kernel_average_misorientation(com, valid, size=5)
    assert wide[3, 4] == pytest.approx(0.05 * 10 / 24)
    with pytest.raises(ParameterError, match="odd"):
        kernel_average_misorientation(com, valid, size=4)


def test_an_axis_that_was_not_scanned_is_named(well_measured):
    with pytest.raises(KeyError, match="mu.*chi, phi"):
        well_measured[0]["mu"]
