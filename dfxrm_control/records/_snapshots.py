"""Masters of a running scan, written by a process of its own.

In a thread, the writing would hold Python's and HDF5's locks for a good part of 0.1 to 0.9 s per line of a scan of a
thousand points, which a plan with points of a few milliseconds feels.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import dfxrm_control
from dfxrm_control.errors import RecordError

__all__ = ["Snapshots"]

_MODULE = "dfxrm_control.records.snapshot"
_TIMEOUT_S = 60.0


class Snapshots:
    """Asks for masters of a run while it goes on; the process is started with the first.

    Parameters
    ----------
    journal : Path
        Journal of the run.
    master : Path
        Master to write.
    """

    def __init__(self, journal: Path, master: Path) -> None:
        self._command = [sys.executable, "-P", "-m", _MODULE, str(journal), str(master)]
        self._master = master
        self._process: subprocess.Popen[bytes] | None = None
        self._abandoned = threading.Event()

    def take(self) -> None:
        """Have the master written, and return when it is, or when it was abandoned.

        Raises
        ------
        RecordError
            When it could not be written.
        """
        if self._abandoned.is_set():
            return
        try:
            answer = self._ask()
        except OSError as error:
            self.close()
            answer = f"the process that writes masters while a scan runs failed: {error.strerror}"
        if answer and not self._abandoned.is_set():
            raise RecordError(answer)

    def abandon(self) -> None:
        """Take no further snapshot and give up the one under way, from any thread: the final master is due."""
        self._abandoned.set()
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process. Doing so twice is no error."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()
        for unfinished in self._master.parent.glob(f".{self._master.name}.{process.pid}.*.tmp"):
            unfinished.unlink(missing_ok=True)

    def _ask(self) -> str:
        if self._process is None:
            # the same package as this process has, wherever that came from, and nothing from the working directory
            search = os.pathsep.join(filter(None, [_package_folder(), os.environ.get("PYTHONPATH")]))
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": search},
                start_new_session=True,  # Ctrl-C in the terminal is for the scan
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(b"\n")
        stdin.flush()
        if not select.select([stdout], [], [], _TIMEOUT_S)[0]:
            self.close()
            return f"the master of the running scan was not written within {_TIMEOUT_S:g} s"
        answer = stdout.readline()
        if not answer:
            self.close()
            return "the process that writes masters while a scan runs has ended"
        return answer.decode().strip()


def _package_folder() -> str:
    return str(Path(dfxrm_control.__file__ or "").parents[1])
