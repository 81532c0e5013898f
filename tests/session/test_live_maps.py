"""Followers of several runs, a few at a time, and what becomes of one that fails."""

import os

import pytest

from dfxrm_control.session import _live_maps
from dfxrm_control.session._live_maps import LiveMaps, reduce_series


@pytest.fixture
def opened(tmp_path):
    return []


# takes a file, ends with 0 where it is sound, and says what is wrong with it where it is not
STAND_IN = """
import json, os, sys
journal, parent, number = sys.argv[1:]
assert parent == "--parent" and int(number) == os.getppid()
try:
    json.loads(open(journal).read())
except ValueError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def maps(monkeypatch, opened, tmp_path):
    (tmp_path / "stand_in_for_maps.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(_live_maps, "FOLLOWER", "stand_in_for_maps")
    return LiveMaps(lambda: opened[-1])


def start(followers, opened, tmp_path, content, **dfxrm):
    journal = tmp_path / f"{len(opened)}.jsonl"
    journal.write_text(content)
    opened.append(journal)
    followers("start", {"dfxrm": {"scan_axes": [{"name": "phi"}], **dfxrm}})
    followers("stop", {})


def test_all_runs_are_waited_for_and_each_tells_its_own_fault(maps, opened, tmp_path):
    for content in ("[]", "{", "[]", "[]", "{"):
        start(maps, opened, tmp_path, content)
    faults = maps.wait(60.0)
    assert sorted(path.name for path in faults) == ["1.jsonl", "4.jsonl"]
    assert all(fault.startswith("the maps failed: ") and "line 1" in fault for fault in faults.values())
    assert maps.wait(60.0) == faults
    maps.forget()
    assert maps.wait(60.0) == {}
    assert all((tmp_path / f"{number}.maps.log").exists() for number in range(5))


def test_no_more_than_a_few_run_at_a_time(maps, opened, tmp_path, monkeypatch):
    running, most = [], []

    class Process:
        def __init__(self, *arguments, **settings):
            self.returncode = None
            running.append(self)
            most.append(len(running))

        def poll(self):
            return self.returncode

        def wait(self, timeout):
            running.remove(self)
            self.returncode = 0
            return 0

    monkeypatch.setattr(_live_maps.subprocess, "Popen", Process)
    for _ in range(6):
        start(maps, opened, tmp_path, "")
    assert maps.wait(1.0) == {} and len(most) == 6 and max(most) == _live_maps.MOST_AT_ONCE


def test_runs_that_want_no_maps_get_none(maps, opened, tmp_path):
    start(maps, opened, tmp_path, "{", maps=False)
    start(maps, opened, tmp_path, "{", scan_axes=[])
    assert maps.wait(60.0) == {} and list(tmp_path.glob("*.log")) == []


def test_what_a_reduction_says_is_told_apart_from_its_files(monkeypatch, tmp_path):
    product = tmp_path / "volume.h5"
    product.write_text("")
    module = tmp_path / "pretend.py"
    monkeypatch.setattr(_live_maps, "SERIES", "pretend")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module.write_text(
        f"print({str(product)!r}); print('note: layer 2 of 3 is missing'); print('a warning of a library')"
    )
    assert reduce_series(tmp_path, tmp_path / "log", 60.0) == ([product], "layer 2 of 3 is missing")
    module.write_text("import sys; sys.exit('the layers are of different samples')")
    assert reduce_series(tmp_path, tmp_path / "log", 60.0) == (
        [],
        "the series was not reduced: the layers are of different samples",
    )
