"""The port of each EPICS server of these tests, told to libca before it makes its first channel."""

import atexit
import contextlib
import os
import socket

import ophyd  # noqa: F401  before epics, so that one libca serves all
import slow_line

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
PORTS = {name: free_port() for name in (*SCRIPTS, "twin")}
os.environ["EPICS_CA_AUTO_ADDR_LIST"] = "NO"
os.environ["EPICS_CA_ADDR_LIST"] = " ".join(
    f"{slow_line.ADDRESS if name == 'far_away' else '127.0.0.1'}:{port}" for name, port in PORTS.items()
)
# it starts a repeater that outlives the tests, unless it finds the repeater's port taken
REPEATER = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
REPEATER.bind(("127.0.0.1", 0))
atexit.register(REPEATER.close)
os.environ["EPICS_CA_REPEATER_PORT"] = str(REPEATER.getsockname()[1])
