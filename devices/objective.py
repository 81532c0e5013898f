"""The objective: the five axes of its stage, whether it is in the beam, and which lens it is."""

from __future__ import annotations

from devices._logical import AxisComponent, ChannelComponent, LogicalDevice

__all__ = ["Objective"]


class Objective(LogicalDevice):
    """Objective stage and lens. Parameters as for `LogicalDevice`."""

    obx = AxisComponent(doc="lens centre along the beam, mm")
    oby = AxisComponent(doc="lens centre across the beam, mm")
    obz = AxisComponent(doc="lens centre up, mm")
    obpitch = AxisComponent(doc="pitch of the lens, deg")
    obyaw = AxisComponent(doc="yaw of the lens, deg")
    objective_in = ChannelComponent(doc="in or out of the beam")
    objective_kind = ChannelComponent(doc="name of the lens among the configured objectives")
