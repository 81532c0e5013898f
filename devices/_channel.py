"""Signals that are no motors: shutter, attenuator, lens in or out, ring current."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ophyd import Signal
from ophyd.status import Status

from devices._done import Done
from dfxrm_control.backend import ChannelValue
from dfxrm_control.config import ChannelConfig
from dfxrm_control.errors import DeviceError, LimitError

__all__ = ["Channel", "Shutter"]

SAME = 1e-6
"""Relative difference below which two numbers are the same: a control system may keep them in single precision."""


class SwitchGuard(Protocol):
    """Who is asked before a channel is set (`dfxrm_control.envelopes.Guard`)."""

    def switching(self, channel: str, value: ChannelValue, asked: str) -> AbstractContextManager[None]:
        """Hold while the channel is set; raises EnvelopeError when it must not be."""
        ...


class Channel(Signal):
    """A value by its logical name, whatever control system speaks for it.

    It takes words where its configuration lists ``choices``, else numbers. Subclasses say how to ask and tell
    (`_ask`, `_tell`).

    Parameters
    ----------
    name : str
        Logical name; also the data key.
    config : ChannelConfig
        What it takes.

    Attributes
    ----------
    guard : SwitchGuard or None
        Asked before it is set; None where no body comes or goes with it.
    """

    guard: SwitchGuard | None = None

    def __init__(self, *, name: str, config: ChannelConfig, **kwargs: Any) -> None:
        self._channel_config = config
        super().__init__(name=name, **kwargs)
        self._told: ChannelValue | None = None
        self._metadata["write_access"] = not config.read_only

    @property
    def source(self) -> str:
        """Where the value comes from, for descriptors."""
        raise NotImplementedError

    def _ask(self) -> ChannelValue:
        """Return the present value."""
        raise NotImplementedError

    def _tell(self, value: ChannelValue) -> None:
        """Set the value; return when it is known to be so."""
        raise NotImplementedError

    @property
    def called(self) -> str:
        """How errors name the channel; a control system adds the address."""
        return f"channel {self.name}"

    @property
    def hardware_units(self) -> str | None:
        """The unit that the control system gives, None where it gives none."""
        return None

    @property
    def units(self) -> str:
        """The unit of its values, empty where they have none."""
        return "" if self.choices is not None else self._channel_config.units

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The words it takes, or None where it takes numbers."""
        return self._channel_config.choices

    def get(self, **kwargs: Any) -> ChannelValue:
        """Return the present value.

        Raises
        ------
        DeviceError
            When it cannot be asked, or answers with no number where there should be one.
        """
        value = self._ask()
        if isinstance(value, str):
            return value
        if math.isnan(value):
            raise DeviceError(f"{self.called} reads NaN, which is no number")
        return float(value)

    def read(self) -> dict[str, Any]:
        """Return the present value."""
        return {self.name: {"value": self.get(), "timestamp": time.time()}}

    def trigger(self) -> Done:
        """Do nothing, at once: reading asks the channel anyway."""
        return Done()

    def describe(self) -> dict[str, Any]:
        """Return the data key."""
        key: dict[str, Any] = {"source": self.source, "shape": []}
        if self.choices is not None:
            key |= {"dtype": "string", "choices": list(self.choices)}
        else:
            key |= {"dtype": "number", "dtype_numpy": "<f8", "units": self._channel_config.units}
        return {self.name: key}

    def check_value(self, value: Any) -> None:
        """Refuse what the channel does not take.

        Raises
        ------
        LimitError
            Naming the channel, what was asked and what it takes.
        """
        if self._channel_config.read_only:
            raise LimitError(f"{self.called} is read only and cannot be set to {value!r}")
        if self.choices is not None:
            if value not in self.choices:
                raise LimitError(f"{self.called} takes {' or '.join(self.choices)}, not {value!r}")
        elif isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise LimitError(f"{self.called} takes a number, not {value!r}")

    def put(self, value: ChannelValue, **kwargs: Any) -> None:
        """Set the value and return when it is known to be so.

        Raises
        ------
        LimitError
            When the channel does not take this value, or would put a body where another one is (EnvelopeError).
        """
        self.check_value(value)
        if self.guard is None:
            self._tell(value)
        else:
            with self.guard.switching(self.name, value, f"{self.called} cannot be set to {value}"):
                self._tell(value)
        if not self._is(found := self.get(), value):
            raise DeviceError(f"{self.called} was set to {value!r} but is {found!r}")
        self._tell_subscribers(found)

    def _is(self, found: ChannelValue, asked: ChannelValue) -> bool:
        if isinstance(found, str) or isinstance(asked, str):
            return found == asked
        return math.isclose(found, asked, rel_tol=SAME, abs_tol=max(self._channel_config.tolerance, 1e-12))

    def _lost(self) -> None:
        """Tell subscribers that the value is not known: NaN, so that none goes on with what it was told last."""
        if self.choices is None:
            self._tell_subscribers(math.nan)

    def _tell_subscribers(self, value: ChannelValue) -> None:
        # NaN after NaN is no news
        if value != self._told and (value == value or self._told == self._told):
            old, self._told = self._told, value
            self._readback = value
            self._metadata["timestamp"] = time.time()
            self._run_subs(sub_type=self.SUB_VALUE, old_value=old, value=value, timestamp=self._metadata["timestamp"])

    def set(self, value: ChannelValue, *, timeout: float | None = None, **kwargs: Any) -> Status:
        """Set the value; the status is done when it is known to be so, and fails within the configured time-out.

        Raises
        ------
        LimitError
            When the channel does not take this value.
        """
        self.check_value(value)
        status = Status(self)

        def carry_out() -> None:
            try:
                self.put(value)
            except Exception as error:
                status.set_exception(error)
            else:
                status.set_finished()

        self._run(carry_out)
        return status

    def _run(self, work: Callable[[], None]) -> None:
        """Do what `set` has to do; a control system that may keep one waiting does it in a thread."""
        work()


class Shutter(Channel):
    """The beam shutter, ``open`` or ``closed``: a pause closes it, and its end opens it again if it was open."""

    _was: ChannelValue | None = None

    def set(self, value: ChannelValue, *, timeout: float | None = None, **kwargs: Any) -> Status:
        """Open or close the shutter; forgets what a pause remembered, since this is the latest word."""
        self._was = None
        return super().set(value, timeout=timeout, **kwargs)

    def stop(self, *, success: bool = False) -> None:
        """Forget what a pause remembered: a run that was not resumed must not open the shutter later."""
        self._was = None

    def pause(self) -> None:
        """Close, and remember whether it was open. Called twice in one pause, it remembers the first."""
        if self.get() == "open":
            self._was = "open"
            self.put("closed")

    def resume(self) -> None:
        """Open again if the pause closed it."""
        was, self._was = self._was, None
        if was is not None:
            self.put(was)
