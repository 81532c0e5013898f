"""The EPICS server as its clients find it: the order of a record, ophyd's own devices, the twin behind it."""

import contextlib
import select
import signal
import subprocess
import sys
import threading
import time

import epics
import numpy as np
import pytest
import yaml
from ca_ports import PORTS, free_port
from ophyd import Device, EpicsMotor
from ophyd.areadetector.cam import SimDetectorCam
from ophyd.areadetector.plugins import HDF5Plugin_V34, ROIPlugin_V34

from devices import Beam, FarField, Goniometer
from dfxrm_control.backend import FrameRequest
from dfxrm_control.config import find_config, load_config
from dfxrm_control.errors import ConfigError, DeviceError
from dfxrm_control.records import read_frame
from simulators import RemoteTwin, Twin
from simulators.epics import build

PREFIXES = {"records": "SERVED:", "cameras": "VIEW:"}

SIZE = {"rows": 24, "columns": 32}
OPTIONS = {"sample": "annealed_aluminium", "clock": "frames", "seed": 3, "resolution": 1e-5}


# -- the order of a motor record ------------------------------------------------------------------------------------


class Watched:
    """What a record's monitors say, in the order in which it comes."""

    FIELDS = ("VAL", "DVAL", "RBV", "MOVN", "DMOV", "LVIO")

    def __init__(self, record):
        self.record = record
        self.said = []
        self.done = threading.Event()
        self.fields = {name: epics.PV(f"{record}.{name}", auto_monitor=True) for name in self.FIELDS}
        for name, field in self.fields.items():
            field.add_callback(self.note, name=name)
            assert field.wait_for_connection(timeout=10.0)
        time.sleep(0.1)

    def note(self, value=None, name=None, pvname=None, **_):
        field = pvname.rpartition(".")[2]
        self.said.append((field, value))
        if (field, value) == ("DMOV", 1):
            self.done.set()

    def put(self, value, **more):
        """Put and return what was said until the record was done."""
        self.said.clear()
        self.done.clear()
        acknowledged = self.fields["VAL"].put(value, wait=True, timeout=10.0, **more)
        assert acknowledged == 1, "the put failed"
        assert self.done.wait(5.0)
        return list(self.said)


@pytest.fixture
def watched(records):
    made = Watched("SERVED:m1")
    yield made
    for field in made.fields.values():
        field.disconnect()


def words(said):
    """Return the fields in the order in which they spoke, several readbacks as one."""
    order = [f"{name} {value:g}" if name in ("DMOV", "MOVN", "LVIO") else name for name, value in said]
    return [word for word, before in zip(order, [None, *order], strict=False) if not word == before == "RBV"]


def test_a_move_is_told_in_the_order_of_a_real_record(watched):
    watched.put(0.0)
    said = watched.put(2.0)
    assert words(said) == ["DMOV 0", "VAL", "DVAL", "MOVN 1", "RBV", "MOVN 0", "DMOV 1"]
    readbacks = [value for name, value in said if name == "RBV"]
    assert len(readbacks) > 2 and readbacks == sorted(readbacks) and readbacks[-1] == 2.0
    # the same position again
    assert words(watched.put(2.0)) == ["DMOV 0", "VAL", "DVAL", "DMOV 1"]
    watched.put(0.0)


def test_beyond_a_limit_the_put_does_not_fail_and_nothing_moves(watched):
    watched.put(1.0)
    assert words(watched.put(11.0)) == ["DMOV 0", "VAL", "LVIO 1", "DMOV 1"]
    assert watched.fields["VAL"].get(use_monitor=False) == 1.0
    assert "LVIO 0" in words(watched.put(0.0))


def test_a_stop_makes_the_target_what_was_reached_and_a_pause_keeps_it(watched):
    watched.put(0.0)
    told = {name: epics.PV(f"SERVED:m1.{name}") for name in ("STOP", "SPMG", "VELO")}
    assert all(field.wait_for_connection(timeout=10.0) for field in told.values())
    moved = threading.Event()
    watched.fields["RBV"].add_callback(lambda value, **_: value > 0.1 and moved.set())
    for field, word, target_stays in (("STOP", 1, False), ("SPMG", "Pause", True)):
        told["VELO"].put(1.0, wait=True)
        moved.clear()
        watched.done.clear()
        watched.fields["VAL"].put(9.0)
        assert moved.wait(5.0)
        told[field].put(word, wait=True)
        assert watched.done.wait(5.0)
        reached = watched.fields["RBV"].get(use_monitor=False)
        assert 0.1 < reached < 9.0
        assert watched.fields["VAL"].get(use_monitor=False) == (9.0 if target_stays else reached)
        told["VELO"].put(10.0, wait=True)
        if not target_stays:
            watched.put(0.0)
    watched.done.clear()
    told["SPMG"].put("Go", wait=True)
    assert watched.done.wait(5.0)
    assert watched.fields["RBV"].get(use_monitor=False) == 9.0
    watched.put(0.0)


def test_backlash_is_taken_out_in_the_end(watched):
    watched.put(0.0)
    epics.caput("SERVED:m1.BDST", 0.2, wait=True, timeout=5.0)
    try:
        readbacks = [value for name, value in watched.put(-1.0) if name == "RBV"]
    finally:
        epics.caput("SERVED:m1.BDST", 0.0, wait=True, timeout=5.0)
    assert min(readbacks) == pytest.approx(-1.2) and readbacks[-1] == -1.0
    watched.put(0.0)


# -- devices of ophyd's own -----------------------------------------------------------------------------------------


def test_ophyds_own_motor_finds_its_record(records):
    motor = EpicsMotor("SERVED:m5", name="samy")
    motor.wait_for_connection(timeout=10.0)
    assert motor.limits == (-10.0, 10.0) and motor.egu == "deg" and motor.precision == 5
    motor.set(0.5).wait(5.0)
    assert motor.position == 0.5 and not motor.moving
    motor.set(0.0).wait(5.0)
    motor.destroy()


@pytest.mark.slow
def test_ophyds_own_area_detector_finds_all_that_it_looks_for(cameras, monkeypatch):
    # all at once: one after the other takes ten seconds
    monkeypatch.setattr(Device, "lazy_wait_for_connection", False)
    parts = [
        SimDetectorCam("VIEW:cam1:", name="cam"),
        ROIPlugin_V34("VIEW:ROI1:", name="roi"),
        HDF5Plugin_V34("VIEW:HDF1:", name="hdf"),
    ]
    for part in parts:
        part.wait_for_connection(all_signals=True, timeout=30.0)
    cam, roi, hdf = parts
    assert hdf.plugin_type.get() == "NDFileHDF5" and hdf.nd_array_port.get() == cam.port_name.get() == "CAM1"
    assert roi.plugin_type.get() == "NDPluginROI" and tuple(hdf.array_size.get())[1:] == (8, 6)
    cam.image_mode.set("Single").wait(5.0)
    cam.acquire_time.set(0.01).wait(5.0)
    taken = cam.array_counter.get()
    assert epics.caput("VIEW:cam1:Acquire", 1, wait=True, timeout=5.0) == 1
    assert cam.array_counter.get(use_monitor=False) == taken + 1
    assert cam.detector_state.get(as_string=True, use_monitor=False) == "Idle"
    for part in parts:
        part.destroy()


# -- with the twin behind it ----------------------------------------------------------------------------------------


class Process:
    """A server in a process of its own, which is ready."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert select.select([self.process.stdout], [], [], 60.0)[0], command
        assert self.process.stdout.readline().startswith("ready"), command

    def end(self, number=signal.SIGTERM):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(10.0)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class Microscope:
    """The simulated microscope on EPICS, with a small camera."""

    def __init__(self, folder):
        self.path = folder / "served.yml"
        settings = {
            "extends": "epics",
            "name": "served",
            "instrument": {"cameras": {"far_field": SIZE, "near_field": SIZE}},
            "devices": {"beam": {"channels": {"attenuator": {"timeout_s": 1.0}}}},
            "serve": {"twin": {"options": OPTIONS}},
        }
        self.path.write_text(yaml.safe_dump(settings))
        self.config = load_config(self.path)
        self.state_port = str(free_port())
        self.twin = RemoteTwin(self.config, address=f"127.0.0.1:{self.state_port}")
        self.start_twin()
        self.server = Process(
            "simulators.epics", str(self.path), "--twin", self.twin.address, "--port", str(PORTS["twin"])
        )

    def start_twin(self):
        self.state_server = Process("simulators.state_server", str(self.path), "--port", self.state_port)

    def device(self, cls, name):
        part = cls(name, self.config.devices[name], self.config)
        part.wait_for_connection(timeout=20.0)
        return part


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = Microscope(tmp_path_factory.mktemp("served"))
    try:
        yield made
    finally:
        made.twin.close()
        made.server.end()
        made.state_server.end()


@pytest.fixture(scope="module")
def goniometer(served):
    yield served.device(Goniometer, "goniometer")


@pytest.fixture(scope="module")
def beam(served):
    yield served.device(Beam, "beam")


def test_an_axis_that_has_arrived_is_where_the_twin_rounds_its_target_to(served, goniometer):
    goniometer.chi.set(0.1234567).wait(10.0)
    assert goniometer.chi.readback() == served.twin.position("chi") == round(0.1234567 / 1e-5) * 1e-5
    assert goniometer.chi.setpoint == 0.1234567
    assert goniometer.chi.limits == (-5.0, 5.0) and goniometer.chi.hardware_units == "deg"
    assert goniometer.chi.hardware_velocity == 1.0
    goniometer.chi.set(0.0).wait(10.0)


def test_channels_are_the_twins(served, beam):
    for word in ("open", "closed"):
        beam.shutter.set(word).wait(5.0)
        assert served.twin.get("shutter") == beam.shutter.get() == word
    beam.attenuator.set(0.5).wait(5.0)
    assert served.twin.get("attenuator") == 0.5
    with pytest.raises(DeviceError, match="did not become"):
        beam.attenuator.set(2.0).wait(10.0)
    beam.attenuator.set(1.0).wait(5.0)
    assert beam.ring_current.hardware_units == "mA"
    assert epics.get_pv("DFXRM:ring_current", connect=True, timeout=5.0).write_access is False
    told, changed = [], threading.Event()

    def note(value, **_):
        told.append(value)
        if value == 150.0:
            changed.set()

    beam.ring_current.subscribe(note)
    served.twin.happen("ring_current", 150.0)
    assert beam.ring_current.get() == 150.0 and changed.wait(3.0) and told[0] == 200.0
    served.twin.happen("ring_current", 200.0)


def test_a_frame_is_the_twins_bit_for_bit_and_each_trigger_one_exposure(served, goniometer, beam, tmp_path):
    camera = served.device(FarField, "far_field")
    camera.destination = lambda name: tmp_path
    camera.exposure.put(0.05)
    beam.shutter.set("open").wait(5.0)
    first = served.twin.frames_taken
    camera.stage()
    try:
        for chi in (0.0, 0.02):
            goniometer.chi.set(chi).wait(10.0)
            camera.trigger().wait(20.0)
    finally:
        camera.unstage()
    assert served.twin.frames_taken == first + 2
    local = Twin(served.config, **OPTIONS)
    local.put("shutter", "open")
    for index, chi in enumerate((0.0, 0.02)):
        local.start_move("chi", chi, 0.0, 0.0)
        expected = local.expose(FrameRequest("far_field", 0.05, first + index)).data
        assert np.array_equal(read_frame(tmp_path / "far_field_0000.h5", index), expected)
    assert beam.monitor.get() == served.twin.get("monitor") > 0
    camera.destroy()


def test_a_twin_that_is_gone_is_no_stale_value_and_is_found_again(served, goniometer, beam):
    goniometer.phi.set(0.5).wait(10.0)
    served.state_server.end(signal.SIGKILL)
    try:
        for part in (goniometer.phi, beam.ring_current):
            begin = time.monotonic()
            with pytest.raises(DeviceError, match=r"ca://DFXRM:\w+\) has no valid value: .* in alarm INVALID \(COMM\)"):
                part.read()
            assert time.monotonic() - begin < 2.5
        with pytest.raises(DeviceError, match=r"axis phi \(ca://DFXRM:phi\)"):
            goniometer.phi.set(1.0).wait(10.0)
    finally:
        served.start_twin()
    # a twin that was started anew stands where it begins
    assert goniometer.phi.read()["phi"]["value"] == 0.0
    goniometer.phi.set(0.25).wait(10.0)
    assert served.twin.position("phi") == 0.25 and beam.ring_current.get() == 200.0


# -- the program ----------------------------------------------------------------------------------------------------


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "simulators.epics", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_sentence(served):
    taken = str(PORTS["twin"])
    done = run(str(served.path), "--twin", served.twin.address, "--port", taken)
    assert done.returncode == 1
    assert done.stderr == f"Error: the EPICS server cannot listen on 127.0.0.1:{taken}: Address already in use\n"


@pytest.mark.slow
def test_a_twin_that_is_not_there_is_one_sentence(served):
    nobody = f"127.0.0.1:{free_port()}"
    done = run(str(served.path), "--twin", nobody, "--port", str(free_port()))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"Error: the twin's state server at {nobody} does not answer")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to(served, number):
    server = Process("simulators.epics", str(served.path), "--twin", served.twin.address, "--port", str(free_port()))
    assert server.end(number) == 0


def test_it_ends_in_the_middle_of_a_move(watched, records):
    watched.put(0.0)
    moved = threading.Event()
    watched.fields["RBV"].add_callback(lambda value, **_: value > 0.05 and moved.set())
    assert epics.caput("SERVED:m1.VELO", 0.1, wait=True, timeout=5.0) == 1
    watched.fields["VAL"].put(9.0)
    assert moved.wait(5.0)
    try:
        records.signal(signal.SIGTERM)
        assert records.process.wait(4.0) == 0
    finally:
        records.kill()
        records.start()


def test_a_configuration_without_epics_is_refused():
    with pytest.raises(ConfigError, match="configuration 'simulated' has nothing that EPICS speaks for"):
        build(find_config("simulated"), None)
