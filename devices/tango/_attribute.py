"""One attribute of a Tango device: its value now, its description, and word of its changes."""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tango

from devices.tango._device import TangoDevice, tango_device
from dfxrm_control.errors import DeviceError
from dfxrm_control.tango_address import Address

__all__ = ["Attribute", "Description", "Events", "Reachable", "Reading", "Watch", "Watched", "wait_until"]

POLL_S = 0.1
NET_S = 1.0
SETTLING_S = 1.0
logger = logging.getLogger(__name__)

# severities as in ophyd and EPICS: 0 all is well, 1 minor, 2 major, 3 invalid
SEVERITIES = {
    tango.AttrQuality.ATTR_VALID: 0,
    tango.AttrQuality.ATTR_CHANGING: 0,
    tango.AttrQuality.ATTR_WARNING: 1,
    tango.AttrQuality.ATTR_ALARM: 2,
    tango.AttrQuality.ATTR_INVALID: 3,
}
INTEGERS = {
    tango.CmdArgType.DevShort: "<i2",
    tango.CmdArgType.DevUShort: "<u2",
    tango.CmdArgType.DevLong: "<i4",
    tango.CmdArgType.DevULong: "<u4",
    tango.CmdArgType.DevLong64: "<i8",
    tango.CmdArgType.DevULong64: "<u8",
    tango.CmdArgType.DevUChar: "|u1",
}
FLOATS = {tango.CmdArgType.DevFloat: "<f4", tango.CmdArgType.DevDouble: "<f8"}
RANK = {tango.AttrDataFormat.SCALAR: 0, tango.AttrDataFormat.SPECTRUM: 1, tango.AttrDataFormat.IMAGE: 2}


@dataclass(frozen=True)
class Reading:
    """What an attribute said.

    Attributes
    ----------
    value : object
        Number, str (also for states and enums, whose label it is), bool, or ndarray.
    timestamp : float
        When the device read it, s since the epoch.
    severity : int
        0 valid or changing, 1 warning, 2 alarm.
    """

    value: Any
    timestamp: float
    severity: int


@dataclass(frozen=True)
class Description:
    """What a device says about one of its attributes.

    Attributes
    ----------
    dtype : str
        As in event-model: number, integer, string, boolean, array.
    dtype_numpy : str
        Type of the elements, or empty for strings.
    rank : int
        0 scalar, 1 spectrum, 2 image.
    units : str
        The device's word for the unit; empty where it gives none.
    labels : tuple of str
        Words of an enum, or the states where it is a state.
    low, high : float or None
        Smallest and largest value the device takes, where it says so.
    writable : bool
        Whether it can be written.
    precision : int or None
        Decimals, where the device gives a format such as ``%.4f``.
    """

    dtype: str
    dtype_numpy: str
    rank: int
    units: str
    labels: tuple[str, ...]
    low: float | None
    high: float | None
    writable: bool
    precision: int | None

    @classmethod
    def of(cls, info: Any) -> Description:
        """Read a `tango.AttributeInfoEx`."""
        rank, kind = RANK.get(info.data_format, 0), info.data_type
        labels: tuple[str, ...] = ()
        numpy_type = ""
        if kind == tango.CmdArgType.DevEnum:
            dtype, labels = "string", tuple(info.enum_labels)
        elif kind == tango.CmdArgType.DevState:
            dtype, labels = "string", tuple(tango.DevState.names)
        elif kind in FLOATS:
            dtype, numpy_type = "number", FLOATS[kind]
        elif kind in INTEGERS:
            dtype, numpy_type = "integer", INTEGERS[kind]
        elif kind == tango.CmdArgType.DevBoolean:
            dtype, numpy_type = "boolean", "|b1"
        else:
            dtype = "string"
        return cls(
            dtype="array" if rank else dtype,
            dtype_numpy=numpy_type,
            rank=rank,
            units="" if info.unit in ("No unit", "Not specified") else info.unit,
            labels=labels,
            low=_number(info.min_value),
            high=_number(info.max_value),
            writable=info.writable
            in (tango.AttrWriteType.READ_WRITE, tango.AttrWriteType.WRITE, tango.AttrWriteType.READ_WITH_WRITE),
            precision=_decimals(info.format) if dtype == "number" else None,
        )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _decimals(text: str) -> int | None:
    digits = text.removeprefix("%").rpartition(".")[2]
    return int(digits[:-1]) if digits[-1:] in ("f", "e") and digits[:-1].isdigit() else None


class Attribute:
    """One attribute of a Tango device.

    Parameters
    ----------
    address : str or Address
        ``[tango://host:port/]domain/family/member/attribute[#dbase=no]``.
    """

    def __init__(self, address: str | Address) -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self.device: TangoDevice = tango_device(self.address.device)
        self._description: Description | None = None

    @property
    def name(self) -> str:
        """Name of the attribute."""
        return self.address.attribute

    @property
    def known(self) -> bool:
        """Whether the device was asked for the description, so that `describe` needs it no more."""
        return self._description is not None

    def describe(self) -> Description:
        """Return what the device says about the attribute; asked once, since it does not change while a server runs.

        Raises
        ------
        DeviceError
            When the device does not answer, or has no such attribute.
        """
        if self._description is None:
            self._description = Description.of(self.device.attribute_info(self.name))
        return self._description

    def read(self) -> Reading:
        """Ask the device for the value.

        Raises
        ------
        DeviceError
            When it does not answer, or says that the value is not valid.
        """
        return self.interpret(self.device.read(self.name)[0])

    def interpret(self, found: Any) -> Reading:
        """Return what a `tango.DeviceAttribute` of this attribute says.

        Raises
        ------
        DeviceError
            When the device says that the value is not valid.
        """
        if found.quality == tango.AttrQuality.ATTR_INVALID or found.is_empty:
            raise DeviceError(f"Tango attribute {self.address}: the device says that its value is not valid")
        value = found.value
        if found.type == tango.CmdArgType.DevState:
            value = str(value)
        elif found.type == tango.CmdArgType.DevEnum and not isinstance(value, np.ndarray):
            labels = self.describe().labels
            value = labels[int(value)] if 0 <= int(value) < len(labels) else str(int(value))
        return Reading(value, found.time.totime(), SEVERITIES.get(found.quality, 0))

    def write(self, value: Any) -> None:
        """Write the attribute; an enum takes its label.

        Raises
        ------
        DeviceError
            When the device does not answer, refuses, or the enum has no such label.
        """
        labels = self.describe().labels if isinstance(value, str) else ()
        if labels:
            if value not in labels:
                raise DeviceError(f"Tango attribute {self.address} takes {', '.join(labels)}, not {value!r}")
            value = labels.index(value)
        self.device.write(self.name, value)


# A thread of Tango that calls back, or one of ours inside Tango, while the interpreter ends takes the process down.
_open: weakref.WeakSet[Events | Watch] = weakref.WeakSet()
EXIT_S = 2.0


@atexit.register
def _close_all() -> None:
    """Ask for no more events and end all watching before the interpreter ends."""
    watches = [user for user in _open if isinstance(user, Watch)]
    for watch in watches:
        watch.close()
    deadline = time.monotonic() + EXIT_S
    for watch in watches:
        watch.join(max(0.0, deadline - time.monotonic()))
    for events in [user for user in _open if isinstance(user, Events)]:
        events.close()


class Events:
    """Events of one attribute, of the best kind that its server sends.

    Change events are asked for first, then periodic ones. Events can be lost, and a server that was started anew
    sends none until it is asked again: whoever uses this looks at the attribute from time to time as well, and calls
    `mistrust` when that tells more than the events did.

    Parameters
    ----------
    attribute : Attribute
        What to hear of.
    tell : callable
        Called with each `tango.DeviceAttribute`, in a thread of Tango; it must not block.
    """

    def __init__(self, attribute: Attribute, tell: Callable[[Any], None]) -> None:
        self._attribute = attribute
        self._tell = tell
        self._number: int | None = None
        self._asked = False
        self._since = -math.inf
        self.mode = "poll"
        _open.add(self)

    @property
    def settled(self) -> bool:
        """Whether events may be relied on: right after they were asked for, some are lost on the way."""
        return self.live and time.monotonic() - self._since > SETTLING_S

    @property
    def live(self) -> bool:
        """Whether events may be expected."""
        return self._number is not None and self._asked

    def mistrust(self) -> None:
        """Ask the server anew at the next `ensure`."""
        self._asked = False

    def ensure(self) -> None:
        """Ask the server for events if that has not been done; where it sends none, `mode` says ``poll``.

        Raises
        ------
        DeviceError
            When the device does not answer, or has no such attribute.
        """
        if self._asked:
            return
        self.close()
        device = self._attribute.device
        # also tells whether the device answers at all; events of enums need the labels
        device.ping()
        self._attribute.describe()
        self._asked, self.mode = True, "poll"
        for mode, kind in (("change", tango.EventType.CHANGE_EVENT), ("periodic", tango.EventType.PERIODIC_EVENT)):
            try:
                self._number = device.subscribe(self._attribute.name, kind, self._event)
            except DeviceError as error:
                logger.debug("%s", error)
            else:
                self.mode, self._since = mode, time.monotonic()
                return

    def _event(self, event: Any) -> None:
        if event.err or event.attr_value is None:
            self.mistrust()
        else:
            self._tell(event.attr_value)

    def close(self) -> None:
        """Ask for no more events."""
        number, self._number = self._number, None
        if number is not None:
            self._attribute.device.unsubscribe(number)


class Watch:
    """Tells of every change of an attribute: by events where the server sends them, and by looking.

    A thread looks at the attribute each ``net_s`` while events come, as a net for lost ones, and each ``poll_s`` where
    none do. After the server was away it asks for events anew.

    Parameters
    ----------
    attribute : Attribute
        What to watch.
    tell : callable
        Called with each new `Reading`, and with a `DeviceError` when the attribute cannot be read (once, until it can
        be again). It must not block.
    poll_s, net_s : float
        Time between two looks, s.

    Attributes
    ----------
    unheard : int
        Changes that a look found before an event told of them. Where a device tells only of changes above a threshold
        this is as it should be; three in a row, and the server is asked for events anew.
    """

    def __init__(
        self,
        attribute: Attribute,
        tell: Callable[[Reading | DeviceError], None],
        poll_s: float = POLL_S,
        net_s: float = NET_S,
    ) -> None:
        self._attribute = attribute
        self._tell = tell
        self._poll_s, self._net_s = poll_s, net_s
        self._events = Events(attribute, self._heard)
        self._lock = threading.Lock()
        self._last: Reading | None = None
        self._failed = False
        self._closed = threading.Event()
        self._first = threading.Event()
        self.unheard = 0
        self._in_a_row = 0
        self._thread = threading.Thread(target=self._run, name=f"watch {attribute.address}", daemon=True)
        self._thread.start()
        _open.add(self)

    @property
    def mode(self) -> str:
        """How changes are heard of now: ``change``, ``periodic`` or ``poll``."""
        return self._events.mode if self._events.live else "poll"

    def wait_first(self, timeout_s: float) -> bool:
        """Wait until the attribute was looked at for the first time; False when it took longer."""
        return self._first.wait(timeout_s)

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def join(self, timeout_s: float) -> None:
        """Wait until a watch that was closed has ended; a device that does not answer may hold it for longer."""
        self._thread.join(timeout_s)

    def _heard(self, found: Any) -> None:
        try:
            reading = self._attribute.interpret(found)
        except DeviceError as error:
            self._report(error)
        else:
            self._report(reading)

    def _report(self, news: Reading | DeviceError, looked: bool = False) -> None:
        with self._lock:
            if isinstance(news, DeviceError):
                if self._failed or self._closed.is_set():
                    return
                self._failed, self._last = True, None
            else:
                self._failed = False
                last = self._last
                # an event that overtook a look is newer than what the look found
                if last is not None and (news.timestamp < last.timestamp or _same(news.value, last.value)):
                    return
                if looked and last is not None and self._events.settled:
                    self.unheard += 1
                    self._in_a_row += 1
                    if self._in_a_row == 3:
                        self._in_a_row = 0
                        self._events.mistrust()
                elif not looked:
                    self._in_a_row = 0
                self._last = news
        if not self._closed.is_set():
            self._tell(news)

    def _run(self) -> None:
        with tango.EnsureOmniThread():
            while not self._closed.is_set():
                try:
                    self._events.ensure()
                    self._report(self._attribute.read(), looked=True)
                except DeviceError as error:
                    self._events.mistrust()
                    self._report(error)
                except Exception:
                    logger.exception("watching %s failed", self._attribute.address)
                self._first.set()
                self._closed.wait(self._net_s if self._events.settled else self._poll_s)
            self._events.close()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    # NaN after NaN is no news
    return one == other or (one != one and other != other)


def wait_until(check: Callable[[], bool], timeout_s: float, every_s: float = 0.005) -> bool:
    """Ask ``check`` until it is true or the time is over; the time between two looks doubles up to ``POLL_S``."""
    deadline = time.monotonic() + timeout_s
    while not check():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(every_s, left))
        every_s = min(2 * every_s, POLL_S)
    return True


class Reachable:
    """What stands for a Tango device: whether that answers, and waiting until it does. To be inherited first."""

    _tango: TangoDevice

    @property
    def called(self) -> str:
        """How errors name it, with its address."""
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """Whether the device answers now."""
        try:
            self._tango.ping()
        except DeviceError:
            return False
        return True

    def wait_for_connection(self, timeout: float = 2.0) -> None:
        """Wait until the device answers.

        Raises
        ------
        TimeoutError
            When it does not.
        """
        if not wait_until(lambda: self.connected, timeout):
            raise TimeoutError(f"{self.called} did not answer within {timeout:g} s")


class Watched(Reachable):
    """An ophyd signal on an attribute, which is watched as soon as somebody subscribes. To be inherited first."""

    _watching: Watch | None = None

    @property
    def mode(self) -> str | None:
        """How changes are heard of: ``change``, ``periodic`` or ``poll``; None without subscribers."""
        return None if self._watching is None else self._watching.mode

    def destroy(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.close()
        super().destroy()  # type: ignore[misc]
