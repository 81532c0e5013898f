import h5py
import numpy as np
import pytest
from recording import OFFSET, SHAPE, Recording, bliss_file, camera, mesh, peaks, settings_of
from scipy.ndimage import label, zoom

from dfxrm_control.errors import DfxrmError, FileFormatError, ParameterError, RecordError
from dfxrm_control.reduction import maps_from_file, mosaicity_rgb, plot_mosaicity, write_maps, write_pictures


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    rng = np.random.default_rng(2)
    points = mesh(np.linspace(-0.2, 0.2, 7), np.linspace(-0.04, 0.04, 5))
    centers = np.stack([np.linspace(-0.03, 0.03, SHAPE[1])[None, :].repeat(SHAPE[0], 0), np.zeros(SHAPE)])
    frames = camera(peaks(points, centers, np.array([0.06, 0.0105]), 900.0), rng)
    darks = (camera(np.zeros((12, *SHAPE)), rng), camera(np.zeros((8, *SHAPE)), rng))
    monitor = np.full(len(points), 1e5)
    return Recording(tmp_path_factory.mktemp("run"), frames, points, (7, 5), monitor=monitor, darks=darks).write()


def test_maps_are_nxdata_with_units_signed_axes_and_their_origin(master, tmp_path):
    maps = maps_from_file(master)
    write_maps(maps, tmp_path / "maps.h5")
    with h5py.File(tmp_path / "maps.h5") as file:
        group = file["entry"]
        while "default" in group.attrs:
            group = group[group.attrs["default"]]
        assert group.attrs["NX_class"] == "NXdata"
        assert group.attrs["signal"] == "data"
        assert list(group.attrs["axes"]) == ["x", "y"]
        data = group["data"]
        assert data.shape == (len(group["x"]), len(group["y"])) == SHAPE
        assert data.attrs["units"] == "deg"
        assert group["x"].attrs["units"] == "um"
        assert group["x"][0] < 0.0 < group["x"][-1]
        np.testing.assert_allclose(data[()], maps["chi"].com, rtol=1e-6)
        np.testing.assert_allclose(group["data_errors"][()], maps["chi"].error, rtol=1e-6)
        found = []
        file.visititems(lambda name, item: found.append(name) if item.attrs.get("NX_class") == "NXdata" else None)
        assert len(found) == 2 * 8 + 7 + 2 + 4
        assert list(maps.components) == ["tilt_rock", "tilt_roll", "H_13", "H_23"]
        for name, component in maps.components.items():
            group = file["entry/components"][name]
            np.testing.assert_allclose(group[group.attrs["signal"]][()], component.values, rtol=1e-6)
            np.testing.assert_allclose(group["error"][()], component.error, rtol=1e-6)
            assert group["values"].attrs.get("units", "") == component.units
        process = file["entry/process"]
        assert str(master) in process["source"].asstr()[()]
        assert (process["points"][()], process["frames"][()]) == (35, 35)
        assert file["entry/sample/name"].asstr()[()] == "al"
    assert settings_of(tmp_path / "maps.h5")["dark"] == "mean of 20 frames (auto)"


def test_a_failed_write_leaves_nothing_that_looks_whole(master, tmp_path):
    with pytest.raises(RecordError, match="cannot be written"):
        write_maps(maps_from_file(master), tmp_path / "absent" / "maps.h5")
    with pytest.raises(ParameterError, match="no folder"):
        write_pictures(maps_from_file(master), tmp_path / "absent", "a")
    assert list(tmp_path.iterdir()) == []


def test_colours_are_those_of_darlings_key():
    """Values of darling 1.0.0's ``_color.rgb`` for tilts at the middle, an edge and a corner of the ranges."""
    ranges = [(-1.0, 1.0), (-2.0, 2.0)]
    rgb = mosaicity_rgb(np.array([0.0, 1.0, -1.0, 0.0]), np.array([0.0, 0.0, -2.0, 2.0]), ranges)
    np.testing.assert_allclose(rgb[0], [1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(rgb[1], [1 - 2**-0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(rgb[2], [1, 0.75, 0], atol=1e-6)
    np.testing.assert_allclose(rgb[3], [0.646447, 0.292893, 1], atol=1e-5)
    outside = mosaicity_rgb(np.array([9.0, np.nan]), np.array([0.0, 0.0]), ranges)
    np.testing.assert_allclose(outside, [rgb[1], [0, 0, 0]], atol=1e-6)


def test_the_picture_shows_the_letter_upright(tmp_path):
    """As seen on the screen: x to the right, y up, dark where there is no crystal."""
    from matplotlib.image import imread
    from test_placement import F, frame_of_letter

    shape = (160, 480)
    points = mesh(np.linspace(-0.2, 0.2, 5), np.linspace(-0.04, 0.04, 5))
    lit = frame_of_letter(90.0, (False, True), shape, 0.0)
    frames = (OFFSET + peaks(points, np.zeros((2, *shape)), np.array([0.06, 0.0105]), 900.0) * lit).astype(np.uint16)
    record = Recording(tmp_path, frames, points, (5, 5), flips=(False, True), positions={"mu": 0.0, "omega": 90.0})
    plot_mosaicity(maps_from_file(record.write(), dark=OFFSET), tmp_path / "f.png")
    image = imread(tmp_path / "f.png")[..., :3]
    left = image[:, : int(0.72 * image.shape[1])].sum(axis=2) > 0.3
    parts, _ = label(left)
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    sizes = np.bincount(parts.ravel())
    sizes[np.append(border, 0)] = 0
    rows, columns = np.nonzero(parts == sizes.argmax())
    seen = parts[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == sizes.argmax()
    small = zoom(seen.astype(float), (8 / seen.shape[0], 5 / seen.shape[1]), order=1, grid_mode=True, mode="nearest")
    np.testing.assert_array_equal(small > 0.5, F[:, :5] > 0)


@pytest.mark.parametrize("axes", [1, 3])
def test_scans_of_one_and_three_axes_give_maps_and_pictures(tmp_path, axes):
    rng = np.random.default_rng(0)
    steps = [np.linspace(-0.1, 0.1, 9)] if axes == 1 else [np.linspace(-0.1, 0.1, n) for n in (3, 4, 5)]
    names = ["mu"] if axes == 1 else ["obpitch", "chi", "phi"]
    points = mesh(*steps)
    frames = camera(peaks(points, np.zeros((axes, *SHAPE)), np.full(axes, 0.05), 400.0), rng)
    words = " ".join(f"{n} -0.1 {0.2 / (len(s) - 1):g} {len(s)}" for n, s in zip(names, steps, strict=True))
    title = f"fscan {words} 0.1 0.1" if axes == 1 else f"fscan3d {words} 0.1 0.1"
    path = bliss_file(tmp_path / "a.h5", title, frames, dict(zip(names, points.T, strict=True)))
    maps = maps_from_file(path, dark=OFFSET)
    assert [axis.name for axis in maps.axes] == names
    assert maps.distribution.intensity.shape == tuple(len(s) for s in steps)
    for axis in maps.axes:
        assert abs(np.median(axis.com)) < 2e-3
    assert len(write_pictures(maps, tmp_path, "a")) == 3


def test_a_zigzag_readback_scan_has_the_same_distribution_as_a_regular_one(tmp_path):
    rng = np.random.default_rng(0)
    regular = mesh(np.linspace(0, 0.5, 6), np.linspace(7, 7.6, 11))
    snake = mesh(np.linspace(0, 0.5, 6), np.linspace(7, 7.6, 11), snake=True)
    files = []
    for number, points in enumerate((regular, snake)):
        exact = peaks(points, np.stack([np.full(SHAPE, 0.2), np.full(SHAPE, 7.35)]), np.array([0.1, 0.1]), 5000.0)
        read = points + [0.0, 0.03] + rng.normal(0, 5e-4, points.shape) * [0, 1]
        title = "fscan2d chi 0 0.1 6 diffry 7 0.06 11 0.5 0.5"
        motors = dict(zip(("chi", "diffry"), read.T, strict=True))
        files.append(bliss_file(tmp_path / f"{number}.h5", title, exact.astype(np.uint16), motors))
    a, b = (maps_from_file(path, dark=0.0) for path in files)
    np.testing.assert_allclose(a.distribution.intensity, b.distribution.intensity, rtol=1e-9)
    np.testing.assert_allclose(a["diffry"].com, b["diffry"].com, atol=1e-3)


def test_darks_and_monitors_are_found_where_they_are_said_to_be(master, tmp_path):
    rng = np.random.default_rng(1)
    points = np.linspace(-0.1, 0.1, 9)
    frames = camera(peaks(points[:, None], np.zeros((1, *SHAPE)), np.array([0.04]), 500.0), rng)
    path = bliss_file(tmp_path / "a.h5", "ascan mu -0.1 0.1 8 0.1", frames, {"mu": points})
    bliss_file(path, "loopscan 7 0.1", camera(np.zeros((7, *SHAPE)), rng), {})
    bliss_file(tmp_path / "b.h5", "ascan mu -0.1 0.1 8 0.1", frames, {"mu": points})
    with h5py.File(path, "a") as file:
        file["1.2/measurement/pico4"] = np.linspace(1.0, 1.2, 9)
    level = maps_from_file(path, dark=OFFSET)
    for dark in ("2.1", path, f"{path}::2.1"):
        measured = maps_from_file(tmp_path / "b.h5" if dark != "2.1" else path, dark=dark)
        assert measured.settings["dark"].startswith("mean of 7 frames")
        np.testing.assert_allclose(measured["mu"].com, level["mu"].com, atol=4e-3)
    assert (maps_from_file(path, dark=OFFSET, monitor="pico4")["mu"].com < level["mu"].com).all()
    for given, words in (
        ({"monitor": "pico9"}, "pico9"),
        ({"dark": np.zeros((3, 3))}, r"shape \(3, 3\)"),
        ({"dark": 5.0, "clip": 7}, "one of the two"),
        ({"clip": -3}, "between 0 and 65535"),
    ):
        with pytest.raises(ParameterError, match=words):
            maps_from_file(path, **given)
    with pytest.raises(FileFormatError, match="darks are a loopscan"):
        maps_from_file(path, dark="1.1")


def test_files_that_cannot_be_reduced_are_refused_in_one_sentence(master, tmp_path):
    def refused(path, words, **given):
        with pytest.raises(DfxrmError) as caught:
            maps_from_file(path, **given)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none.h5", "does not exist")
    (tmp_path / "text.h5").write_text("no HDF5")
    refused(tmp_path / "text.h5", "cannot be read as HDF5")
    whole = master.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 3])
    refused(tmp_path / "cut.h5", "damaged")
    refused(master, "it has 1.1", scan="9.1")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    refused(tmp_path / "empty.h5", "no scan with a title")
    frames = np.zeros((5, 4, 4), np.uint16)
    few = bliss_file(tmp_path / "few.h5", "ascan mu 0 1 5 0.1", frames, {"mu": np.arange(6.0)})
    refused(few, "should have 6 frames by its title, and its stacks have 5")
    lost = bliss_file(tmp_path / "lost.h5", "ascan mu 0 1 4 0.1", frames, {})
    refused(lost, "no 5 positions of 'mu'")
    odd = bliss_file(tmp_path / "odd.h5", "dance mu 0 1 4 0.1", frames, {})
    refused(odd, "'dance mu 0 1 4 0.1' is no scan")
    still = bliss_file(tmp_path / "still.h5", "loopscan 5 0.1", frames, {})
    refused(still, "moved no motor")


def test_frames_that_are_gone_are_no_zeros(tmp_path):
    points = mesh(np.linspace(-0.2, 0.2, 3), np.linspace(-0.04, 0.04, 3))
    record = Recording(tmp_path, np.full((9, *SHAPE), 500, np.uint16), points, (3, 3))
    master = record.write()
    (tmp_path / "scan0001" / "far_field_0001.h5").unlink()
    with pytest.raises(FileFormatError, match="far_field_0001.h5"):
        maps_from_file(master, dark=0.0)
