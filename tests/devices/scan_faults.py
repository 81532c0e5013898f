"""A small mosaicity scan on real servers, into whose middle something is thrown."""

import threading
import time
import warnings
from dataclasses import dataclass

import h5py
import hdf5plugin  # noqa: F401  some of the frames are compressed
import numpy as np
import pytest
from bluesky.utils import Msg
from fake_backend import configuration

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import DeviceError, RunError
from dfxrm_control.records import read_frame, read_journal
from dfxrm_control.session import NotBelow, Session

ROCK, ROLL = 3, 3
MIDDLE = 5
SCAN = {
    "rock_range": 0.2,
    "rock_num": ROCK,
    "roll_range": 0.2,
    "roll_num": ROLL,
    "exposure_s": 0.005,
    "darks_before": 2,
    "snake": False,
}
LIMIT_S = 25.0
"""Longest time from the fault to the end of the plan: the time-outs of the devices, asked once more in the clean-up."""


def microscope(folder, **changes):
    """Return the configuration of `fake_backend` as a session takes it, with its data in a folder."""
    content = configuration(**changes).model_dump(mode="json", exclude_unset=True)
    content["backend"] = {"backend": "fake_backend:backend_for"}
    content["plans"] = {"mosaicity_scan": "plans:mosaicity_scan"}
    content["data"] = {
        "directory": str(folder / "data"),
        "journal_directory": str(folder / "journal"),
        "minimum_free_gb": 0.001,
    }
    return MicroscopeConfig.model_validate(content)


@dataclass
class Ended:
    """How a scan ended: what the user was told, how long after the fault, and what the record says."""

    sentence: str
    after_s: float
    run: object
    master: object


def scan(session, inject=None, at=MIDDLE):
    """Run the scan; right after event number ``at`` call ``inject``. Returns how it ended."""
    happened = []
    primary = set()

    def throw(name, doc):
        if name == "descriptor" and doc["name"] == "primary":
            primary.add(doc["uid"])
        if inject is not None and name == "event" and doc["descriptor"] in primary and doc["seq_num"] == at:
            happened.append(time.monotonic())
            thread = threading.Thread(target=inject)
            thread.start()
            thread.join()

    token = session.RE.subscribe(throw)
    sentence = ""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(step|window) of.*")
            session.run("mosaicity_scan", SCAN)
    except RunError as error:
        sentence = str(error)
    finally:
        session.RE.unsubscribe(token)
    after_s = time.monotonic() - happened[0] if happened else 0.0
    assert inject is None or happened, f"the scan did not get as far as its middle: {sentence}"
    return Ended(sentence, after_s, read_journal(session.recorder.journal), session.recorder.master)


def check_record(ended, events, tolerance=1e-4):
    """Whether the record has that many good points, each with its frame and where the axes really were, and no more."""
    run = ended.run
    assert len(run.primary) == events, (len(run.primary), ended.sentence)
    positions = [(chi, phi) for chi in np.linspace(-0.1, 0.1, ROLL) for phi in np.linspace(-0.1, 0.1, ROCK)]
    for (chi, phi), number in zip(positions, sorted(run.primary.events), strict=False):
        data = run.primary.events[number]["data"]
        assert data["chi"] == pytest.approx(chi, abs=tolerance)
        assert data["phi"] == pytest.approx(phi, abs=tolerance)
    frames = run.primary.frames["far_field"]
    assert sorted(frames) == list(range(1, events + 1))
    seen = [
        read_frame(frame.file.path, frame.index_in_file, frame.file.dataset)[0, 0]
        for _, frame in sorted(frames.items())
    ]
    # every frame carries a number of its own, so that none stands twice
    assert len(set(map(int, seen))) == events
    assert ended.master.exists()
    with h5py.File(ended.master) as master:
        assert "1.1" in master


def check_failed(ended, *words, events=MIDDLE, within_s=LIMIT_S):
    """Whether a scan ended in time, said what it should, and left its record complete and with the reason."""
    for word in words:
        assert word in ended.sentence, ended.sentence
    assert "what was taken until then is in" in ended.sentence
    assert ended.after_s < within_s
    assert ended.run.end_status == "fail"
    reason = ended.run.stop["reason"]
    assert reason and reason in ended.sentence, (reason, ended.sentence)
    check_record(ended, events)


def wait_until_known(part):
    """Wait until a part can be read."""
    deadline = time.monotonic() + 30
    while True:
        try:
            part.read()
            return
        except DeviceError:
            # what has just been found again may be lost once more before it stays
            assert time.monotonic() < deadline
            time.sleep(0.1)


def check_runs(session):
    """Whether the same session, once its devices answer and the axes are where they were, scans to the end again."""
    for device in session.devices.values():
        device.wait_for_connection(timeout=30.0)
    for part in (session.axes["chi"], session.axes["phi"], session.channels["shutter"]):
        wait_until_known(part)
    session.move([(session.axes["chi"], 0.0), (session.axes["phi"], 0.0)])
    ended = scan(session)
    assert ended.sentence == ""
    assert ended.run.end_status == "success"
    check_record(ended, ROCK * ROLL)


def opened(config):
    session = Session(config, maps=False, quiet=True)
    assert session.faults == []
    return session


def waits_while_unknown(session, lose, find_again):
    """Whether a plan waits while the ring current is not known, and goes on to its end when it is known again."""
    wait_until_known(session.channels["ring_current"])
    suspender = NotBelow(session.channels["ring_current"], 100.0)
    session.RE.install_suspender(suspender)
    points, at_heal = [], []
    lost = threading.Event()

    def plan():
        for number in range(3):
            yield Msg("checkpoint")
            if number == 1:
                lose()
                lost.set()
                # here it waits, as soon as the loss is noticed
                for _ in range(100):
                    yield Msg("sleep", None, 0.1)
                    if suspender.tripped or at_heal:
                        break
                for _ in range(10):
                    yield Msg("sleep", None, 0.1)
            points.append(number)

    def heal():
        deadline = time.monotonic() + 30
        lost.wait(30)
        while not suspender.tripped and time.monotonic() < deadline:
            time.sleep(0.05)
        # longer than the plan would need if it went on
        time.sleep(2.5)
        at_heal.extend([suspender.tripped, list(points)])
        find_again()

    helper = threading.Thread(target=heal)
    helper.start()
    try:
        session.RE(plan())
    finally:
        lost.set()
        helper.join()
        session.RE.remove_suspender(suspender)
    assert at_heal == [True, [0]], "it did not wait"
    assert points == [0, 1, 2]
