"""Channels of the microscope over Tango: an attribute, or a shutter by its state and commands."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import tango

from devices._channel import Channel, Shutter
from devices.tango._attribute import Attribute, Reading, Watch, Watched, wait_until
from devices.tango._device import DisconnectedError
from dfxrm_control.backend import Backend, ChannelValue
from dfxrm_control.config import ChannelConfig
from dfxrm_control.errors import ConfigError, DeviceError
from dfxrm_control.tango_address import Address

__all__ = ["TangoChannel", "TangoShutter"]

STATES = {"OPEN": "open", "CLOSE": "closed"}
FAULTS = {"FAULT", "ALARM", "UNKNOWN", "DISABLE", "OFF"}


class TangoChannel(Watched, Channel):
    """An attribute of a Tango device as a channel.

    Words are translated by ``words`` and ``set_words`` of the configuration, and otherwise taken without regard to
    upper and lower case, so that an enum ``OPEN``, ``CLOSED`` serves choices ``open``, ``closed``. A truth value reads
    ``True`` or ``False``, a whole number its digits. Parameters as for `Channel`; the address of the configuration
    names the attribute, and ``readback`` the one that is read, where it is another.

    Raises
    ------
    ConfigError
        When the address is missing or names no attribute.
    """

    def __init__(self, *, name: str, config: ChannelConfig, backend: Backend | None = None, **kwargs: Any) -> None:
        if not config.address:
            raise ConfigError(f"channel {name} is on Tango and needs an address domain/family/member[/attribute]")
        self._attribute = self._attribute_of(name, config.address)
        self._tango = self._attribute.device
        self._read_from = self._attribute_of(name, config.readback) if config.readback else self._attribute
        super().__init__(name=name, config=config, **kwargs)

    @staticmethod
    def _attribute_of(name: str, text: str) -> Attribute:
        address = Address.parse(text)
        if not address.attribute:
            raise ConfigError(f"channel {name}: {text!r} names a Tango device, but not its attribute")
        return Attribute(address)

    @property
    def source(self) -> str:
        """Where the value comes from, for descriptors."""
        return self._read_from.address.source

    @property
    def called(self) -> str:
        """How errors name the channel: with its address."""
        return f"channel {self.name} ({self.source})"

    @property
    def hardware_units(self) -> str | None:
        """The unit that the device gives, None where it gives none.

        Raises
        ------
        DeviceError
            When the device does not answer.
        """
        return self._read_from.describe().units or None

    def _ask(self) -> ChannelValue:
        return self._understood(self._read_from.read())

    def read(self) -> dict[str, Any]:
        """Ask the device for the value.

        Raises
        ------
        DeviceError
            When it does not answer, or gives no valid value.
        """
        try:
            return super().read()
        except DisconnectedError as error:
            raise DeviceError(f"{self.called} cannot be read: {error}") from error

    def _understood(self, reading: Reading) -> ChannelValue:
        value = reading.value
        if self.choices is None:
            if isinstance(value, str):
                raise DeviceError(f"{self.called} reads {value!r} where a number is expected")
            if math.isnan(value):
                raise DeviceError(f"{self.called} reads NaN, which is no number")
            return float(value)
        word = str(value)
        for choice in self.choices:
            if self._word(choice).casefold() == word.casefold():
                return choice
        raise DeviceError(f"{self.called} reads {word!r}, which is none of {', '.join(map(self._word, self.choices))}")

    def _word(self, choice: str) -> str:
        return self._channel_config.words.get(choice, choice)

    def _tell(self, value: ChannelValue) -> None:
        self._attribute.write(self._spoken(value) if isinstance(value, str) else float(value))
        self._wait_for(value)

    def _spoken(self, choice: str) -> Any:
        """Return what the attribute is set to for one of the choices: a label of an enum, a truth value or a number."""
        word = self._channel_config.set_words.get(choice, self._word(choice))
        told = self._attribute.describe()
        if told.dtype == "boolean":
            return word.casefold() == "true"
        if told.dtype == "integer" and word.lstrip("-").isdigit():
            return int(word)
        for label in told.labels:
            if label.casefold() == word.casefold():
                return label
        return word

    def _wait_for(self, value: ChannelValue) -> None:
        def there() -> bool:
            try:
                return self._is(self.get(), value)
            except DeviceError:
                if not self._on_the_way():
                    raise
                return False

        if not wait_until(there, self._channel_config.timeout_s):
            raise DeviceError(
                f"{self.called} was set to {value!r} but is {self.get()!r} after {self._channel_config.timeout_s:g} s"
            )

    def _on_the_way(self) -> bool:
        """Return whether a value that is not understood may be one between two that are."""
        return False

    def _run(self, work: Callable[[], None]) -> None:
        def carry_out() -> None:
            with tango.EnsureOmniThread():
                work()

        threading.Thread(target=carry_out, name=f"set {self.name}", daemon=True).start()

    def subscribe(self, callback: Any, event_type: str | None = None, run: bool = True) -> int:
        """Call back on each change; the first subscriber makes the device be watched."""
        if event_type in (None, self.SUB_VALUE):
            self._tell_subscribers(self.get())
            if self._watching is None:
                self._watching = Watch(self._read_from, self._heard)
        return super().subscribe(callback, event_type=event_type, run=run)

    def _heard(self, news: Reading | DeviceError) -> None:
        try:
            if isinstance(news, DeviceError):
                raise news
            self._tell_subscribers(self._understood(news))
        except DeviceError as error:
            self.log.warning("%s", error)
            self._lost()


class TangoShutter(TangoChannel, Shutter):
    """A shutter over Tango.

    An address with an attribute is a channel like any other. One without is a device with the states ``OPEN`` and
    ``CLOSE`` and the commands ``Open`` and ``Close``.
    """

    @staticmethod
    def _attribute_of(name: str, text: str) -> Attribute:
        address = Address.parse(text)
        return Attribute(address if address.attribute else address.of("State"))

    def _understood(self, reading: Reading) -> ChannelValue:
        if self._read_from.name != "State":
            return super()._understood(reading)
        if reading.value in STATES:
            return STATES[reading.value]
        text = self._attribute.device.status() if reading.value in FAULTS else ""
        raise DeviceError(
            f"{self.called} is in state {reading.value}, neither open nor closed"
            + (f"; it says: {text}" if text else "")
        )

    def _on_the_way(self) -> bool:
        return self._read_from.name == "State" and self._read_from.read().value not in FAULTS

    def _tell(self, value: ChannelValue) -> None:
        if self._attribute.name != "State":
            super()._tell(value)
            return
        self._attribute.device.command("Open" if value == "open" else "Close")
        self._wait_for(value)
