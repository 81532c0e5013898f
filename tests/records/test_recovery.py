"""A session killed in mid-scan: every frame whose event was journalled is in the recovered master."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from standins import SHAPE, frame

from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.records import check_master, is_closed, read_documents, read_frame, read_journal, recover

LINES, LENGTH, DARKS = 6, 5, 2

SCRIPT = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import bluesky.preprocessors as bpp
from standins import Beamline
beamline = Beamline(Path(sys.argv[1]))
command, after = sys.argv[2], int(sys.argv[3])

def die(message):
    if message.command == command and beamline.camera.taken == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return None, None

beamline.RE(bpp.plan_mutator(beamline.mesh((0.0, 0.1, {LINES}), (0.0, 1.0, {LENGTH}), darks={DARKS}), die))
"""


def killed(folder, command, after):
    """Run a scan in a process that dies by SIGKILL before a message, and return the run's folder and its journal."""
    process = subprocess.run([sys.executable, "-c", SCRIPT, str(folder), command, str(after)], capture_output=True)
    assert process.returncode == -9, process.stderr.decode()
    return folder / "data" / "al" / "al_00007", next((folder / "journal").glob("*.jsonl"))


def fingerprints(folder):
    """Return the checksums of frames and journals: all that the killed process itself wrote."""
    paths = [*folder.rglob("scan0001/*"), *folder.rglob("*.jsonl")]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def images(master, *entries):
    with h5py.File(master) as file:
        names = [f"{entry}/instrument/far_field/data" for entry in entries]
        return [image for name in names if name in file for image in file[name][()]]


@pytest.mark.parametrize(
    ("command", "after", "whole_lines", "rest"),
    [
        ("save", DARKS + 13, 2, 3),  # in mid-line: 12 acknowledged, one exposed and not acknowledged
        ("complete", DARKS + 15, 2, 5),  # a line is full, its file still open
        ("prepare", DARKS + 15, 3, 0),  # between two lines
        ("create", DARKS + 1, 0, 1),  # the very first frame, not acknowledged
    ],
)
def test_every_acknowledged_frame_is_recovered(tmp_path, command, after, whole_lines, rest):
    folder, journal = killed(tmp_path, command, after)
    before = fingerprints(tmp_path)
    master = recover(folder)
    assert master == folder / "al_00007_recovered.h5"
    after_recovery = fingerprints(tmp_path)
    assert after_recovery == before and len(before) >= 3

    acknowledged = sum(1 for name, _ in read_documents(journal) if name == "event")
    run = read_journal(journal)
    taken = [ref.index for ref in run.primary.frames.get("far_field", {}).values()]
    assert acknowledged >= len(taken)
    # the file of a full line opens everywhere once recovered, so its line counts
    lines = whole_lines + (rest == LENGTH)
    with h5py.File(master) as file:
        np.testing.assert_array_equal(
            file["1.1/instrument/far_field/data"][()],
            np.reshape([frame(DARKS + n) for n in range(lines * LENGTH)], (-1, *SHAPE)),
        )
        assert file["1.1/title"][()].startswith(f"fscan2d chi 0 0.1 {lines} phi 0 1 5".encode())
        record = file["1.1/instrument/dfxm_control"]
        assert record["end_status"][()] == b"killed" and record["recovered"][()]
        assert record["planned_points"][()] == 30 and record["frames_missing"][()] == 0
        assert "end_time" not in file["1.1"]
    everything = [image.tobytes() for image in images(master, "1.1", "1.3", "2.1")]
    assert all(frame(index).tobytes() in everything for index in taken)
    assert sorted(everything) == sorted(frame(number).tobytes() for number in range(after))
    assert check_master(master) == after


def test_the_journal_or_the_folder_or_another_place_will_do(tmp_path):
    folder, journal = killed(tmp_path, "save", DARKS + 8)
    first = recover(folder)
    second = recover(journal, tmp_path / "safe" / "place.h5")
    assert (tmp_path / "safe" / "place_frames").is_dir() and second.name == "place.h5"
    for a, b in zip(images(first, "1.1", "1.3"), images(second, "1.1", "1.3"), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(RecordError, match=r"al_00007_recovered\.h5 exists already and is not overwritten"):
        recover(folder)


def test_a_folder_that_was_moved_is_recovered_where_it_is(tmp_path):
    folder, journal = killed(tmp_path, "save", DARKS + 8)
    (folder / "al_00007.jsonl").unlink()
    journal.rename(folder / "al_00007.jsonl")
    moved = folder.rename(tmp_path / "moved")
    (tmp_path / "data").rename(tmp_path / "gone")
    assert len(images(recover(moved), "1.1", "1.3", "2.1")) == DARKS + 8


def test_a_run_that_ended_well_can_be_rebuilt_too(beamline, tmp_path):
    beamline.RE(beamline.mesh((0.0, 0.1, 2), (0.0, 1.0, 3)))
    rebuilt = recover(beamline.recorder.folder, tmp_path / "rebuilt.h5")
    with h5py.File(rebuilt) as file:
        assert file["1.1/instrument/dfxm_control/end_status"][()] == b"success"
    assert len(images(rebuilt, "1.1")) == 6


def test_a_damaged_chunk_ends_the_frames_of_its_file(tmp_path, caplog):
    folder, _ = killed(tmp_path, "save", DARKS + 9)
    path = folder / "scan0001" / "far_field_0002.h5"
    assert not is_closed(path)
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r", swmr=True) as file:
        place = file["/entry/data/data"].id.get_chunk_info_by_coord((2, 0, 0)).byte_offset
    content[place : place + 400] = bytes(400)
    path.write_bytes(content)
    master = recover(folder)
    found = [image.tobytes() for image in images(master, "1.1", "1.3", "2.1")]
    assert sorted(found) == sorted(frame(number).tobytes() for number in range(DARKS + 7))
    with h5py.File(master) as file:
        assert file["1.1/instrument/dfxm_control/frames_missing"][()] == 1  # the ninth was not acknowledged


def test_killed_from_outside_at_any_moment(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), "never", "0"])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        journals = list((tmp_path / "journal").glob("*.jsonl"))
        if journals and sum(name == "event" for name, _ in read_documents(journals[0])) > 15:
            break
        time.sleep(0.005)
    process.kill()
    process.wait()
    run = read_journal(journals[0])
    refs = run.primary.frames["far_field"]
    assert len(refs) > 8
    master = recover(tmp_path / "data" / "al" / "al_00007")
    found = {image.tobytes() for image in images(master, "1.1", "1.3")}
    assert all(frame(ref.index).tobytes() in found for ref in refs.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no journal"),
        ({"a.jsonl": b"no\n"}, "is no journal"),
        ({"a.jsonl": b"", "b.jsonl": b""}, "2 journals"),
    ],
)
def test_a_folder_that_is_no_run_is_named(tmp_path, content, message):
    for name, text in (content or {}).items():
        (tmp_path / name).write_bytes(text)
    with pytest.raises(FileFormatError, match=message):
        recover(tmp_path)


def test_frames_of_the_open_file_can_be_read_before_recovery(tmp_path):
    folder, _ = killed(tmp_path, "save", DARKS + 3)
    np.testing.assert_array_equal(read_frame(folder / "scan0001" / "far_field_0001.h5", 2), frame(DARKS + 2))
    with pytest.raises(OSError):
        h5py.File(folder / "scan0001" / "far_field_0001.h5", "r")


def test_a_run_that_goes_on_is_left_alone(beamline):
    refused = []

    def look(message):
        if message.command == "complete" and not refused:
            with pytest.raises(RecordError, match="still goes on") as error:
                recover(beamline.recorder.folder)
            refused.append(error)
        return None, None

    beamline.RE(bpp.plan_mutator(beamline.mesh((0.0, 0.1, 2), (0.0, 1.0, 3)), look))
    assert refused and not list(beamline.recorder.folder.glob("*_recovered*"))
