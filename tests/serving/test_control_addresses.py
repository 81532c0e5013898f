"""What ``controls`` of a configuration does to a process, in fresh interpreters: libca reads its addresses once."""

import os
import subprocess
import sys

import pytest
from programs import environment

HEAD = """
import os, sys
from dfxrm_control.config import find_config, override
from dfxrm_control.errors import ConfigError
from dfxrm_control.session import find_control_systems

def config(name, *addresses):
    settings = [f"controls.epics.addresses=[{', '.join(addresses)}]", "controls.epics.repeater=false"]
    return override(find_config(name), settings)
"""


def run(code, folder, **variables):
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        env={**environment(), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_addresses_are_set_before_the_first_channel_and_kept_after_it(tmp_path):
    said = run(
        """
find_control_systems(config("epics", "127.0.0.1:21001", "127.0.0.1:21002"))
print(os.environ["EPICS_CA_ADDR_LIST"], os.environ["EPICS_CA_AUTO_ADDR_LIST"])
import ophyd
signal = ophyd.EpicsSignal("NOBODY", name="nobody")
find_control_systems(config("epics", "127.0.0.1:21002"))
print(os.environ["EPICS_CA_ADDR_LIST"])
try:
    find_control_systems(config("epics", "127.0.0.1:21003"))
except ConfigError as error:
    print(error)
# what speaks no EPICS does not care
find_control_systems(config("simulated", "127.0.0.1:21003"))
""",
        tmp_path,
        EPICS_CA_ADDR_LIST="10.0.0.1",
        EPICS_CA_AUTO_ADDR_LIST="YES",
    )
    assert said[0] == "127.0.0.1:21001 127.0.0.1:21002 NO"
    assert said[1] == "127.0.0.1:21001 127.0.0.1:21002"
    assert said[2] == (
        "configuration 'epics' needs the EPICS addresses 127.0.0.1:21003, but EPICS has been started in this process "
        "with 127.0.0.1:21001 127.0.0.1:21002 and keeps to that: start a new session"
    )


def test_nothing_is_set_where_nothing_is_said(tmp_path):
    said = run(
        """
before = dict(os.environ)
find_control_systems(find_config("epics"))
find_control_systems(find_config("tango"))
find_control_systems(config("simulated", "127.0.0.1:21001"))
print(dict(os.environ) == before)
find_control_systems(override(find_config("tango"), ["controls.tango.database=somewhere:10000"]))
print(os.environ["TANGO_HOST"])
""",
        tmp_path,
    )
    assert said == ["True", "somewhere:10000"]


@pytest.mark.parametrize("own", [True, False])
def test_no_repeater_is_started_that_would_outlive_the_session(tmp_path, own):
    """The EPICS library runs the first ``caRepeater`` on the path, unless it finds the port of the repeater taken."""
    trap = tmp_path / "caRepeater"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    trap.chmod(0o755)
    said = run(
        f"""
import time
from pathlib import Path
chosen = override(config("epics", "127.0.0.1:21001"), ["controls.epics.repeater={"true" if own else "false"}"])
find_control_systems(chosen)
import ophyd
signal = ophyd.EpicsSignal("NOBODY", name="nobody")
deadline = time.monotonic() + ({10 if own else 2})
while not Path("started").exists() and time.monotonic() < deadline:
    time.sleep(0.05)
print(Path("started").exists())
""",
        tmp_path,
        PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        **({"EPICS_CA_REPEATER_PORT": "21999"} if own else {}),
    )
    assert said == [str(own)]
