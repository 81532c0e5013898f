"""SIGKILL of a session at seeded moments of every phase: each frame that was acknowledged before is recovered."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import pytest
from killed_session import checksum

import dfxrm_control
from dfxrm_control.config import find_config, override
from dfxrm_control.errors import FileFormatError
from dfxrm_control.records import is_closed, read_journal, recover

pytestmark = pytest.mark.slow

KILLS_IN_A_FILE = 7
RECOVERIES = 6
AT_ANY_TIME = 6
# writing a frame, from the frame to its event, the journal, the documents on their way to it, the master
PHASES = ("frames.py", "detector.py", "_events.py", "journal.py", "recorder.py", "master.py")


class Sessions:
    """Starts sessions that are killed."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killed_session.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(dfxrm_control.__file__).parents[1])},
        )

    def do(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def sessions():
    made = Sessions()
    yield made
    made.close()


def microscope(small, folder):
    """Return a configuration whose frames are the same in each session, as a mapping."""
    places = [f"data.directory={folder / 'data'}", f"data.journal_directory={folder / 'journal'}"]
    shape = ["instrument.cameras.far_field.rows=16", "instrument.cameras.far_field.columns=16"]
    twin = ["backend.options.clock=frames", "backend.options.seed=5"]
    return override(small, [*places, *shape, *twin]).model_dump(mode="json", exclude_unset=True)


def events(told):
    """Return the events that a subscriber was told of."""
    lines = [line.split() for line in told if line.startswith(("primary", "darks"))]
    return {(words[0], int(words[1])) for words in lines}


def known(told):
    """Return the checksum of each frame of a session that was not killed."""
    lines = [line.split() for line in told if line.startswith(("primary", "darks")) and len(line.split()) == 3]
    return {(stream, int(number)): digest for stream, number, digest in lines}


def counts(told):
    (line,) = [line for line in told if line.startswith("counts ")]
    return json.loads(line.removeprefix("counts "))


def frames_of(master):
    found = set()
    with h5py.File(master) as file:
        for entry in ("1.1", "1.3", "2.1"):
            name = f"{entry}/instrument/far_field/data"
            if name in file:
                found |= {checksum(image) for image in file[name][()]}
    return found


def check_nothing_is_lost(folder, told, expected, sessions, recovery_kill=None):
    """Whether what was told of before the kill is in the journal, and all that is there in the recovered master."""
    journals = list((folder / "journal").glob("*.jsonl"))
    acknowledged = events(told)
    if not journals or not journals[0].stat().st_size:
        assert not acknowledged
        return 0
    try:
        run = read_journal(journals[0])
    except FileFormatError:
        # not even the start document is whole
        assert not acknowledged
        return 0
    kept = {(stream.name, number) for stream in run.streams.values() for number in stream.frames.get("far_field", {})}
    assert acknowledged <= kept
    out = folder / "recovered.h5"
    if recovery_kill is not None:
        ended = sessions.do(recover=str(journals[0]), out=str(out), kill=recovery_kill)
        assert ended["code"] == -9, ended
    if not out.exists():
        recover(journals[0], out)
    found = frames_of(out)
    assert {expected[key] for key in kept} <= found
    return len(kept)


@pytest.fixture(scope="module")
def rehearsed(sessions, tmp_path_factory):
    """Return what a session that is not killed does: how many lines of each file it executes, and its frames."""
    folder = tmp_path_factory.mktemp("rehearsal")
    small = override(find_config("simulated"), ["scan.darks=2", "data.minimum_free_gb=0.001"])
    config = microscope(small, folder)
    ended = sessions.do(config=config, kill=None)
    assert ended["code"] == 0, ended
    frames = known(ended["told"])
    assert len(frames) == 14 and len(set(frames.values())) == 14
    (journal,) = (folder / "journal").glob("*.jsonl")
    recovered = sessions.do(recover=str(journal), out=str(folder / "again.h5"), kill=None)
    assert recovered["code"] == 0
    return small, counts(ended["told"]), frames, counts(recovered["told"])


@pytest.mark.parametrize("phase", PHASES)
def test_a_session_that_is_killed_in_any_line_loses_no_frame(sessions, rehearsed, tmp_path, phase):
    small, lines, expected, _ = rehearsed
    seeded = random.Random(PHASES.index(phase))
    kept = []
    # one kill in each part of the time, so that all of it is covered
    for part in range(KILLS_IN_A_FILE):
        share = (part + seeded.random()) / KILLS_IN_A_FILE
        folder = tmp_path / str(part)
        ended = sessions.do(config=microscope(small, folder), kill=[phase, max(1, int(share * lines[phase]))])
        assert ended["code"] == -9, ended
        kept.append(check_nothing_is_lost(folder, ended["told"], expected, sessions))
    # some were killed early and some late
    assert kept == sorted(kept) and kept[-1] > 0


def test_a_recovery_that_is_killed_can_be_done_again(sessions, rehearsed, tmp_path):
    small, lines, expected, _ = rehearsed
    seeded = random.Random(99)
    folder = tmp_path / "rehearsal"
    # in the middle of the frames
    moment = ["detector.py", int(0.7 * lines["detector.py"])]
    assert sessions.do(config=microscope(small, folder), kill=moment)["code"] == -9
    (journal,) = (folder / "journal").glob("*.jsonl")
    # a file was left open, so that there is something to salvage
    assert not all(is_closed(path) for path in folder.rglob("far_field_*.h5"))
    done = sessions.do(recover=str(journal), out=str(folder / "first.h5"), kill=None)
    executed = counts(done["told"])
    for part in range(RECOVERIES):
        name = ("recover.py", "master.py")[part % 2]
        folder = tmp_path / str(part)
        ended = sessions.do(config=microscope(small, folder), kill=moment)
        assert ended["code"] == -9
        at = [name, max(1, int((part + seeded.random()) / RECOVERIES * executed[name]))]
        assert check_nothing_is_lost(folder, ended["told"], expected, sessions, recovery_kill=at) > 5


def test_a_session_that_is_killed_at_any_time_loses_no_frame(sessions, rehearsed, tmp_path):
    small, _, expected, _ = rehearsed
    seeded = random.Random(7)
    for part in range(AT_ANY_TIME):
        folder = tmp_path / str(part)
        ended = sessions.do(config=microscope(small, folder), kill=["time", 0.1 + 0.5 * seeded.random()])
        # a quick machine may have been done before
        assert ended["code"] in (-9, 0), ended
        check_nothing_is_lost(folder, ended["told"], expected, sessions)
