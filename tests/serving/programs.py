"""Servers in processes of their own, on ports of their own, ended whatever happens."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import dfxrm_control

DFXRM = [sys.executable, "-c", "from dfxrm_control.cli import main; main()"]
READY_S = 120


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(dfxrm_control.__file__).parent.parent), "PYTHONUNBUFFERED": "1"}


def alive(text):
    """Return the processes whose command line has a text in it, and that have not ended."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if text in (folder / "cmdline").read_text() and state != "Z":
                    found.append(int(folder.name))
    return found


def listening_on(port):
    """Return the addresses on which somebody listens on a TCP port, as the kernel writes them (0100007F: loopback)."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return [address for address, at in (line[1].split(":") for line in lines if line[3] == "0A") if int(at, 16) == port]


def wait_for(condition, seconds=10.0):
    """Wait until something is true, for a bounded time; return whether it is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Program:
    """A program that says a line when it is ready."""

    def __init__(self, command, ready, folder):
        self.command, self.ready, self.folder = command, ready, folder
        self.process = None
        self.said = ""

    def start(self):
        """Start it and return the line that says that it is ready."""
        self.said = ""
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + READY_S
        while not (lines := [line for line in self.said.splitlines(keepends=True) if line.startswith(self.ready)]):
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.process.stdout], [], [], left)[0], f"not ready: {self.said}"
            assert (more := os.read(self.process.stdout.fileno(), 4096)), f"it ended: {self.said}"
            self.said += more.decode()
        return lines[0].strip()

    def send(self, number):
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            # it goes on for a moment
            os.waitpid(self.process.pid, os.WUNTRACED)

    def ended(self, seconds=30):
        """Wait for its end; return its exit code."""
        code = self.process.wait(seconds)
        self.said += self.process.stdout.read().decode()
        self.process.stdout.close()
        return code

    def stop(self, number=signal.SIGTERM):
        """End it by a signal; return its exit code."""
        self.send(number)
        return self.ended()

    def clear(self):
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
            self.process.kill()
            self.process.wait()
        if self.process is not None and not self.process.stdout.closed:
            self.process.stdout.close()
        for left in alive(str(self.folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


def serving(config, folder, *arguments):
    """Return a ``dfxrm serve`` that is not yet started; it keeps its things in ``folder``."""
    return Program([*DFXRM, "serve", str(config), "--folder", str(folder), *arguments], "ready:", folder)
