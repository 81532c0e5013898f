"""``python -m simulators.tango``: a configuration served before a state server, with and without a Tango database."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_backend import FakeBackend, Microscope, configuration
from tango_server import Database, Server, free_port

from devices.tango import TangoAxis
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import DeviceError
from simulators.state_server import StateServer
from simulators.tango import parts_of

WAIT_S = 20.0
PLACES = {"shutter": "dfxrm/shutter/main", "ring_current": "dfxrm/machine/status/SR_Current"}


def on_tango(address, **changes):
    """A configuration with a beam, a goniometer and a camera on Tango."""
    content = configuration().model_dump(mode="json", exclude_unset=True)
    content["devices"] = {name: content["devices"][name] for name in ("goniometer", "far_field", "beam")}
    for name, parts in content["devices"].items():
        for axis, of in parts.get("axes", {}).items():
            of.update(control="tango", address=address(f"dfxrm/axis/{axis}"), velocity=20.0, **changes)
        for channel, of in parts.get("channels", {}).items():
            of.update(control="tango", address=address(PLACES.get(channel, f"dfxrm/channel/{channel}/Value")))
        if "camera" in parts:
            parts["camera"] = {"control": "tango", "address": address(f"dfxrm/camera/{name}"), "timeout_s": 2.0}
    return content


@pytest.fixture(scope="module")
def backend():
    starts = {
        name: axis.start or 0.0 for device in configuration().devices.values() for name, axis in device.axes.items()
    }
    return FakeBackend(starts, instant=False)


@pytest.fixture(scope="module")
def twin(backend):
    with StateServer(backend) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.address
        server.shutdown()
        thread.join()


@pytest.fixture
def serve(twin, tmp_path):
    running = []

    def start(*options, database=None):
        path = tmp_path / "on_tango.yml"
        path.write_text(json.dumps(on_tango(lambda text: text)))
        parts = parts_of(MicroscopeConfig.model_validate_json(path.read_text()))
        command = [sys.executable, "-m", "simulators.tango", str(path), "--twin", twin, "--port", "{port}", *options]
        served = {part.device: part.kind for part in parts}
        running.append(Server(served, tmp_path / "server.log", command, database=database))
        return running[-1]

    yield start
    for server in running:
        server.close()


def seen(server):
    def address(text):
        device, slash, attribute = text.partition("/SR_Current") if "SR_Current" in text else text.partition("/Value")
        return server.address(device, (slash + attribute).removeprefix("/"))

    return Microscope(MicroscopeConfig.model_validate(on_tango(address)), None)


def listening(pid):
    """Addresses that a process listens at, as Linux writes them."""
    sockets = {
        str(link.readlink())[8:-1] for link in Path(f"/proc/{pid}/fd").iterdir() if "socket" in str(link.readlink())
    }
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}


@pytest.mark.slow
def test_a_configuration_is_served_as_it_says(serve, backend):
    server = serve()
    microscope = seen(server)
    for device in microscope.devices.values():
        device.wait_for_connection(timeout=WAIT_S)
    chi, beam = microscope.goniometer.chi, microscope.beam
    chi.set(1.0).wait(WAIT_S)
    assert backend.position("chi") == 1.0 and chi.mode == "change" and chi.hardware_limits == (-10.0, 10.0)
    assert (chi.hardware_units, chi.hardware_velocity) == ("deg", 20.0)
    beam.shutter.set("open").wait(WAIT_S)
    beam.condenser.set("box").wait(WAIT_S)
    beam.attenuator.set(0.5).wait(WAIT_S)
    assert (backend.get("shutter"), backend.get("condenser"), backend.get("attenuator")) == ("open", "box", 0.5)
    # what changes behind the servers' back is told
    told = threading.Event()
    beam.ring_current.subscribe(lambda value, **_: told.set() if value == 12.5 else None)
    assert beam.ring_current.get() == 200.0
    backend.put("ring_current", 12.5)
    assert told.wait(WAIT_S)
    beam.ring_current.destroy()
    backend.put("ring_current", 200.0)
    assert listening(server.process.pid) == {"0100007F"}
    # it ends when it is told to, and is found again at the same port
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(WAIT_S) == 0
    assert "ready" in server.log.read_text().split()
    server.start()
    microscope.goniometer.wait_for_connection(timeout=WAIT_S)
    chi.set(0.0).wait(WAIT_S)
    assert backend.position("chi") == 0.0


@pytest.mark.slow
def test_a_database_knows_the_devices(serve, backend, tmp_path):
    database = Database(tmp_path)
    try:
        server = serve("--instant", "--database", f"127.0.0.1:{database.port}", database=database)
        microscope = seen(server)
        chi = microscope.goniometer.chi
        assert isinstance(chi, TangoAxis) and f"tango://127.0.0.1:{database.port}/dfxrm/axis/chi/" in chi.source
        server.proxy("dfxrm/axis/chi").Velocity = 0.001
        begin = time.monotonic()
        for target in (2.0, -1.0):
            chi.set(target).wait(WAIT_S)
            assert chi.position == backend.position("chi") == target
        assert time.monotonic() - begin < WAIT_S
        assert microscope.far_field.describe()["far_field"]["shape"] == [1, 8, 6]
    finally:
        database.close()


@pytest.mark.slow
def test_without_its_twin_a_server_says_so(tmp_path):
    path = tmp_path / "on_tango.yml"
    path.write_text(json.dumps(on_tango(lambda text: text)))
    nowhere = free_port()
    command = [
        sys.executable,
        "-m",
        "simulators.tango",
        str(path),
        "--twin",
        f"127.0.0.1:{nowhere}",
        "--port",
        "{port}",
    ]
    server = Server({"dfxrm/axis/chi": "Motor"}, tmp_path / "server.log", command)
    try:
        with pytest.raises(DeviceError, match=f"/dfxrm/axis/chi.* refused .*127.0.0.1:{nowhere}"):
            seen(server).goniometer.chi.read()
    finally:
        server.close()


def test_what_cannot_be_served_is_one_sentence(tmp_path):
    def said(*arguments):
        command = [sys.executable, "-m", "simulators.tango", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr.strip()

    path = tmp_path / "memory.yml"
    path.write_text(json.dumps(configuration().model_dump(mode="json", exclude_unset=True)))
    assert said(str(path), "--twin", "127.0.0.1:1", "--port", "1") == (
        1,
        "Error: configuration fake has no axis, channel or camera whose control is tango",
    )
    both = on_tango(lambda text: "dfxrm/axis/same" if text.startswith("dfxrm/axis") else text)
    path.write_text(json.dumps(both))
    assert said(str(path), "--twin", "127.0.0.1:1", "--port", "1") == (
        1,
        "Error: mu and omega cannot both be the Tango device dfxrm/axis/same",
    )
