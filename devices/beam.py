"""The beam: slits, condenser, shutter, attenuator, and what is known of its flux."""

from __future__ import annotations

from typing import Any

from devices._channel import Shutter
from devices._logical import AxisComponent, ChannelComponent, LogicalDevice

__all__ = ["Beam"]


class Beam(LogicalDevice):
    """What shapes, stops and measures the beam. Parameters as for `LogicalDevice`."""

    s8vg = AxisComponent(doc="vertical gap of the slits before the sample, mm")
    s8hg = AxisComponent(doc="horizontal gap, mm")
    s8vo = AxisComponent(doc="vertical offset, mm")
    s8ho = AxisComponent(doc="horizontal offset, mm")
    cdx = AxisComponent(doc="condenser along the beam, mm")
    shutter = ChannelComponent(Shutter, doc="open or closed")
    condenser = ChannelComponent(doc="line or box beam")
    attenuator = ChannelComponent(doc="transmission, above 0 up to 1")
    ring_current = ChannelComponent(doc="current of the storage ring, mA; of the last frame while frames are taken")
    monitor = ChannelComponent(doc="flux counts during the last exposure")

    def pause(self) -> None:
        """Close the shutter for a pause; the RunEngine calls this on every device a plan has used."""
        self.shutter.pause()

    def resume(self) -> None:
        """Open the shutter again if the pause closed it."""
        self.shutter.resume()

    def unstage(self) -> Any:
        """End the run: a shutter that a pause closed stays closed."""
        self.shutter.stop()
        return super().unstage()
