"""Tango on classic ophyd: signals, motors, channels, cameras, and what they are made of.

`TangoSignal` needs nothing of the microscope and serves any ophyd device.
"""

from devices._axis import Motor
from devices._channel import Channel, Shutter
from devices.tango._attribute import Attribute, Description, Events, Reading, Watch
from devices.tango._axis import TangoAxis, TangoVelocity
from devices.tango._camera import TangoCamera
from devices.tango._channel import TangoChannel, TangoShutter
from devices.tango._device import DisconnectedError, TangoDevice, tango_device
from devices.tango._machine import TangoMachine
from devices.tango._signal import TangoSignal
from dfxrm_control.tango_address import Address

__all__ = [
    "CAMERA",
    "PARTS",
    "Address",
    "Attribute",
    "Description",
    "DisconnectedError",
    "Events",
    "Reading",
    "TangoAxis",
    "TangoCamera",
    "TangoChannel",
    "TangoDevice",
    "TangoMachine",
    "TangoShutter",
    "TangoSignal",
    "TangoVelocity",
    "Watch",
    "tango_device",
]

PARTS: dict[type, type] = {Motor: TangoAxis, Channel: TangoChannel, Shutter: TangoShutter}
CAMERA = TangoCamera
