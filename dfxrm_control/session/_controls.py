"""Telling this process where the control systems of a configuration are, before it first looks for them."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading

from dfxrm_control.config import EpicsControl, MicroscopeConfig
from dfxrm_control.errors import ConfigError

__all__ = ["find_control_systems"]

LIST, AUTO, REPEATER_PORT = "EPICS_CA_ADDR_LIST", "EPICS_CA_AUTO_ADDR_LIST", "EPICS_CA_REPEATER_PORT"
HEADER = struct.Struct(">HHHHII")
CONFIRM, REGISTER, LOOPBACK = 17, 24, 0x7F000001
_held: list[socket.socket] = []


def find_control_systems(config: MicroscopeConfig) -> None:
    """Set in the environment of this process what ``controls`` of a configuration says; nothing where it says nothing.

    The EPICS library reads its list of addresses once, with the first channel of the process.

    Raises
    ------
    ConfigError
        When that has happened, and an address of this configuration was not in the list.
    """
    spoken = {part.control for device in config.devices.values() for part in device.parts()}
    if config.controls.epics is not None and "epics" in spoken:
        _find_epics(config.name, config.controls.epics)
    if config.controls.tango is not None and "tango" in spoken:
        os.environ["TANGO_HOST"] = config.controls.tango.database


def _find_epics(name: str, control: EpicsControl) -> None:
    wanted = " ".join(control.addresses)
    automatic = "YES" if control.search else "NO"
    if _has_channels():
        known = os.environ.get(LIST, "")
        if not set(control.addresses) <= set(known.split()):
            raise ConfigError(
                f"configuration {name!r} needs the EPICS addresses {wanted}, but EPICS has been started in this "
                f"process with {known or 'none'} and keeps to that: start a new session"
            )
        return
    os.environ.update({LIST: wanted, AUTO: automatic})
    if not control.repeater:
        _hold_repeater_port()


def _has_channels() -> bool:
    """Whether this process has made a channel, by pyepics or by what is built on it; without importing that."""
    ca = sys.modules.get("epics.ca")
    return ca is not None and any(getattr(ca, "_cache", {}).values())


def _hold_repeater_port() -> None:
    """Stand in for the repeater that the EPICS library would start, in this process and for as long as this lives.

    It confirms whoever registers, and has nothing to repeat: beacons, which servers send to every network, are not
    heard then.
    """
    if _held:
        return
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    os.environ[REPEATER_PORT] = str(held.getsockname()[1])
    threading.Thread(target=_confirm, args=(held,), name="EPICS repeater", daemon=True).start()


def _confirm(held: socket.socket) -> None:
    while True:
        request, client = held.recvfrom(1024)
        # Channel Access protocol: REPEATER_REGISTER, possibly without a header, is answered by REPEATER_CONFIRM
        if len(request) < HEADER.size or HEADER.unpack_from(request)[0] == REGISTER:
            held.sendto(HEADER.pack(CONFIRM, 0, 0, 0, 0, LOOPBACK), client)
