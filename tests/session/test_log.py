"""The log says who did what and how it ended, in files that rotate, and stops nothing."""

import logging
import re
import subprocess
import sys

import pytest

from dfxrm_control.config import override
from dfxrm_control.errors import RunError
from dfxrm_control.logbook import Logbook, log_file, roll
from dfxrm_control.session import Session

pytestmark = pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")

ROCK = {"rock_num": 3, "rock_range": 0.2}
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Z]+ +\S+ \d+  \S?")
WRITE = """
import sys
from dfxrm_control.config import find_config, override
from dfxrm_control.logbook import Logbook
with Logbook(override(find_config("simulated"), sys.argv[2:])) as logbook:
    for number in range(400):
        logbook.say(f"{sys.argv[1]} {number} " + "x" * 50)
"""


def lines_of(config):
    return log_file(config).read_text().splitlines()


def test_every_command_and_message_and_how_it_ended_is_there_in_order(small):
    with Session(small, maps=False, quiet=True) as session:
        session.run("rocking_scan", {**ROCK, "rock_center": 0.05})
        with pytest.raises(RunError):
            session.execute(broken(session))
    text = "\n".join(lines_of(small))
    wanted = [
        r"simulated: a session begins: ",
        r"  open_run plan_name='rocking_scan'",
        r"simulated: scan 1 begins: rocking_scan \{.*'rock_num': 3.*\} of annealed_aluminium, uid ",
        r"  set shutter 'open' group='shutter'",
        r"  set phi -0\.05\d* group=",
        r"  trigger far_field ",
        r"  set phi 0\.15\d* group=",
        r"  set shutter 'closed'",
        r"simulated: the scan has ended with success; points \{.*'primary': 3",
        r"simulated: scan 2 begins: ",
        r"simulated: the scan has ended with fail: it broke; points ",
        r"simulated: the session ends",
    ]
    at = 0
    for pattern in wanted:
        found = re.compile(pattern).search(text, at)
        assert found, pattern
        at = found.end()
    assert all(LINE.match(line) for line in text.splitlines())


def broken(session):
    import bluesky.plan_stubs as bps
    import bluesky.preprocessors as bpp

    @bpp.run_decorator()
    def plan():
        yield from bps.null()
        raise RuntimeError("it broke")

    return plan()


def test_files_rotate_and_no_line_of_any_process_is_lost(small):
    small = override(small, ["data.log_megabytes=0.05", "data.log_files=3"])
    folders = [
        f"data.journal_directory={small.data.journal_directory}",
        "data.log_megabytes=0.02",
        "data.log_files=20",
    ]
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, name, *folders]) for name in ("one", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    files = sorted(log_file(small).parent.glob("dfxrm.log*"))
    assert len(files) > 3 and all(file.stat().st_size <= 21_000 for file in files)
    lines = [line for file in files for line in file.read_text().splitlines()]
    for name in ("one", "two"):
        numbers = [int(line.split(f": {name} ")[1].split()[0]) for line in lines if f": {name} " in line]
        assert sorted(numbers) == list(range(400))
    with Logbook(small) as logbook:
        for number in range(4000):
            logbook.say(f"later {number} " + "y" * 50)
    kept = {file.name for file in log_file(small).parent.glob("dfxrm.log*") if not file.name.endswith(".lock")}
    assert {"dfxrm.log", "dfxrm.log.1", "dfxrm.log.2", "dfxrm.log.3"} <= kept
    assert "later 3999 " in lines_of(small)[-1]


def test_a_log_that_cannot_be_written_is_said_once_and_the_scan_goes_on(small, capfd):
    folder = log_file(small).parent
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    with Session(small, maps=False, quiet=True) as session:
        assert session.run("rocking_scan", ROCK).status == "success"
    said = capfd.readouterr().err
    assert said.count("cannot be written: ") == 1 and f"dfxrm: the log {folder / 'dfxrm.log'}" in said


def test_a_disk_that_is_full_is_said_once_and_the_scan_goes_on(small, capfd):
    log_file(small).parent.mkdir(parents=True)
    log_file(small).symlink_to("/dev/full")
    with Session(small, maps=False, quiet=True) as session:
        assert session.run("rocking_scan", ROCK).status == "success"
    assert capfd.readouterr().err.count("No space left on device; all else goes on") == 1


def test_a_session_that_has_ended_writes_no_more(small):
    with Session(small, maps=False, quiet=True):
        pass
    before = lines_of(small)
    logging.getLogger("dfxrm_control").warning("nobody's")
    assert lines_of(small) == before and "the session ends" in before[-1]


def test_the_output_of_a_process_begins_anew_when_it_has_become_long(small, tmp_path):
    data = override(small, ["data.log_megabytes=0.001", "data.log_files=2"]).data
    file = tmp_path / "queue.log"
    roll(file, data)
    for number in range(5):
        file.write_text(f"{number}" * 1200)
        roll(file, data)
        assert not file.exists()
    assert (tmp_path / "queue.log.1").read_text()[0] == "4" and (tmp_path / "queue.log.2").read_text()[0] == "3"
    assert not (tmp_path / "queue.log.3").exists()
    file.write_text("short")
    roll(file, data)
    assert file.read_text() == "short"
