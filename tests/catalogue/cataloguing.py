"""What the tests of the catalogue do again and again."""

import contextlib
import io
import subprocess
import time
import warnings
from typing import NamedTuple

from dfxrm_control.catalogue import left_out
from dfxrm_control.cli import main
from dfxrm_control.records import read_documents

KEY = "0123456789abcdef"
ROCK = {"rock_num": 5, "rock_range": 0.2, "exposure_s": 0.1, "darks_before": 2}


class Told(NamedTuple):
    """What a command said."""

    returncode: int
    stdout: str
    stderr: str


def wait_until_all_is_in(place, timeout_s=90):
    end = time.monotonic() + timeout_s
    while left_out(place)[0]:
        assert time.monotonic() < end, (place.folder / "feed.log").read_text()
        time.sleep(0.5)


def feeders_of(place):
    """Return the command lines of the processes that fill the catalogue of a folder."""
    found = subprocess.run(["ps", "-ww", "-eo", "args"], text=True, capture_output=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return [row for row in rows if "dfxrm_control.catalogue" in row and str(place.journals) in row]


def readings_of(folder):
    """Return the readings of the points of a run, from its journal."""
    documents = list(read_documents(next(folder.glob("*.jsonl"))))
    primary = next(doc["uid"] for name, doc in documents if name == "descriptor" and doc["name"] == "primary")
    return [doc["data"] for name, doc in documents if name == "event" and doc["descriptor"] == primary]


def dfxrm(config, *arguments):
    """Run ``dfxrm runs`` on the folders of a configuration; return exit code, output and errors."""
    folders = ["--set", f"data.journal_directory={config.data.journal_directory}", "--data", config.data.directory]
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        try:
            main(["runs", *map(str, [*folders, *arguments])])
        except SystemExit as end:
            return Told(int(end.code or 0), out.getvalue(), errors.getvalue())
    raise AssertionError
