"""An attribute of a Tango device as a signal of classic ophyd."""

from __future__ import annotations

import math
import numbers
import threading
from typing import Any

import numpy as np
import tango
from ophyd import Signal
from ophyd.status import Status

from devices._done import Done
from devices.tango._attribute import NET_S, POLL_S, Attribute, Description, Reading, Watch, Watched, wait_until
from dfxrm_control.errors import ConfigError, DeviceError, LimitError

__all__ = ["TangoSignal"]


class TangoSignal(Watched, Signal):
    """An attribute of a Tango device.

    Reading it asks the device each time. Nothing goes over the network when it is made.

    Parameters
    ----------
    address : str
        ``[tango://host:port/]domain/family/member/attribute[#dbase=no]``.
    name : str
        Name; also the data key.
    timeout_s : float
        After how long `set` fails when the value does not become what was asked.
    tolerance : float, optional
        Largest difference to the value asked at which a number counts as set; without, one part in a million. Give
        ``math.inf`` for an attribute whose read part is something else than what was written: then it is set when the
        device has taken the value.
    poll_s, net_s : float
        While there are subscribers: time between two looks where the server sends no events, and where it does, s.

    Raises
    ------
    ConfigError
        When the address has not this form.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str,
        timeout_s: float = 5.0,
        tolerance: float | None = None,
        poll_s: float = POLL_S,
        net_s: float = NET_S,
        **kwargs: Any,
    ) -> None:
        self._attribute = Attribute(address)
        if not self._attribute.name:
            raise ConfigError(f"signal {name}: {address!r} names a Tango device, but not its attribute")
        self._tango = self._attribute.device
        self._timeout_s = timeout_s
        self._own_tolerance = tolerance
        self._readback: Any = None
        self._poll_s, self._net_s = poll_s, net_s
        super().__init__(name=name, **kwargs)
        self._metadata.update(connected=False, severity=None, timestamp=None)

    @property
    def source(self) -> str:
        """Where the value comes from, for descriptors."""
        return self._attribute.address.source

    @property
    def called(self) -> str:
        """How errors name the signal: with its address."""
        return f"signal {self.name} ({self.source})"

    @property
    def description(self) -> Description:
        """What the device says about the attribute; asked once.

        Raises
        ------
        DeviceError
            When the device does not answer, or has no such attribute.
        """
        return self._attribute.describe()

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value that the device takes; (0, 0), ophyd's word for none, where it gives none."""
        low, high = self.description.low, self.description.high
        return (0.0, 0.0) if low is None or high is None else (low, high)

    # -- reading --------------------------------------------------------------------------------------------------

    def reading(self) -> Reading:
        """Ask the device for value, time and severity.

        Raises
        ------
        DeviceError
            When it does not answer, or says that the value is not valid.
        """
        reading = self._attribute.read()
        self._metadata.update(connected=True, timestamp=reading.timestamp, severity=reading.severity)
        return reading

    @property
    def alarm_severity(self) -> int | None:
        """Severity of the last reading: 0 none, 1 minor (a warning), 2 major (an alarm); None before the first."""
        return self._metadata["severity"]

    def get(self, **kwargs: Any) -> Any:
        """Ask the device for the value. Errors as for `reading`."""
        return self.reading().value

    def read(self) -> dict[str, Any]:
        """Ask the device for value and time. Errors as for `reading`."""
        reading = self.reading()
        return {self.name: {"value": reading.value, "timestamp": reading.timestamp}}

    def trigger(self) -> Done:
        """Do nothing, at once: reading asks the device anyway."""
        return Done()

    def describe(self) -> dict[str, Any]:
        """Return the data key, as the device describes the attribute; an array's shape is that of the present value."""
        told = self.description
        key: dict[str, Any] = {"source": self.source, "dtype": told.dtype, "shape": []}
        if told.rank:
            key["shape"] = list(np.shape(self.get()))
        if told.dtype_numpy:
            key["dtype_numpy"] = told.dtype_numpy
        if told.labels:
            key["choices"] = list(told.labels)
        elif told.dtype != "string":
            key["units"] = told.units
        if told.precision is not None:
            key["precision"] = told.precision
        for bound, value in (("lower_ctrl_limit", told.low), ("upper_ctrl_limit", told.high)):
            if value is not None:
                key[bound] = value
        return {self.name: key}

    # -- writing --------------------------------------------------------------------------------------------------

    def check_value(self, value: Any) -> None:
        """Refuse what the attribute does not take.

        Raises
        ------
        LimitError
            Naming the signal, the value asked and what it takes.
        """
        told = self.description
        if not told.writable:
            raise LimitError(f"{self.called} is read only and cannot be set to {value!r}")
        if told.labels and isinstance(value, str):
            if value not in told.labels:
                raise LimitError(f"{self.called} takes {', '.join(told.labels)}, not {value!r}")
        elif told.dtype in ("number", "integer"):
            low = -math.inf if told.low is None else told.low
            high = math.inf if told.high is None else told.high
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= float(value) <= high:
                raise LimitError(
                    f"{self.called}: {value!r} is not a number from {low:g} to {high:g} {told.units}".rstrip()
                )

    def put(self, value: Any, **kwargs: Any) -> None:
        """Write the value; return when the device has taken it. Errors as for `set`."""
        self.check_value(value)
        self._attribute.write(value)

    def set(self, value: Any, *, timeout: float | None = None, settle_time: float | None = None) -> Status:
        """Write the value; the status is done when the device reads as was asked.

        Parameters
        ----------
        timeout : float, optional
            After how long the status fails, s; without, ``timeout_s``.
        settle_time : float, optional
            Time to wait after that, s.

        Raises
        ------
        LimitError
            When the attribute does not take this value.
        DeviceError
            When the device does not answer. What goes wrong later is the error of the status.
        """
        self.check_value(value)
        limit_s = self._timeout_s if timeout is None else timeout
        status = Status(self, settle_time=settle_time or 0.0)

        def carry_out() -> None:
            try:
                with tango.EnsureOmniThread():
                    self._attribute.write(value)
                    if not wait_until(lambda: self._is(value), limit_s):
                        raise DeviceError(
                            f"{self.called} was set to {value!r} but is {self.get()!r} after {limit_s:g} s"
                        )
            except Exception as error:
                status.set_exception(error)
            else:
                status.set_finished()

        threading.Thread(target=carry_out, name=f"set {self.name}", daemon=True).start()
        return status

    def _is(self, asked: Any) -> bool:
        if self._own_tolerance == math.inf:
            return True
        found = self.get()
        if isinstance(found, str):
            labels = self.description.labels
            return found == (asked if isinstance(asked, str) or not labels else labels[int(asked)])
        if self._own_tolerance is None:
            return bool(np.allclose(found, asked, rtol=1e-6, atol=1e-12))
        return bool(np.all(np.abs(np.subtract(found, asked)) <= self._own_tolerance))

    # -- changes --------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Any, event_type: str | None = None, run: bool = True) -> int:
        """Call back on each change; the first subscriber makes the device be watched."""
        if event_type in (None, self.SUB_VALUE) and self._watching is None:
            self._watching = Watch(self._attribute, self._told, self._poll_s, self._net_s)
            self._watching.wait_first(self._timeout_s)
        return super().subscribe(callback, event_type=event_type, run=run)

    def _told(self, news: Reading | DeviceError) -> None:
        if isinstance(news, DeviceError):
            self.log.warning("%s", news)
            if self._metadata["connected"]:
                self._metadata.update(connected=False)
                self._run_subs(sub_type=self.SUB_META, **self._metadata)
            return
        old, self._readback = self._readback, news.value
        self._metadata.update(connected=True, timestamp=news.timestamp, severity=news.severity)
        self._run_subs(sub_type=self.SUB_VALUE, old_value=old, value=news.value, timestamp=news.timestamp)
