"""The axis that every control system's motor becomes: one set of data keys, one idea of "arrived", one kind of error.

ophyd's own `PositionerBase._done_moving` runs the one-shot callbacks and clears them afterwards. The callback of a move
wakes the plan, whose next ``set()`` may register its own callback before that clearing, and is then never told
(docs/decisions/0002). Here they are taken out first.
"""

from __future__ import annotations

import math
import numbers
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ophyd import Component as Cpt
from ophyd import Device, Signal
from ophyd.positioner import PositionerBase
from ophyd.status import MoveStatus

from devices._done import Done
from devices._waiter import Alarm, Waiter, wall_waiter
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import ArrivalError, DeviceError, LimitError

__all__ = ["Axis", "Motion", "Motor", "Setting", "ramped_s"]


SMALLEST = 1e-12


class Bounded:
    """What a number that can be set says of itself: unit, bounds and data key. For an ophyd signal to inherit first."""

    name: str
    _units = ""
    _bounds = (-math.inf, math.inf)

    @property
    def source(self) -> str:
        """Where the value comes from, for descriptors."""
        return f"setting:{self.name}"

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value allowed."""
        return self._bounds

    def check_value(self, value: Any) -> None:
        """Refuse what is no number or out of bounds.

        Raises
        ------
        LimitError
            Naming the setting, the value asked and the bounds.
        """
        low, high = self._bounds
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= float(value) <= high:
            unit = f" {self._units}" if self._units else ""
            raise LimitError(f"{self.name}: {value!r} is not a number from {low:g} to {high:g}{unit}")

    def describe(self) -> dict[str, Any]:
        """Return the data key."""
        key = {"source": self.source, "dtype": "number", "dtype_numpy": "<f8", "shape": []}
        return {self.name: {**key, "units": self._units}}


class Setting(Bounded, Signal):
    """A number that can be set, with its unit and bounds; it is part of a device's configuration.

    Parameters
    ----------
    value : float
        Value at the start.
    units : str
        Unit, for the descriptor.
    low, high : float
        Smallest and largest value allowed.
    """

    def __init__(
        self, *, value: float = 0.0, units: str = "", low: float = -math.inf, high: float = math.inf, **kwargs: Any
    ) -> None:
        super().__init__(value=value, **kwargs)
        self._units = units
        self._bounds = (low, high)

    def specify(self, value: float, units: str, low: float, high: float = math.inf) -> None:
        """Set value, unit and bounds, where they are known only from the configuration."""
        self._units, self._bounds = units, (low, high)
        self.put(value)

    def put(self, value: float, **kwargs: Any) -> None:
        """Set the value after checking it."""
        self.check_value(value)
        super().put(float(value), **kwargs)


class Move(MoveStatus):
    """The status of a move. That the axis does not answer at its end must not hide how it ended.

    Attributes
    ----------
    ended_at : float or None
        Where the axis was seen when the move was over, which ophyd's status then need not ask again.
    """

    ended_at: float | None = None

    def _settled(self) -> None:
        # this is the status's own thread: nobody else takes this for the present position
        self.pos.believed.position = self.ended_at
        try:
            super()._settled()
        except DeviceError:
            self.pos.log.debug("no position of %s at the end of its move", self.pos.name)
        finally:
            self.pos.believed.position = None


class Motion:
    """One move that has not ended: its target, its status, and the alarms that are to be cancelled with it."""

    def __init__(self, target: float, status: Move, timeout_s: float) -> None:
        self.target = target
        self.status = status
        self.timeout_s = timeout_s
        self.alarms: list[Alarm] = []
        self.looking: Alarm | None = None

    def conclude(self, *, success: bool, error: Exception | None = None, **_: Any) -> None:
        """End the status, once."""
        if self.status.done:
            return
        if success:
            self.status.set_finished()
        else:
            self.status.set_exception(error or DeviceError(f"{self.status.device.called} failed without a reason"))


class MoveGuard(Protocol):
    """Who is asked before a move is begun (`dfxrm_control.envelopes.Guard`)."""

    def moving(self, ways: dict[str, tuple[float, float]], asked: str) -> AbstractContextManager[None]:
        """Hold while a move is begun on these ways; raises EnvelopeError when it must not be."""
        ...


class Axis(Device, PositionerBase):
    """Something with a position, by its logical name: a motor, or what is computed from motors.

    It reads ``<name>`` (where it is) and ``<name>_setpoint`` (where it was asked to be). A move is done when the axis
    is within its tolerance of the target; anything else is a failed move whose error names axis, target and position.
    Subclasses say how to read, start and stop (`readback`, `_begin`, `_halt`) and call `_arrived` or `_conclude`.

    Parameters
    ----------
    name : str
        Logical name; also the data key.
    config : AxisConfig
        Unit, limits, speed, tolerance.

    Attributes
    ----------
    unstoppable : bool
        True where a stop would do harm, as on the way of a furnace to its safe temperature; the next move ends it.
    guard : MoveGuard or None
        Asked before each move; None where nothing that this axis carries could meet anything.
    believed : threading.local
        Its ``position``, if not None, is what this thread read a moment ago and takes for the present one.
    """

    guard: MoveGuard | None = None
    _default_sub = PositionerBase.SUB_READBACK

    tolerance = Cpt(Setting, kind="config", doc="largest distance from the target that counts as arrived")

    def __init__(self, *, name: str, config: AxisConfig, **kwargs: Any) -> None:
        self._axis_config = config
        self._lock = threading.RLock()
        self._motion: Motion | None = None
        self._target: float | None = None
        self._check: tuple[Callable[[], Exception | None], float] | None = None
        self.believed = threading.local()
        self.unstoppable = False
        super().__init__(name=name, **kwargs)
        self.tolerance.specify(config.tolerance, config.units, SMALLEST)

    # -- what a control system provides ---------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """Where the readback comes from, for descriptors."""
        raise NotImplementedError

    def readback(self) -> float:
        """Return where the axis is now.

        Raises
        ------
        DeviceError
            When it cannot be asked.
        """
        raise NotImplementedError

    def _begin(self, motion: Motion) -> None:
        """Start towards ``motion.target``; later call `_arrived` or `_conclude` from any thread."""
        raise NotImplementedError

    def _halt(self) -> None:
        """Stop where it is now."""
        raise NotImplementedError

    def _waiter_of_time(self) -> Waiter:
        """Return who calls back at times of the clock that this axis moves by."""
        return wall_waiter()

    # -- position and description ---------------------------------------------------------------------------------

    @property
    def position(self) -> float:
        """Where the axis is now."""
        believed: float | None = getattr(self.believed, "position", None)
        return self.readback() if believed is None else believed

    @property
    def setpoint(self) -> float:
        """Where the axis was asked to be; before the first move, where it is."""
        return self.readback() if self._target is None else self._target

    @property
    def egu(self) -> str:
        """The unit of positions."""
        return self._axis_config.units

    @property
    def precision(self) -> int:
        """Decimals to show."""
        return self._axis_config.precision

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest allowed position; (0, 0), ophyd's word for none, where there are none."""
        return self._bounds() or (0.0, 0.0)

    def _bounds(self) -> tuple[float, float] | None:
        """Return the lowest and highest allowed position, None where there are none: then the axis is not moved."""
        return self._axis_config.limits

    @property
    def called(self) -> str:
        """How errors name the axis; a control system adds the address."""
        return f"axis {self.name}"

    @property
    def moving(self) -> bool:
        """Whether a move has not ended yet."""
        return self._motion is not None

    @property
    def hints(self) -> dict[str, Any]:
        """The readback is what plots and tables show."""
        return {"fields": [self.name]}

    def read(self) -> dict[str, Any]:
        """Return readback and set-point."""
        position, now = self.readback(), time.time()
        target = position if self._target is None else self.setpoint
        return {
            self.name: {"value": position, "timestamp": now},
            f"{self.name}_setpoint": {"value": target, "timestamp": now},
        }

    def describe(self) -> dict[str, Any]:
        """Return the data keys of readback and set-point."""
        key: dict[str, Any] = {
            "source": self.source,
            "dtype": "number",
            "dtype_numpy": "<f8",
            "shape": [],
            "units": self.egu,
            "precision": self.precision,
        }
        if (bounds := self._bounds()) is not None:
            key["lower_ctrl_limit"], key["upper_ctrl_limit"] = bounds
        return {self.name: dict(key), f"{self.name}_setpoint": dict(key)}

    def trigger(self) -> Done:
        """Do nothing, at once: reading asks the axis anyway."""
        return Done()

    def locate(self) -> dict[str, float]:
        """Return set-point and readback (`bluesky.protocols.Locatable`): relative plans come back to the set-point."""
        return {"setpoint": self.setpoint, "readback": self.readback()}

    def say(self, value: float) -> str:
        """Return a position with its unit, for messages."""
        digits = f"{value:.{self.precision}f}"
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
        return f"{'0' if digits == '-0' else digits} {self.egu}"

    def check_value(self, value: Any) -> None:
        """Refuse a position that the axis must not be sent to.

        Raises
        ------
        LimitError
            Naming the axis, the position asked and those allowed.
        """
        try:
            asked = float(value)
        except (TypeError, ValueError):
            asked = math.nan
        if not math.isfinite(asked):
            raise LimitError(f"{self.called}: {value!r} is no position in {self.egu}")
        limits = self._bounds()
        if limits is None:
            raise LimitError(f"{self.called} has no limits, so it is not moved (asked for {self.say(asked)})")
        if not limits[0] <= asked <= limits[1]:
            raise LimitError(
                f"{self.called}: {self.say(asked)} is outside its limits {limits[0]:g} .. {limits[1]:g} {self.egu}"
            )

    # -- moving ---------------------------------------------------------------------------------------------------

    def expected_duration_s(self, target: float) -> float:
        """Return how long a move from here to ``target`` should take, in seconds."""
        raise NotImplementedError

    def move(
        self,
        position: float,
        moved_cb: Callable[..., None] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> MoveStatus:
        """Start a move and return its status.

        Parameters
        ----------
        position : float
            Target in the unit of the axis.
        moved_cb : callable, optional
            Called as ``moved_cb(status)`` when the move has ended.
        timeout : float, optional
            Seconds after which the move counts as stalled, if shorter than what distance, speed, acceleration and
            ``extra_timeout_s`` of the configuration give.
        wait : bool
            Whether to return only when the move has ended.

        Raises
        ------
        LimitError
            When the position is not allowed, or two bodies could meet on the way (EnvelopeError); nothing moves then.
        """
        self.check_value(position)
        target = float(position)
        if self.guard is None:
            motion, status = self._enter(target, timeout)
        else:
            with self.guard.moving(self.way(target), f"{self.called} cannot go to {self.say(target)}"):
                motion, status = self._enter(target, timeout)
        self._run_subs(sub_type=self.SUB_START, timestamp=time.time())
        try:
            self._watch(motion)
            if self._check is None:
                self._begin(motion)
            else:
                with self._waiter_of_time().together():
                    self._look(motion)
                    if motion is self._motion:
                        self._begin(motion)
        except Exception as error:
            self._conclude(motion, error)
        if moved_cb is not None:
            status.add_callback(moved_cb)
        if wait:
            status.wait(motion.timeout_s + self._axis_config.extra_timeout_s)
        return status

    def _enter(self, target: float, timeout: float | None) -> tuple[Motion, MoveStatus]:
        """Make a move the one that is under way, and end the one before it."""
        if (previous := self._motion) is not None:
            self._conclude(previous, DeviceError(f"{self.called} was sent to {self.say(target)} before it had arrived"))
        self.unstoppable = False
        limit_s = self.expected_duration_s(target) + self._axis_config.extra_timeout_s
        if timeout is not None:
            limit_s = min(limit_s, timeout)
        status = Move(self, target, call_stop_on_failure=False, settle_time=self.settle_time)
        motion = Motion(target, status, limit_s)
        with self._lock:
            self._motion = motion
            self._target = target
            self.subscribe(motion.conclude, event_type=self._SUB_REQ_DONE, run=False)
        return motion, status

    def way(self, target: float | None = None) -> dict[str, tuple[float, float]]:
        """Return between which positions each motor is on a move from here; of one that stands, where it is.

        Parameters
        ----------
        target : float, optional
            Where to; default: where the move that is under way goes.
        """
        raise NotImplementedError

    def watch(self, check: Callable[[], Exception | None], every_s: float) -> None:
        """Ask ``check`` every so often while a move is under way, and at its end: the error it returns ends the move.

        Parameters
        ----------
        check : callable
            Returns None while all is well. It must not block.
        every_s : float
            Time from one look to the next, on the clock of the axis, s.
        """
        self._check = (check, every_s)

    def _look(self, motion: Motion) -> None:
        if self._check is None or motion is not self._motion:
            return
        check, every_s = self._check
        if (error := check()) is not None:
            self._end_by(motion, error)
        else:
            motion.looking = self._waiter_of_time().after(every_s, lambda _: self._look(motion))

    def _end_by(self, motion: Motion, error: Exception) -> None:
        try:
            self._halt()
        finally:
            self._conclude(motion, error)

    def _watch(self, motion: Motion) -> None:
        """Let real time end a move that nothing else ends."""
        motion.alarms.append(wall_waiter().after(motion.timeout_s, lambda _: self._stalled(motion)))

    def _stalled(self, motion: Motion) -> None:
        if motion is not self._motion:
            return
        sentence = f"{self.called} did not reach {self.say(motion.target)} within {motion.timeout_s:.3g} s"
        self._end_by(motion, DeviceError(f"{sentence}; it is {self._where()}"))

    def _where(self) -> str:
        try:
            return f"at {self.say(self.readback())}"
        except DeviceError:
            return "not answering"

    def _arrived(self, motion: Motion, position: float | None = None) -> None:
        """End a move that says it is over: successfully only if the axis is where it was sent.

        ``position``, if given, was read after the move was over; otherwise it is asked for.
        """
        try:
            if position is None:
                position = self.readback()
            motion.status.ended_at = position
            fault = self._check[0]() if self._check is not None else None
        except Exception as error:
            self._conclude(motion, error)
            return
        if fault is not None:
            self._end_by(motion, fault)
            return
        tolerance = self.tolerance.get()
        # half a unit in the last place of the readback must not decide
        if abs(position - motion.target) <= tolerance * (1 + 1e-9) + 1e-12:
            self._conclude(motion, None)
        else:
            self._conclude(
                motion,
                ArrivalError(
                    f"{self.called} was sent to {self.say(motion.target)} but stopped at {self.say(position)}, "
                    f"more than its tolerance of {self.say(tolerance)} away{self._explanation()}"
                ),
            )

    def _explanation(self) -> str:
        """Return what the control system knows about a move that ended elsewhere, to go on a sentence, or nothing."""
        return ""

    def _conclude(self, motion: Motion, error: Exception | None) -> None:
        self._done_moving(success=error is None, motion=motion, error=error)

    def _done_moving(
        self,
        success: bool = True,
        timestamp: float | None = None,
        value: float | None = None,
        motion: Motion | None = None,
        error: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        """Tell everyone that a move has ended.

        The one-shot callbacks are taken out before they are called: what they wake up may start the next move, whose
        own callback must stay.
        """
        with self._lock:
            if motion is not None and motion is not self._motion:
                return
            ended, self._motion = self._motion, None
            once = list(self._callbacks[self._SUB_REQ_DONE].values())
            self._reset_sub(self._SUB_REQ_DONE)
        for alarm in (*ended.alarms, ended.looking) if ended is not None else ():
            if alarm is not None:
                alarm.cancel()
        if self._callbacks[self.SUB_READBACK]:
            self._announce()
        if success:
            self._run_subs(sub_type=self.SUB_DONE, timestamp=timestamp, value=value)
        for callback in once:
            callback(success=success, error=error, timestamp=timestamp, obj=self, sub_type=self._SUB_REQ_DONE)

    def _announce(self) -> None:
        try:
            self._set_position(self.readback())
        except DeviceError:
            self.log.debug("no readback of %s to announce", self.name)

    def stop(self, *, success: bool = False) -> None:
        """Stop where it is now; the set-point becomes that position.

        Parameters
        ----------
        success : bool
            Whether the move that is under way counts as successful (the RunEngine's pause) or as failed.
        """
        if self.unstoppable:
            return
        motion = self._motion
        self._halt()
        if motion is None:
            return
        with self._lock:
            self._target = None
        self._conclude(motion, None if success else self._stopped(motion))

    def _stopped(self, motion: Motion) -> DeviceError:
        return DeviceError(f"{self.called} was stopped on its way to {self.say(motion.target)}; it is {self._where()}")


class Motor(Axis):
    """A real motor, whatever control system speaks for it. Parameters as for `Axis`."""

    velocity = Cpt(Setting, kind="config", doc="speed, units per second")
    acceleration = Cpt(Setting, kind="config", doc="time to reach the speed, s")
    backlash = Cpt(Setting, kind="config", doc="signed distance of the final approach; positive: it ends moving up")

    def __init__(self, *, name: str, config: AxisConfig, **kwargs: Any) -> None:
        super().__init__(name=name, config=config, **kwargs)
        self.velocity.specify(config.velocity, f"{config.units}/s", SMALLEST)
        self.acceleration.specify(config.acceleration_s, "s", 0.0)
        self.backlash.specify(config.backlash, config.units, -math.inf)

    @property
    def hardware_limits(self) -> tuple[float, float] | None:
        """Lowest and highest position that the control system allows, None where it gives none."""
        return None

    @property
    def hardware_units(self) -> str | None:
        """The unit that the control system gives, None where it gives none."""
        return None

    @property
    def hardware_velocity(self) -> float | None:
        """The speed that the control system keeps, units per second, None where it keeps none."""
        return None

    def hardware_trouble(self) -> str | None:
        """Return what the control system says is wrong with the motor now, to go after "it", or None."""
        return None

    def way(self, target: float | None = None) -> dict[str, tuple[float, float]]:
        """Return between which positions the motor is on a move from here: it goes too far where it comes back."""
        here, motion = self.readback(), self._motion
        there = target if target is not None else here if motion is None else motion.target
        too_far = self.backlash.get() if (there - here) * self.backlash.get() < 0 else 0.0
        return {self.name: (min(here, there, there - too_far), max(here, there, there - too_far))}

    def expected_duration_s(self, target: float) -> float:
        """Return how long a move from here to ``target`` should take, with the final approach, in seconds."""
        distance, velocity, acceleration_s = abs(target - self.position), self.velocity.get(), self.acceleration.get()
        if backlash := abs(self.backlash.get()):
            approach_s = ramped_s(backlash, velocity, acceleration_s)
            return ramped_s(distance + backlash, velocity, acceleration_s) + approach_s
        return ramped_s(distance, velocity, acceleration_s)


def ramped_s(distance: float, velocity: float, acceleration_s: float) -> float:
    """Return the time of a move that speeds up and slows down evenly, s: a short one never reaches its speed."""
    if distance >= velocity * acceleration_s:
        return distance / velocity + acceleration_s if distance else 0.0
    return 2.0 * math.sqrt(distance * acceleration_s / velocity)
