"""The folder of a queue: where it listens, its keys, the items that wait for a decision."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dfxrm_control.queue._errors import QueueError

__all__ = ["DEFAULT_FOLDER", "KEY_LENGTH", "Addresses", "Held", "HeldItems", "QueueFolder", "read_key", "write_private"]

DEFAULT_FOLDER = "dfxrm-queue"
KEY_LENGTH = 40


@dataclass(frozen=True)
class Addresses:
    """Where a queue is reached.

    Attributes
    ----------
    open, users, staff : str
        ZeroMQ addresses of the control sockets: without a key, with the users' key, with the staff's.
    info : str
        ZeroMQ address at which console output and status are published.
    without_key : str
        Group of who has no key.
    """

    open: str
    users: str
    staff: str
    info: str
    without_key: str

    @classmethod
    def read(cls, file: Path) -> Addresses:
        """Read what a queue wrote when it started.

        Raises
        ------
        QueueError
            When no queue was started in that folder.
        """
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise QueueError(
                f"no queue was started in folder {file.parent}: start one with `dfxrm queue serve`, or name its folder "
                f"with --folder or its address with --address"
            ) from error


@dataclass
class Held:
    """An item that failed, was interrupted, or lost what it needed, and waits for a decision.

    Attributes
    ----------
    uid : str
        Of the item, as it stands in the history.
    item : dict
        The item, as it would be queued again.
    reason : str
        One sentence.
    status : str
        ``failed``, ``aborted``, ``halted``, ``interrupted`` or ``not run``.
    time : float
        When it was taken out of the queue, s since the epoch.
    """

    uid: str
    item: dict[str, Any]
    reason: str
    status: str
    time: float


@dataclass
class HeldItems:
    """The held items, in a file that is written whole, and synced, before anything else happens.

    Attributes
    ----------
    file : Path
        JSON.
    items : list of Held
        Oldest first.
    settled : list of str
        Items of the history that were decided on, so that they are not held again.
    """

    file: Path
    items: list[Held] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> HeldItems:
        """Read the file; there are none where it is not there.

        Raises
        ------
        QueueError
            When it cannot be read.
        """
        if not file.exists():
            return cls(file)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(file, [Held(**item) for item in content["items"]], list(content["settled"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise QueueError(f"the list of held items {file} cannot be read: {error}") from error

    def hold(self, held: Held) -> None:
        """Keep an item; once is enough."""
        if held.uid not in self.settled:
            self.items.append(held)
            self.settled.append(held.uid)
            self._write()

    def take(self, name: str) -> Held:
        """Remove an item by its uid or the beginning of it.

        Raises
        ------
        QueueError
            When there is none, or several.
        """
        found = self.find(name)
        self.items.remove(found)
        self._write()
        return found

    def find(self, name: str) -> Held:
        """Return an item by its uid or the beginning of it; raises QueueError when there is none, or several."""
        matching = [held for held in self.items if name and held.uid.startswith(name)]
        if len(matching) == 1:
            return matching[0]
        known = ", ".join(held.uid[:8] for held in self.items) or "none"
        raise QueueError(f"{len(matching) or 'no'} held items begin with {name!r}; held are: {known}")

    def _write(self) -> None:
        content = {"items": [asdict(held) for held in self.items], "settled": self.settled[-1000:]}
        write_private(self.file, json.dumps(content, indent=1))


class QueueFolder:
    """Paths in the folder of a queue, which only its owner may enter.

    Parameters
    ----------
    path : Path
        The folder; made when it is not there.

    Raises
    ------
    QueueError
        When it cannot be made, or others may enter it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise QueueError(f"queue folder {path} cannot be used: {error.strerror or error}") from error
        self.addresses = self.path / "addresses.json"
        self.config = self.path / "microscope.yml"
        self.manager_config = self.path / "manager.yml"
        self.permissions = self.path / "user_group_permissions.yaml"
        self.plans_and_devices = self.path / "existing_plans_and_devices.yaml"
        self.held = self.path / "held.json"
        self.log = self.path / "queue.log"
        self.worker_lock = self.path / "worker.lock"
        self.serve_lock = self.path / "serve.lock"
        self.processes = self.path / "processes.json"
        self.redis = self.path / "redis"

    def key(self, group: str) -> Path:
        """Return the file of the key that is given to a group."""
        return self.path / f"{group}.key"

    def secret(self, group: str) -> Path:
        """Return the file of the queue's own half of a key."""
        return self.path / f"{group}.secret"


def read_key(file: Path) -> str:
    """Read a key from a file.

    Raises
    ------
    QueueError
        When it cannot be read, others may read it, or it is none.
    """
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise QueueError(f"key file {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if mode & 0o077:
        raise QueueError(f"key file {file} can be read by others (mode {mode:04o}): `chmod 600 {file}`")
    if len(key) != KEY_LENGTH:
        raise QueueError(f"key file {file} holds no key, which is one line of {KEY_LENGTH} characters")
    return key


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all, and wait until it is on the disk.

    Raises
    ------
    QueueError
        When it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        os.replace(name, file)
    except OSError as error:
        raise QueueError(f"{file} cannot be written: {error.strerror or error}") from error
