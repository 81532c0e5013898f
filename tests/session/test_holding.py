"""One process at a time holds a microscope; who it is, what runs and what ran is told to all others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dfxrm_control
from dfxrm_control.errors import HeldError, RunError
from dfxrm_control.session import Session, holder_of, status_of

pytestmark = pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")

ROCK = {"rock_num": 3, "rock_range": 0.1}
# opens a session and scans slowly, until it is killed
HOLDS = """
import sys
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.session import Session
with Session(MicroscopeConfig.model_validate_json(sys.stdin.read()), maps=False, quiet=True) as session:
    print("open", flush=True)
    session.run("rocking_scan", {"rock_num": 301, "rock_range": 0.1, "exposure_s": 0.05, "darks_before": 0})
"""


@pytest.fixture
def other(small):
    """Start a process that holds the microscope; returns it when it does."""
    started = []

    def start():
        backend = small.backend.model_copy(update={"options": {**small.backend.options, "clock": "real"}})
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", HOLDS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(dfxrm_control.__file__).parents[1])},
            text=True,
        )
        started.append(process)
        process.stdin.write(small.model_copy(update={"backend": backend}).model_dump_json(exclude_unset=True))
        process.stdin.close()
        assert process.stdout.readline() == "open\n", process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_process_is_told_who_holds_the_microscope_until_that_one_is_gone(small, other):
    process = other()
    with pytest.raises(
        HeldError, match=rf"^microscope simulated is held by \S+ on \S+ \(process {process.pid}, `.*`\)"
    ):
        Session(small, maps=False, quiet=True)
    assert holder_of(small).process == process.pid
    until(lambda: status_of(small).runs)
    (running,) = status_of(small).runs
    assert (running.status, running.plan, running.planned) == ("running", "rocking_scan", 301)
    assert f"process {process.pid}" in status_of(small).lines()[0] and "running:" in status_of(small).lines()
    # some points are in the journal before it is killed
    until(lambda: status_of(small).runs[0].points > 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder_of(small) is None
    (cut,) = status_of(small).runs
    assert cut.status == "cut short" and cut.points > 3 and f"`dfxrm recover {cut.journal}`" in cut.reason
    # and the microscope can be had again
    with Session(small, maps=False, quiet=True) as session:
        assert session.run("rocking_scan", ROCK).scan_id == 2
        assert holder_of(small).process == os.getpid()


def test_sessions_of_one_process_share_it_and_each_gives_back_its_own(small, other):
    first = Session(small, maps=False, quiet=True)
    second = Session(small, maps=False, quiet=True)
    first.close()
    first.close()
    assert holder_of(small).process == os.getpid()
    second.close()
    assert holder_of(small) is None
    assert other().poll() is None


def test_a_session_that_does_not_open_holds_nothing(small):
    broken = small.model_copy(update={"session": small.session.model_copy(update={"clock": "devices.clock:None_"})})
    with pytest.raises(Exception, match="None_"):
        Session(broken, maps=False, quiet=True)
    assert holder_of(small) is None


def test_microscopes_of_other_names_do_not_get_in_each_others_way(small, other):
    other()
    with Session(small.model_copy(update={"name": "spare"}), maps=False, quiet=True) as session:
        assert session.run("rocking_scan", ROCK).status == "success"


def test_what_ran_and_what_failed_and_why_is_told(small):
    with Session(small, maps=False, quiet=True) as session:
        session.run("rocking_scan", ROCK)
        phi = session.axes["phi"]

        def stalls(name, doc):
            if name == "event" and doc["seq_num"] == 2 and "phi" in doc["data"]:
                vars(phi)["readback"] = lambda: 3.0

        token = session.RE.subscribe(stalls)
        with pytest.raises(RunError):
            session.run("rocking_scan", ROCK)
        del vars(phi)["readback"]
        session.RE.unsubscribe(token)
        told = status_of(small)
        assert told.holder.process == os.getpid()
    failed, well = told.runs
    assert (well.scan_id, well.status, well.points, well.planned, well.reason) == (1, "success", 3, 3, "")
    assert failed.scan_id == 2 and failed.status == "fail" and failed.reason.startswith("axis phi ")
    assert failed.sample == small.sample.name and failed.ended_s >= failed.began_s > 0
    lines = status_of(small).lines()
    assert lines[:3] == ["simulated: held by nobody", "nothing runs", "before:"]
    assert failed.reason in lines[3] and lines[4].split()[:2] == ["1", "success"]
    assert json.loads(json.dumps(told.as_dict()))["runs"][0]["scan_id"] == 2
    assert len(status_of(small, last=1).runs) == 1


def test_nothing_has_run_where_there_is_no_journal(small):
    assert status_of(small).lines() == ["simulated: held by nobody", "nothing runs"]
    assert not Path(small.data.journal_directory).exists()
