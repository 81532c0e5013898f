"""Serving a queue: Redis, the RE manager and its worker, and the gate in front of them."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
import zmq

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.logbook import Logbook, roll
from dfxrm_control.queue._errors import QueueError
from dfxrm_control.queue._folder import Addresses, HeldItems, QueueFolder, read_key, write_private
from dfxrm_control.queue._gate import Gate
from dfxrm_control.queue._manager_link import ManagerLink
from dfxrm_control.queue._permissions import Group, group_permissions
from dfxrm_control.queue._plans import with_conditions
from dfxrm_control.queue._ports import free_port
from dfxrm_control.queue._profile import CONFIG_VARIABLE, LOCK_VARIABLE
from dfxrm_control.queue._redis import EmbeddedRedis, GivenRedis

__all__ = ["DEFAULT_PORT", "Served", "serve"]

DEFAULT_PORT = 60615
"""bluesky-queueserver's own, so that its clients find the queue without being told."""
INFO_OFFSET = 10
LOOPBACK = ("127.0.0.1", "localhost", "::1")
START_S = 60.0
END_S = 30.0


class Served:
    """Everything that serves one queue.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    folder : Path
        Where the queue is kept.
    redis : str, optional
        Address of a Redis; default: one of our own in the folder.
    host : str
        Address to listen at.
    port : int
        First of three ports; 0: any that are free.
    without_key : {"read_only", "users"}, optional
        Group of who has no key; default: users on loopback, read_only elsewhere.
    say : callable
        Told in one sentence what goes on.

    Raises
    ------
    QueueError
        When something does not start, or is served from the folder already.
    """

    def __init__(
        self,
        config: MicroscopeConfig,
        folder: Path,
        *,
        redis: str | None = None,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        without_key: Group | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = QueueFolder(folder)
        self._serve_lock = self._only_one()
        self._say = say
        self._config = _with_absolute_folders(config)
        self._left = self._left_behind()
        self.redis: GivenRedis = (
            GivenRedis(redis) if redis is not None else EmbeddedRedis(self.folder.redis, self._left.get("redis"))
        )
        self._manager: subprocess.Popen[bytes] | None = None
        ports = [port + step for step in range(3)] if port else [free_port(host) for _ in range(3)]
        info = port + INFO_OFFSET if port else free_port(host)
        group: Group = without_key or ("users" if host in LOOPBACK else "read_only")
        at = [f"tcp://{f'[{host}]' if ':' in host else host}:{number}" for number in [*ports, info]]
        self.addresses = Addresses(at[0], at[1], at[2], at[3], without_key=group)
        self._write_files()
        self.redis.start()
        self._start_manager()
        self._gate = Gate(
            self._link,
            HeldItems.read(self.folder.held),
            with_conditions(self._config),
            self.redis,
            self.folder.worker_lock,
            self._restart_manager,
            say,
        )
        try:
            self._gate.listen(group, self.addresses.open, None)
            self._gate.listen("users", self.addresses.users, read_key(self.folder.secret("users")))
            self._gate.listen("staff", self.addresses.staff, read_key(self.folder.secret("staff")))
        except QueueError:
            self.end()
            raise
        write_private(self.folder.addresses, json.dumps(vars(self.addresses), indent=1))

    def run(self, ended: threading.Event) -> None:
        """Serve until the event is set, then end everything: a scan that runs is aborted safely, and is held."""
        told = False

        def over() -> bool:
            nonlocal told
            if self._gate.ready and not told:
                told = True
                self._say("ready")
            return ended.is_set()

        try:
            self._gate.run(over)
        finally:
            self.end()

    def end(self) -> None:
        """Abort what runs, close the worker, and end manager and Redis."""
        try:
            self._abort()
            self._link.ask("environment_close", timeout_s=2.0)
            self._wait(lambda status: not status["worker_environment_exists"])
            self._gate.look_after()
            self._link.ask("manager_stop", {"option": "safe_off"}, timeout_s=2.0)
        except QueueError as error:
            self._say(f"the RE manager did not end by itself: {error}")
        self._end_manager()
        self._gate.close()
        self.redis.stop()
        shutil.rmtree(Path(self._left["control"].removeprefix("ipc://")).parent, ignore_errors=True)
        self.folder.processes.unlink(missing_ok=True)
        self.folder.addresses.unlink(missing_ok=True)
        os.close(self._serve_lock)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _only_one(self) -> int:
        handle = os.open(self.folder.serve_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise QueueError(f"a queue is served from folder {self.folder.path} already") from None
        return handle

    def _left_behind(self) -> dict[str, Any]:
        """Return what an earlier process, which was killed, wrote of the processes it had started."""
        try:
            left: dict[str, Any] = json.loads(self.folder.processes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if left.get("boot") != _boot():
            return {}  # numbers of processes and ports mean nothing after a restart of the computer
        # a Redis that is alive keeps its port, so that a second one cannot come upon the same files
        return left if _is_ours(left["pid"]) else {"redis": left["redis"]}

    def _write_files(self) -> None:
        folder = self.folder
        content = self._config.model_dump(mode="json", exclude_unset=True)
        write_private(folder.config, yaml.safe_dump(content, sort_keys=False))
        write_private(folder.permissions, yaml.safe_dump(group_permissions()))
        for group in ("users", "staff"):
            if not folder.secret(group).exists() or not folder.key(group).exists():
                key, secret = zmq.curve_keypair()
                write_private(folder.secret(group), secret.decode() + "\n")
                write_private(folder.key(group), key.decode() + "\n")

    def _start_manager(self) -> None:
        """Start the manager, or go on with the one that an earlier process left behind."""
        if "control" in self._left:
            self._link = ManagerLink(self._left["control"])
            try:
                self._link.ask("ping", timeout_s=2.0)
                self._link.ask("unlock", {"lock_key": self._left["emergency"]}, timeout_s=2.0)
                self._say("going on with the RE manager that was left running")
                self.addresses = Addresses(**{**vars(self.addresses), "info": self._left["info"]})
                return
            except QueueError:
                self._end_manager()
        control = f"ipc://{tempfile.mkdtemp(prefix='dfxrm-queue-')}/manager"
        self._left = {
            "redis": self.redis.address,
            "control": control,
            "info": self.addresses.info,
            "emergency": secrets.token_hex(16),
            "boot": _boot(),
        }
        self._link = ManagerLink(control)
        settings = {
            "network": {
                "zmq_control_addr": control,
                "zmq_info_addr": self.addresses.info,
                "zmq_publish_console": True,
                "redis_addr": self.redis.address,
                "redis_name_prefix": f"dfxrm_{self._config.name}",
            },
            "startup": {
                "startup_module": "dfxrm_control.queue._profile",
                "existing_plans_and_devices_path": str(self.folder.plans_and_devices),
                "user_group_permissions_path": str(self.folder.permissions),
                "device_max_depth": 2,
            },
            "operation": {"print_console_output": True, "emergency_lock_key": self._left["emergency"]},
        }
        write_private(self.folder.manager_config, yaml.safe_dump(settings))
        self._launch_manager()

    def _launch_manager(self) -> None:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("QSERVER_")}
        roll(self.folder.log, self._config.data)
        with self.folder.log.open("ab") as log:
            self._manager = subprocess.Popen(
                # -P: what lies in the working directory is not on Python's path
                [sys.executable, "-P", "-m", "dfxrm_control.queue._manager", "--config", self.folder.manager_config],
                env={
                    **ours,
                    CONFIG_VARIABLE: str(self.folder.config),
                    LOCK_VARIABLE: str(self.folder.worker_lock),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._left["pid"] = self._manager.pid
        write_private(self.folder.processes, json.dumps(self._left))
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            try:
                self._link.ask("ping", timeout_s=0.5)
                return
            except QueueError:
                if self._manager.poll() is not None:
                    break
        self._end_manager()
        raise QueueError(f"the RE manager does not start; the reason is in {self.folder.log}")

    def _restart_manager(self) -> bool:
        """Start the manager again when its process has ended; return whether it was."""
        if _alive(self._left["pid"]) and (self._manager is None or self._manager.poll() is None):
            return False
        self._end_manager()
        self._launch_manager()
        return True

    def _end_manager(self) -> None:
        """End what is left of the manager's processes, its worker with them."""
        pid = self._left.get("pid")
        for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if pid is None or not _signal_group(pid, number):
                return
            end = time.monotonic() + patience_s
            while time.monotonic() < end and _signal_group(pid, 0):
                if self._manager is not None:
                    self._manager.poll()
                time.sleep(0.05)

    def _abort(self) -> None:
        status = self._link.ask("status", timeout_s=2.0)
        if status["manager_state"] == "executing_queue":
            self._say("the item that runs is aborted")
            self._gate.answer("staff", json.dumps({"method": "re_pause", "params": {"option": "immediate"}}).encode())
            status = self._wait(lambda now: now["manager_state"] in ("paused", "idle"))
        if status["manager_state"] == "paused":
            self._gate.answer("staff", b'{"method": "re_abort"}')
            self._wait(lambda now: now["manager_state"] == "idle")
        self._gate.look_after()

    def _wait(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + END_S
        while True:
            status = self._link.ask("status", timeout_s=2.0)
            if reached(status):
                return status
            if time.monotonic() > end:
                raise QueueError(f"it is still {status['manager_state']} after {END_S:g} s")
            time.sleep(0.1)


def serve(
    config: MicroscopeConfig,
    folder: Path,
    *,
    redis: str | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    without_key: Group | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a queue until Ctrl-C or SIGTERM.

    Parameters
    ----------
    config, folder, redis, host, port, without_key, say
        As of `Served`.

    Raises
    ------
    QueueError
        When something does not start.
    """
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    with Logbook(config) as logbook:

        def say_and_log(sentence: str) -> None:
            logbook.say(f"queue: {sentence}")
            say(sentence)

        served = Served(config, folder, redis=redis, host=host, port=port, without_key=without_key, say=say_and_log)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)
        _introduce(config, served, say_and_log)
        served.run(ended)


def _introduce(config: MicroscopeConfig, served: Served, say: Callable[[str], None]) -> None:
    at = served.addresses
    say(f"queue of {config.name} in {served.folder.path}")
    say(f"without a key ({at.without_key.replace('_', '-')}): {at.open}")
    say(f"users: {at.users} with {served.folder.key('users')}")
    say(f"staff: {at.staff} with {served.folder.key('staff')}")
    say(f"console output: {at.info}; log: {served.folder.log}")


def _with_absolute_folders(config: MicroscopeConfig) -> MicroscopeConfig:
    folders = {
        "directory": config.data.directory.absolute(),
        "journal_directory": config.data.journal_directory.absolute(),
    }
    data = config.data.model_copy(update=folders)
    return MicroscopeConfig.model_validate(
        {**config.model_dump(mode="json", exclude_unset=True), "data": data.model_dump(mode="json")}
    )


def _boot() -> str:
    """Return what names this run of the computer."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_ours(pid: int) -> bool:
    """Whether a process is a manager of ours, or has ended: its number is not another's."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return not command or b"dfxrm_control.queue._manager" in command


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal_group(pid: int, number: int) -> bool:
    """Send a signal to a process group that we started; return whether it is there."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
