"""Asking a queue that is served: what `dfxrm queue` does, and scripts may."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bluesky_queueserver_api.zmq import REManagerAPI

from dfxrm_control.queue._errors import QueueError
from dfxrm_control.queue._folder import KEY_LENGTH, Addresses, QueueFolder, read_key

__all__ = ["KEY_VARIABLE", "QueueClient"]

KEY_VARIABLE = "DFXRM_QUEUE_KEY"
"""Environment variable that holds a key, where no file is given."""
ANSWER_S = 15.0
WAIT_S = 60.0
PAUSE_S = 0.2


class QueueClient:
    """A queue, by bluesky-queueserver-api.

    Parameters
    ----------
    folder : Path
        Folder of a queue of this computer: where it listens, and the keys, where this account may read them.
    address : str, optional
        ZeroMQ address of a queue elsewhere, e.g. ``tcp://host:60616``; the folder is not looked at then.
    key_file : Path, optional
        File of a key; default: the environment variable ``DFXRM_QUEUE_KEY``, else the staff's or users' key of the
        folder, else none.

    Raises
    ------
    QueueError
        When no queue was started there, or a key is none.
    """

    def __init__(self, folder: Path, address: str | None = None, key_file: Path | None = None) -> None:
        self.folder = folder
        key = _given_key(key_file)
        if address is not None:
            self._address, self._key, self._info = address, key, None
        else:
            addresses = Addresses.read(folder.absolute() / "addresses.json")
            self._address, self._key = _socket_of(addresses, QueueFolder(folder), key)
            self._info = addresses.info
        self._api = REManagerAPI(
            zmq_control_addr=self._address,
            zmq_info_addr=self._info,
            zmq_public_key=self._key,
            timeout_recv=ANSWER_S,
        )

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the queue's answer to any method of bluesky-queueserver, or to ``held_get``, ``_retry``, ``_drop``.

        Raises
        ------
        QueueError
            When it refuses, or does not answer.
        """
        try:
            answer: dict[str, Any] = self._api.send_request(method=method, params=params)
        except REManagerAPI.RequestTimeoutError:
            how = "with that key" if self._key else "without a key"
            raise QueueError(f"no queue answers at {self._address} {how}") from None
        except REManagerAPI.RequestFailedError as error:
            raise QueueError(str(error).removeprefix("Request failed: ")) from None
        return answer

    def status(self) -> dict[str, Any]:
        """Return the manager's status."""
        return self.ask("status")

    def add(self, items: Sequence[Mapping[str, Any]], front: bool = False) -> list[dict[str, Any]]:
        """Queue items, all or none; return them as they are in the queue."""
        place = {"pos": "front"} if front else {}
        answer = self.ask(
            "queue_item_add_batch", items=list(items), user=getpass.getuser(), user_group="claimed", **place
        )
        added: list[dict[str, Any]] = answer["items"]
        return added

    def start(self) -> None:
        """Start the queue; a worker's environment that is closed is opened first."""
        status = self.status()
        if not status["worker_environment_exists"]:
            if status["manager_state"] == "idle":
                self.ask("environment_open")
            self.wait(lambda now: bool(now["worker_environment_exists"]) and now["manager_state"] == "idle")
        self.ask("queue_start")

    def abort(self) -> bool:
        """Abort the item that runs, now and safely; the queue stops. Needs no key. Return whether one ran."""
        status = self.status()
        if status["manager_state"] not in ("executing_queue", "starting_queue", "paused"):
            return False
        if status["manager_state"] != "paused":
            self._pause_now()
        if self.status()["manager_state"] == "paused":
            self.ask("re_abort")
        self.wait(lambda now: now["manager_state"] == "idle")
        return True

    def _pause_now(self) -> None:
        """Pause at once; an item that has only just begun is asked again."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                self.ask("re_pause", option="immediate")
            except QueueError:
                pass  # not running yet, or already over: the status says which
            if self.status()["manager_state"] in ("paused", "idle"):
                return
            time.sleep(PAUSE_S)
        raise QueueError(f"the item that runs did not pause in {WAIT_S:g} s")

    def wait(self, reached: Callable[[Mapping[str, Any]], bool], timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Return the status when it is as wanted; raises QueueError when it is not in time."""
        end = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if reached(status):
                return status
            if time.monotonic() > end:
                raise QueueError(f"the queue is still {status['manager_state']} after {timeout_s:g} s")
            time.sleep(PAUSE_S)

    def output(self) -> Iterator[str]:
        """Yield what manager and worker print from now on; an empty text each second in which they print nothing."""
        self._api.console_monitor.enable()
        while True:
            try:
                yield self._api.console_monitor.next_msg(timeout=1.0)["msg"]
            except self._api.console_monitor.TimeoutError:
                yield ""

    def close(self) -> None:
        """Drop the connection."""
        self._api.close()


def _given_key(key_file: Path | None) -> str | None:
    if key_file is not None:
        return read_key(key_file)
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key and len(key) != KEY_LENGTH:
        raise QueueError(f"{KEY_VARIABLE} holds no key, which has {KEY_LENGTH} characters")
    return key or None


def _socket_of(addresses: Addresses, folder: QueueFolder, key: str | None) -> tuple[str, str | None]:
    """Return address and key of the socket with most permissions that can be opened."""
    keys = {}
    for group in ("staff", "users"):
        try:
            keys[group] = read_key(folder.key(group))
        except QueueError:
            continue  # not for this account
    if key is None and keys:
        group, key = next(iter(keys.items()))
        return str(getattr(addresses, group)), key
    if key is None:
        return addresses.open, None
    group = next((name for name, known in keys.items() if known == key), "users")
    return str(getattr(addresses, group)), key
