"""Scan numbers never repeat, and named positions come back."""

import sqlite3
import subprocess
import sys

import pytest

from dfxrm_control.errors import ParameterError, RecordError
from dfxrm_control.records import read_journal
from dfxrm_control.session import Session
from dfxrm_control.session._store import SessionStore

SHORT = {"rock_num": 3, "rock_range": 0.5}

TAKE = """
import sys
from pathlib import Path
from dfxrm_control.session._store import SessionStore
store = SessionStore(Path(sys.argv[1]))
print(*[store.next_scan_id() for _ in range(50)])
"""


@pytest.mark.slow
def test_numbers_taken_by_processes_at_once_are_all_different(tmp_path):
    file = tmp_path / "s.sqlite"
    running = [
        subprocess.Popen([sys.executable, "-c", TAKE, str(file)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    numbers = [int(word) for process in running for word in process.communicate(timeout=100)[0].split()]
    assert sorted(numbers) == list(range(1, 151))


def test_numbers_go_on_after_those_known_to_be_taken(tmp_path):
    store = SessionStore(tmp_path / "s.sqlite")
    assert store.next_scan_id() == 1
    assert store.next_scan_id(after=41) == 42
    assert store.next_scan_id(after=3) == 43
    assert SessionStore(tmp_path / "s.sqlite").next_scan_id() == 44


def test_positions_come_back_exactly_and_belong_to_one_microscope(tmp_path):
    store = SessionStore(tmp_path / "new" / "s.sqlite")
    store.save("here", "grain1", {"chi": 0.1 + 0.2, "samz": -1e-7}, "the bright one")
    store.save("there", "grain1", {"chi": 5.0})
    found = store.load("here", "grain1")
    assert found.axes == {"chi": 0.1 + 0.2, "samz": -1e-7}
    assert found.comment == "the bright one"
    store.save("here", "grain1", {"chi": 1.0})
    assert store.load("here", "grain1").axes == {"chi": 1.0}
    store.forget("here", "grain1")
    with pytest.raises(ParameterError, match="'grain1' on here; saved are: none"):
        store.load("here", "grain1")
    assert store.load("there", "grain1").axes == {"chi": 5.0}


def test_a_file_that_is_no_store_is_named(tmp_path):
    file = tmp_path / "s.sqlite"
    file.write_bytes(b"something else entirely" * 100)
    with pytest.raises(RecordError, match=r"s\.sqlite cannot be used") as caught:
        SessionStore(file)
    assert isinstance(caught.value.__cause__, sqlite3.Error)


def test_what_was_declared_of_an_arm_belongs_to_one_microscope_and_can_be_forgotten(tmp_path):
    file = tmp_path / "s.sqlite"
    SessionStore(file).declare_arm("simulated", 17.5, {"obz": 0.25, "obpitch": -0.125, "ffy": 0.0})
    store = SessionStore(file)
    kept = store.declared_arm("simulated")
    assert (kept.two_theta_deg, kept.offsets) == (17.5, {"obz": 0.25, "obpitch": -0.125, "ffy": 0.0})
    assert kept.line().startswith("the arm counts from an alignment of 20")
    assert kept.line().endswith(": at two_theta 17.5 deg off an ideal arm by obz +0.25 mm, obpitch -0.125 deg")
    assert store.declared_arm("mll") is None
    store.declare_arm("simulated", 18.0, {"obz": 0.5})
    assert store.declared_arm("simulated").offsets == {"obz": 0.5}
    store.forget_arm("mll")
    assert store.declared_arm("simulated").two_theta_deg == 18.0
    store.forget_arm("simulated")
    assert store.declared_arm("simulated") is None


@pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")
def test_every_run_records_whose_beamtime_it_is(small):
    with Session(small, maps=False, quiet=True) as session:
        without = session.run("rocking_scan", SHORT)
        # from another process, in the middle of the session
        others = SessionStore(session.store.path)
        others.begin_beamtime("simulated", " MA-6060 ", ["A. Curie", " ", "B. Laue"])
        others.begin_beamtime("spare", "XX-1")
        run = session.run("rocking_scan", SHORT)
        others.end_beamtime("simulated")
        after = session.run("rocking_scan", SHORT)
    starts = [read_journal(next(each.folder.glob("*.jsonl"))).start for each in (without, run, after)]
    assert [start.get("proposal") for start in starts] == [None, "MA-6060", None]
    assert starts[1]["people"] == ["A. Curie", "B. Laue"]
    assert others.beamtime("spare").proposal == "XX-1" and others.beamtime("simulated") is None
    with pytest.raises(ParameterError, match="needs the number or name of its proposal"):
        others.begin_beamtime("simulated", " ")
