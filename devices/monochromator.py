"""The monochromator: its Bragg angle, the energy that follows from it, and whether it is in the beam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from devices._axis import Axis
from devices._logical import AxisComponent, ChannelComponent, LogicalDevice, PseudoComponent
from devices._pseudo import PseudoAxis
from dfxrm_control.config import AxisConfig
from dfxrm_control.crystal import HC_KEV_ANGSTROM
from dfxrm_control.errors import ConfigError, DeviceError, LimitError

__all__ = ["Energy", "Monochromator"]


class Energy(PseudoAxis):
    """Photon energy in keV, ``E = hc / (2 d sin ccmth)``; the energy of the source where the monochromator is out."""

    default = AxisConfig(units="keV", tolerance=1e-3, precision=5)

    def real_axes(self) -> Mapping[str, Axis]:
        """Return the Bragg angle's axis."""
        return {"ccmth": self.parent.ccmth}

    def forward(self, target: float) -> dict[str, float]:
        """Return the Bragg angle for an energy.

        Raises
        ------
        LimitError
            For an energy that the crystal's d spacing cannot reflect.
        """
        lowest = self.parent.lowest_energy_kev
        if not target > lowest:
            raise LimitError(
                f"axis {self.name}: {target:g} keV cannot be reflected; it must be above hc/2d = {lowest:.4g} keV"
            )
        return {"ccmth": math.degrees(math.asin(lowest / target))}

    def inverse(self, positions: Mapping[str, float]) -> float:
        """Return the energy for a Bragg angle."""
        if not self.parent.is_in:
            return self.parent.source_energy_kev
        sine = math.sin(math.radians(positions["ccmth"]))
        if not sine > 0:
            raise DeviceError(f"axis {self.name}: ccmth at {positions['ccmth']:g} deg reflects no energy")
        return self.parent.lowest_energy_kev / sine

    def reach(self) -> tuple[float, float] | None:
        """Return lowest and highest energy that the limits of the Bragg angle allow."""
        low, high = self.parent.ccmth.limits
        if not 0 < low < high <= 90:
            return None
        lowest = self.parent.lowest_energy_kev
        return lowest / math.sin(math.radians(high)), lowest / math.sin(math.radians(low))

    def check_value(self, value: Any) -> None:
        """Refuse an energy that cannot be reached, and any while the monochromator is out.

        Raises
        ------
        LimitError
            Saying why.
        """
        if not self.parent.is_in:
            raise LimitError(f"axis {self.name} cannot be set to {value!r}: the monochromator is out of the beam")
        super().check_value(value)


class Monochromator(LogicalDevice):
    """A crystal monochromator with the d spacing of the instrument. Parameters as for `LogicalDevice`."""

    ccmth = AxisComponent(doc="Bragg angle of the crystal, deg")
    energy = PseudoComponent(Energy, doc="photon energy, keV")
    mono = ChannelComponent(doc="in or out of the beam")

    def __init__(self, name: str, config: Any, microscope: Any, *args: Any, **kwargs: Any) -> None:
        description = microscope.instrument.monochromator
        if description is None:
            raise ConfigError(f"devices.{name}: a monochromator needs its d spacing under instrument.monochromator")
        self.lowest_energy_kev = HC_KEV_ANGSTROM / (2 * description.d_spacing_angstrom)
        self.source_energy_kev = float(microscope.instrument.beam.energy_kev)
        super().__init__(name, config, microscope, *args, **kwargs)

    @property
    def is_in(self) -> bool:
        """Whether the monochromator is in the beam."""
        return self.mono.get() == "in"
