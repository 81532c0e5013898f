"""The furnace around the sample: its temperature as an axis, a hold that watches it, and the over-temperature stop.

The controller of a furnace has a limit of its own, which must protect the hardware. What is here protects the sample
and the beamtime: a move or a hold that gets too hot ends with one sentence, and the furnace goes to its safe
temperature, which no stop of a plan cuts short.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from ophyd import Component as Cpt
from ophyd.status import Status

from devices._axis import Setting
from devices._logical import AxisComponent, LogicalDevice
from devices._waiter import backend_waiter, wall_waiter
from devices.clock import Clock
from dfxrm_control.environment import Ramp
from dfxrm_control.errors import ConfigError, DeviceError, LimitError

__all__ = ["Furnace", "Hold"]

LOOK_EVERY_S = 2.0
ABOVE_LIMIT_K = 10.0


class Furnace(LogicalDevice):
    """A furnace. Parameters as for `LogicalDevice`.

    The velocity of its axis is the ramp rate, and the configured one is the fastest it can; the tolerance of the axis
    is the band that counts as being there. ``settings`` of its configuration are ``over_temperature`` (degC, default
    10 K above the upper limit), ``safe_temperature`` (degC, default the lower limit) and ``look_every_s``.

    Attributes
    ----------
    hold : Hold
        Set to a time of the clock, it waits for that time and watches the temperature.
    """

    settings_taken = ("over_temperature", "safe_temperature", "look_every_s")

    temperature = AxisComponent(doc="temperature of the sample, degC; its speed is the ramp rate")
    over_temperature = Cpt(Setting, kind="config", doc="from here on the furnace is too hot, degC")
    safe_temperature = Cpt(Setting, kind="config", doc="where it goes when something is wrong, degC")

    def __init__(self, name: str, config: Any, microscope: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, config, microscope, *args, **kwargs)
        low, high = self.temperature.limits
        if not low < high:
            low, high = microscope.sample.reference_temperature, math.inf
        self._fastest_k_per_min = 60.0 * self.temperature.velocity.get()
        self._waiter = backend_waiter(self.backend) if self.backend is not None else wall_waiter()
        self._to_safe: Status | None = None
        self._going_to_safe = False
        self.over_temperature.specify(self.settings.get("over_temperature", high + ABOVE_LIMIT_K), "degC", -273.15)
        self.safe_temperature.specify(self.settings.get("safe_temperature", low), "degC", -273.15)
        try:
            self.temperature.check_value(self.safe_temperature.get())
        except LimitError as error:
            raise ConfigError(f"devices.{name}.settings.safe_temperature: {error}") from error
        every_s = self.settings.get("look_every_s", LOOK_EVERY_S)
        if not every_s > 0:
            raise ConfigError(f"devices.{name}.settings.look_every_s: {every_s:g} s must be above 0")
        self.temperature.watch(self.fault, every_s)
        self.hold = Hold(self, every_s)

    def check_ramp(self, ramp: Ramp) -> None:
        """Refuse a ramp that the furnace cannot do.

        Raises
        ------
        LimitError
            Naming the rate asked and the largest there is.
        """
        if not 0 < ramp.rate_k_per_min <= self._fastest_k_per_min * (1 + 1e-9):
            raise LimitError(
                f"{self.name}: a ramp of {ramp.rate_k_per_min:g} K/min was asked; it does more than 0 and up to "
                f"{self._fastest_k_per_min:g} K/min"
            )
        self.temperature.tolerance.check_value(ramp.tolerance_k)

    def prepare(self, value: Ramp) -> Status:
        """Say how the next temperature is gone to and how well it is held.

        Raises
        ------
        LimitError
            When the furnace cannot ramp as fast.
        """
        self.check_ramp(value)
        self.temperature.velocity.put(value.rate_k_per_min / 60.0)
        self.temperature.tolerance.put(value.tolerance_k)
        status = Status(self)
        status.set_finished()
        return status

    def too_hot(self, temperature: float) -> DeviceError | None:
        """Return the error that a temperature in degC is when it is above the over-temperature, else None."""
        limit = self.over_temperature.get()
        if temperature <= limit:
            return None
        return DeviceError(
            f"{self.name} is too hot: {self.temperature.say(temperature)}, above its over-temperature of {limit:g} "
            f"degC; it goes to its safe temperature of {self.safe_temperature.get():g} degC"
        )

    def set(self, value: Literal["safe"]) -> Status:
        """Send the furnace to its safe temperature, whatever else was asked; done at once, it cools by itself.

        Raises
        ------
        LimitError
            For anything but ``safe``: a temperature is set on its axis.
        """
        if value != "safe":
            raise LimitError(f"{self.name} takes 'safe', not {value!r}; a temperature is set on its axis temperature")
        status = Status(self)
        try:
            self._go_to_safe()
        except Exception as error:
            status.set_exception(error)
        else:
            status.set_finished()
        return status

    def check_value(self, value: Any) -> None:
        """Refuse anything but ``safe``."""
        if value != "safe":
            raise LimitError(f"{self.name} takes 'safe', not {value!r}")

    def fault(self) -> DeviceError | None:
        """Return what is wrong with the temperature now, if anything; then the furnace also begins to cool."""
        if self._going_to_safe:
            return None
        error = self.too_hot(self.temperature.readback())
        if error is not None:
            # after whoever asks has ended the move with this error
            self._waiter.after(0.0, lambda _: self._go_to_safe())
        return error

    def _go_to_safe(self) -> None:
        self._going_to_safe = True
        self.temperature.velocity.put(self._fastest_k_per_min / 60.0)
        self._to_safe = self.temperature.set(self.safe_temperature.get())
        # the RunEngine stops all that a plan has moved when the plan ends, and a hot furnace must not stay hot by that
        self.temperature.unstoppable = True
        self._to_safe.add_callback(self._is_safe)

    def _is_safe(self, status: Status) -> None:
        if status is self._to_safe:
            self._going_to_safe = False
            self.temperature.unstoppable = False


class Hold(Clock):
    """Waits for a time while it watches that the temperature stays in its band.

    Parameters
    ----------
    furnace : Furnace
        What is watched.
    every_s : float
        How often, s.
    """

    def __init__(self, furnace: Furnace, every_s: float) -> None:
        super().__init__(furnace.backend, f"{furnace.name}_hold")
        self._furnace = furnace
        self._every_s = every_s

    def _look_every_s(self) -> float:
        return self._every_s

    def _fault(self, left_s: float) -> Exception | None:
        axis = self._furnace.temperature
        try:
            here = axis.readback()
            hot = self._furnace.fault()
        except DeviceError as error:
            return error
        if hot is not None:
            return hot
        if abs(here - axis.setpoint) <= axis.tolerance.get() * (1 + 1e-9):
            return None
        return DeviceError(
            f"{self._furnace.name} did not hold {axis.say(axis.setpoint)}: it is at {axis.say(here)}, more than "
            f"{axis.tolerance.get():g} K away, {max(left_s, 0.0):.0f} s before the end of the hold"
        )
