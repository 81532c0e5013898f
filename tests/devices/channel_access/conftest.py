import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slow_line
from ca_ports import PORTS, SCRIPTS

HERE = Path(__file__).parent


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
        if number == signal.SIGSTOP:
            # it goes on for a moment
            os.waitpid(self.process.pid, os.WUNTRACED)

    def kill(self):
        # a test may start the next one meanwhile
        ended = self.process
        ended.kill()
        ended.wait()
        ended.stdin.close()
        ended.stdout.close()


def serving(name, module):
    """Serve under the names that the module asks for by its ``PREFIXES``.

    Each module has names of its own: libca looks ever more rarely for a channel whose server has ended, up to once in
    minutes, and goes on doing so for the next test that uses the channel.
    """
    server = Server(name, PORTS[name], module.PREFIXES[name])
    server.start()
    yield server
    if server.process.poll() is None:
        server.signal(signal.SIGCONT)
        server.kill()


@pytest.fixture(scope="module")
def records(request):
    yield from serving("records", request.module)


@pytest.fixture(scope="module")
def fake_motors(request):
    yield from serving("fake_motors", request.module)


@pytest.fixture(scope="module")
def soft(request):
    yield from serving("soft", request.module)


@pytest.fixture(scope="module")
def cameras(request):
    yield from serving("cameras", request.module)


@pytest.fixture(scope="module")
def far_away(request):
    """Records and a camera at the end of a line whose ``delay_s`` a test sets."""
    with slow_line.SlowLine(PORTS["far_away"]) as line:
        for _ in serving("far_away", request.module):
            yield line
