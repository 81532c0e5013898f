"""Tango device servers in front of a simulated microscope: motors, channels, shutter, machine status, cameras.

They speak to the simulated hardware by `dfxrm_control.backend.Backend`. ``python -m simulators.tango`` runs them.
"""

from simulators.tango._devices import Channels, Machine, Motor, Shutter
from simulators.tango._parts import Part, parts_of
from simulators.tango._serve import serve

__all__ = ["Channels", "Machine", "Motor", "Part", "Shutter", "parts_of", "serve"]
