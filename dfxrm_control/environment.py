"""What plans and devices agree on about the sample's environment: its furnace, and the clock that time is kept by.

Like `dfxrm_control.acquisition`, these are words that cross the border between plans and devices; neither imports the
other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from dfxrm_control.acquisition import Status

__all__ = ["Clock", "Furnace", "Ramp"]


@dataclass(frozen=True)
class Ramp:
    """How a furnace is to go to its next temperature, and how well it is to stay there.

    Attributes
    ----------
    rate_k_per_min : float
        Speed, K/min.
    tolerance_k : float
        Half width of the band about the target that counts as being there, K.
    """

    rate_k_per_min: float
    tolerance_k: float


@runtime_checkable
class Clock(Protocol):
    """The microscope's clock: that of the world, or a simulated one that runs faster.

    It reads the time in seconds under its name.
    """

    @property
    def name(self) -> str:
        """Logical name, also its data key."""
        ...

    def set(self, value: float) -> Status:
        """Wait for a time; done when the clock has reached it. It can be stopped."""
        ...

    def read(self) -> Any:
        """Return the time."""
        ...


@runtime_checkable
class Furnace(Protocol):
    """A furnace as plans see it: an axis ``temperature`` in degC, and a hold that watches it."""

    @property
    def name(self) -> str:
        """Logical name."""
        ...

    @property
    def temperature(self) -> Any:
        """The temperature as an axis: it is set, read, and has limits."""
        ...

    @property
    def hold(self) -> Any:
        """Set to a time of the clock, it is done then; it fails when the temperature leaves its band before."""
        ...

    def check_ramp(self, ramp: Ramp) -> None:
        """Raise LimitError for a ramp that the furnace cannot do."""
        ...

    def prepare(self, value: Ramp) -> Status:
        """Say how the next temperature is gone to; raises LimitError for what the furnace cannot do."""
        ...

    def too_hot(self, temperature: float) -> Exception | None:
        """Return the error that a temperature in degC is when it is above the over-temperature, else None."""
        ...

    def set(self, value: Literal["safe"]) -> Status:
        """Send the furnace to its safe temperature, whatever else has been asked; done at once."""
        ...
