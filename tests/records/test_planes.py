"""Meshes of three axes: one entry for the whole, one for each plane, and what is left of one that is cut short."""

import subprocess
import sys
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted
from standins import OPTICS, SHAPE, Motor, frame

from dfxrm_control.records import read_journal, write_master
from dfxrm_control.reduction import maps_from_file
from dfxrm_control.reduction.follow import Follower

HERE = Path(__file__).parent
ARM, CHI, PHI = (17.95, 0.02, 3), (-0.1, 0.1, 3), (7.0, 0.02, 4)
PLANE = CHI[2] * PHI[2]


def scan(beamline, axes=(ARM, CHI, PHI)):
    """Scan two_theta x chi x phi in a snake, a file per line, as strain scans do."""
    two_theta = Motor("two_theta", 17.97)
    motors = [two_theta, beamline.chi, beamline.phi]
    told = [
        {"name": motor.name, "start": start, "step": step, "num": num}
        for motor, (start, step, num) in zip(motors, axes, strict=True)
    ]

    @bpp.baseline_decorator(beamline.baseline)
    @bpp.stage_decorator([beamline.camera])
    @bpp.run_decorator(md={**beamline.metadata(told), "plan_name": "mosaicity_strain_scan"})
    def plan():
        places = [[start + step * i for i in range(num)] for start, step, num in axes]
        lines = 0
        for i, there in enumerate(places[0]):
            yield from bps.mv(two_theta, there)
            for roll in places[1][:: -1 if i % 2 else 1]:
                yield from bps.mv(beamline.chi, roll)
                yield from bps.checkpoint()
                yield from bps.prepare(beamline.camera, axes[2][2], wait=True)
                for rock in places[2][:: -1 if lines % 2 else 1]:
                    yield from bps.checkpoint()
                    yield from bps.mv(beamline.phi, rock)
                    yield from bps.trigger_and_read([*beamline.detectors, *motors])
                yield from bps.checkpoint()
                yield from bps.complete(beamline.camera, wait=True)
                lines += 1

    return plan()


def aborted_after(beamline, frames):
    ended = []

    def end(message):
        due = message.command == "save" and beamline.camera.taken == frames and not ended
        if due:
            ended.append(True)
        return None, (bps.pause() if due else None)

    with pytest.raises(RunEngineInterrupted):
        beamline.RE(bpp.plan_mutator(scan(beamline), end))
    beamline.RE.abort()
    return beamline.recorder.master


def entries(master):
    with h5py.File(master) as file:
        return {name: file[name]["title"].asstr()[()] for name in file}


def test_the_arm_is_written_under_the_name_that_others_know(beamline):
    beamline.RE(scan(beamline))
    with h5py.File(beamline.recorder.master) as file:
        entry = file["1.1"]
        assert entry["title"].asstr()[()] == "fscan3d obpitch 17.95 0.02 3 chi -0.1 0.1 3 phi 7 0.02 4 0.5 0.5"
        two_theta = np.repeat(17.95 + 0.02 * np.arange(3), PLANE)
        for place in ("instrument/obpitch/value", "instrument/positioners/obpitch", "measurement/obpitch"):
            np.testing.assert_allclose(entry[place][()], two_theta, rtol=1e-14)
        assert "two_theta" not in entry["instrument/positioners"]
        # where the lens's pitch itself stood before
        assert entry["instrument/positioners_start/obpitch"][()] == OPTICS["obpitch"]
        # the optics are those of the middle of the scan
        assert entry["instrument/dfxm_control/two_theta"][()] == pytest.approx(17.97)
        record = entry["instrument/dfxm_control"]
        assert (record["points_per_line"][()], record["complete_lines"][()], record["points"][()]) == (4, 9, 36)


def test_each_plane_is_a_scan_of_two_axes_with_its_place_among_the_scalars(beamline):
    beamline.RE(scan(beamline))
    with h5py.File(beamline.recorder.master) as file:
        whole = file["1.1/instrument/far_field/data"][()]
        for plane in range(3):
            entry = file[f"{101 + plane}.1"]
            start, step = (0.1, -0.1) if plane % 2 else (-0.1, 0.1)
            assert entry["title"].asstr()[()].startswith(f"fscan2d chi {start:g} {step:g} 3 phi 7")
            data = entry["instrument/far_field/data"]
            assert data.is_virtual
            np.testing.assert_array_equal(data[()], whole[plane * PLANE : (plane + 1) * PLANE])
            positioners = entry["instrument/positioners"]
            two_theta = 17.95 + 0.02 * plane
            assert positioners["obpitch"].shape == () and positioners["obpitch"][()] == pytest.approx(two_theta)
            # the rest of the arm stood where it follows from the angle
            assert positioners["ffz"][()] == pytest.approx(5000 * np.tan(np.radians(two_theta)))
            assert positioners["obz"][()] == pytest.approx(276.63 * np.sin(np.radians(two_theta)))
            assert positioners["samz"][()] == OPTICS["samz"]
            record = entry["instrument/dfxm_control"]
            assert record["monitor"].shape == (PLANE,) and record["monitor"][0] == 1001.0 + plane * PLANE
            assert record["two_theta"][()] == pytest.approx(two_theta)
            assert record["sample_json"][()] == file["1.1/instrument/dfxm_control/sample_json"][()]
            stacks = []
            entry.visititems(lambda name, item, s=stacks: s.append(name) if getattr(item, "ndim", 0) == 3 else None)
            assert stacks == ["instrument/far_field/data"]


def test_meshes_of_two_axes_have_no_planes(beamline):
    beamline.RE(beamline.mesh(CHI, PHI))
    assert set(entries(beamline.recorder.master)) == {"1.1", "1.2"}


@pytest.mark.parametrize("frames", [PLANE - 1, PLANE + 2, PLANE + 9, 2 * PLANE, 3 * PLANE - 1])
def test_what_was_cut_short_keeps_planes_and_lines_and_loses_no_frame(beamline, frames):
    master = aborted_after(beamline, frames)
    planes, lines = frames // PLANE, frames // PHI[2]
    with h5py.File(master) as file:
        record = file["1.1/instrument/dfxm_control"]
        assert file["1.1/title"].asstr()[()].startswith(f"fscan3d obpitch 17.95 0.02 {planes} chi")
        assert file["1.1/instrument/far_field/data"].shape == (planes * PLANE, *SHAPE)
        assert record["complete_lines"][()] == lines and record["points"][()] == planes * PLANE
        kept = [file[name] for name in sorted(file) if name.startswith("10")]
        whole, rest = divmod(lines, CHI[2])
        counts = [CHI[2]] * whole + [rest] * (rest > 0)
        titles = [entry["title"].asstr()[()] for entry in kept]
        assert [int(title.split()[4]) for title in titles] == counts
        shown = [image for entry in kept for image in entry["instrument/far_field/data"][()]]
        np.testing.assert_array_equal(shown, [frame(n) for n in range(lines * PHI[2])])
        left = frames - lines * PHI[2]
        rejected = file["1.3/instrument/far_field/data"][()] if left else []
        np.testing.assert_array_equal(rejected, [frame(n) for n in range(lines * PHI[2], frames)] if left else [])
        assert record["frames_rejected"][()] == left


def test_maps_of_an_aborted_scan_are_of_the_same_points_live_and_from_the_file(beamline):
    master = aborted_after(beamline, 2 * PLANE + 5)
    follower = Follower(beamline.recorder.journal)
    follower.read()
    list(follower.lines())
    live, later = follower.maps(), maps_from_file(master)
    assert live is not None and live["two_theta"].com.shape == later["two_theta"].com.shape
    for axis in ("two_theta", "chi", "phi"):
        # a line more would move these by 4e-3 deg; the grid that frames are put on differs by a tenth of a pixel
        np.testing.assert_allclose(live[axis].com, later[axis].com, atol=5e-4)
    # the lines of the plane that was cut short can be reduced by themselves
    assert maps_from_file(master, scan="103.1")["phi"].com.shape == later["phi"].com.shape


def test_a_killed_scan_is_rebuilt_with_its_lines(beamline, tmp_path):
    aborted_after(beamline, PLANE + 6)
    run = read_journal(beamline.recorder.journal)
    run.stop = None
    write_master(run, beamline.recorder.folder / "again.h5", recovered=True)
    assert entries(beamline.recorder.folder / "again.h5")["102.1"].startswith("fscan2d chi 0.1 0.1 1 phi")


@pytest.mark.slow
def test_darling_opens_the_planes_as_one_scan(beamline, tmp_path):
    pytest.importorskip("darling")
    beamline.RE(scan(beamline))
    master, found = beamline.recorder.master, tmp_path / "found.npz"
    script = [sys.executable, "-W", "ignore", str(HERE / "check_darling_planes.py")]
    place = "instrument/positioners/obpitch"
    done = subprocess.run(
        [*script, str(found), str(master), place, "101.1", "102.1", "103.1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = np.load(found)
    chi, phi, arm = (start + step * np.arange(num) for start, step, num in (CHI, PHI, ARM))
    np.testing.assert_allclose(result["motors"], np.meshgrid(chi, phi, arm, indexing="ij"), atol=1e-5)
    with h5py.File(master) as file:
        data = file["1.1/instrument/far_field/data"][()].astype(float)
        for number, name in enumerate(("chi", "phi", "obpitch")):
            com = np.tensordot(file[f"1.1/instrument/{name}/value"][()], data, (0, 0)) / data.sum(0)
            np.testing.assert_allclose(result["mean"][..., number], com, atol=2e-5)


@pytest.mark.slow
def test_darfix_finds_three_dimensions_and_those_of_a_plane(beamline, tmp_path):
    pytest.importorskip("darfix")
    from test_interop import assert_same_maps, darfix

    beamline.RE(scan(beamline))
    master = beamline.recorder.master
    found = darfix(master, tmp_path / "found")
    assert_same_maps(found, master, {"phi": 4, "chi": 3, "obpitch": 3})
    assert found["names"].tolist()[-1] == "obpitch"  # the slowest
