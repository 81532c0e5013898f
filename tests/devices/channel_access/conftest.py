import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import ophyd  # noqa: F401  before epics, so that one libca serves all
import pytest
import slow_line

HERE = Path(__file__).parent
# server -> its script
SCRIPTS = {
    "records": "served_ioc",
    "cameras": "served_ioc",
    "far_away": "served_ioc",
    "fake_motors": "fake_motor_ioc",
    "soft": "soft_ioc",
}


def free_port():
    """Return a port that is free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]


# libca reads the list of addresses once, with the first channel of the process, whichever test makes it
PORTS = {name: free_port() for name in SCRIPTS}
os.environ["EPICS_CA_AUTO_ADDR_LIST"] = "NO"
os.environ["EPICS_CA_ADDR_LIST"] = " ".join(
    f"{slow_line.ADDRESS if name == 'far_away' else '127.0.0.1'}:{port}" for name, port in PORTS.items()
)
# it starts a repeater that outlives the tests, unless it finds the repeater's port taken
REPEATER = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
REPEATER.bind(("127.0.0.1", 0))
atexit.register(REPEATER.close)
os.environ["EPICS_CA_REPEATER_PORT"] = str(REPEATER.getsockname()[1])


class Server:
    """One server in a fresh interpreter, on a port of its own that it keeps when it is started anew."""

    def __init__(self, name, port, prefix):
        self.command = [sys.executable, str(HERE / f"{SCRIPTS[name]}.py"), str(port), prefix]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path]),
            "EPICS_CA_SERVER_PORT": str(port),
            "EPICS_CAS_SERVER_PORT": str(port),
            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        }
        self.prefix = prefix
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        said = b""
        deadline = time.monotonic() + 30
        while b"ready" not in said:
            assert select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0], said
            assert (more := os.read(self.process.stdout.fileno(), 4096)), "the server ended"
            said += more

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def serving(name, prefix):
    server = Server(name, PORTS[name], prefix)
    server.start()
    yield server
    if server.process.poll() is None:
        server.signal(signal.SIGCONT)
        server.kill()


@pytest.fixture(scope="module")
def records():
    yield from serving("records", "REC:")


@pytest.fixture(scope="module")
def fake_motors():
    yield from serving("fake_motors", "FAKE:")


@pytest.fixture(scope="module")
def soft():
    yield from serving("soft", "SOFT")


@pytest.fixture(scope="module")
def cameras():
    yield from serving("cameras", "CAM:")


@pytest.fixture(scope="module")
def far_away():
    """Records and a camera at the end of a line whose ``delay_s`` a test sets."""
    with slow_line.SlowLine(PORTS["far_away"]) as line:
        for _ in serving("far_away", "FAR:"):
            yield line
