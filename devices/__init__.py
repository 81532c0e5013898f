"""Logical devices of the microscope, on classic ophyd.

Each class exists once; which control system speaks for each of its axes, channels and cameras comes from the
configuration.
"""

from devices._axis import Axis, Motor, Setting
from devices._channel import Channel, Shutter
from devices._logical import AxisComponent, ChannelComponent, LogicalDevice, PseudoComponent
from devices._memory import Fault, MemoryAxis, MemoryChannel, MemoryShutter
from devices._pseudo import PseudoAxis
from devices.arm import Arm
from devices.beam import Beam
from devices.clock import Clock
from devices.detector import Detector, FarField, NearField
from devices.furnace import Furnace
from devices.goniometer import Goniometer
from devices.monochromator import Monochromator
from devices.objective import Objective

__all__ = [
    "Arm",
    "Axis",
    "AxisComponent",
    "Beam",
    "Channel",
    "ChannelComponent",
    "Clock",
    "Detector",
    "FarField",
    "Fault",
    "Furnace",
    "Goniometer",
    "LogicalDevice",
    "MemoryAxis",
    "MemoryChannel",
    "MemoryShutter",
    "Monochromator",
    "Motor",
    "NearField",
    "Objective",
    "PseudoAxis",
    "PseudoComponent",
    "Setting",
    "Shutter",
]
