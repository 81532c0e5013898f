"""Running the Tango device servers of one microscope in one process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import new_class
from typing import Any

import tango
from tango.server import Device, run

from dfxrm_control.backend import Backend
from dfxrm_control.errors import DeviceError
from simulators.tango._devices import Channels, Machine, Motor, Shutter
from simulators.tango._parts import Part, Served, Stage

__all__ = ["serve"]

CLASSES: tuple[type[Served], ...] = (Motor, Channels, Shutter, Machine)
SERVER, INSTANCE = "dfxrm", "twin"
LOOK_S = 0.05


def serve(
    parts: Iterable[Part],
    backend: Backend,
    *,
    port: int,
    host: str = "127.0.0.1",
    published: int | None = None,
    database: str = "",
    instant: bool = False,
    others: Sequence[tuple[type[Device], str]] = (),
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve the parts of a microscope until SIGTERM or SIGINT; call it in the main thread, once in a process.

    Parameters
    ----------
    parts : iterable of Part
        What is served; `parts_of` a configuration.
    backend : Backend
        The simulated hardware.
    port : int
        Where the devices are found without a database, ``tango://host:port/domain/family/member#dbase=no``.
    host : str
        Address that all sockets are bound to.
    published : int, optional
        Port that clients are told, where it is another, as behind a relay.
    database : str
        ``host:port`` of a Tango database: the devices are registered there and found by it.
    instant : bool
        Whether each move is over at once.
    others : sequence of (class, device)
        Further devices of the same server.
    ready : callable
        Called when the devices answer.

    Raises
    ------
    DeviceError
        When the database does not answer, or the server cannot start.
    """
    stage = Stage(backend, {}, instant)
    served: dict[str, type[Device]] = {device: cls for cls, device in others}
    kinds = {cls.__name__: cls for cls in CLASSES}
    parts = list(parts)
    if any(part.kind == "LimaCCDs" for part in parts):
        # what writes files takes longer to import than all the rest
        from simulators.tango._camera import LimaCCDs

        kinds["LimaCCDs"] = LimaCCDs
    for part in parts:
        stage.parts.setdefault(part.device.lower(), []).append(part)
        if part.device not in served:
            # Tango keeps attributes by class: devices whose attributes differ in type or bounds need one each
            kind = kinds[part.kind]
            served[part.device] = new_class(f"{kind.__name__}_{len(served)}", (kind,))
    Served.stage = stage
    arguments = [SERVER, INSTANCE, "-ORBendPoint", f"giop:tcp:{host}:{port}"]
    if published is not None:
        arguments += ["-ORBendPointPublish", f"giop:tcp:{host}:{published}"]
    if database:
        _register(database, served)
    else:
        os.environ.pop("TANGO_HOST", None)
        arguments += ["-nodb", "-dlist", ",".join(f"{cls.__name__}::{device}" for device, cls in served.items())]
    over: list[int] = []

    def begin() -> None:
        # Tango has taken the signals for itself by now
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: over.append(number))
        stage.start()
        ready()

    def wait() -> bool:
        time.sleep(LOOK_S)
        if over:
            stage.end()
        return bool(over)

    try:
        run(
            list(dict.fromkeys(served.values())),
            args=arguments,
            post_init_callback=begin,
            event_loop=wait,
            msg_stream=None,
            err_stream=sys.stderr,
            raises=True,
        )
    except tango.DevFailed as error:
        raise DeviceError(f"the Tango server on {host}:{port} did not start: {_words(error)}") from error


def _register(database: str, served: dict[str, type[Device]]) -> None:
    host, _, port = database.rpartition(":")
    os.environ["TANGO_HOST"] = database
    try:
        known = tango.Database(host, int(port))
        for device, cls in served.items():
            info: Any = tango.DbDevInfo()
            info.server, info._class, info.name = f"{SERVER}/{INSTANCE}", cls.__name__, device  # noqa: SLF001
            known.add_device(info)
    except (tango.DevFailed, ValueError) as error:
        raise DeviceError(f"the Tango database {database} does not take the devices: {_words(error)}") from error


def _words(error: Exception) -> str:
    if isinstance(error, tango.DevFailed) and error.args:
        return " ".join(str(error.args[0].desc).split())
    return str(error)
