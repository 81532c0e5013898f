"""Telling this process where the control systems of a configuration are, before it first looks for them."""

from __future__ import annotations

import os
import socket
import sys

from dfxrm_control.config import EpicsControl, MicroscopeConfig
from dfxrm_control.errors import ConfigError

__all__ = ["find_control_systems"]

LIST, AUTO, REPEATER_PORT = "EPICS_CA_ADDR_LIST", "EPICS_CA_AUTO_ADDR_LIST", "EPICS_CA_REPEATER_PORT"
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
    """Let the EPICS library find the port of its repeater taken: then it starts none."""
    if _held:
        return
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    os.environ[REPEATER_PORT] = str(held.getsockname()[1])
