"""Time per point of a scan of two fast axes over EPICS and over Tango: our devices against bare ophyd and bare PyTango.

Both sides run ``bluesky.plans.grid_scan`` in the same RunEngine on the same servers, and read the same: both axes with
their set-points, and a current. Bare over EPICS are ophyd's own EpicsMotor and EpicsSignalRO, bare over Tango the least
that bluesky can scan on a DeviceProxy. As ours does, the bare side asks the server for every value that it records;
what ophyd does if left alone, to record what a monitor said last, is given as well, for it is another thing. Rounds
alternate, since a shared machine drifts. Then the same once more in a session with the full record on both sides.

The bare EpicsMotor is mended in one place, without which ophyd loses the end of a move now and then and waits for ever
(docs/decisions/0002).

    python benchmarks/control_overhead.py [--lines 10] [--points 20] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dfxrm_control.backend import Frame, FrameRequest
from dfxrm_control.config import MicroscopeConfig, load_config

LIMIT = 1.3
AXES = ("chi", "phi")
ADDRESSES = {
    "epics": ("BENCH:chi", "BENCH:phi", "BENCH:current"),
    "tango": ("bench/axis/chi", "bench/axis/phi", "bench/channel/ring/current"),
}


class Instant:
    """Axes that arrive at once, a current that stays: a backend without physics, for both ends."""

    def __init__(self, config: MicroscopeConfig) -> None:
        self.positions = {
            name: axis.start or 0.0 for device in config.devices.values() for name, axis in device.axes.items()
        }
        words = {
            name: channel.choices for device in config.devices.values() for name, channel in device.channels.items()
        }
        self.channels: dict[str, Any] = {name: choices[0] if choices else 200.0 for name, choices in words.items()}

    def now(self) -> float:
        """Return the time."""
        return time.monotonic()

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return at once: nothing takes time."""
        return

    def axes(self) -> dict[str, float]:
        """Return all positions."""
        return dict(self.positions)

    def position(self, axis: str) -> float:
        """Return one position."""
        return self.positions[axis]

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float) -> float:
        """Be there."""
        self.positions[axis] = target
        return self.now()

    def stop(self, axis: str) -> float:
        """Stay there."""
        return self.positions[axis]

    def get(self, channel: str) -> Any:
        """Return what was put."""
        return self.channels[channel]

    def put(self, channel: str, value: Any) -> None:
        """Keep a value."""
        self.channels[channel] = value

    def frame_shape(self, camera: str) -> tuple[int, int]:
        """Return what no scan here asks for."""
        return 32, 32

    def expose(self, request: FrameRequest) -> Frame:
        """Refuse: no scan here takes frames."""
        raise NotImplementedError


# -- servers, each in a process of its own ----------------------------------------------------------------------------


def write_config(folder: Path, control: str, port: int) -> Path:
    """Write a microscope whose chi, phi and ring current are on a control system, at a port of loopback."""
    where = "tango://127.0.0.1:{}/{}#dbase=no" if control == "tango" else "{1}"
    chi, phi, current = (where.format(port, address) for address in ADDRESSES[control])
    axis = {"control": control, "velocity": 1e6, "acceleration_s": 0.0, "limits": [-5.0, 5.0], "start": 0.0}
    content = {
        "extends": "simulated",
        "name": f"bench-{control}",
        "backend": {"backend": "control_overhead:Instant", "options": {"sample": None, "clock": None, "seed": None}},
        "devices": {
            "goniometer": {"axes": {"chi": {**axis, "address": chi}, "phi": {**axis, "address": phi}}},
            "beam": {"channels": {"ring_current": {"control": control, "address": current}}},
        },
        "data": {"directory": str(folder / "data"), "journal_directory": str(folder / "journal")},
    }
    path = folder / f"{control}.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def serve(control: str, path: str, port: int) -> None:
    config = load_config(Path(path))
    backend = Instant(config)

    def ready() -> None:
        print("ready", flush=True)

    if control == "epics":
        from simulators.epics import build

        build(config, backend).run("127.0.0.1", port, ready)
    else:
        from simulators.tango import parts_of, serve

        serve(parts_of(config), backend, port=port, ready=ready)


@contextmanager
def serving(control: str, path: Path, port: int) -> Iterator[None]:
    command = [sys.executable, __file__, "--serve", control, str(path), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        while "ready" not in (line := server.stdout.readline()):
            if not line:
                raise RuntimeError(f"the {control} server did not come up")
        yield
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


# -- the bare side -----------------------------------------------------------------------------------------------------


def bare_epics(fresh: bool) -> tuple[Any, Any, Any]:
    """Return two of ophyd's motors and a current; ``fresh``: what they record is asked of the server each time."""
    from ophyd import Component, EpicsMotor, EpicsSignal, EpicsSignalRO

    class AskedRO(EpicsSignalRO):
        def get(self, **kwargs: Any) -> Any:
            return super().get(use_monitor=False, **kwargs)

    class Asked(EpicsSignal):
        def get(self, **kwargs: Any) -> Any:
            return super().get(use_monitor=False, **kwargs)

    class Mended(EpicsMotor):
        def _done_moving(self, success: bool = True, timestamp: Any = None, value: Any = None, **kwargs: Any) -> None:
            once = list(self._callbacks[self._SUB_REQ_DONE].values())
            self._reset_sub(self._SUB_REQ_DONE)
            if success:
                self._run_subs(sub_type=self.SUB_DONE, timestamp=timestamp, value=value)
            for callback in once:
                callback(success=success, timestamp=timestamp, obj=self, sub_type=self._SUB_REQ_DONE)

    class Fresh(Mended):
        user_readback = Component(AskedRO, ".RBV", kind="hinted", auto_monitor=True)
        user_setpoint = Component(Asked, ".VAL", limits=True, auto_monitor=True)

    motor = Fresh if fresh else Mended
    chi, phi, current = ADDRESSES["epics"]
    signal = (AskedRO if fresh else EpicsSignalRO)(current, name="current", auto_monitor=True)
    devices = motor(chi, name="chi"), motor(phi, name="phi"), signal
    for device in devices:
        device.wait_for_connection(timeout=20.0)
    return devices


def bare_tango(config: MicroscopeConfig) -> tuple[Any, Any, Any]:
    """Return the least that bluesky scans on a DeviceProxy; the end of a move is told by an event of the state."""
    import tango
    from ophyd.status import Status

    class Bare:
        parent = None

        def __init__(self, name: str, address: str, attribute: str) -> None:
            self.name = name
            self.attribute = attribute
            self.proxy = tango.DeviceProxy(address)

        def read_configuration(self) -> dict[str, Any]:
            return {}

        def describe_configuration(self) -> dict[str, Any]:
            return {}

        def read(self) -> dict[str, Any]:
            return {self.name: {"value": self.proxy.read_attribute(self.attribute).value, "timestamp": time.time()}}

        def describe(self) -> dict[str, Any]:
            return {self.name: {"source": self.attribute, "dtype": "number", "shape": []}}

    class BareMotor(Bare):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.status: Status | None = None
            self.target = 0.0
            self.proxy.subscribe_event("State", tango.EventType.CHANGE_EVENT, self.heard)

        def heard(self, event: Any) -> None:
            if not event.err and event.attr_value.value == tango.DevState.ON and self.status is not None:
                status, self.status = self.status, None
                status.set_finished()

        def set(self, target: float) -> Status:
            status = Status()
            self.target, self.status = target, status
            self.proxy.write_attribute(self.attribute, target)
            return status

        def read(self) -> dict[str, Any]:
            setpoint = {"value": self.target, "timestamp": time.time()}
            return {**super().read(), f"{self.name}_setpoint": setpoint}

        def describe(self) -> dict[str, Any]:
            (key,) = super().describe().values()
            return {self.name: key, f"{self.name}_setpoint": dict(key)}

    beam, axes = config.devices["beam"], config.devices["goniometer"].axes
    motors = [BareMotor(name, axes[name].address, "Position") for name in AXES]
    address = beam.channels["ring_current"].address.replace("/current#", "#")
    return motors[0], motors[1], Bare("current", address, "current")


# -- measuring ---------------------------------------------------------------------------------------------------------


def seconds_per_point(engine: Any, devices: tuple[Any, Any, Any], lines: int, points: int) -> float:
    from bluesky import plans as bp

    at: list[float] = []
    primary: set[str] = set()

    def note(name: str, doc: Any) -> None:
        if name == "descriptor" and doc["name"] == "primary":
            primary.add(doc["uid"])
        elif name == "event" and doc["descriptor"] in primary:
            at.append(doc["time"])

    chi, phi, current = devices
    # a move whose end is lost would wait for ever
    watchdog = threading.Timer(120.0, os._exit, (1,))
    watchdog.start()
    engine(bp.grid_scan([current], chi, -1.0, 1.0, lines, phi, -1.0, 1.0, points, snake_axes=True), note)
    watchdog.cancel()
    return (at[-1] - at[0]) / (len(at) - 1)


def compare(title: str, engine: Any, sides: dict[str, tuple[Any, Any, Any]], asked: argparse.Namespace) -> float:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(asked.rounds):
        for name, devices in sides.items():
            times[name].append(seconds_per_point(engine, devices, asked.lines, asked.points))
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"{title}:")
    for name, median in medians.items():
        print(f"  {name:38} {1e3 * median:6.2f} ms a point (best {1e3 * min(times[name]):.2f})")
    # the same round on both sides, so that a machine that others use does not decide
    return statistics.median(ours / bare for ours, bare in zip(times["ours"], times["bare"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=10)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve[0], asked.serve[1], int(asked.serve[2]))
        return
    warnings.simplefilter("ignore")
    ports = {control: free_port() for control in ADDRESSES}
    os.environ["EPICS_CA_AUTO_ADDR_LIST"] = "NO"
    os.environ["EPICS_CA_ADDR_LIST"] = f"127.0.0.1:{ports['epics']}"
    with tempfile.TemporaryDirectory() as folder:
        for control, port in ports.items():
            place = Path(folder, control)
            place.mkdir()
            path = write_config(place, control, port)
            with serving(control, path, port):
                measure(control, load_config(path), asked)
    sys.stdout.flush()
    # no server is left for what still listens to them
    os._exit(0)


def measure(control: str, config: MicroscopeConfig, asked: argparse.Namespace) -> None:
    from bluesky import RunEngine

    from dfxrm_control.session import Session

    with Session(config, maps=False, quiet=True) as session:
        for fault in session.faults:
            raise RuntimeError(str(fault))
        ours = (session.axes["chi"], session.axes["phi"], session.channels["ring_current"])
        sides = {"bare": bare_epics(True) if control == "epics" else bare_tango(config), "ours": ours}
        if control == "epics":
            sides["ophyd, what the monitor said last"] = bare_epics(False)
        plain = compare(f"{control}, no journal", RunEngine({}), sides, asked)
        full = compare(f"{control}, full record", session.RE, sides, asked)
    verdict = "within" if plain <= LIMIT else "ABOVE"
    print(f"  ratio without a journal {plain:.2f}, {verdict} the limit of {LIMIT}; with the full record {full:.2f}")


if __name__ == "__main__":
    main()
