"""``dfxrm check`` on Tango alone, and on EPICS, Tango and memory at once; a server that is gone, and one that hangs."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import dfxrm_control
from devices.tango import TangoAxis
from dfxrm_control.checking import check
from dfxrm_control.config import load_config
from dfxrm_control.errors import LimitError

sys.path.insert(0, str(Path(__file__).parents[1] / "devices"))
from tango_server import Server

HOME = Path(dfxrm_control.__file__).parent.parent
AXES = ("mu", "omega", "chi", "phi", "samx", "samy", "samz")
DEVICES = {**{f"c/axis/{name}": "Motor" for name in AXES}, "c/fast/shutter": "Shutter", "c/ring/one": "Ring"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(DEVICES, tmp_path_factory.mktemp("tango") / "log")
    yield running
    running.close()


IN_MEMORY = ("objective", "far_field", "near_field", "arm", "monochromator")


def configured(server, folder, alone=False, **axes):
    """Write a microscope whose goniometer, shutter and ring current are on Tango, the rest in memory or left out."""
    base = {"control": "tango", "units": "deg", "limits": [-10.0, 10.0], "velocity": 1000.0}
    gonio = {name: {**base, "address": server.address(f"c/axis/{name}"), **axes.get(name, {})} for name in AXES}
    content = {
        "extends": "simulated",
        "name": "tango-check",
        "instrument": {"cameras": {name: {"rows": 32, "columns": 32} for name in ("far_field", "near_field")}},
        "devices": {
            "goniometer": {"axes": gonio},
            "beam": {
                "channels": {
                    "shutter": {"control": "tango", "address": server.address("c/fast/shutter")},
                    "ring_current": {"control": "tango", "address": server.address("c/ring/one", "Current")},
                }
            },
        },
    }
    for axis in gonio.values():
        axis.setdefault("start", 0.0)
    if alone:
        beam = content["devices"].pop("beam")["channels"]
        content |= {"backend": None, "plans": None, "dry_run": None, "bodies": None}
        content["devices"] |= dict.fromkeys((*IN_MEMORY, "beam"))
        content["devices"]["lamp"] = {"device": "tango_only:Lamp", "channels": beam}
    path = folder / "tango.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def signals(found):
    return {each.name: each for each in found.looked}


def test_all_is_well_on_tango_and_memory_together(server, tmp_path):
    found = check(load_config(configured(server, tmp_path)), 60.0)
    assert found.well, [each.problems for each in found.looked if each.problems]
    looked = signals(found)
    assert len(looked) == 35
    assert looked["chi"].hardware_limits == (-10.0, 10.0) and looked["chi"].address.startswith("tango://127.0.0.1")
    assert looked["shutter"].value == "closed" and looked["ring_current"].value == 200.0
    assert looked["obx"].control == "memory" and looked["obx"].value == pytest.approx(327.95, abs=0.01)


def test_limits_units_and_speeds_are_compared_on_tango(server, tmp_path):
    changes = {
        "chi": {"limits": [-20.0, 20.0]},
        "phi": {"limits": [-1.0, 1.0]},
        "samx": {"units": "mm"},
        "samy": {"limits": [11.0, 12.0], "start": 11.5},
        "mu": {"velocity": 5.0},
    }
    looked = signals(check(load_config(configured(server, tmp_path, **changes)), 60.0))
    assert looked["chi"].problems == ("the hardware allows only -10 .. 10 of the -20 .. 20 that scans count on",)
    assert looked["phi"].problems == () and looked["phi"].notes == ("the hardware allows more, -10 .. 10",)
    assert looked["samx"].problems == ("the hardware counts in deg, the configuration in mm",)
    assert any("nothing in common, so it is not moved" in each for each in looked["samy"].problems)
    assert looked["mu"].notes == ("its speed is 1000 deg/s, the configuration counts on 5 deg/s",)
    assert not looked["mu"].problems


def test_a_motor_in_fault_and_a_current_that_is_no_number_are_said(server, tmp_path):
    path = configured(server, tmp_path)
    motor, ring = server.proxy("c/axis/chi"), server.proxy("c/ring/one")
    motor.Fault = "fault following error on encoder 3"
    motor.Position = 0.2
    deadline = time.monotonic() + 10
    while str(motor.state()) != "FAULT":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ring.Current = -1.0  # the device gives NaN then
    try:
        looked = signals(check(load_config(path), 60.0))
    finally:
        motor.Fault = ""
        ring.Current = 200.0
    assert looked["chi"].problems == ("it is in state FAULT; it says: following error on encoder 3",)
    (problem,) = looked["ring_current"].problems
    assert "reads NaN" in problem and "c/ring/one" in problem
    assert looked["ring_current"].value is None and looked["ring_current"].connected
    assert not any(isinstance(each.value, float) and math.isnan(each.value) for each in looked.values())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gone", "hanging"])
def test_a_tango_server_that_is_gone_or_hangs_is_over_with_the_time_out(server, tmp_path, how):
    path = configured(server, tmp_path, alone=True)
    if how == "gone":
        server.kill()
    else:
        server.freeze()
    begin_s = time.monotonic()
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from dfxrm_control.cli import main; main()",
                "check",
                path,
                "--json",
                "--timeout",
                "6",
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HOME), str(Path(__file__).parent)))},
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
    finally:
        if how == "gone":
            server.start()
        else:
            server.thaw()
    told = json.loads(done.stdout)
    assert done.returncode == 1 and done.stderr == ""
    # a busy machine adds to it
    assert told["duration_s"] < 6.0 + 5.0 and time.monotonic() - begin_s < 60.0
    away = {each["name"] for each in told["signals"] if not each["connected"]}
    assert away == {*AXES, "shutter", "ring_current"}
    assert all(each["problems"] for each in told["signals"] if each["name"] in away)


def test_an_axis_without_limits_in_device_or_configuration_is_said_not_to_be_moved_and_is_not(server, tmp_path):
    # an attribute that gives no limits
    address = server.address("c/ring/one", "Current")
    path = configured(server, tmp_path, chi={"limits": None, "address": address})
    looked = signals(check(load_config(path), 60.0))
    assert (
        "has no limits, neither in the configuration nor in the hardware, so it is not moved" in looked["chi"].problems
    )
    axis = TangoAxis(name="chi", config=load_config(path).axis("chi"))
    with pytest.raises(LimitError, match="has no limits, so it is not moved"):
        axis.set(1.0)
    assert server.proxy("c/ring/one").Current == 200.0
