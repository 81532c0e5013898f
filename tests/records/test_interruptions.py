"""Pauses, aborts and failures: each point once, every other frame accounted for, a true title."""

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted, single_gen
from standins import SHAPE, Beamline, frame

SLOW, FAST = (0.0, 0.1, 3), (0.0, 1.0, 2)


def interrupted(plan, at):
    """Pause hard before the message of that number."""
    number = 0

    def pause_before(message):
        nonlocal number
        number += 1
        return (bpp.pchain(bps.pause(), single_gen(message)), None) if number == at else (None, None)

    return bpp.plan_mutator(plan, pause_before)


def pausing_after_exposure(beamline, plan, number):
    """Pause hard once the camera has taken so many frames, before the point is read."""
    paused = False

    def pause_after(message):
        nonlocal paused
        if not paused and message.command == "create" and beamline.camera.taken == number:
            paused = True
            return bpp.pchain(bps.pause(), single_gen(message)), None
        return None, None

    return bpp.plan_mutator(plan, pause_after)


def accounted(file):
    """Return the frames of all entries, by what they are."""
    found = {}
    for entry in ("1.1", "1.3", "2.1", "3.1"):
        name = f"{entry}/instrument/far_field/data"
        found[entry] = file[name][()] if name in file else np.empty((0, *SHAPE))
    return found


@pytest.mark.parametrize("at", range(20, 154, 5))
def test_a_hard_pause_anywhere_gives_each_point_once_and_lists_the_rest(tmp_path, at):
    beamline = Beamline(tmp_path)
    with pytest.raises(RunEngineInterrupted):
        beamline.RE(interrupted(beamline.mesh(SLOW, FAST), at))
    beamline.RE.resume()
    total = beamline.camera.taken
    with h5py.File(beamline.recorder.master) as file:
        assert file["1.1/title"][()] == b"fscan2d chi 0 0.1 3 phi 0 1 2 0.5 0.5"
        record = file["1.1/instrument/dfxm_control"]
        assert record["end_status"][()] == b"success" and record["frames_taken"][()] == total
        found = accounted(file)
        assert len(found["1.1"]) == 6 and len(found["1.3"]) == total - 6 == record["frames_rejected"][()]
        sums = sorted(int(image.sum()) for images in found.values() for image in images)
        assert sums == sorted(int(frame(number).sum()) for number in range(total))
        np.testing.assert_array_equal(file["1.1/instrument/phi/value"][()], [0, 1, 1, 0, 0, 1])
        # the frame that counts is the one taken last for its point
        np.testing.assert_array_equal(np.diff(record["frame_map/index_in_run"][()]) > 0, True)
        if total > 6:
            assert set(file["1.3/quality/reason"].asstr()[()]) <= {"orphan", "repeated"}
            assert (file["1.3/quality/point"][()] >= 0).all()


def test_an_orphan_is_listed_with_the_point_it_was_for(beamline):
    with pytest.raises(RunEngineInterrupted):
        beamline.RE(pausing_after_exposure(beamline, beamline.mesh(SLOW, FAST), 4))
    beamline.RE.resume()
    with h5py.File(beamline.recorder.master) as file:
        np.testing.assert_array_equal(file["1.3/instrument/far_field/data"][()], [frame(3)])
        assert list(file["1.3/quality/point"][()]) == [3] and list(file["1.3/quality/reason"]) == [b"orphan"]
        assert list(file["1.3/quality/frame_map/index_in_run"][()]) == [3]
        np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], [frame(n) for n in (0, 1, 2, 4, 5, 6)])
        assert b"pause" in file["1.1/instrument/dfxm_control/interruptions"][()]


def stopped_after(beamline, frames, how):
    """Run a mesh of 3 x 4 and end it after so many frames."""

    def end():
        if how == "fail":
            raise ZeroDivisionError("the cryostat fell over")
        yield from bps.pause()

    ended = False

    def end_after(message):
        nonlocal ended
        if ended or message.command != "save" or beamline.camera.taken != frames + 2:
            return None, None
        ended = True
        return None, end()

    with pytest.raises((RunEngineInterrupted, ZeroDivisionError)):
        beamline.RE(bpp.plan_mutator(beamline.mesh((0.0, 0.1, 3), (0.0, 1.0, 4), darks=2), end_after))
    if how != "fail":
        getattr(beamline.RE, how)()
    return h5py.File(beamline.recorder.master)


@pytest.mark.parametrize(
    ("how", "status"), [("abort", b"abort"), ("stop", b"success"), ("halt", b"abort"), ("fail", b"fail")]
)
def test_a_mesh_cut_short_keeps_its_complete_lines_and_says_how_it_ended(beamline, how, status):
    with stopped_after(beamline, 6, how) as file:
        assert file["1.1/title"][()] == b"fscan2d chi 0 0.1 1 phi 0 1 4 0.5 0.5"
        np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], [frame(n) for n in range(2, 6)])
        np.testing.assert_array_equal(file["1.3/instrument/far_field/data"][()], [frame(6), frame(7)])
        assert set(file["1.3/quality/reason"]) == {b"partial line"}
        np.testing.assert_array_equal(file["1.3/instrument/phi/value"][()], [3, 2])
        np.testing.assert_array_equal(file["2.1/instrument/far_field/data"][()], [frame(0), frame(1)])
        record = file["1.1/instrument/dfxm_control"]
        assert record["end_status"][()] == status and record["planned_points"][()] == 12
        assert record["points"][()] == 4 and record["acknowledged_points"][()] == 6 and record["frames_taken"][()] == 8
        if how == "fail":
            assert b"cryostat" in record["end_reason"][()]


def test_a_mesh_cut_short_in_its_first_line_has_a_scan_without_frames(beamline):
    with stopped_after(beamline, 3, "abort") as file:
        assert file["1.1/title"][()] == b"fscan2d chi 0 0.1 0 phi 0 1 4 0.5 0.5"
        assert file["1.1/instrument/far_field/data"].shape == (0, *SHAPE)
        assert file["1.3/instrument/far_field/data"].shape == (3, *SHAPE)


def test_a_rocking_scan_cut_short_keeps_every_point(beamline):
    @bpp.stage_decorator([beamline.camera])
    @bpp.run_decorator(md=beamline.metadata([{"name": "phi", "start": 2.0, "step": 0.1, "num": 9}]))
    def plan():
        for i in range(9):
            yield from bps.checkpoint()
            yield from bps.mv(beamline.phi, 2 + 0.1 * i)
            yield from bps.trigger_and_read([*beamline.detectors, beamline.phi])
            if i == 4:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        beamline.RE(plan())
    with h5py.File(beamline.recorder.master) as file:
        assert file["1.1/title"][()] == b"fscan phi 2 0.1 5 0.5 0.5"
        np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], [frame(n) for n in range(5)])
        assert file["1.1/instrument/dfxm_control/planned_points"][()] == 9


def test_the_same_scan_can_be_followed_by_another(beamline):
    for number in (7, 8):
        beamline.RE(beamline.mesh(SLOW, FAST))
        assert beamline.recorder.master.name == f"al_{number:05d}.h5"
        with h5py.File(beamline.recorder.master) as file:
            assert file["1.1/instrument/far_field/data"].shape == (6, *SHAPE)
