"""Starts the Tango devices of the tests on loopback: killed, stopped and started again at the same port."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import tango

PROGRAM = Path(__file__).with_name("tango_device_server.py")
START_S = 60.0


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Server:
    """Device servers in a fresh interpreter: ``{"t/m/1": "Motor"}``; addresses need no database."""

    def __init__(self, devices, log):
        self.devices = devices
        self.port = free_port()
        self.log = log
        self.process = None
        self.start()

    def address(self, device, attribute=""):
        return f"tango://127.0.0.1:{self.port}/{device}{'/' * bool(attribute)}{attribute}#dbase=no"

    def start(self):
        names = [f"{cls}::{name}" for name, cls in self.devices.items()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(self.port), *names], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                for name in self.devices:
                    tango.DeviceProxy(self.address(name)).ping()
                return
            except tango.DevFailed:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the Tango devices did not come up: {self.log.read_text()}") from None
                time.sleep(0.05)

    def proxy(self, device):
        """A proxy of the test's own, to look behind the back of what is tested."""
        return tango.DeviceProxy(self.address(device))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
