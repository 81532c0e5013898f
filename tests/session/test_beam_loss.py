"""The beam is lost and comes back: the scan waits, the point that suffered is taken again, the record tells which."""

import subprocess
import sys
import threading
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  the frames are compressed
import numpy as np
import pytest
from pydantic import ValidationError

import plans._beam as waiting
from devices.conditions import Conditions
from dfxrm_control.config import ProtectionConfig, override
from dfxrm_control.errors import ConfigError, DeviceError, RunError
from dfxrm_control.records import read_journal, recover
from dfxrm_control.reduction import maps_from_file
from dfxrm_control.session import Session

pytestmark = pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")

ROCK, ROLL = 5, 3
POINTS = ROCK * ROLL
SCAN = {"rock_num": ROCK, "rock_range": 0.2, "roll_num": ROLL, "roll_range": 0.4, "exposure_s": 0.2, "darks_after": 2}
BEAM = "protection.conditions={beam: {channel: ring_current, at_least: 150.0}}"
RECORDS = Path(__file__).parents[1] / "records"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_S", 0.02)


def opened(config, *settings):
    return Session(override(config, [BEAM, *settings]), maps=False, quiet=True)


def current(session, value):
    session.backend.happen("ring_current", value)


def lose(session, after, back_after_s=0.2):
    """Lose the beam after so many points, and find it again some time after a frame has suffered."""
    streams, times = {}, []

    def watch(name, doc):
        if name == "descriptor":
            streams[doc["uid"]] = doc["name"]
        if name == "event" and streams[doc["descriptor"]] == "primary" and doc["seq_num"] == after:
            current(session, 0.0)
        if name == "event" and streams[doc["descriptor"]] == "beam_lost":
            times.append(session.backend.now())
            assert len(times) < 3
            threading.Timer(back_after_s, current, (session, 200.0)).start()

    session.RE.subscribe(watch)
    return times


def scan_of(master):
    with h5py.File(master) as file:
        frames = file["1.1/instrument/far_field/data"][...]
        quality = {name: file[f"1.3/quality/{name}"][...] for name in ("reason", "point")} if "1.3" in file else {}
        rejected = file["1.3/instrument/far_field/data"][...] if "1.3" in file else None
        return file["1.1/title"].asstr()[()], frames, quality, rejected


@pytest.fixture
def undisturbed(small, tmp_path):
    places = [f"data.directory={tmp_path / 'calm'}", f"data.journal_directory={tmp_path / 'calm-journal'}"]
    with opened(small, *places) as session:
        return session.run("mosaicity_scan", SCAN)


@pytest.mark.parametrize("after", [1, 7, POINTS - 1])
def test_the_point_that_suffered_is_taken_again_and_both_are_told_apart(small, undisturbed, after):
    with opened(small, "protection.settle_s=30") as session:
        lost = lose(session, after)
        outcome = session.run("mosaicity_scan", SCAN)
        assert session.channels["shutter"].get() == "closed"
    title, frames, quality, rejected = scan_of(outcome.master)
    calm_title, calm, none, _ = scan_of(undisturbed.master)
    assert none == {} and title == calm_title
    assert frames.shape == calm.shape == (POINTS, 48, 64)
    # every point has light, as much as without the loss; the frame that had none is kept beside the scan
    total, expected = frames.sum(axis=(1, 2), dtype=float), calm.sum(axis=(1, 2), dtype=float)
    assert total == pytest.approx(expected, rel=0.02)
    assert [text.decode() for text in quality["reason"]] == ["beam lost"]
    assert quality["point"].tolist() == [after]
    assert rejected.shape == (1, 48, 64) and rejected.mean() <= calm[after].mean()
    run = read_journal(next(outcome.folder.glob("*.jsonl")))
    assert run.end_status == "success" and len(run.primary) == POINTS
    assert set(run.primary.column("ring_current")) == {200.0}
    (suffered,) = run.streams["beam_lost"].events.values()
    assert suffered["data"]["conditions"] == "ring_current is 0 mA, and should be at least 150 mA"
    assert suffered["data"]["ring_current"] == 0.0
    # it settled on the microscope's clock before the next frame
    phi = run.primary.column("phi")
    assert len(lost) == 1 and len(phi) == POINTS


def test_a_value_that_is_not_known_is_a_loss_too(small):
    with opened(small) as session:
        channel = session.channels["ring_current"]

        def silent():
            raise DeviceError("channel ring_current does not answer")

        def watch(name, doc):
            if name == "event" and doc["seq_num"] == 7 and "phi" in doc["data"] and "_ask" not in vars(channel):
                vars(channel)["_ask"] = silent
                threading.Timer(0.4, lambda: delattr(channel, "_ask")).start()

        session.RE.subscribe(watch)
        outcome = session.run("mosaicity_scan", SCAN)
    _, frames, quality, _ = scan_of(outcome.master)
    assert len(frames) == POINTS
    # nothing could be read beside it
    assert quality["reason"].tolist() == [b"orphan"] and quality["point"].tolist() == [7]


def test_the_shutter_is_closed_while_it_waits(small):
    seen = []
    with opened(small) as session:
        lose(session, 4)

        def look(name, doc):
            if name == "event" and "conditions" in doc["data"]:
                threading.Timer(0.1, lambda: seen.append(session.channels["shutter"].get())).start()

        session.RE.subscribe(look)
        session.run("mosaicity_scan", SCAN)
    assert seen == ["closed"]


@pytest.mark.slow
def test_darling_and_darfix_and_our_maps_open_it_and_recovery_gives_the_same(small, tmp_path):
    pytest.importorskip("darfix")
    with opened(small) as session:
        lose(session, 7)
        outcome = session.run("mosaicity_scan", SCAN)
    jobs = ["MosaScan", outcome.master, "1.1"]
    (tmp_path / "darfix").mkdir()
    for script, arguments in (
        ("check_darling.py", [tmp_path / "darling.npz", *jobs]),
        ("check_darfix.py", [outcome.master, "far_field", "2.1", tmp_path / "darfix"]),
    ):
        done = subprocess.run(
            [sys.executable, str(RECORDS / script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    _, frames, _, _ = scan_of(outcome.master)
    with np.load(tmp_path / "darling.npz") as darling:
        assert sorted(darling["data_0"].shape) == sorted((48, 64, ROCK, ROLL))
        assert darling["data_0"].sum(dtype=float) == frames.sum(dtype=float)
    assert maps_from_file(outcome.master).photons.shape == (48, 64)
    before = scan_of(outcome.master)
    after = scan_of(recover(outcome.folder))
    assert before[0] == after[0] and np.array_equal(before[1], after[1]) and np.array_equal(before[3], after[3])


def test_a_run_that_is_begun_without_beam_waits_for_it(small):
    with opened(small) as session:
        current(session, 0.0)
        threading.Timer(0.3, current, (session, 200.0)).start()
        outcome = session.run("rocking_scan", {"rock_num": 3, "rock_range": 0.1})
        assert session.backend.now() > 10.0
    run = read_journal(next(outcome.folder.glob("*.jsonl")))
    assert run.end_status == "success" and "beam_lost" not in run.streams


def test_or_is_refused_before_anything_moves(small):
    with opened(small, "protection.at_start=refuse") as session:
        current(session, 0.0)
        with pytest.raises(
            RunError, match="the run was not begun: ring_current is 0 mA, and should be at least 150 mA"
        ):
            session.run("rocking_scan", {"rock_num": 3, "rock_range": 0.1})
        assert session.axes["phi"].position == 0.0
        current(session, 200.0)
        assert session.run("rocking_scan", {"rock_num": 3, "rock_range": 0.1}).status == "success"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            ["protection.conditions={beam: {channel: ring_current, at_least: 150.0, then: end}}"],
            "ring_current is 0 mA, and should be at least 150 mA",
        ),
        (["protection.patience_s=0.1"], "it was waited for 0.1 s"),
    ],
)
def test_what_ends_the_run_leaves_it_safe_and_its_record_complete(small, settings, sentence):
    with opened(small, *settings) as session:
        lose(session, 7, back_after_s=5.0)
        with pytest.raises(RunError, match=sentence):
            session.run("mosaicity_scan", SCAN)
        assert session.channels["shutter"].get() == "closed"
        journal, master = session.recorder.journal, session.recorder.master
    run = read_journal(journal)
    assert run.end_status == "fail" and sentence in run.stop["reason"] and len(run.primary) == 7
    _, frames, quality, _ = scan_of(master)
    # complete lines only are in the scan
    assert len(frames) == 5 and sorted(quality["point"].tolist()) == [5, 6, 7]
    current(session, 200.0)


def test_an_alignment_does_not_go_by_frames_without_beam(small):
    with opened(small) as session:
        lose(session, 3)
        outcome = session.run("center_axis", {"axis": "phi"})
    assert outcome.findings[0].sure
    run = read_journal(next(outcome.folder.glob("*.jsonl")))
    assert len(run.streams["beam_lost"].events) == 1


class Channel:
    def __init__(self, value, units=""):
        self.units = units
        self.value = value
        self.listeners = []

    def get(self):
        if self.value is None:
            raise DeviceError("channel ring_current (ca://R) does not answer")
        return self.value

    def subscribe(self, callback, run):
        assert not run
        self.listeners.append(callback)

    def become(self, value):
        self.value = value
        for listener in self.listeners:
            listener(value=value)


def look(conditions):
    conditions.trigger()
    return conditions.read()["conditions"]["value"], conditions.read()["conditions_ends"]["value"]


def test_a_loss_that_is_over_before_the_next_look_is_not_missed():
    channels = {"ring_current": Channel(200.0, "mA"), "interlock": Channel("closed")}
    asked = {
        "beam": {"channel": "ring_current", "at_least": 150.0, "at_most": 300.0},
        "hutch": {"channel": "interlock", "word": "closed", "then": "end"},
        "water": {"channel": "cooling", "at_least": 1.0},
    }
    conditions = Conditions(ProtectionConfig.model_validate({"conditions": asked}), channels)
    assert look(conditions) == ("cooling is not available", 0)
    conditions = Conditions(
        ProtectionConfig.model_validate({"conditions": {key: asked[key] for key in ("beam", "hutch")}}), channels
    )
    assert look(conditions) == ("", 0)
    channels["ring_current"].become(20.0)
    channels["ring_current"].become(200.0)
    assert look(conditions) == ("ring_current is 20 mA, and should be at least 150 mA", 0)
    assert look(conditions) == ("", 0)
    channels["interlock"].become("open")
    assert look(conditions) == ("interlock is open, and should be closed", 1)
    channels["ring_current"].become(float("nan"))
    assert look(conditions)[0] == "ring_current is not known; interlock is open, and should be closed"
    channels["ring_current"].become(400.0)
    assert "should be at most 300 mA" in look(conditions)[0]
    channels["ring_current"].value = None
    assert "does not answer" in look(conditions)[0]


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ("{beam: {channel: current, at_least: 1}}", "no device has the channel 'current'"),
        ("{beam: {channel: ring_current}}", "needs either a word, or at_least and/or at_most"),
        ("{beam: {channel: ring_current, at_least: 2, at_most: 1}}", "at least 2 and at most 1"),
        ("{beam: {channel: ring_current, word: 'on'}}", "reads numbers, never 'on'"),
        ("{door: {channel: shutter, word: ajar}}", "never 'ajar'"),
        ("{door: {channel: shutter, at_least: 1}}", "no number"),
    ],
)
def test_conditions_that_cannot_be_are_refused_with_the_configuration(small, conditions, sentence):
    with pytest.raises((ConfigError, ValidationError), match=sentence):
        override(small, [f"protection.conditions={conditions}"])
