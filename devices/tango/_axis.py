"""An axis of the microscope on a Tango motor."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import tango
from ophyd import Component as Cpt
from ophyd.status import MoveStatus

from devices._axis import Motion, Motor, Setting, ramped_s
from devices.tango._attribute import Attribute, Events, Reachable, wait_until
from devices.tango._device import DisconnectedError
from dfxrm_control.backend import Backend
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import ArrivalError, ConfigError, DeviceError, LimitError
from dfxrm_control.tango_address import Address

__all__ = ["TangoAxis", "TangoVelocity"]

MOVING = {"MOVING", "RUNNING"}
IDLE = {"ON", "STANDBY"}
POLL_S = 0.01
NET_S = 0.25
# so long an event is waited for before the device is asked for the first time
EVENT_S = 0.02
# a device may need a moment to say that it moves, and its position a moment to settle after it says that it does not
START_S = 0.25
SETTLE_S = 0.1
STOP_S = 5.0
# so long a thread waits for the next move
IDLE_S = 5.0


class TangoVelocity(Setting):
    """The speed that a Tango motor keeps itself; where it has no attribute for it, that of the configuration."""

    def specify(self, value: float, units: str, low: float, high: float = math.inf) -> None:
        """Set what counts where the device keeps no speed, with unit and bounds; nothing is written to the device."""
        self._units, self._bounds = units, (low, high)
        super().put(value)

    def get(self, **kwargs: Any) -> float:
        """Ask the device for its speed."""
        attribute = self.parent.velocity_attribute
        return super().get(**kwargs) if attribute is None else float(attribute.read().value)

    def read(self) -> dict[str, Any]:
        """Ask the device for its speed."""
        return {self.name: {"value": self.get(), "timestamp": time.time()}}

    def put(self, value: float, **kwargs: Any) -> None:
        """Set the speed of the device.

        Raises
        ------
        DeviceError
            When the device does not answer, or does not take it.
        """
        self.check_value(value)
        attribute = self.parent.velocity_attribute
        if attribute is not None:
            attribute.write(float(value))
            if not math.isclose(found := self.get(), value, rel_tol=1e-6):
                raise DeviceError(f"{self.name}: {self.parent.called} was given {value:g} but keeps {found:g}")
            self.parent.forget_speed()
        super().put(value, **kwargs)


class _Follower:
    """Does one thing after the other in a thread that stays for the next: to start one for each move takes longer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = False

    def do(self, work: Callable[[], None]) -> None:
        """Do this when what was asked before is done. It must not raise."""
        with self._lock:
            self._work.put(work)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        with tango.EnsureOmniThread():
            while True:
                try:
                    work = self._work.get(timeout=IDLE_S)
                except queue.Empty:
                    with self._lock:
                        if self._work.empty():
                            self._running = False
                            return
                else:
                    work()


class TangoAxis(Reachable, Motor):
    """An axis on a Tango motor: a device with ``State``, a position that is written to move, and ``Stop`` or ``Abort``.

    A move is done when the state went from MOVING (or RUNNING) to ON (or STANDBY) and the position is within the
    tolerance. FAULT, ALARM, UNKNOWN or any other state fails it with the device's own Status text. State events end a
    move at once; where the server sends none the state is asked for each 10 ms, and in any case four times a second.

    Parameters
    ----------
    name : str
        Logical name; also the data key.
    config : AxisConfig
        Unit, limits, tolerance; its address is ``[tango://host:port/]domain/family/member[/attribute][#dbase=no]``,
        where the attribute is ``Position`` unless given.

    Raises
    ------
    ConfigError
        When the address is missing or has another form.
    """

    velocity = Cpt(TangoVelocity, kind="config", doc="speed, units per second; the device's own where it has one")

    def __init__(self, *, name: str, config: AxisConfig, backend: Backend | None = None, **kwargs: Any) -> None:
        if not config.address:
            raise ConfigError(f"axis {name} is on Tango and needs an address domain/family/member")
        address = Address.parse(config.address)
        self._position_of = Attribute(address.of(address.attribute or "Position"))
        self._tango = self._position_of.device
        self._state_of = Attribute(address.of("State"))
        self._news = threading.Event()
        self._follower = _Follower(f"moves of {name}")
        self._events = Events(self._state_of, self._heard)
        self._held: Motion | None = None
        self._seen = math.nan
        self._speed = math.nan
        self._expected_s = 0.0
        self._starting = False
        self._speed_of: Attribute | None = None
        self._speed_sought = False
        self._stop_command: str | None = None
        super().__init__(name=name, config=config, **kwargs)

    # -- what the device says -------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """Where the readback comes from, for descriptors."""
        return self._position_of.address.source

    @property
    def called(self) -> str:
        """How errors name the axis: with its address."""
        return f"axis {self.name} ({self.source})"

    def wait_for_connection(self, timeout: float = 2.0, all_signals: bool = False) -> None:
        """Wait until the device answers, and ask for its limits.

        Raises
        ------
        TimeoutError
            When it does not answer.
        """
        super().wait_for_connection(timeout)
        self._position_of.describe()

    @property
    def mode(self) -> str:
        """How the end of a move is heard of: ``change``, ``periodic`` or ``poll``."""
        return self._events.mode if self._events.live else "poll"

    @property
    def velocity_attribute(self) -> Attribute | None:
        """The attribute in which the device keeps its speed, or None.

        Raises
        ------
        DeviceError
            When the device does not answer.
        """
        if not self._speed_sought:
            names = {name.casefold(): name for name in self._tango.attributes()}
            name = names.get("velocity")
            self._speed_of = None if name is None else Attribute(self._position_of.address.of(name))
            self._speed_sought = True
        return self._speed_of

    def forget_speed(self) -> None:
        """Ask for the speed anew before the next move: it has been changed."""
        self._speed = math.nan

    @property
    def hardware_limits(self) -> tuple[float, float] | None:
        """Lowest and highest position that the device itself takes, None where it gives none.

        Raises
        ------
        DeviceError
            When the device does not answer.
        """
        told = self._position_of.describe()
        return None if told.low is None or told.high is None else (told.low, told.high)

    @property
    def hardware_units(self) -> str | None:
        """The unit that the device gives its position in, None where it gives none.

        Raises
        ------
        DeviceError
            When the device does not answer.
        """
        return self._position_of.describe().units or None

    @property
    def hardware_velocity(self) -> float | None:
        """The speed that the device keeps, units per second, None where it keeps none.

        Raises
        ------
        DeviceError
            When the device does not answer.
        """
        attribute = self.velocity_attribute
        return None if attribute is None else float(attribute.read().value)

    def hardware_trouble(self) -> str | None:
        """Return in which state, and why, the device is not ready to move.

        Raises
        ------
        DeviceError
            When the device does not answer.
        """
        if (state := self.state()) in IDLE | MOVING:
            return None
        text = self._tango.status()
        return f"is in state {state}" + (f"; it says: {text}" if text else "")

    def _bounds(self) -> tuple[float, float] | None:
        return self._axis_config.limits or self.hardware_limits

    def check_value(self, value: Any) -> None:
        """Refuse a position that the configuration or, as far as it was asked, the device does not allow.

        Raises
        ------
        LimitError
            Naming the axis, the position asked and those allowed.
        """
        super().check_value(value)
        limits = self.hardware_limits if self._position_of.known else None
        if limits is not None and not limits[0] <= float(value) <= limits[1]:
            raise LimitError(
                f"{self.called}: {self.say(float(value))} is outside the limits {limits[0]:g} .. {limits[1]:g} "
                f"{self.egu} of the device"
            )

    def move(self, position: float, *args: Any, **kwargs: Any) -> MoveStatus:
        """Start a move, as `devices.Axis.move`; the device is asked for its own limits before the first one.

        Raises
        ------
        LimitError
            When the position is not allowed; nothing moves then.
        DeviceError
            When the device does not answer.
        """
        self.check_value(position)
        try:
            self._position_of.describe()
            self._starting = True
            return super().move(position, *args, **kwargs)
        except DeviceError as error:
            raise self._failed(float(position), error) from error
        finally:
            self._starting = False

    @property
    def position(self) -> float:
        """Where the device is now."""
        # ophyd's status of a move asks for it twice, right after the duration was worked out from it
        return self._seen if self._starting and math.isfinite(self._seen) else super().position

    def readback(self) -> float:
        """Ask the device where it is.

        Raises
        ------
        DeviceError
            When it does not answer, or gives no valid position.
        """
        self._seen = self._as_position(self._position_of.read().value)
        return self._seen

    def read(self) -> dict[str, Any]:
        """Ask the device where it is, and give its set-point with it.

        Raises
        ------
        DeviceError
            When it does not answer, or gives no valid position.
        """
        try:
            return super().read()
        except DisconnectedError as error:
            raise DeviceError(f"{self.called} cannot be read: {error}") from error

    def _as_position(self, value: Any) -> float:
        position = float(value)
        if not math.isfinite(position):
            raise DeviceError(f"{self.called}: the device gives {position} as its position")
        return position

    def state(self) -> str:
        """Ask the device for its state.

        Raises
        ------
        DeviceError
            When it does not answer.
        """
        return self._state_of.read().value

    def _look_at(self) -> tuple[str, float]:
        state, position = self._tango.read("State", self._position_of.name)
        self._seen = self._as_position(self._position_of.interpret(position).value)
        return str(state.value), self._seen

    def _announce(self) -> None:
        # progress is told from what was last seen of the move: a device that is gone must not be waited for again
        self._set_position(self._seen)

    def expected_duration_s(self, target: float) -> float:
        """Return how long a move from here to ``target`` should take by the speed of the device, in seconds.

        At the start of a move this is worked out from what the device said last of its position and speed: it only
        tells when to ask again (`_until_idle`).
        """
        if not (self._starting and math.isfinite(self._seen + self._speed)):
            self._ask_for_speed()
        self._expected_s = ramped_s(abs(target - self._seen), self._speed, self.acceleration.get())
        return self._expected_s

    def _ask_for_speed(self) -> None:
        if (speed := self.velocity_attribute) is None:
            self.readback()
            self._speed = float(self.velocity.get())
            return
        here, velocity = self._tango.read(self._position_of.name, speed.name)
        self._seen = self._as_position(self._position_of.interpret(here).value)
        self._speed = float(speed.interpret(velocity).value)

    # -- moving ---------------------------------------------------------------------------------------------------

    def _watch(self, motion: Motion) -> None:
        """Leave the time-out to the thread that follows the move: to stop a device may take long."""

    def _begin(self, motion: Motion) -> None:
        self._held = None
        self._news.clear()
        try:
            self._send(motion.target)
        except DeviceError as error:
            raise self._failed(motion.target, error) from error
        self._follower.do(partial(self._follow, motion))

    def _send(self, target: float) -> None:
        try:
            self._position_of.write(target)
        except DisconnectedError:
            raise
        except DeviceError:
            # many devices take no new target while they move
            if self.state() not in MOVING:
                raise
            self._stop_now()
            self._position_of.write(target)

    def _failed(self, target: float, error: Exception) -> DeviceError:
        return DeviceError(f"{self.called} was sent to {self.say(target)}, but failed: {error}")

    def _heard(self, state: Any) -> None:
        # that it moves is no reason to look: it was just sent
        if str(state.value) not in MOVING:
            self._news.set()

    def _follow(self, motion: Motion) -> None:
        try:
            self._events.ensure()
            self._until_idle(motion)
        except DeviceError as error:
            self._events.mistrust()
            self._conclude(motion, self._failed(motion.target, error))
        except Exception as error:
            self._conclude(motion, error)

    def _until_idle(self, motion: Motion) -> None:
        begin = time.monotonic()
        moved, idle_since, limit_s, origin = False, begin, motion.timeout_s, self._seen
        # a device that is there already may tell nothing
        if self._events.live and abs(motion.target - origin) > self.tolerance.get():
            self._news.wait(min(EVENT_S, limit_s))
        while motion is self._motion and motion is not self._held:
            self._news.clear()
            state, position = self._look_at()
            now = time.monotonic()
            idle = state in IDLE
            if idle:
                near = abs(position - motion.target) <= self.tolerance.get()
                if near or now - idle_since > (SETTLE_S if moved else START_S):
                    self._arrived(motion, position)
                    return
            elif state in MOVING or state == "INIT":
                if not moved:
                    origin = position
                moved, idle_since = True, now
            else:
                self._conclude(motion, self._in_fault(motion, state, position))
                return
            if now - begin > limit_s:
                limit_s = self._limit_anew_s(motion, origin)
                if now - begin > limit_s:
                    motion.timeout_s = limit_s
                    self._stalled(motion)
                    return
            left = max(0.0, begin + limit_s - now)
            self._news.wait(min(left, NET_S if self._events.live and not idle else POLL_S))

    def _limit_anew_s(self, motion: Motion, origin: float) -> float:
        """Return how long a move may take that takes longer than was thought, by the speed that the device has now."""
        extra_s = self._axis_config.extra_timeout_s
        if motion.timeout_s < self._expected_s + extra_s:
            # whoever asked for the move set the limit
            return motion.timeout_s
        self._ask_for_speed()
        return max(
            motion.timeout_s, ramped_s(abs(motion.target - origin), self._speed, self.acceleration.get()) + extra_s
        )

    def _in_fault(self, motion: Motion, state: str, position: float) -> ArrivalError:
        text = self._tango.status()
        return ArrivalError(
            f"{self.called} went into {state} on its way to {self.say(motion.target)}; it is at {self.say(position)}"
            + (f"; it says: {text}" if text else "")
        )

    def _halt(self) -> None:
        motion = self._held = self._motion
        self._news.set()
        try:
            if motion is not None or self.state() in MOVING:
                self._stop_now()
        except DeviceError as error:
            if motion is not None:
                self._conclude(motion, error)
            raise

    def _stop_now(self) -> None:
        """Stop the device and return when it says that it no longer moves."""
        if self._stop_command is None:
            self._stop_command = self._tango.first_command("Stop", "Abort")
        try:
            self._tango.command(self._stop_command)
        except DisconnectedError:
            raise
        except DeviceError:
            # some devices refuse to stop when they do not move
            if self.state() in MOVING:
                raise
        if not wait_until(lambda: self.state() not in MOVING, STOP_S):
            raise DeviceError(
                f"{self.called} was told to stop but still moves after {STOP_S:g} s; it is {self._where()}"
            )
