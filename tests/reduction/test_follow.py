import hashlib
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from recording import SHAPE, Recording, camera, mesh, peaks

from dfxrm_control.records import Journal, is_closed
from dfxrm_control.reduction import Moments, maps_from_file
from dfxrm_control.reduction import follow as following
from dfxrm_control.reduction.follow import Follower, main

NUM = (6, 9)


def recording(folder, seed=5, **given):
    rng = np.random.default_rng(seed)
    points = mesh(np.linspace(-0.2, 0.2, NUM[0]), np.linspace(-0.04, 0.04, NUM[1]), snake=True)
    centers = np.stack([0.03 * rng.standard_normal(SHAPE), 0.005 * rng.standard_normal(SHAPE)])
    monitor = 1e5 * rng.uniform(0.9, 1.1, len(points))
    frames = camera(peaks(points, centers, np.array([0.06, 0.0105]), 900.0) * (monitor / 1e5)[:, None, None], rng)
    darks = (camera(np.zeros((40, *SHAPE)), rng), camera(np.full((30, *SHAPE), 2.0), rng))
    return Recording(folder, frames, points, NUM, monitor=monitor, darks=darks, **given)


def arrays(maps):
    """Return every map there is, by name."""
    found = {name: getattr(maps, name) for name in ("integrated", "maximum", "argmax", "photons", "kam", "valid")}
    found |= {"covariance": maps.covariance, "odf": maps.distribution.intensity, "x": maps.x, "affine": maps.affine}
    for axis in maps.axes:
        found |= {f"{axis.name} {name}": getattr(axis, name) for name in ("com", "error", "fwhm", "spread", "slope")}
    return found


def checksums(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "maps" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_maps_grow_line_by_line_and_end_exactly_as_those_of_the_file(tmp_path):
    record = recording(tmp_path)
    journal = Journal(record.journal_path)
    follower = Follower(record.journal_path)
    seen = []
    for name, doc in record.documents():
        journal(name, doc)
        follower.read()
        for points in follower.lines():
            maps = follower.maps()
            seen.append((points, maps.frames, name))
            if len(seen) == 1:
                assert np.isfinite(maps.distribution.intensity).all()
                # an unfinished scan is judged by the window it will have
                assert maps["chi"].window == pytest.approx((-0.24, 0.24))
    assert [points for points, *_ in seen] == [9, 18, 27, 36, 45, 54]
    assert follower.ended
    live = arrays(follower.maps())
    from_file = arrays(maps_from_file(Recording(tmp_path / "again", **_same(record)).write()))
    assert set(live) == set(from_file)
    for name, array in live.items():
        np.testing.assert_array_equal(array, from_file[name], err_msg=name)


def _same(record):
    names = ("frames", "points", "num", "monitor", "darks", "positions", "flips", "stop_after")
    return {name: getattr(record, name) for name in names}


def test_one_started_late_catches_up_and_one_that_comes_back_too(tmp_path):
    record = recording(tmp_path)
    record.write()
    assert main([str(record.journal_path)]) == 0
    maps = tmp_path / "maps" / "al_00007_maps.h5"
    expected = maps_from_file(record.master_path)
    with h5py.File(maps) as file:
        np.testing.assert_array_equal(file["entry/chi/center_of_mass/data"][()], expected["chi"].com.astype(np.float32))
    assert {path.suffix for path in maps.parent.iterdir()} == {".h5", ".png"}
    assert any("mosaicity" in path.name for path in maps.parent.iterdir())


def test_a_file_that_is_still_written_is_followed(tmp_path):
    record = recording(tmp_path)
    journal = Journal(record.journal_path)
    follower = Follower(record.journal_path)
    documents = record.documents()
    points = 0
    for name, doc in documents:
        journal(name, doc)
        if name == "event" and doc["descriptor"] == "primary" and doc["seq_num"] == 2 * NUM[1] + 1:
            assert not is_closed(tmp_path / "scan0001" / "far_field_0003.h5")
            follower.read()
            points = max(follower.lines())
            break
    assert points == 2 * NUM[1]
    documents.close()


def test_a_point_taken_again_counts_once(tmp_path):
    """A pause between an event and the next checkpoint repeats the last point of a line under the same number."""
    record = recording(tmp_path)
    journal = Journal(record.journal_path)
    follower = Follower(record.journal_path)
    for name, doc in record.documents():
        journal(name, doc)
        follower.read()
        if name == "event" and (doc["descriptor"], doc["seq_num"]) == ("primary", NUM[1]):
            assert not list(follower.lines())
            # the first frame of the line stands for the one that was exposed again
            first = {"start": len(record.darks[0]), "stop": len(record.darks[0]) + 1}
            numbers = {"start": NUM[1], "stop": NUM[1] + 1}
            datum = {"uid": "again", "stream_resource": "file1", "descriptor": "primary"}
            journal("stream_datum", {**datum, "indices": first, "seq_nums": numbers})
            journal("event", {**doc, "uid": "again"})
    follower.read()
    assert list(follower.lines())[-1] == len(record.points)
    used = record.frames.copy()
    used[NUM[1] - 1] = used[0]
    moments = Moments(SHAPE, 2)
    moments.add(used, record.points, record.monitor)
    dark = np.concatenate(record.darks).mean(axis=0)
    expected = moments.result(dark).integrated[::-1]
    np.testing.assert_allclose(follower.maps().integrated, expected, rtol=1e-5)


def test_an_aborted_scan_ends_with_its_whole_lines(tmp_path):
    record = recording(tmp_path, stop_after=3 * NUM[1] + 4)
    record.write()
    follower = Follower(record.journal_path)
    follower.read()
    assert list(follower.lines()) == [9, 18, 27]
    live, from_file = follower.maps(), maps_from_file(record.master_path)
    np.testing.assert_array_equal(live["phi"].com, from_file["phi"].com)
    assert any("27 of 54 points" in note for note in live.notes)


def test_what_cannot_be_followed_is_said_in_one_sentence(tmp_path, capsys):
    nonsense = tmp_path / "x.jsonl"
    nonsense.write_text("hello\n")
    assert main([str(nonsense)]) == 1
    assert "no journal of a run" in capsys.readouterr().err
    record = recording(tmp_path / "a")
    record.write()
    next((tmp_path / "a" / "scan0001").glob("*_0003.h5")).unlink()
    assert main([str(record.journal_path)]) == 1
    message = capsys.readouterr().err
    assert "far_field_0003.h5" in message
    assert message.count("\n") == 1
    assert main([str(tmp_path / "never.jsonl"), "--patience", "0.2"]) == 1
    assert "does not go on" in capsys.readouterr().err


def test_it_ends_soon_when_its_program_was_killed_before_it_began_to_look(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(following, "ORPHAN_S", 0.2)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert main([str(tmp_path / "never.jsonl"), "--patience", "100", "--parent", str(gone.pid)]) == 1
    assert "does not go on" in capsys.readouterr().err


@pytest.fixture
def started():
    """Start processes that are gone when the test is over."""
    running = []

    def start(command):
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def _reaches(maps, frames):
    """Wait until the maps are those of so many frames."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        if maps.exists():
            with h5py.File(maps, locking=False) as file:
                if file["entry/process/frames"][()] == frames:
                    return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_killing_it_changes_nothing_in_the_record(tmp_path, started):
    record = recording(tmp_path / "followed")
    journal = Journal(record.journal_path)
    command = [sys.executable, "-m", "dfxrm_control.reduction.follow", str(record.journal_path)]
    process = started(command)
    picture = record.folder / "maps" / "al_00007_maps.h5"
    for name, doc in record.documents():
        journal(name, doc)
        if doc.get("descriptor") == "primary" and doc.get("seq_num") == 2 * NUM[1] + 2:
            assert _reaches(picture, 2 * NUM[1])
        if doc.get("descriptor") == "primary" and doc.get("seq_num") == 4 * NUM[1]:
            process.kill()
            process.wait()
    alone = recording(tmp_path / "alone")
    alone.write()
    left = {path.split("followed/")[1]: value for path, value in checksums(record.folder).items()}
    right = {path.split("alone/")[1]: value for path, value in checksums(alone.folder).items()}
    frames = {name for name in left if name.startswith("scan0001")}
    assert len(frames) == NUM[0] + 2
    assert {name: left[name] for name in frames} == {name: right[name] for name in frames}
    again = main([str(record.journal_path)])
    assert again == 0
    with h5py.File(picture) as file:
        assert file["entry/process/frames"][()] == NUM[0] * NUM[1]
