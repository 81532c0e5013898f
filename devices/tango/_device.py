"""One Tango device: its address, the one proxy that all its users share, and errors that say which device and where."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tango

from dfxrm_control.errors import DeviceError

__all__ = ["DisconnectedError", "TangoDevice", "tango_device"]

CALL_TIMEOUT_S = 2.0
# cppTango refuses to connect anew within a second of the last try; it says so in a DevFailed of no special class
NOT_CONNECTED = {"API_CantConnectToDevice", "API_ServerNotRunning", "API_DeviceTimedOut", "API_DeviceNotExported"}


class DisconnectedError(DeviceError):
    """A Tango device does not answer: its server is not running, stopped, or the network is gone."""


class TangoDevice:
    """A Tango device as this process sees it; get one from `tango_device`, which gives all users the same.

    Every method makes one call over the network and returns what the device says now. A server that was away is found
    again by the next call.

    Parameters
    ----------
    address : str
        As `Address.device`.
    timeout_s : float
        How long one call may take. Where a server stands still with its socket open, Tango tries to connect anew, so
        that the first call takes twice as long and 3 s more before it fails.
    """

    def __init__(self, address: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._proxy: Any = None
        self._connecting = threading.Lock()

    @property
    def proxy(self) -> Any:
        """The `tango.DeviceProxy`, made when it is first asked for.

        Raises
        ------
        tango.DevFailed
            When the device cannot be reached; calls inside `speaking` turn it into a `DeviceError`.
        """
        if self._proxy is None:
            with self._connecting:
                if self._proxy is None:
                    proxy = tango.DeviceProxy(self.address)
                    # made also where nobody answers; to set its time-out would then hold up all of Python for seconds
                    proxy.ping()
                    proxy.set_timeout_millis(round(self.timeout_s * 1000))
                    # by default Tango answers from the cache of a server that polls; what is read here is read now
                    proxy.set_source(tango.DevSource.DEV)
                    self._proxy = proxy
        return self._proxy

    @contextmanager
    def speaking(self, doing: str) -> Iterator[Any]:
        """Give the proxy for one call, and turn what Tango raises into one sentence with device, address and action.

        Parameters
        ----------
        doing : str
            What is tried, e.g. ``read Position``.

        Raises
        ------
        DisconnectedError
            When the device does not answer.
        DeviceError
            When it refuses; its own words are in the sentence.
        """
        try:
            yield self.proxy
        except tango.DevFailed as error:
            raise self._as_sentence(error, doing) from error

    def _as_sentence(self, error: Any, doing: str) -> DeviceError:
        reasons = {part.reason for part in error.args}
        first = error.args[0] if error.args else None
        words = " ".join(first.desc.split()).rstrip(".") if first is not None else "no reason given"
        if isinstance(error, tango.ConnectionFailed | tango.CommunicationFailed) or reasons & NOT_CONNECTED:
            return DisconnectedError(f"Tango device {self.address} does not answer (asked to {doing}): {words}")
        return DeviceError(f"Tango device {self.address} refused to {doing}: {words}")

    def ping(self) -> None:
        """Ask whether it is there.

        Raises
        ------
        DisconnectedError
            When it is not.
        """
        with self.speaking("answer") as proxy:
            proxy.ping()

    def read(self, *attributes: str) -> list[Any]:
        """Read attributes in one call, and return a `tango.DeviceAttribute` for each.

        Raises
        ------
        DeviceError
            When it does not answer, or has no such attribute.
        """
        doing = f"read {' and '.join(attributes)}"
        with self.speaking(doing) as proxy:
            found = proxy.read_attributes(list(attributes))
        for value in found:
            if value.has_failed:
                errors = value.get_err_stack()
                words = " ".join(errors[0].desc.split()) if errors else "no reason given"
                raise DeviceError(f"Tango device {self.address} refused to read {value.name}: {words}")
        return list(found)

    def write(self, attribute: str, value: Any) -> None:
        """Write an attribute and return when the device has taken the value.

        Raises
        ------
        DeviceError
            When it does not answer, or refuses; the value is in the sentence.
        """
        with self.speaking(f"write {value!r} to {attribute}") as proxy:
            try:
                proxy.write_attribute(attribute, value)
            except (TypeError, ValueError, OverflowError) as error:
                # PyTango itself refuses a value that is not of the attribute's type
                raise DeviceError(
                    f"Tango device {self.address} cannot take {value!r} for {attribute}: {error}"
                ) from error

    def command(self, name: str, *arguments: Any) -> Any:
        """Run a command and return what it returns.

        Raises
        ------
        DeviceError
            When it does not answer, or refuses.
        """
        with self.speaking(f"run {name}") as proxy:
            return proxy.command_inout(name, *arguments)

    def attribute_info(self, attribute: str) -> Any:
        """Return the `tango.AttributeInfoEx` of an attribute: type, unit, bounds, enum labels.

        Raises
        ------
        DeviceError
            When it does not answer, or has no such attribute.
        """
        with self.speaking(f"describe {attribute}") as proxy:
            return proxy.get_attribute_config_ex(attribute)[0]

    def attributes(self) -> Sequence[str]:
        """Return the names of its attributes.

        Raises
        ------
        DeviceError
            When it does not answer.
        """
        with self.speaking("list its attributes") as proxy:
            return tuple(proxy.get_attribute_list())

    def first_command(self, *names: str) -> str:
        """Return the first of these commands that the device has.

        Raises
        ------
        DeviceError
            When it does not answer, or has none of them.
        """
        with self.speaking("list its commands") as proxy:
            has = {name.casefold() for name in proxy.get_command_list()}
        for name in names:
            if name.casefold() in has:
                return name
        raise DeviceError(f"Tango device {self.address} has no command {' or '.join(names)}")

    def status(self) -> str:
        """Return what the device says of itself, on one line; empty when it does not answer."""
        try:
            (value,) = self.read("Status")
        except DeviceError:
            return ""
        return " ".join(str(value.value).split())

    def subscribe(self, attribute: str, kind: Any, callback: Callable[[Any], None]) -> int:
        """Ask for events of an attribute.

        Parameters
        ----------
        kind : tango.EventType
            Which events.
        callback : callable
            Called with each `tango.EventData`, in a thread of Tango; it must not block.

        Returns
        -------
        int
            What `unsubscribe` takes.

        Raises
        ------
        DeviceError
            When the device does not answer or sends no such events.
        """
        with tango.EnsureOmniThread(), self.speaking(f"send {kind} of {attribute}") as proxy:
            return proxy.subscribe_event(attribute, kind, callback)

    def unsubscribe(self, number: int) -> None:
        """Ask for no more events; that the device is gone is no error."""
        with tango.EnsureOmniThread():
            try:
                self.proxy.unsubscribe_event(number)
            except (tango.DevFailed, KeyError):
                return


_devices: weakref.WeakValueDictionary[str, TangoDevice] = weakref.WeakValueDictionary()
_devices_lock = threading.Lock()


def tango_device(address: str) -> TangoDevice:
    """Return the device at an address; everybody who asks for the same one shares it, and its connection.

    Parameters
    ----------
    address : str
        ``[tango://host:port/]domain/family/member[#dbase=no]``; Tango does not tell upper from lower case.
    """
    with _devices_lock:
        found = _devices.get(address.lower())
        if found is None:
            found = _devices[address.lower()] = TangoDevice(address)
        return found
