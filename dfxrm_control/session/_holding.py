"""One session at a time on one microscope, and who it is that holds it."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import HeldError, RecordError

__all__ = ["Holder", "Holding", "holder_of"]

_GRACE_S = 2.0
_ours: dict[Path, tuple[IO[str], int]] = {}
"""Files that this process holds, and for how many of its sessions."""


@dataclass(frozen=True)
class Holder:
    """Who holds a microscope.

    Attributes
    ----------
    user, host : str
        Whose process it is, and on which computer.
    process : int
        Its number there.
    command : str
        What it was started as.
    since_s : float
        Since when, seconds since 1970.
    """

    user: str
    host: str
    process: int
    command: str
    since_s: float

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since_s))
        return f"{self.user} on {self.host} (process {self.process}, `{self.command}`), since {since}"


class Holding:
    """The right of one process to a microscope: taken when a session opens, given back when it ends, however it ends.

    Microscopes are told apart by the name of the configuration and the folder of its journals. Sessions of one process
    share it. The lock is the operating system's and ends with the process.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.

    Raises
    ------
    HeldError
        When another process holds it; the sentence says who.
    RecordError
        When the file that the lock is on cannot be written.
    """

    def __init__(self, config: MicroscopeConfig) -> None:
        self._path = _lock_file(config).absolute()
        self._held = True
        if self._path in _ours:
            file, sessions = _ours[self._path]
            _ours[self._path] = (file, sessions + 1)
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # what it holds stays readable for who is refused
            file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise RecordError(f"lock file {self._path} cannot be written: {error.strerror or error}") from error
        if not _locked(file):
            file.close()
            holder = holder_of(config)
            who = "another process" if holder is None else str(holder)
            raise HeldError(f"microscope {config.name} is held by {who}; end that session first, or wait for its end")
        try:
            file.truncate(0)
            json.dump(asdict(_this_process()), file)
            file.flush()
        except OSError as error:
            file.close()
            raise RecordError(f"lock file {self._path} cannot be written: {error.strerror or error}") from error
        _ours[self._path] = (file, 1)

    def give_back(self) -> None:
        """Let others have it; doing so twice is no error."""
        if not self._held:
            return
        self._held = False
        file, sessions = _ours[self._path]
        if sessions > 1:
            _ours[self._path] = (file, sessions - 1)
        else:
            del _ours[self._path]
            file.close()


def holder_of(config: MicroscopeConfig) -> Holder | None:
    """Return who holds a microscope; None where nobody does, or it cannot be known."""
    path = _lock_file(config)
    try:
        with path.open(encoding="utf-8") as file:
            if path.absolute() not in _ours and _locked(file, fcntl.LOCK_SH, 0.0):
                return None
            return Holder(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None


def _lock_file(config: MicroscopeConfig) -> Path:
    return Path(config.data.journal_directory) / f"{config.name}.lock"


def _locked(file: IO[str], kind: int = fcntl.LOCK_EX, grace_s: float = _GRACE_S) -> bool:
    """Lock a file if nobody else does.

    A process that died while it was starting another leaves the lock to that one until it has started, and one that
    looks who holds it has it for a moment.
    """
    deadline = time.monotonic() + grace_s
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return True
        else:
            return True


def _this_process() -> Holder:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]).strip() if sys.argv and sys.argv[0] else "python"
    return Holder(user, socket.gethostname(), os.getpid(), command[:200], time.time())
