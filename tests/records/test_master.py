"""What a finished run's master holds, read with plain h5py."""

import json
import shutil

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from standins import OPTICS, SHAPE, Camera, frame

from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.records import check_master, read_journal, write_master

SLOW, FAST = (-0.5, 0.1, 4), (7.0, 0.02, 5)


def taken(first, count):
    """Return the frames a camera took as its ``first``-th to ..."""
    return np.array([frame(number) for number in range(first, first + count)])


@pytest.fixture
def mesh(beamline):
    beamline.RE(beamline.mesh(SLOW, FAST, darks=3))
    return beamline


def test_a_mesh_is_one_frame_per_point_in_the_order_taken(mesh):
    with h5py.File(mesh.recorder.master) as file:
        entry = file["1.1"]
        assert entry["title"][()] == b"fscan2d chi -0.5 0.1 4 phi 7 0.02 5 0.5 0.5"
        np.testing.assert_array_equal(entry["instrument/far_field/data"][()], taken(3, 20))
        # set-points, exact, snake order; the readbacks with their jitter stand elsewhere
        phi = 7.0 + 0.02 * np.concatenate([np.arange(5), np.arange(5)[::-1]] * 2)
        np.testing.assert_allclose(entry["instrument/phi/value"][()], phi, rtol=1e-15)
        np.testing.assert_allclose(
            entry["instrument/chi/value"][()], np.repeat(-0.5 + 0.1 * np.arange(4), 5), rtol=1e-15
        )
        back = entry["instrument/dfxm_control/readbacks/phi"][()]
        assert 1e-6 < np.abs(back - phi).max() < 2e-4
        for motor in ("chi", "phi"):
            group = entry[f"instrument/{motor}"]
            assert group.attrs["NX_class"] == "NXpositioner" and group["value"].attrs["units"] == "deg"
            assert group["data"] == group["value"]
            np.testing.assert_array_equal(entry[f"measurement/{motor}"][()], group["value"][()])
            np.testing.assert_array_equal(entry[f"instrument/positioners/{motor}"][()], group["value"][()])


def test_the_detector_is_linked_the_way_readers_look_for_it(mesh):
    with h5py.File(mesh.recorder.master) as file:
        assert file.attrs["publisher"] == "bliss" and file.attrs["NX_class"] == "NXroot"
        detector = file["1.1/instrument/far_field"]
        assert detector.attrs["NX_class"] == "NXdetector" and detector["type"][()] == b"lima"
        assert isinstance(detector.get("image", getlink=True), h5py.HardLink)
        assert detector["image"] == detector["data"] and detector["data"].is_virtual
        assert isinstance(file["1.1/measurement"].get("far_field", getlink=True), h5py.SoftLink)
        assert detector["x_pixel_size"][()] == 6.5 and detector["characteristics/gain"][()] == 2.14
        assert detector["count_time"][()] == 0.5
        # darling takes the last 3-D dataset of as many frames as points: there must be one
        stacks = []
        file["1.1"].visititems(lambda name, item: stacks.append(name) if getattr(item, "ndim", 0) == 3 else None)
        assert stacks == ["instrument/far_field/data"]


def test_sources_are_relative_so_the_folder_can_move(mesh, tmp_path):
    with h5py.File(mesh.recorder.master) as file:
        sources = file["1.1/instrument/far_field/data"].virtual_sources()
        assert [source.file_name for source in sources] == [f"scan0001/far_field_{i:04d}.h5" for i in range(1, 5)]
    moved = tmp_path / "elsewhere"
    shutil.move(mesh.recorder.folder, moved)
    with h5py.File(moved / "al_00007.h5") as file:
        np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], taken(3, 20))
    assert check_master(moved / "al_00007.h5") == 26


def test_motors_that_stand_are_scalars_and_optics_are_among_them(mesh):
    with h5py.File(mesh.recorder.master) as file:
        for group in ("positioners", "positioners_start", "positioners_end"):
            for name, value in OPTICS.items():
                assert file[f"1.1/instrument/{group}/{name}"][()] == value
        assert file["1.1/instrument/positioners_start/phi"].shape == ()
        assert "shutter" not in file["1.1/instrument/positioners"]
        assert file["1.1/instrument/dfxm_control/channels/shutter"][()] == b"open"
        assert file["1.1/instrument/dfxm_control/setpoints/obx"][()] == OPTICS["obx"]


def test_energy_magnification_and_pixels_are_there_with_their_model(mesh):
    with h5py.File(mesh.recorder.master) as file:
        record = file["1.1/instrument/dfxm_control"]
        assert record["energy"][()] == pytest.approx(17.0, abs=1e-6) and record["energy"].attrs["units"] == "keV"
        assert record["mono_angle"][()] == OPTICS["ccmth"] and record["mono_d_spacing"][()] == 3.135012
        assert record["wavelength"][()] == pytest.approx(0.729319, abs=1e-6)
        assert record["two_theta"][()] == pytest.approx(17.973, abs=1e-3)
        magnification = record["magnification"][()]
        assert 17 < magnification < 19 and b"thick lens" in record["magnification_model"][()]
        assert record["pixel_across_beam"][()] == pytest.approx(0.65 / magnification)
        sine = np.sin(np.radians(record["two_theta"][()]))
        assert record["pixel_along_beam"][()] == pytest.approx(0.65 / magnification / sine)
        assert file["1.1/instrument/beam/incident_energy"][()] == record["energy"][()]
        assert json.loads(record["instrument_json"][()])["objectives"]["crl"]["lenslets"] == 69
        assert record["parameters/darks"][()] == 3
        assert list(record["hkl"][()]) == [1, 1, 1]


def test_monitor_and_ring_current_are_there_per_frame(mesh):
    with h5py.File(mesh.recorder.master) as file:
        # the monitor counted one up for each of the three darks before
        np.testing.assert_array_equal(file["1.1/instrument/dfxm_control/monitor"][()], 1004.0 + np.arange(20))
        np.testing.assert_array_equal(file["1.2/instrument/monitor/data"][()], 1004.0 + np.arange(20))
        np.testing.assert_array_equal(file["1.2/measurement/current"][()], 191.0 + np.arange(20))
        times = file["1.2/instrument/elapsed_time/value"][()]
        assert times.shape == (20,) and (np.diff(times) > 0).all() and 0 < times[0] < 5


def test_darks_are_loopscans_before_and_after(mesh):
    with h5py.File(mesh.recorder.master) as file:
        for entry, first in (("2.1", 0), ("3.1", 23)):
            assert file[f"{entry}/title"][()] == b"loopscan 3 0.5"
            np.testing.assert_array_equal(file[f"{entry}/instrument/far_field/data"][()], taken(first, 3))
        record = file["1.1/instrument/dfxm_control"]
        np.testing.assert_array_equal(record["darks_before"][()], taken(0, 3))
        np.testing.assert_array_equal(record["darks_after"][()], taken(23, 3))
        assert file["2.1/start_time"][()] < file["3.1/start_time"][()]


def test_the_end_is_told(mesh):
    with h5py.File(mesh.recorder.master) as file:
        record = file["1.1/instrument/dfxm_control"]
        assert record["end_status"][()] == b"success" and file["1.1/end_reason"][()] == b"SUCCESS"
        numbers = {key: int(record[key][()]) for key in ("planned_points", "points", "complete_lines", "frames_taken")}
        assert numbers == {"planned_points": 20, "points": 20, "complete_lines": 4, "frames_taken": 26}
        assert record["frames_rejected"][()] == 0 and record["frames_missing"][()] == 0
        assert "1.3" not in file


def test_every_group_has_a_nexus_class_and_defaults_lead_to_data(mesh):
    with h5py.File(mesh.recorder.master) as file:
        classes = {}
        file.visititems(
            lambda name, item: (
                classes.update({name: item.attrs.get("NX_class")}) if isinstance(item, h5py.Group) else None
            )
        )
        assert all(str(kind).startswith("NX") for kind in classes.values()), classes
        entry = file[file.attrs["default"]]
        plot = entry[entry.attrs["default"]]
        assert plot.attrs["NX_class"] == "NXdata" and plot[plot.attrs["signal"]].shape == (20, *SHAPE)
        for name in ("1.1", "1.2", "2.1", "3.1"):
            assert file[name].attrs["NX_class"] == "NXentry" and {"title", "start_time", "end_time"} <= set(file[name])


def test_the_master_written_again_from_the_journal_is_the_same(mesh, tmp_path):
    again = mesh.recorder.folder / "again.h5"
    write_master(mesh.recorder.journal, again)

    def content(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: (
                    found.update({name: item[()]})
                    if isinstance(item, h5py.Dataset) and item.dtype.kind != "O"
                    else None
                )
            )
        return found

    first, second = content(mesh.recorder.master), content(again)
    assert first.keys() == second.keys() and len(first) > 80
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_names_of_the_place_are_written(tmp_path):
    from standins import Beamline

    place = Beamline(tmp_path, motor_names={"phi": "diffry", "far_field": "pco_ff"})
    place.RE(place.mesh(SLOW, FAST))
    with h5py.File(place.recorder.master) as file:
        assert file["1.1/title"][()] == b"fscan2d chi -0.5 0.1 4 diffry 7 0.02 5 0.5 0.5"
        assert file["1.1/instrument/diffry/data"].shape == (20,) == file["1.1/instrument/positioners/diffry"].shape
        assert file["1.1/measurement/pco_ff"].shape == (20, *SHAPE) and "phi" not in file["1.1/instrument"]


class TestStockPlans:
    """Plans that know nothing of us, with the staging around the run."""

    def run(self, beamline, plan):
        beamline.RE(bpp.baseline_wrapper(plan, beamline.baseline))
        return h5py.File(beamline.recorder.master)

    def test_scan(self, beamline):
        with self.run(beamline, bp.scan(beamline.detectors, beamline.phi, 0, 1, 5)) as file:
            assert file["1.1/title"][()] == b"fscan phi 0 0.25 5 0.5 0.5"
            np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], taken(0, 5))
            assert beamline.recorder.folder.name == "unnamed_00007"

    def test_rel_scan(self, beamline):
        beamline.phi.set(3.0)
        beamline.phi.jitter = 0.0
        with self.run(beamline, bp.rel_scan(beamline.detectors, beamline.phi, -1, 1, 5)) as file:
            assert file["1.1/title"][()] == b"fscan phi 2 0.5 5 0.5 0.5"

    def test_grid_scan(self, beamline):
        plan = bp.grid_scan(beamline.detectors, beamline.chi, 0, 1, 3, beamline.phi, 0, 3, 4, snake_axes=True)
        with self.run(beamline, plan) as file:
            assert file["1.1/title"][()] == b"fscan2d chi 0 0.5 3 phi 0 1 4 0.5 0.5"
            np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], taken(0, 12))

    def test_list_scan(self, beamline):
        with self.run(beamline, bp.list_scan(beamline.detectors, beamline.phi, [0, 1, 4])) as file:
            assert file["1.1/title"][()].startswith(b"fscan phi 0 2 3 ")
            np.testing.assert_array_equal(file["1.1/instrument/phi/value"][()], [0, 1, 4])

    def test_scan_of_two_motors_together(self, beamline):
        with self.run(beamline, bp.scan(beamline.detectors, beamline.chi, 0, 1, beamline.phi, 2, 4, 3)) as file:
            assert file["1.1/title"][()] == b"a2scan chi 0 1 phi 2 4 2 0.5"
            assert file["1.1/instrument/far_field/data"].shape == (3, *SHAPE)

    def test_count(self, beamline):
        with self.run(beamline, bp.count(beamline.detectors, 4)) as file:
            assert file["1.1/title"][()] == b"loopscan 4 0.5"
            np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], taken(0, 4))

    def test_count_without_a_camera(self, beamline):
        with self.run(beamline, bp.count([beamline.monitor], 4)) as file:
            np.testing.assert_array_equal(file["1.2/instrument/monitor/data"][()], 1001.0 + np.arange(4))
            assert list(file["1.1/measurement"]) == []

    def test_two_cameras(self, beamline):
        other = Camera("near_field", beamline.recorder, (10, 12))
        with self.run(beamline, bp.scan([beamline.camera, other], beamline.phi, 0, 1, 3)) as file:
            assert file["1.1/instrument/far_field/data"].shape == (3, *SHAPE)
            np.testing.assert_array_equal(
                file["1.4/instrument/near_field/data"][()], [frame(i, (10, 12)) for i in range(3)]
            )

    def test_more_frames_than_a_file_takes(self, beamline):
        beamline.camera.frames_per_file = 3
        with self.run(beamline, bp.scan(beamline.detectors, beamline.phi, 0, 1, 8)) as file:
            np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], taken(0, 8))
            assert len(file["1.1/instrument/far_field/data"].virtual_sources()) == 3

    def test_a_plan_of_ones_own_with_another_stream(self, beamline):
        @bpp.stage_decorator([beamline.camera])
        @bpp.run_decorator(md={"sample": "mine"})
        def plan():
            for _ in range(2):
                yield from bps.trigger_and_read([beamline.camera, beamline.monitor])
                yield from bps.trigger_and_read([beamline.current], name="slow")
            yield from bps.trigger_and_read([beamline.camera], name="flat")

        with self.run(beamline, plan()) as file:
            np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], taken(0, 2))
            np.testing.assert_array_equal(file["1.2/instrument/slow/ring_current"][()], [191.0, 192.0])
            np.testing.assert_array_equal(file["4.1/instrument/far_field/data"][()], taken(2, 1))

    def test_a_plan_that_takes_nothing(self, beamline):
        with self.run(beamline, bpp.run_wrapper(bps.null())) as file:
            assert file["1.1/title"][()] == b"loopscan 0 0"


class TestChecking:
    def test_a_missing_frame_file_is_named(self, mesh):
        (mesh.recorder.folder / "scan0001" / "far_field_0002.h5").unlink()
        with pytest.raises(FileFormatError, match=r"far_field_0002\.h5 cannot be read: No such file"):
            check_master(mesh.recorder.master)

    def test_a_frame_file_of_another_scan_is_named(self, mesh):
        folder = mesh.recorder.folder / "scan0001"
        shutil.copy(folder / "far_field_0000.h5", folder / "far_field_0002.h5")
        with pytest.raises(FileFormatError, match=r"far_field_0002\.h5 has 3 frames, and 5 are needed"):
            check_master(mesh.recorder.master)

    def test_no_master_at_all(self, tmp_path):
        (tmp_path / "x.h5").write_text("no")
        with pytest.raises(FileFormatError, match=r"x\.h5 cannot be read as HDF5"):
            check_master(tmp_path / "x.h5")

    def test_frames_that_are_gone_end_the_lines_and_are_counted(self, mesh, tmp_path):
        (mesh.recorder.folder / "scan0001" / "far_field_0003.h5").unlink()
        write_master(mesh.recorder.journal, mesh.recorder.master)
        with h5py.File(mesh.recorder.master) as file:
            np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], taken(3, 10))
            assert file["1.1/title"][()].startswith(b"fscan2d chi -0.5 0.1 2 phi")
            assert file["1.1/instrument/dfxm_control/frames_missing"][()] == 5
            np.testing.assert_array_equal(file["1.3/instrument/far_field/data"][()], taken(18, 5))

    def test_a_master_that_cannot_be_written_leaves_the_old_one(self, mesh, monkeypatch):
        before = mesh.recorder.master.read_bytes()
        monkeypatch.setattr(
            "dfxrm_control.records.master.check_master", lambda _: (_ for _ in ()).throw(OSError(28, "x"))
        )
        with pytest.raises(RecordError, match="cannot be written"):
            write_master(mesh.recorder.journal, mesh.recorder.master)
        assert mesh.recorder.master.read_bytes() == before
        assert [path.name for path in mesh.recorder.folder.glob(".*")] == []

    def test_into_a_file_instead_of_a_folder(self, mesh, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RecordError, match=r"m\.h5 cannot be written"):
            write_master(mesh.recorder.journal, tmp_path / "file" / "m.h5")


def test_reading_the_journal_back_gives_points_and_frames(mesh):
    run = read_journal(mesh.recorder.journal)
    assert run.end_status == "success" and run.planned_points == 20 and run.line_length == 5
    assert [axis.name for axis in run.axes] == ["chi", "phi"]
    frames = run.primary.frames["far_field"]
    assert [frames[n].index for n in range(1, 21)] == list(range(3, 23))
    assert [frames[n].index_in_file for n in (1, 5, 6)] == [0, 4, 0]
    np.testing.assert_array_equal(run.primary.column("monitor"), 1004.0 + np.arange(20))
