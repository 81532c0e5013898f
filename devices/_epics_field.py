"""One process variable, asked anew for what is recorded."""

from __future__ import annotations

import warnings
from typing import Any

import epics
from ophyd import EpicsSignal
from ophyd.signal import UNSET_VALUE
from ophyd.utils.epics_pvs import AlarmSeverity, AlarmStatus

from dfxrm_control.errors import DeviceError

__all__ = ["ANSWER_S", "Field"]

ANSWER_S = 2.0
"""Longest wait for the answer to one request, s: ten times a slow network's 200 ms."""

# said again, in a sentence, by the error that it leads to
warnings.filterwarnings("ignore", message=r"ca\.get\(.*timed out", category=UserWarning)


LOST = (epics.ca.ChannelAccessException, epics.ca.ChannelAccessGetFailure, epics.ca.CASeverityException)
"""What pyepics raises where a server goes while it is asked."""


class Field(EpicsSignal):
    """A process variable that is asked anew for what is recorded, and told without waiting."""

    def ask(self, who: str) -> Any:
        """Return the present value.

        Parameters
        ----------
        who : str
            The axis or channel it belongs to, for errors.

        Raises
        ------
        DeviceError
            When it is not connected, does not answer in time, or answers that its value is not valid.
        """
        if not self.connected:
            raise DeviceError(f"{who} is not connected: there is no answer from {self.pvname}")
        try:
            answer = self._read_pv.get_with_metadata(
                as_string=self.as_string, form="time", timeout=ANSWER_S, use_monitor=False
            )
        except UserWarning:
            # of a time-out pyepics only warns, but warnings may be made errors
            answer = None
        except LOST as error:
            raise DeviceError(f"{who} lost its connection while {self.pvname} was read") from error
        if answer is None:
            if not self.connected:
                raise DeviceError(f"{who} lost its connection while {self.pvname} was read")
            raise DeviceError(f"{who} does not answer: no value of {self.pvname} within {ANSWER_S:g} s")
        if answer["severity"] == AlarmSeverity.INVALID:
            why = AlarmStatus(answer["status"]).name
            raise DeviceError(f"{who} has no valid value: {self.pvname} is {answer['value']}, in alarm INVALID ({why})")
        return answer["value"]

    def units(self, who: str) -> str:
        """Return the unit that the server gives; empty where it gives none.

        Raises
        ------
        DeviceError
            When it does not answer.
        """
        try:
            told = self._read_pv.get_ctrlvars(timeout=ANSWER_S)
        except (*LOST, UserWarning) as error:
            raise DeviceError(f"{who} lost its connection while {self.pvname} was read") from error
        return str((told or {}).get("units") or "")

    def known(self, who: str) -> Any:
        """Return what a monitor said last: for what guards a move, never for what is recorded.

        Raises
        ------
        DeviceError
            When it is not connected.
        """
        if not self.connected:
            raise DeviceError(f"{who} is not connected: there is no answer from {self.pvname}")
        return self.ask(who) if self._readback is UNSET_VALUE else self._readback

    def tell(self, who: str, value: Any, acknowledged: Any = None) -> None:
        """Send a value; ``acknowledged`` is called when the server says that it has been dealt with.

        Raises
        ------
        DeviceError
            When it is not connected or may not be written.
        """
        if not self.connected:
            raise DeviceError(f"{who} is not connected: {self.setpoint_pvname} cannot be set to {value!r}")
        if not self._write_pv.write_access:
            raise DeviceError(f"{who}: the server does not let {self.setpoint_pvname} be written (asked for {value!r})")
        try:
            self._write_pv.put(value, wait=False, use_complete=acknowledged is not None, callback=acknowledged)
        except (*LOST, ValueError) as error:
            raise DeviceError(f"{who}: {self.setpoint_pvname} could not be set to {value!r}: {error}") from error
