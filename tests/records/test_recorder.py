"""The recorder as a RunEngine callback: what may stop a plan, what must not, and what is there while it runs."""

import logging
import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from standins import SHAPE, Beamline, frame

from dfxrm_control.errors import RecordError
from dfxrm_control.records import Journal, Recorder, is_closed, read_documents
from dfxrm_control.records._snapshots import Snapshots

SLOW, FAST = (0.0, 0.1, 3), (0.0, 1.0, 4)


def after_line(beamline, plan, line, do):
    """Do something once the file of a line is closed."""
    done = False

    def look(message):
        nonlocal done
        if done or message.command != "complete" or beamline.camera.taken != line * FAST[2]:
            return None, None
        done = True
        return None, do()

    return bpp.plan_mutator(plan, look)


def wait_for(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_finished_line_of_a_running_scan_is_in_the_master(beamline):
    found = []

    def look():
        yield from bps.checkpoint()
        wait_for(lambda: beamline.recorder.master.exists())
        with h5py.File(beamline.recorder.master) as file:
            found.append(file["1.1/instrument/far_field/data"][()])
            found.append(file["1.1/title"][()])
            found.append(file["1.1/instrument/dfxm_control/end_status"][()])
            assert "end_time" not in file["1.1"]

    beamline.RE(after_line(beamline, beamline.mesh(SLOW, FAST), 1, look))
    np.testing.assert_array_equal(found[0], [frame(n) for n in range(4)])
    assert found[1:] == [b"fscan2d chi 0 0.1 1 phi 0 1 4 0.5 0.5", b"running"]
    with h5py.File(beamline.recorder.master) as file:
        assert file["1.1/instrument/far_field/data"].shape == (12, *SHAPE)


def test_the_journal_is_a_link_during_the_run_and_a_copy_after(beamline):
    beamline.RE(beamline.mesh(SLOW, FAST))
    copy = beamline.recorder.folder / "al_00007.jsonl"
    assert not copy.is_symlink() and copy.read_bytes() == beamline.recorder.journal.read_bytes()
    names = [name for name, _ in read_documents(copy)]
    assert names == [name for name, _ in beamline.documents]
    assert names[0] == "start" and names[-1] == "stop"


def test_all_frame_files_are_closed_when_the_run_is_over(beamline):
    # a stock plan stages around the run, so the camera itself closes only afterwards
    beamline.RE(bp.scan(beamline.detectors, beamline.phi, 0, 1, 3))
    assert all(is_closed(path) for path in beamline.recorder.folder.glob("scan0001/*.h5"))


def test_a_master_that_cannot_be_written_does_not_touch_the_plan(beamline, monkeypatch, caplog):
    def refuse(*_args, **_kwargs):
        raise RecordError("master x cannot be written: No space left on device")

    monkeypatch.setattr("dfxrm_control.records.recorder.write_master", refuse)
    monkeypatch.setattr("dfxrm_control.records._snapshots.Snapshots.take", refuse)
    result = beamline.RE(beamline.mesh(SLOW, FAST))
    assert result.exit_status == "success" and not beamline.recorder.master.exists()
    assert str(beamline.recorder.failure) == "master x cannot be written: No space left on device"
    assert any(
        record.levelno == logging.ERROR and "can be written later" in record.message for record in caplog.records
    )


def test_a_bug_in_the_background_does_not_touch_the_plan(beamline, monkeypatch, caplog):
    monkeypatch.setattr("dfxrm_control.records.recorder.write_master", lambda *_: 1 / 0)
    assert beamline.RE(beamline.mesh(SLOW, FAST)).exit_status == "success"
    assert "can be recovered later" in caplog.text and "ZeroDivisionError" in str(beamline.recorder.failure)


def test_a_slow_snapshot_does_not_slow_the_points(beamline, monkeypatch):
    busy = threading.Event()

    def slow(_):
        busy.set()
        time.sleep(0.6)

    monkeypatch.setattr("dfxrm_control.records._snapshots.Snapshots.take", slow)
    beamline.RE(beamline.mesh(SLOW, FAST))
    events = [doc["time"] for name, doc in beamline.documents if name == "event"]
    assert busy.is_set() and max(np.diff(events)) < 0.4


def test_a_snapshot_that_fails_is_tried_again_with_the_next_line(beamline, monkeypatch, caplog):
    calls = []

    def refuse(_):
        calls.append(1)
        raise RecordError("no room")

    monkeypatch.setattr("dfxrm_control.records._snapshots.Snapshots.take", refuse)

    def wait():
        yield from bps.checkpoint()
        wait_for(lambda: calls)

    assert beamline.RE(after_line(beamline, beamline.mesh(SLOW, FAST), 1, wait)).exit_status == "success"
    assert "no room" in caplog.text and beamline.recorder.failure is None


class TestSnapshots:
    @pytest.fixture
    def snapshots(self, beamline):
        beamline.RE(beamline.mesh(SLOW, FAST))
        snapshots = Snapshots(beamline.recorder.journal, beamline.recorder.folder / "again.h5")
        yield snapshots
        snapshots.close()

    def test_each_is_a_master_of_what_the_journal_holds(self, snapshots, beamline):
        for _ in range(2):
            snapshots.take()
            path = beamline.recorder.folder / "again.h5"
            with h5py.File(path) as file:
                assert file["1.1/instrument/far_field/data"].shape == (12, *SHAPE)
            path.unlink()

    def test_what_went_wrong_comes_back_as_one_sentence(self, snapshots, beamline):
        (beamline.recorder.folder / "again.h5").mkdir()
        with pytest.raises(RecordError, match=r"again\.h5 cannot be written: Is a directory"):
            snapshots.take()

    def test_a_process_that_died_is_said_and_replaced(self, snapshots, beamline):
        snapshots.take()
        snapshots._process.kill()  # noqa: SLF001
        with pytest.raises(RecordError, match="process that writes masters"):
            snapshots.take()
        snapshots.take()

    def test_one_that_is_abandoned_ends_at_once_and_leaves_nothing(self, snapshots, beamline):
        snapshots.take()
        (beamline.recorder.folder / "again.h5").unlink()
        waiting = threading.Thread(target=snapshots.take)
        waiting.start()
        snapshots.abandon()
        waiting.join(2.0)
        assert not waiting.is_alive()
        snapshots.close()
        assert list(beamline.recorder.folder.glob(".*")) == []
        snapshots.take()
        assert snapshots._process is None  # noqa: SLF001

    def test_it_ends_with_the_session(self, snapshots):
        snapshots.take()
        process = snapshots._process  # noqa: SLF001
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_journal_that_cannot_be_written_ends_the_plan(beamline, monkeypatch):
    whole = Journal.__call__

    def refuse(self, name, doc):
        if name == "event" and doc["seq_num"] == 5:
            raise RecordError("journal j cannot be written: No space left on device")
        whole(self, name, doc)

    monkeypatch.setattr(Journal, "__call__", refuse)
    with pytest.raises(RecordError, match="No space left on device"):
        beamline.RE(beamline.mesh(SLOW, FAST))
    with h5py.File(beamline.recorder.master) as file:
        assert file["1.1/instrument/dfxm_control/end_status"][()] == b"fail"
        np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], [frame(n) for n in range(4)])


def test_frames_without_a_run_have_nowhere_to_go(tmp_path):
    recorder = Recorder(tmp_path / "data", tmp_path / "journal")
    with pytest.raises(RecordError, match="frames of far_field have no run to go to"):
        recorder.frames_directory("far_field")
    assert recorder.folder is None and recorder.master is None and recorder.journal is None


def test_a_scan_that_was_taken_is_not_overwritten(beamline):
    beamline.RE(beamline.mesh(SLOW, FAST))
    before = beamline.recorder.master.read_bytes()
    first = beamline.recorder.master
    beamline.RE.md["scan_id"] = 6
    with pytest.raises(RecordError, match="al_00007 exists already: scan 7 of sample al was taken before"):
        beamline.RE(beamline.mesh(SLOW, FAST))
    assert first.read_bytes() == before


@pytest.mark.parametrize("sample", ["../up", "a b", "", "x" * 65])
def test_a_sample_name_that_is_no_folder_name_is_refused(beamline, sample):
    plan = bp.count([beamline.monitor], 1, md={"sample": sample or " "})
    with pytest.raises(RecordError, match=r"cannot name a folder: letters, digits, _ and - are valid"):
        beamline.RE(plan)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "data").write_text("a file in the way")
    beamline = Beamline(tmp_path)
    with pytest.raises(RecordError, match=r"folder .*al_00007 cannot be made"):
        beamline.RE(beamline.mesh(SLOW, FAST))
    assert list((tmp_path / "journal").glob("*")) == []


def test_without_a_journal_there_is_no_folder_that_looks_like_a_run(tmp_path):
    (tmp_path / "journal").write_text("a file in the way")
    beamline = Beamline(tmp_path)
    with pytest.raises(RecordError, match=r"journal .* cannot be written"):
        beamline.RE(beamline.mesh(SLOW, FAST))
    assert list((tmp_path / "data" / "al").iterdir()) == []


def test_runs_inside_one_another_keep_their_own_records(beamline):
    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator(md={"sample": "outer"})
    def outer():
        yield from bps.trigger_and_read([beamline.monitor])
        yield from inner()
        yield from bps.trigger_and_read([beamline.monitor])

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator(md={"sample": "inner"})
    def inner():
        for _ in range(3):
            yield from bps.trigger_and_read([beamline.camera])

    beamline.RE(outer())
    data = beamline.recorder.data_directory
    with h5py.File(data / "outer" / "outer_00007" / "outer_00007.h5") as file:
        assert file["1.2/instrument/monitor/data"].shape == (2,)
    with h5py.File(data / "inner" / "inner_00008" / "inner_00008.h5") as file:
        np.testing.assert_array_equal(file["1.1/instrument/far_field/data"][()], [frame(n) for n in range(3)])
