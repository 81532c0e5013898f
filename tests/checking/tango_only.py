"""A user's own device: what is left of the beam where nothing is in memory."""

from devices import ChannelComponent, LogicalDevice, Shutter


class Lamp(LogicalDevice):
    shutter = ChannelComponent(Shutter)
    ring_current = ChannelComponent()
