"""Putting the twin of a configuration behind servers: what is started, where it listens, and how it ends.

Each server is a process of its own: the state server that holds the twin, and one for every control system that the
configuration names. They keep their ports in a folder, so that what is started anew is found where it was before.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from dfxrm_control.config import MicroscopeConfig, find_config, override
from dfxrm_control.errors import ConfigError, DeviceError
from dfxrm_control.tango_address import Address

__all__ = ["Serving", "serve", "serving_of"]

TWIN = "twin"
START_S = 300.0
"""Longest wait for a server to be ready, s: the first start on a machine compiles the twin."""
END_S = 10.0
"""How long a server may take to end by itself, s."""
FREE_S = 5.0
"""How long a port may take to become free after the end of who had it, s."""
PORTS = range(20000, 32768)
"""Below what systems give to outgoing connections, one of which might else take a port while its server is away."""
READY = b"ready"
TAIL = 2000
"""How much of what a server printed is kept for the sentence that says why it ended, bytes."""


@dataclass(frozen=True)
class Serving:
    """What a configuration needs, and where it goes.

    Attributes
    ----------
    config : MicroscopeConfig
        The configuration.
    folder : Path
        Where ports, logs and the ready configuration are kept.
    host : str
        Address of the interface that the servers listen on.
    modules : dict
        Module of each server by its name, the state server first.
    """

    config: MicroscopeConfig
    folder: Path
    host: str
    modules: dict[str, str]

    @property
    def ready_file(self) -> Path:
        """The configuration by which a session finds the servers; it is there while they run."""
        return self._file("ready.yml")

    @property
    def ports_file(self) -> Path:
        """Where the ports are kept."""
        return self._file("ports.json")

    def log_file(self, server: str) -> Path:
        """Return the file of what a server prints."""
        return self._file(f"{server}.log")

    @property
    def starting_file(self) -> Path:
        """The configuration that the servers themselves read."""
        return self._file("starting.yml")

    @property
    def lock_file(self) -> Path:
        """Locked while the servers run; the number of the process that sees to them is in it."""
        return self._file("lock")

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.config.name}.{ending}"


def serving_of(
    name_or_path: str,
    *,
    settings: Iterable[str] = (),
    folder: Path = Path("dfxrm-serve"),
    host: str = "127.0.0.1",
) -> Serving:
    """Return what has to be started for a configuration.

    Parameters
    ----------
    name_or_path : str
        As for `dfxrm_control.config.find_config`.
    settings : iterable of str
        Single settings to change, ``group.setting=value``.
    folder : Path
        Where ports, logs and the ready configuration are kept.
    host : str
        Address of the interface that the servers listen on.

    Raises
    ------
    ConfigError
        When the configuration is not valid, or names no twin or no server for one of its control systems.
    """
    config = override(find_config(name_or_path), settings)
    if config.serve.twin is None and config.backend is None:
        raise ConfigError(f"configuration {config.name!r} has no twin that could be served (serve.twin)")
    spoken = {part.control for device in config.devices.values() for part in device.parts()}
    modules = {TWIN: config.serve.state_server}
    for control in ("epics", "tango"):
        if control in spoken:
            if control not in config.serve.servers:
                raise ConfigError(f"configuration {config.name!r} names no server for {control} (serve.servers)")
            modules[control] = config.serve.servers[control]
    return Serving(config, folder, host, modules)


async def serve(serving: Serving, say: Callable[[str], None]) -> None:
    """Start the servers, write the ready configuration, and see to them until a SIGINT, SIGTERM or SIGHUP.

    No server outlives this. When one of them ends by itself, the others are ended too.

    Parameters
    ----------
    serving : Serving
        What is started.
    say : callable
        Called with each line that the user should read.

    Raises
    ------
    ConfigError
        When the folder cannot be used, or what is kept in it is not valid.
    DeviceError
        When the servers already run, a port is taken, or a server does not start or ends by itself.
    """
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    with _locked(serving):
        started: list[_Server] = []
        work = asyncio.ensure_future(_run(serving, started, say))
        end = asyncio.ensure_future(told.wait())
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            for task in (work, end):
                task.cancel()
            await asyncio.gather(work, end, return_exceptions=True)
            serving.ready_file.unlink(missing_ok=True)
            # what others ask goes last
            for server in reversed(started):
                await server.end()
            serving.starting_file.unlink(missing_ok=True)
    say("all servers have ended")


async def _run(serving: Serving, started: list[_Server], say: Callable[[str], None]) -> None:
    serving.ready_file.unlink(missing_ok=True)
    ports = await _ports(serving)
    _write(serving.starting_file, _ready_content(serving, ports))
    twin = f"{serving.host}:{ports[TWIN]}"
    for name in serving.modules:
        arguments = [str(serving.starting_file), "--host", serving.host, "--port", str(ports[name])]
        server = _Server(serving, name)
        await server.start([*arguments, *(("--twin", twin) if name != TWIN else ())])
        started.append(server)
        if name == TWIN:
            # the others ask it as soon as they start
            await server.ready()
    for server in started:
        await server.ready()
    os.replace(serving.starting_file, serving.ready_file)
    for name in serving.modules:
        say(f"{name + ':':<7}{serving.host}:{ports[name]}, log {serving.log_file(name)}")
    say(f"ready: {serving.ready_file}")
    ended, _ = await asyncio.wait({server.ended for server in started}, return_when=asyncio.FIRST_COMPLETED)
    raise next(server for server in started if server.ended in ended).failure()


class _Server:
    """One server in a process of its own."""

    ended: asyncio.Task[int]

    def __init__(self, serving: Serving, name: str) -> None:
        self._module = serving.modules[name]
        self._log = serving.log_file(name)
        self._called = f"the {name} server ({self._module})"
        self._said = b""
        self._ready = asyncio.Event()

    async def start(self, arguments: list[str]) -> None:
        """Start it; a Ctrl-C at the terminal is not for it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dfxrm_control.server_process",
            str(os.getpid()),
            self._module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.ended = asyncio.ensure_future(self._listen())

    async def _listen(self) -> int:
        """Write what it prints to its log until it ends; return its exit code."""
        assert self._process.stdout is not None
        with self._log.open("wb", buffering=0) as log:
            while chunk := await self._process.stdout.read(4096):
                log.write(chunk)
                self._said += chunk
                if any(line.startswith(READY) for line in self._said.splitlines()):
                    self._ready.set()
                self._said = self._said[-TAIL:]
        return await self._process.wait()

    async def ready(self) -> None:
        """Wait until it answers; raises DeviceError when it ends before, or takes too long."""
        waiting = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait({waiting, self.ended}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self.ended.done():
            raise self.failure()
        if not self._ready.is_set():
            raise DeviceError(f"{self._called} was not ready within {START_S:g} s; its log is {self._log}")

    def failure(self) -> DeviceError:
        """Return the error that says how it ended."""
        code = self.ended.result()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = self._said.decode(errors="replace").strip().splitlines()
        last = words[-1].removeprefix("Error: ") if words and not words[-1].startswith(READY.decode()) else ""
        return DeviceError(f"{self._called} {how}{f': {last}' if last else ''}; its log is {self._log}")

    async def end(self) -> None:
        """Ask it to end, and see to it."""
        with suppress(ProcessLookupError):
            self._process.terminate()
            # one that was stopped cannot hear
            self._process.send_signal(signal.SIGCONT)
        done, _ = await asyncio.wait({self.ended}, timeout=END_S)
        if not done:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self.ended


@contextmanager
def _locked(serving: Serving) -> Iterator[None]:
    """Make the folder, and let nobody else serve the same configuration from it meanwhile."""
    try:
        serving.folder.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = serving.lock_file.open("a")
    except OSError as error:
        raise ConfigError(f"folder {serving.folder} cannot be used: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceError(
                f"configuration {serving.config.name!r} is already served from folder {serving.folder}; "
                f"use its {serving.ready_file.name}, or another --folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


async def _ports(serving: Serving) -> dict[str, int]:
    """Return the port of each server: those kept in the folder, and free ones for what has none there."""
    kept: dict[str, int] = {}
    if serving.ports_file.exists():
        try:
            kept = {str(name): int(port) for name, port in json.loads(serving.ports_file.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"ports file {serving.ports_file} cannot be read; delete it, and others are chosen"
            ) from error
    for name in serving.modules:
        if name not in kept:
            kept[name] = _free_port(serving.host, set(kept.values()))
            continue
        deadline = asyncio.get_running_loop().time() + FREE_S
        while not _is_free(serving.host, kept[name]):
            if asyncio.get_running_loop().time() > deadline:
                raise DeviceError(
                    f"port {kept[name]} of the {name} server is taken by another program; end that, or delete "
                    f"{serving.ports_file} so that others are chosen"
                )
            await asyncio.sleep(0.1)
    _write(serving.ports_file, json.dumps(kept))
    return kept


def _free_port(host: str, but: set[int]) -> int:
    for port in random.sample(PORTS, len(PORTS)):
        if port not in but and _is_free(host, port):
            return port
    raise DeviceError(f"no port of {host} from {PORTS.start} to {PORTS.stop - 1} is free")


def _is_free(host: str, port: int) -> bool:
    """Whether a port can be listened on, by TCP and by UDP."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind((host, port))
            udp.bind((host, port))
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError(f"host {host!r} is no address of this machine: {error.strerror}") from error
            return False
    return True


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _ready_content(serving: Serving, ports: dict[str, int]) -> str:
    """Return the configuration with the addresses of the servers in it, as YAML."""
    config, host = serving.config, serving.host
    content: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
    twin = config.serve.twin or config.backend
    assert twin is not None
    content["serve"] = {**content.get("serve", {}), "twin": twin.model_dump(mode="json")}
    controls = content["controls"] = {}
    content.pop("backend", None)
    parts = [part for device in config.devices.values() for part in device.parts()]
    if any(part.control == "memory" for part in parts):
        content["backend"] = {"backend": config.serve.client, "options": {"address": f"{host}:{ports[TWIN]}"}}
    if "epics" in serving.modules:
        controls["epics"] = {"addresses": [f"{host}:{ports['epics']}"], "search": False, "repeater": False}
    if "tango" in serving.modules:
        for device in content["devices"].values():
            cameras = [device["camera"]] if device.get("camera") else []
            for part in (*device.get("axes", {}).values(), *device.get("channels", {}).values(), *cameras):
                if part.get("control") == "tango":
                    for key in ("address", "readback"):
                        if part.get(key):
                            part[key] = _tango_address(part[key], host, ports["tango"])
    return "# Written by dfxrm serve; it is there while the servers run.\n" + yaml.safe_dump(content, sort_keys=False)


def _tango_address(text: str, host: str, port: int) -> str:
    """Return an address at a server that is in no database."""
    address = Address.parse(text)
    return str(Address(f"tango://{host}:{port}/{address.path}#dbase=no", address.attribute))
