"""The status of a storage ring, as the ESRF's Tango devices tell it."""

from __future__ import annotations

from ophyd import Component, Device

from devices.tango._signal import TangoSignal

__all__ = ["TangoMachine"]


class TangoMachine(Device):
    """A machine status device: what users of a beam want recorded with their data.

    The current is read with each point if the device is read at all, the rest is configuration. A place with other
    attributes derives a class of its own in the same few lines. Parameters as for `ophyd.Device`; the prefix is the
    address of the Tango device.
    """

    current = Component(TangoSignal, "/SR_Current", kind="hinted", doc="mA")
    mode = Component(TangoSignal, "/SR_Mode", kind="config", doc="what the machine is used for")
    filling = Component(TangoSignal, "/SR_Filling_Mode", kind="config", doc="how the ring is filled")
    refill_in = Component(TangoSignal, "/SR_Refill_Countdown", kind="omitted", doc="time to the next refill, s")
    message = Component(TangoSignal, "/SR_Operator_Mesg", kind="omitted", doc="what the operators say")
