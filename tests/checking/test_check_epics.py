"""``dfxrm check`` on a server of 50 signals, as a user runs it: all there, half of them missing, and what disagrees."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from many_devices import settings

import dfxrm_control

HERE = Path(__file__).parent
HOME = Path(dfxrm_control.__file__).parent.parent
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        return tcp.getsockname()[1]


class Place:
    """A microscope of 30 motors and 20 numbers, and the server that has all or half of them."""

    def __init__(self, folder, step):
        self.folder, self.port = folder, free_port()
        self.config = folder / "many.yml"
        self.content = settings()
        self.write()
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(HOME), str(HERE))),
            "EPICS_CA_ADDR_LIST": f"127.0.0.1:{self.port}",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
        }
        self.server = subprocess.Popen(
            [sys.executable, str(HERE / "many_ioc.py"), str(self.port), str(step)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        said, deadline = b"", time.monotonic() + 60
        while b"ready" not in said:
            assert select.select([self.server.stdout], [], [], max(0.0, deadline - time.monotonic()))[0], said
            assert (more := os.read(self.server.stdout.fileno(), 4096)), "the server ended"
            said += more

    def write(self):
        self.config.write_text(yaml.safe_dump(self.content))

    def check(self, *arguments, code):
        done = subprocess.run(
            [sys.executable, "-c", "from dfxrm_control.cli import main; main()", "check", self.config, *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    def close(self):
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()


def found(text):
    told = json.loads(text)
    return told, {each["name"]: each for each in told["signals"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("whole"), 1)
    yield place
    place.close()


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("half"), 2)
    yield place
    place.close()


def test_what_disagrees_is_said_of_each_signal(whole):
    told, signals = found(whole.check("--json", "--timeout", "60", code=1))
    assert len(signals) == 50 and all(each["connected"] for each in signals.values())
    assert not told["well"]
    wrong = {name: each["problems"] for name, each in signals.items() if each["problems"]}
    assert wrong == {
        "a0": ["the hardware allows only -3 .. 3 of the -5 .. 5 that scans count on"],
        "a2": ["the hardware counts in mm, the configuration in deg"],
    }
    notes = {name: each["notes"] for name, each in signals.items() if each["notes"]}
    assert notes == {"a4": ["its speed is 2 deg/s, the configuration counts on 10 deg/s"]}
    assert signals["a5"]["hardware_limits"] == [-5.0, 5.0] and signals["a6"]["hardware_limits"] is None
    assert signals["n7"]["value"] == 7.0 and signals["n7"]["address"] == "ca://T:c7"


def test_all_is_well_where_configuration_and_hardware_agree(whole):
    kept = yaml.safe_dump(whole.content)
    axes = whole.content["devices"]["many"]["axes"]
    axes["a0"]["limits"] = [-3.0, 3.0]
    axes["a2"]["units"] = "mm"
    axes["a4"]["velocity"] = 2.0
    whole.write()
    try:
        text = whole.check("--timeout", "60", code=0)
    finally:
        whole.content = yaml.safe_load(kept)
        whole.write()
    assert "many: 50 signals in" in text and "all is well" in text
    assert text.count(" yes ") == 50


def test_an_axis_with_limits_nowhere_or_none_in_common_is_said_not_to_be_moved(whole):
    kept = yaml.safe_dump(whole.content)
    axes = whole.content["devices"]["many"]["axes"]
    axes["a6"]["limits"] = None
    axes["a10"]["limits"] = [6.0, 7.0]
    whole.write()
    try:
        _, signals = found(whole.check("--json", "--timeout", "60", code=1))
    finally:
        whole.content = yaml.safe_load(kept)
        whole.write()
    (nowhere,) = signals["a6"]["problems"]
    assert nowhere == "has no limits, neither in the configuration nor in the hardware, so it is not moved"
    assert any("nothing in common, so it is not moved" in problem for problem in signals["a10"]["problems"])


def test_half_of_them_missing_takes_no_longer_than_the_time_out(half):
    told, signals = found(half.check("--json", "--timeout", "20", code=1))
    assert 19.0 < told["duration_s"] < 21.0
    missing = [name for name, each in signals.items() if not each["connected"]]
    assert missing == [name for name in signals if int(name[1:]) % 2]
    assert all(signals[name]["problems"] for name in missing)
    assert signals["a12"]["value"] == 0.0 and signals["n12"]["value"] == 12.0
