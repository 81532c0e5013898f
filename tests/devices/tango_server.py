"""Starts the Tango devices of the tests on loopback: killed, stopped and started again at the same port."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import tango

import dfxrm_control

PROGRAM = Path(__file__).with_name("tango_device_server.py")
START_S = 60.0


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Server:
    """Device servers in a fresh interpreter: ``{"t/m/1": "Motor"}``; addresses need no database.

    ``command`` is what runs them on the port, if it is another program; ``database``, if given, knows the devices. All
    that is asked and answered takes ``delay_s`` on its way. ``config`` is a file that names the devices.
    """

    def __init__(self, devices, log, command=None, database=None, delay_s=0.0, config=None):
        self.devices = devices
        self.served = [str(config)] if config else [f"{cls}::{name}" for name, cls in devices.items()]
        self.port = free_port()
        self.relay = Relay(self.port, delay_s) if delay_s else None
        self.log = log
        self.database = database
        self.command = command
        self.process = None
        self.start()

    def address(self, device, attribute=""):
        path = f"{device}/{attribute}" if attribute else device
        if self.database is not None:
            return f"tango://127.0.0.1:{self.database.port}/{path}"
        return f"tango://127.0.0.1:{self.relay.port if self.relay else self.port}/{path}#dbase=no"

    def start(self):
        place = f"{self.port}:{self.relay.port}" if self.relay else str(self.port)
        command = self.command or [sys.executable, str(PROGRAM), place, *self.served]
        environment = {name: value for name, value in os.environ.items() if name != "TANGO_HOST"}
        environment["PYTHONPATH"] = str(Path(dfxrm_control.__file__).parents[1])
        if self.database is not None:
            environment["TANGO_HOST"] = f"127.0.0.1:{self.database.port}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [part.format(port=self.port) for part in command], stdout=log, stderr=log, env=environment
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
            self.kill()
        if self.relay is not None:
            self.relay.close()


class Relay:
    """Passes on what it gets to another port of loopback, some time later, and the answers back, as much later."""

    def __init__(self, port, delay_s):
        self.to = port
        self.delay_s = delay_s
        self.open = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                client.close()
                continue
            self.open += [client, server]
            for one, other in ((client, server), (server, client)):
                passing = queue.Queue()
                threading.Thread(target=self.take, args=(one, passing), daemon=True).start()
                threading.Thread(target=self.give, args=(other, passing), daemon=True).start()

    def take(self, source, passing):
        data = b"..."
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            passing.put((time.monotonic() + self.delay_s, data))

    def give(self, target, passing):
        while True:
            due_s, data = passing.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            try:
                if not data:
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
            except OSError:
                return

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        for connection in (self.listening, *self.open):
            connection.close()


class Database:
    """PyTango's own database server, on SQLite, in a folder of the test."""

    def __init__(self, folder):
        self.port = free_port()
        command = [
            sys.executable,
            "-m",
            "tango.databaseds.database",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "2",
        ]
        with (folder / "database.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        deadline = time.monotonic() + START_S
        while True:
            try:
                tango.Database("127.0.0.1", self.port)
                break
            except tango.DevFailed:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the Tango database did not come up") from None
                time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()
