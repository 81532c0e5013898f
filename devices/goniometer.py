"""The goniometer: the stack of rotations mu, omega, chi, phi, and the sample translations."""

from __future__ import annotations

from devices._logical import AxisComponent, LogicalDevice

__all__ = ["Goniometer"]


class Goniometer(LogicalDevice):
    """Rotations, from the base up, and sample translations. Parameters as for `LogicalDevice`."""

    mu = AxisComponent(doc="base tilt about y (sign in the configuration), deg")
    omega = AxisComponent(doc="rotation about z, deg")
    chi = AxisComponent(doc="roll, about x, deg")
    phi = AxisComponent(doc="rock, about y, deg")
    samx = AxisComponent(doc="sample along the beam, mm")
    samy = AxisComponent(doc="sample across the beam, mm")
    samz = AxisComponent(doc="sample up, mm")
