"""Process variables that ask the twin when they are read, and hand on what is put."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

from caproto import (
    AccessRights,
    AlarmSeverity,
    AlarmStatus,
    ChannelChar,
    ChannelDouble,
    ChannelEnum,
    ChannelInteger,
    ChannelString,
    SkipWrite,
)

from dfxrm_control.errors import DeviceError

_log = logging.getLogger("simulators.epics")

__all__ = ["Asked", "Choice", "Integer", "LongText", "Number", "SkipWrite", "Text", "Twin", "set_alarm"]


class Twin:
    """What stands behind a server, asked in threads so that the server goes on answering meanwhile.

    Parameters
    ----------
    backend : Backend
        The twin.
    threads : Executor
        Where it is asked.
    """

    def __init__(self, backend: Any, threads: Executor) -> None:
        self.backend = backend
        self._threads = threads

    def ask(self, call: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Run a blocking call in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


async def set_alarm(variable: Any, alarmed: bool) -> None:
    """Mark a variable as not valid because what stands behind it does not answer, or take that mark away."""
    severity = AlarmSeverity.INVALID_ALARM if alarmed else AlarmSeverity.NO_ALARM
    if variable.alarm.severity != severity:
        status = AlarmStatus.COMM if alarmed else AlarmStatus.NO_ALARM
        await variable.alarm.write(status=status, severity=severity)


class _Variable:
    """What all variables of these servers have in common; before a class of caproto's.

    Attributes
    ----------
    on_put : callable, optional
        Awaited with what a client puts, before it is known; raises `SkipWrite` if it has dealt with it.
    on_read : callable, optional
        Awaited before the value is handed out.
    read_only : bool
        Whether clients may not put.
    """

    on_put: Callable[[Any], Awaitable[Any]] | None = None
    on_read: Callable[[], Awaitable[None]] | None = None
    read_only = False

    async def verify_value(self, data: Any) -> Any:
        """Hand on what is put."""
        data = await super().verify_value(data)  # type: ignore[misc]
        if self.on_put is not None:
            await self.on_put(data)
        return data

    async def read(self, data_type: Any) -> Any:
        """Ask for the present value and return it."""
        if self.on_read is not None:
            await self.on_read()
        return await super().read(data_type)  # type: ignore[misc]

    def check_access(self, hostname: Any, username: Any) -> AccessRights:
        """Return whether a client may put."""
        return AccessRights.READ if self.read_only else AccessRights.READ | AccessRights.WRITE

    async def post(self, value: Any) -> None:
        """Set the value from within and tell the clients."""
        await self.write(value, verify_value=False)  # type: ignore[attr-defined]


class Number(_Variable, ChannelDouble):
    """A double."""


class Integer(_Variable, ChannelInteger):
    """A 32-bit integer."""


class Choice(_Variable, ChannelEnum):
    """One of at most sixteen words."""


class Text(_Variable, ChannelString):
    """Up to 40 characters."""


class LongText(_Variable, ChannelChar):
    """Up to 256 characters; never none, which clients do not survive."""

    def __init__(self, value: str = " ") -> None:
        super().__init__(value=value, max_length=256, string_encoding="utf-8")

    async def verify_value(self, data: Any) -> Any:
        """Hand on what is put, without what fills it up."""
        return await super().verify_value(data.rstrip("\0") or " ")

    async def post(self, value: str) -> None:
        """Set the value from within; a space where there is nothing to say."""
        await super().post(value[:255] or " ")


class Asked:
    """A value of the twin, kept by a variable that asks for it anew when it is read.

    Parameters
    ----------
    variable : ChannelData
        The variable.
    ask : callable
        Awaited, gives the value in the variable's own terms.
    """

    def __init__(self, variable: Any, ask: Callable[[], Awaitable[Any]]) -> None:
        self.variable = variable
        self._ask = ask
        variable.on_read = self.refresh

    async def start(self) -> None:
        """Give the variable its first value; raises DeviceError when the twin does not answer."""
        await self.variable.post(await self._ask())

    async def refresh(self) -> None:
        """Ask, and tell clients of a change; a twin that does not answer makes the value not valid."""
        try:
            value = await self._ask()
        except DeviceError as error:
            if self.variable.alarm.severity != AlarmSeverity.INVALID_ALARM:
                _log.warning("%s", error)
            await set_alarm(self.variable, True)
            return
        await set_alarm(self.variable, False)
        if value != self.variable.value:
            await self.variable.post(value)
