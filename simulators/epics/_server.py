"""The EPICS server in front of the twin: what it serves, and serving it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from caproto.asyncio.server import Context
from caproto.server import common

from dfxrm_control.backend import Backend
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import ConfigError, DeviceError
from simulators.epics._camera import ServedCamera
from simulators.epics._channel import ServedChannel
from simulators.epics._motor import MotorRecord
from simulators.epics._variables import Twin

__all__ = ["Server", "build"]

REFRESH_S = 0.25
"""Time between two looks at what changes by itself, s: what clients monitor is at most as old as this."""
MOTORS_EVERY = 4
"""Motors at rest are looked at every so many times only: nobody moves them but their records."""
CLOSE_S = 5.0
"""Longest wait at the end for motors that stop and files that are closed, s."""
PROMPT_S = 0.0005
"""How long a monitor waits for company before it is sent, s (caproto's own: 10 ms)."""


class Server:
    """The variables of a configuration's EPICS parts.

    Attributes
    ----------
    pvdb : dict
        Variables by name, for caproto.
    """

    def __init__(self, config: MicroscopeConfig, backend: Backend) -> None:
        # a move holds a thread until it is over; those of cameras, channels and readings come and go
        axes = [
            (axis.address or logical, logical, axis)
            for device in config.devices.values()
            for logical, axis in device.axes.items()
            if axis.control == "epics"
        ]
        self._threads = ThreadPoolExecutor(len(axes) + 8, thread_name_prefix="twin")
        twin = Twin(backend, self._threads)
        self._parts: list[Any] = [MotorRecord(address, logical, axis, twin) for address, logical, axis in axes]
        for name, device in config.devices.items():
            for logical, channel in device.channels.items():
                if channel.control == "epics":
                    self._parts.append(ServedChannel(channel.address or logical, logical, channel, twin))
            if device.camera is not None and device.camera.control == "epics":
                self._parts.append(ServedCamera(device.camera.address, name, config.instrument.cameras[name], twin))
        if not self._parts:
            raise ConfigError(f"configuration {config.name!r} has nothing that EPICS speaks for")
        self.pvdb: dict[str, Any] = {}
        for part in self._parts:
            if twice := self.pvdb.keys() & part.variables.keys():
                raise ConfigError(f"configuration {config.name!r} uses the EPICS address {min(twice)!r} twice")
            self.pvdb |= part.variables

    async def serve(self, host: str, port: int, ready: Callable[[], None]) -> None:
        """Serve until cancelled.

        Parameters
        ----------
        host : str
            Address of the interface.
        port : int
            UDP and TCP port; this server's alone, since of two servers on one port clients find one.
        ready : callable
            Called when it answers.

        Raises
        ------
        DeviceError
            When the port is taken or the twin does not answer.
        """
        _keep_to(host, port)
        common.HIGH_LOAD_TIMEOUT = PROMPT_S
        await asyncio.gather(*(part.start() for part in self._parts))
        context = _Context(self.pvdb, [host])
        refreshing = asyncio.get_running_loop().create_task(self._refresh())

        async def started(_: Any) -> None:
            ready()

        try:
            context.require(host, port)
            await context.run(startup_hook=started)
        finally:
            refreshing.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    for part in self._parts:
                        await part.close()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def run(self, host: str, port: int, ready: Callable[[], None]) -> None:
        """Serve until a SIGTERM or SIGINT; parameters and errors as for `serve`."""

        async def main() -> None:
            serving = asyncio.ensure_future(self.serve(host, port, ready))
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await serving

        asyncio.run(main())

    async def _refresh(self) -> None:
        for number in itertools.count():
            await asyncio.sleep(REFRESH_S)
            for part in self._parts:
                if not isinstance(part, MotorRecord) or (number % MOTORS_EVERY == 0 and not part.moving):
                    await part.refresh()


def build(config: MicroscopeConfig, backend: Backend) -> Server:
    """Return the server of everything that EPICS speaks for in a configuration.

    Parameters
    ----------
    config : MicroscopeConfig
        Its axes, channels and cameras with ``control: epics`` are served at their addresses.
    backend : Backend
        What stands behind them.

    Raises
    ------
    ConfigError
        When there is nothing to serve, or two parts have one address.
    """
    return Server(config, backend)


class _Context(Context):
    """caproto's server, which answers at once and takes no other port than its own."""

    async def server_accept_loop(self, sock: socket.socket) -> None:
        """Accept clients."""
        # the sockets that it accepts inherit this; without it an answer waits 40 ms for company
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().server_accept_loop(sock)

    def require(self, host: str, port: int) -> None:
        """Refuse a port that is taken: caproto would look for another, where no client looks."""
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise DeviceError(f"the EPICS server cannot listen on {host}:{port}: {error.strerror}") from error


def _keep_to(host: str, port: int) -> None:
    """Set what caproto reads from the environment: one port of one interface, and nobody to send beacons to."""
    os.environ.update(
        EPICS_CA_SERVER_PORT=str(port),
        EPICS_CAS_SERVER_PORT=str(port),
        EPICS_CAS_INTF_ADDR_LIST=host,
        EPICS_CAS_BEACON_ADDR_LIST=host,
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_CA_ADDR_LIST=host,
        EPICS_CA_AUTO_ADDR_LIST="NO",
    )
    # nobody listens for its beacons, and a put that the twin refuses is the client's affair
    logging.getLogger("caproto").setLevel(logging.CRITICAL)
