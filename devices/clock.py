"""The microscope's clock as something a plan can wait for.

A plan that sleeps waits in real time. A plan that sets this clock waits in the time of the microscope, which on the
twin may be faster; and a pause or an abort ends the waiting at once.
"""

from __future__ import annotations

import math
import numbers
import time
from typing import Any

from ophyd.status import Status

from devices._waiter import Alarm, Waiter, backend_waiter, wall_waiter
from dfxrm_control.backend import Backend
from dfxrm_control.errors import DeviceError, LimitError

__all__ = ["Clock"]


class Clock:
    """The clock of a backend, or that of the world where there is none.

    Parameters
    ----------
    backend : Backend or None
        Whose time counts.
    name : str
        Logical name; also the data key.
    """

    parent = None

    def __init__(self, backend: Backend | None = None, name: str = "clock") -> None:
        self.name = name
        self._waiter: Waiter = backend_waiter(backend) if backend is not None else wall_waiter()
        self._source = "memory:clock" if backend is not None else "system:clock"
        self._waiting: tuple[Status, Alarm] | None = None

    def now(self) -> float:
        """Return the time, s."""
        return self._waiter.now()

    def hurry(self) -> None:
        """Say that all that was to begin has begun, so that a clock that is faster than the world's may go on."""
        self._waiter.hurry()

    def read(self) -> dict[str, Any]:
        """Return the time."""
        return {self.name: {"value": self.now(), "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        """Return the data key."""
        return {self.name: {"source": self._source, "dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "s"}}

    def read_configuration(self) -> dict[str, Any]:
        """Return nothing: a clock has no settings."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def check_value(self, value: Any) -> None:
        """Refuse what is no time.

        Raises
        ------
        LimitError
            Naming the clock and what was asked.
        """
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(float(value)):
            raise LimitError(f"{self.name}: {value!r} is no time in seconds")

    def expected_duration_s(self, target: float) -> float:
        """Return how long waiting for a time should take, s."""
        return max(float(target) - self.now(), 0.0)

    def set(self, value: float) -> Status:
        """Wait for a time in seconds; done when the clock has reached it.

        Raises
        ------
        LimitError
            When that is no time.
        """
        self.check_value(value)
        self.stop(success=False)
        status = Status(self)
        self._until(float(value), status)
        return status

    def stop(self, *, success: bool = False) -> None:
        """End the waiting now.

        Parameters
        ----------
        success : bool
            Whether that counts as successful (the RunEngine's pause) or as failed.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        status, alarm = waiting
        alarm.cancel()
        if status.done:
            return
        if success:
            status.set_finished()
        else:
            status.set_exception(DeviceError(f"{self.name}: the waiting was stopped"))

    def _until(self, time_s: float, status: Status) -> None:
        """Wait for the next time at which there is something to do, and do it."""

        def reached(error: Exception | None) -> None:
            if self._waiting is None or self._waiting[0] is not status:
                return
            fault = error or self._fault(time_s - self.now())
            if fault is not None:
                self._waiting = None
                status.set_exception(fault)
            elif self.now() >= time_s:
                self._waiting = None
                status.set_finished()
            else:
                self._until(time_s, status)

        alarm = Alarm(min(time_s, self.now() + self._look_every_s()), reached)
        # known before it can ring
        self._waiting = (status, alarm)
        self._waiter.put(alarm)

    def _look_every_s(self) -> float:
        """Return how often it is looked whether something is wrong."""
        return math.inf

    def _fault(self, left_s: float) -> Exception | None:
        """Return what is wrong, ``left_s`` before the end."""
        return None
