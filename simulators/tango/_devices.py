"""Motors, channels, the shutter and the machine status as Tango devices."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import tango
from tango import AttrQuality, AttrWriteType, DevState
from tango.server import attribute, command

from dfxrm_control.config import AxisConfig, ChannelConfig
from dfxrm_control.errors import DeviceError
from simulators.tango._parts import Part, Served

__all__ = ["Channels", "Machine", "Motor", "Shutter"]

SHUTTER_S = 0.05


class Motor(Served):
    """An axis: position with limits and unit, speed, acceleration, stop; it moves in time and tells when it is there.

    Faults: ``stall`` (it never gets anywhere), ``short DISTANCE`` (it stops so far before its target), ``limit
    POSITION`` (there is a limit switch: ALARM), ``fault TEXT`` (half way it goes into FAULT), ``invalid`` (its position
    is not valid), ``deadlock`` (it stays MOVING and does not stop).
    """

    faults = ("stall", "short", "limit", "fault", "invalid", "deadlock")

    def init_device(self) -> None:
        """Make the attributes that the configuration describes."""
        super().init_device()
        self.part: Part = self.parts[0]
        config = self.part.config
        assert isinstance(config, AxisConfig)
        self.velocity, self.acceleration_s = config.velocity, config.acceleration_s
        self._lock = threading.Lock()
        self._move = 0
        low, high = config.limits or (None, None)
        self.add_attribute(
            attribute(
                name=self.part.attribute,
                dtype=float,
                access=AttrWriteType.READ_WRITE,
                unit=config.units,
                format=f"%.{config.precision}f",
                **({} if low is None else {"min_value": low, "max_value": high}),
                fget=self._position,
                fset=self._go,
            )
        )
        if self.part.events != "none":
            self.set_change_event("State", True, False)
        self.tell(DevState.ON, "at rest")

    def tell(self, state: tango.DevState, text: str) -> None:
        """Take a state, and tell of it if this motor does."""
        if self.part.events == "sent":
            super().tell(state, text)
        else:
            self.set_state(state)
            self.set_status(text)

    def _position(self, _: Any) -> tuple[float, float, AttrQuality]:
        quality = AttrQuality.ATTR_VALID
        if self.fault == "invalid":
            quality = AttrQuality.ATTR_INVALID
        elif self.get_state() == DevState.MOVING:
            quality = AttrQuality.ATTR_CHANGING
        return self.backend.position(self.part.name), time.time(), quality

    def _go(self, written: Any) -> None:
        target = float(written.get_write_value())
        with self._lock:
            if self.get_state() == DevState.MOVING:
                self.refuse("it moves and takes no new target")
            self._move += 1
            move = self._move
            here = self.backend.position(self.part.name)
            goal, state, text = self._as_faulty(here, target)
            velocity, acceleration_s = (math.inf, 0.0) if self.stage.instant else (self.velocity, self.acceleration_s)
            self.tell(DevState.MOVING, f"on its way to {target:g}")
            end_s = self.backend.start_move(self.part.name, goal, velocity, acceleration_s)
            if state == DevState.MOVING:
                return
            if self.stage.instant or end_s <= self.backend.now():
                self.tell(state, text)
                return
        threading.Thread(target=self._follow, args=(move, end_s, state, text), daemon=True).start()

    def _as_faulty(self, here: float, target: float) -> tuple[float, tango.DevState, str]:
        """Return where a move really goes, and how it ends; MOVING: never."""
        way = target - here
        if self.fault in ("stall", "deadlock"):
            return here, DevState.MOVING, ""
        if self.fault == "short":
            return target - math.copysign(min(float(self.fault_about), abs(way)), way), DevState.ON, "at rest"
        if self.fault == "fault":
            return here + way / 2, DevState.FAULT, self.fault_about
        if self.fault == "limit" and way and 0 <= (float(self.fault_about) - here) / way <= 1:
            switch = "upper" if way > 0 else "lower"
            return float(self.fault_about), DevState.ALARM, f"{switch} limit switch hit"
        return target, DevState.ON, "at rest"

    def _follow(self, move: int, end_s: float, state: tango.DevState, text: str) -> None:
        with tango.EnsureOmniThread():
            try:
                self.backend.wait_until(end_s, lambda: move != self._move)
            except DeviceError as error:
                state, text = DevState.FAULT, str(error)
            with self._lock:
                if move == self._move:
                    self.tell(state, text)

    @attribute(dtype=float)
    def Velocity(self) -> float:  # noqa: N802
        """Speed, units per second."""
        return self.velocity

    @Velocity.write  # type: ignore[no-redef]
    def Velocity(self, value: float) -> None:  # noqa: N802
        """Set the speed of the moves to come."""
        if not value > 0:
            self.refuse(f"a velocity of {value:g} is not above 0")
        self.velocity = value

    @attribute(dtype=float, unit="s")
    def Acceleration(self) -> float:  # noqa: N802
        """Time to reach the speed, s."""
        return self.acceleration_s

    @Acceleration.write  # type: ignore[no-redef]
    def Acceleration(self, value: float) -> None:  # noqa: N802
        """Set the time to reach the speed in the moves to come, s."""
        if not value >= 0:
            self.refuse(f"an acceleration time of {value:g} s is below 0")
        self.acceleration_s = value

    def fault_changed(self) -> None:
        """Be at rest when all is well again."""
        if not self.fault:
            self._stop()

    @command
    def Stop(self) -> None:  # noqa: N802
        """Stop where it is."""
        if self.fault != "deadlock":
            self._stop()

    @command
    def Abort(self) -> None:  # noqa: N802
        """Stop where it is."""
        self.Stop()

    def _stop(self) -> None:
        with self._lock:
            self._move += 1
            self.backend.stop(self.part.name)
            self.tell(DevState.ON, "at rest")


class Channels(Served):
    """Values that are no motor, each an attribute: words as an enum, numbers as a double.

    Faults: ``nan`` (numbers read NaN), ``invalid`` (nothing is valid), ``stuck`` (what is written is taken and changes
    nothing).
    """

    faults = ("nan", "invalid", "stuck")

    def init_device(self) -> None:
        """Make the attributes that the configuration describes."""
        super().init_device()
        for part in self.parts:
            self._add(part)
        self.set_state(DevState.ON)

    def _add(self, part: Part) -> None:
        config = part.config
        assert isinstance(config, ChannelConfig)
        kind: dict[str, Any] = {"dtype": float, "unit": config.units}
        words: list[str] = []
        if config.choices is not None:
            said = [config.words.get(choice, choice) for choice in config.choices]
            words = list(dict.fromkeys([*said, *config.set_words.values()]))
            kind = {"dtype": "DevEnum", "enum_labels": words}
        ask = self._asker(part, words)
        access = AttrWriteType.READ_WRITE if part.writable else AttrWriteType.READ
        setter = {"fset": self._setter(part, words, ask)} if part.writable else {}
        self.add_attribute(
            attribute(name=part.attribute, access=access, fget=lambda *_: self._valid(ask()), **kind, **setter)
        )
        self.watched(part.attribute, ask)

    def _valid(self, value: float) -> tuple[float, float, AttrQuality]:
        quality = AttrQuality.ATTR_INVALID if self.fault == "invalid" else AttrQuality.ATTR_VALID
        return value, time.time(), quality

    def _asker(self, part: Part, words: list[str]) -> Callable[[], float]:
        config = part.config
        assert isinstance(config, ChannelConfig)

        def ask() -> float:
            value = self.backend.get(part.name)
            if words:
                return words.index(config.words.get(str(value), str(value)))
            return math.nan if self.fault == "nan" else float(value)

        return ask

    def _setter(self, part: Part, words: list[str], ask: Callable[[], float]) -> Callable[[Any, Any], None]:
        config = part.config
        assert isinstance(config, ChannelConfig)
        set_words = {**config.words, **config.set_words}
        choices = {set_words.get(choice, choice): choice for choice in config.choices or ()}

        def put(_: Any, written: Any) -> None:
            value = written.get_write_value()
            if words and words[value] not in choices:
                self.refuse(f"{part.attribute} is set to {', '.join(choices)}, not {words[value]!r}")
            if self.fault == "stuck":
                return
            try:
                self.backend.put(part.name, choices[words[value]] if words else float(value))
            except DeviceError as error:
                self.refuse(str(error))
            self.told(part.attribute, ask)

        return put


class Machine(Served):
    """The status of the storage ring, by the attributes of the ESRF's.

    Faults: ``nan`` (the current reads NaN), ``invalid`` (it is not valid).
    """

    faults = ("nan", "invalid")

    def init_device(self) -> None:
        """Begin to tell of changes of the current."""
        super().init_device()
        self.watched("SR_Current", self._current)
        self.set_state(DevState.ON)

    def _current(self) -> float:
        return math.nan if self.fault == "nan" else float(self.backend.get(self.parts[0].name))

    @attribute(dtype=float, unit="mA", format="%6.2f")
    def SR_Current(self) -> tuple[float, float, AttrQuality]:  # noqa: N802
        """Return the current in the storage ring, mA."""
        quality = AttrQuality.ATTR_INVALID if self.fault == "invalid" else AttrQuality.ATTR_VALID
        return self._current(), time.time(), quality

    @attribute(dtype=str)
    def SR_Mode(self) -> str:  # noqa: N802
        """Say what the machine is used for."""
        return "USM" if self._current() > 0 else "Shutdown"

    @attribute(dtype=str)
    def SR_Filling_Mode(self) -> str:  # noqa: N802
        """How the ring is filled."""
        return "7/8 multibunch"

    @attribute(dtype=int, unit="s")
    def SR_Refill_Countdown(self) -> int:  # noqa: N802
        """Time to the next refill, s."""
        return 3600

    @attribute(dtype=str)
    def SR_Operator_Mesg(self) -> str:  # noqa: N802
        """Tell what the operators say."""
        return "simulated machine"


class Shutter(Served):
    """A shutter: states OPEN and CLOSE, commands Open and Close; it takes a moment.

    Faults: ``hangs`` (it stays MOVING), ``fault TEXT`` (it goes into FAULT).
    """

    faults = ("hangs", "fault")

    def init_device(self) -> None:
        """Begin to tell of changes of the state."""
        super().init_device()
        self._moving = False
        self.set_change_event("State", True, False)
        self.stage.looking.append(self._look)
        self._told: tango.DevState | None = None

    def dev_state(self) -> tango.DevState:
        """Return the state: that of the simulated shutter, unless it is on its way or at fault."""
        if self._moving:
            return DevState.MOVING
        if self.fault == "fault":
            return DevState.FAULT
        return DevState.OPEN if self.backend.get(self.parts[0].name) == "open" else DevState.CLOSE

    def dev_status(self) -> str:
        """Return what it says of itself."""
        return self.fault_about if self.fault == "fault" else f"the shutter is {self.dev_state()}"

    def _look(self) -> None:
        try:
            state = self.dev_state()
        except DeviceError:
            return
        if state != self._told:
            self._told = state
            self.push_change_event("State", state)

    def _go(self, word: str) -> None:
        self._moving = True
        self._look()
        if self.fault == "hangs":
            return
        if self.stage.instant:
            self._arrive(word)
        else:
            threading.Timer(SHUTTER_S, self._arrive, (word,)).start()

    def _arrive(self, word: str) -> None:
        with tango.EnsureOmniThread():
            try:
                if not self.fault:
                    self.backend.put(self.parts[0].name, word)
            finally:
                self._moving = False
                self._look()

    def fault_changed(self) -> None:
        """Be where it is when all is well again."""
        if not self.fault:
            self._moving = False

    @command
    def Open(self) -> None:  # noqa: N802
        """Open the shutter."""
        self._go("open")

    @command
    def Close(self) -> None:  # noqa: N802
        """Close the shutter."""
        self._go("closed")
