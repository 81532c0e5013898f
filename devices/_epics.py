"""Axes, channels and shutters over EPICS Channel Access: motor records and single process variables.

Nothing that is recorded comes from what a monitor said last: a server that hangs with its socket open keeps a channel
"connected" for half a minute, and its last values look fresh. So each reading is asked for anew, and a server that does
not answer is an error. Monitors serve to notice when a move is over, and for what only guards it.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from ophyd import Component as Cpt
from ophyd import EpicsSignal
from ophyd.status import MoveStatus

from devices._axis import Bounded, Motion, Motor
from devices._channel import Channel, Shutter
from devices._epics_camera import EpicsCamera
from devices._epics_field import ANSWER_S, Field
from devices._waiter import Alarm, wall_waiter
from dfxrm_control.backend import Backend, ChannelValue
from dfxrm_control.config import AxisConfig, ChannelConfig
from dfxrm_control.errors import ArrivalError, DeviceError, LimitError

__all__ = ["EpicsAxis", "EpicsChannel", "EpicsShutter"]

GRACE_S = 1.0
"""How long a move may seem over while the record has not both started it and acknowledged its end, s."""
LOOK_S = 1.0
"""Time between two looks at a channel whose changes somebody wants to hear of, s."""
POLL_S = 0.02
"""Time between looks at a channel that has been set and is on its way, s."""

# bits of the motor record's MSTA field (motor record reference, "Motor Status")
PLUS_SWITCH, SLIP, PROBLEM, NO_CONTROLLER, MINUS_SWITCH = 0x4, 0x40, 0x200, 0x1000, 0x2000
SPMG = ("Stop", "Pause", "Move", "Go")


class RecordSetting(Bounded, Field):
    """A setting that the record keeps: speed, acceleration, backlash. The configuration's own value is not written."""

    def specify(self, value: float, units: str, low: float, high: float = float("inf")) -> None:
        """Set unit and bounds; the value stays what the record has."""
        self._units, self._bounds = units, (low, high)

    @property
    def source(self) -> str:
        """Where the value comes from, for descriptors."""
        return f"ca://{self.pvname}"

    def read(self) -> dict[str, Any]:
        """Return the present value, asked anew."""
        return {self.name: {"value": float(self.ask(self.parent.called)), "timestamp": time.time()}}

    def put(self, value: float, **kwargs: Any) -> None:
        """Set the value after checking it."""
        self.check_value(value)
        self.tell(self.parent.called, float(value))

    def set(self, value: float, *, timeout: float | None = None, settle_time: float | None = None) -> Any:
        """Set the value; the status is done when the record has it, and fails if it has not in time."""
        self.check_value(value)
        return super().set(value, timeout=ANSWER_S if timeout is None else timeout, settle_time=settle_time)


class _Progress:
    """What the record has said about one move."""

    def __init__(self, motion: Motion, started: bool) -> None:
        self.motion = motion
        self.started = started
        self.done = not started
        self.waits_for_stop = False
        self.acknowledged = False
        self.over = False
        self.grace: Alarm | None = None


class EpicsAxis(Motor):
    """An axis that is a motor record.

    A record that obeys the rules sets DMOV to 0, moves, sets DMOV to 1 and then acknowledges the put. Not every server
    does: some acknowledge at once, and two changes of DMOV may arrive as one. So a move is over when DMOV is 1 and the
    record has both left that state for this move and acknowledged it, or when one of the two is still missing after
    `GRACE_S`. Whether it was a good move is asked then.

    Parameters
    ----------
    name : str
        Logical name.
    config : AxisConfig
        Its ``address`` is the name of the record.
    backend : Backend, optional
        Not used.
    """

    velocity = Cpt(RecordSetting, ".VELO", kind="config", auto_monitor=True, doc="speed, units per second")
    acceleration = Cpt(RecordSetting, ".ACCL", kind="config", auto_monitor=True, doc="time to reach the speed, s")
    backlash = Cpt(
        RecordSetting, ".BDST", kind="config", auto_monitor=True, doc="signed distance of the final approach"
    )
    rbv = Cpt(Field, ".RBV", kind="omitted", auto_monitor=True, doc="where it is")
    val = Cpt(Field, ".VAL", kind="omitted", auto_monitor=True, doc="where it was asked to be")
    dmov = Cpt(Field, ".DMOV", kind="omitted", auto_monitor=True, doc="1 when no move is under way")
    stop_now = Cpt(Field, ".STOP", kind="omitted", doc="stops the move under way")
    spmg = Cpt(Field, ".SPMG", kind="omitted", auto_monitor=True, doc="Stop, Pause, Move, Go")
    redefining = Cpt(Field, ".SET", kind="omitted", auto_monitor=True, doc="1 while a put redefines the position")
    low_limit = Cpt(Field, ".LLM", kind="omitted", auto_monitor=True, doc="lowest position allowed")
    high_limit = Cpt(Field, ".HLM", kind="omitted", auto_monitor=True, doc="highest position allowed")
    low_switch = Cpt(Field, ".LLS", kind="omitted", auto_monitor=True, doc="1 on the low limit switch")
    high_switch = Cpt(Field, ".HLS", kind="omitted", auto_monitor=True, doc="1 on the high limit switch")
    refused = Cpt(Field, ".LVIO", kind="omitted", auto_monitor=True, doc="1 when a put was beyond the limits")
    status_bits = Cpt(Field, ".MSTA", kind="omitted", auto_monitor=True, doc="status bits of the controller")
    approach_velocity = Cpt(Field, ".BVEL", kind="omitted", auto_monitor=True, doc="speed of the final approach")
    record_units = Cpt(Field, ".EGU", kind="omitted", auto_monitor=True, string=True, doc="unit of positions")

    def __init__(self, *, name: str, config: AxisConfig, backend: Backend | None = None, **kwargs: Any) -> None:
        self._progress: _Progress | None = None
        self._stopping = False
        self._read_last = 0.0
        self._starting = False
        super().__init__(name=name, config=config, prefix=config.address or name, **kwargs)
        self.dmov.subscribe(self._dmov_changed, event_type=EpicsSignal.SUB_VALUE, run=False)
        self.dmov.subscribe(self._connection_changed, event_type=EpicsSignal.SUB_META, run=False)

    # -- what it says of itself -----------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """Where the readback comes from, for descriptors."""
        return f"ca://{self.prefix}"

    @property
    def called(self) -> str:
        """How errors name the axis."""
        return f"axis {self.name} ({self.source})"

    @property
    def hardware_limits(self) -> tuple[float, float] | None:
        """Lowest and highest position that the record allows; None where it has no limits (both 0).

        Raises
        ------
        DeviceError
            When it is not connected.
        """
        low, high = float(self._known(self.low_limit)), float(self._known(self.high_limit))
        return (low, high) if low < high else None

    @property
    def hardware_units(self) -> str | None:
        """The unit that the record gives.

        Raises
        ------
        DeviceError
            When it is not connected.
        """
        return str(self._known(self.record_units)) or None

    @property
    def hardware_velocity(self) -> float | None:
        """The speed that the record keeps, units per second.

        Raises
        ------
        DeviceError
            When it is not connected.
        """
        return float(self._known(self.velocity))

    def hardware_trouble(self) -> str | None:
        """Return what the record says is wrong now.

        Raises
        ------
        DeviceError
            When it does not answer.
        """
        return self._trouble() or self._held()

    def _bounds(self) -> tuple[float, float] | None:
        ours, theirs = self._axis_config.limits, self.hardware_limits
        if ours is None or theirs is None:
            return ours or theirs
        low, high = max(ours[0], theirs[0]), min(ours[1], theirs[1])
        return (low, high) if low < high else None

    def check_value(self, value: Any) -> None:
        """Refuse a position outside the limits of the configuration or of the record.

        Raises
        ------
        LimitError
            Naming the axis, the position asked and those allowed.
        DeviceError
            When it is not connected.
        """
        ours, theirs = self._axis_config.limits, self.hardware_limits
        if ours is not None and theirs is not None and self._bounds() is None:
            raise LimitError(
                f"{self.called} is not moved: its limits {ours[0]:g} .. {ours[1]:g} {self.egu} in the configuration "
                f"and {theirs[0]:g} .. {theirs[1]:g} {self.egu} in the record have nothing in common"
            )
        super().check_value(value)

    def _known(self, field: Field) -> Any:
        return field.known(self.called)

    def readback(self) -> float:
        """Return where the axis is now.

        Raises
        ------
        DeviceError
            When the record does not answer.
        """
        self._read_last = float(self.rbv.ask(self.called))
        return self._read_last

    @property
    def position(self) -> float:
        """Where the axis is now."""
        return self._read_last if self._starting else super().position

    def _announce(self) -> None:
        self._set_position(self._read_last)

    @property
    def setpoint(self) -> float:
        """Where the record was asked to be, by whomever."""
        return float(self.val.ask(self.called))

    def read(self) -> dict[str, Any]:
        """Return readback and set-point."""
        position, target, now = self.readback(), self.setpoint, time.time()
        return {
            self.name: {"value": position, "timestamp": now},
            f"{self.name}_setpoint": {"value": target, "timestamp": now},
        }

    def expected_duration_s(self, target: float) -> float:
        """Return how long a move from here to ``target`` should take, with the final approach, in seconds."""
        if not float(self._known(self.velocity)) > 0:
            raise DeviceError(f"{self.called} has a velocity of 0, so it would never arrive at {self.say(target)}")
        speed = float(self._known(self.approach_velocity))
        slowly_s = abs(float(self._known(self.backlash))) / speed if speed > 0 else 0.0
        return super().expected_duration_s(target) + slowly_s

    # -- moving ---------------------------------------------------------------------------------------------------

    def move(self, position: float, *args: Any, **kwargs: Any) -> MoveStatus:
        """Start a move, as `devices.Axis.move`.

        Raises
        ------
        LimitError
            When the position is not allowed; nothing moves then.
        DeviceError
            When the record does not answer.
        """
        try:
            self.check_value(position)
            self.readback()
        except DeviceError as error:
            raise DeviceError(f"{self.called} was sent to {self.say(float(position))}, but failed: {error}") from error
        # once is enough: what computes the duration and ophyd's status would ask three times more
        self._starting = True
        try:
            return super().move(position, *args, **kwargs)
        finally:
            self._starting = False

    def _begin(self, motion: Motion) -> None:
        self._starting = False
        if (held := self._held()) is not None:
            raise DeviceError(f"{self.called} is not sent to {self.say(motion.target)}: its record {held}")
        # what the monitor said last may be older than the stop
        done = int(self.dmov.ask(self.called) if self._stopping else self._known(self.dmov))
        progress = _Progress(motion, started=not done)
        with self._lock:
            # a record that is stopping forgets a target that it is given now
            progress.waits_for_stop = self._stopping and not done
            self._stopping = progress.waits_for_stop
            self._progress = progress
        if not progress.waits_for_stop:
            self._send(progress)

    def _held(self) -> str | None:
        """Return why the record would not go where it is told to."""
        if (mode := int(self._known(self.spmg))) < SPMG.index("Move"):
            return f"is on {SPMG[mode]}; set {self.spmg.pvname} to Go"
        if int(self._known(self.redefining)):
            return f"takes positions as a new calibration; set {self.redefining.pvname} to Use"
        return None

    def _send(self, progress: _Progress) -> None:
        self.val.tell(self.called, progress.motion.target, acknowledged=lambda **_: self._acknowledged(progress))

    def _dmov_changed(self, *, value: Any, **_: Any) -> None:
        with self._lock:
            done, progress = bool(value), self._progress
            if progress is None:
                return
            progress.done = done
            progress.started |= not done
            sends = done and progress.waits_for_stop and progress.motion is self._motion
            if sends:
                self._stopping = progress.waits_for_stop = progress.started = False
        if not sends:
            self._consider(progress)
            return
        try:
            self._send(progress)
        except DeviceError as error:
            self._conclude(progress.motion, error)

    def _acknowledged(self, progress: _Progress) -> None:
        progress.acknowledged = True
        self._consider(progress)

    def _consider(self, progress: _Progress) -> None:
        with self._lock:
            if progress is not self._progress or progress.over or progress.motion is not self._motion:
                return
            if not progress.done or progress.waits_for_stop:
                if progress.grace is not None:
                    progress.grace.cancel()
                    progress.grace = None
                return
            if not (progress.started and progress.acknowledged):
                if progress.grace is None:
                    progress.grace = wall_waiter().after(GRACE_S, lambda _: self._in_thread(self._grace_ends, progress))
                    progress.motion.alarms.append(progress.grace)
                return
            progress.over = True
        self._over(progress.motion)

    def _grace_ends(self, progress: _Progress) -> None:
        try:
            done = bool(self.dmov.ask(self.called))
        except DeviceError as error:
            self._conclude(progress.motion, error)
            return
        with self._lock:
            if progress is not self._progress or progress.over:
                return
            progress.done, progress.grace = done, None
            progress.started |= not done
            if not done:
                return
            progress.over = True
        self._over(progress.motion)

    def _over(self, motion: Motion) -> None:
        """Ask whether a move that is over was a good one."""
        try:
            trouble = self._trouble()
        except DeviceError as error:
            self._conclude(motion, error)
            return
        if trouble is None:
            self._arrived(motion)
        else:
            self._conclude(
                motion,
                ArrivalError(f"{self.called} {trouble} on its way to {self.say(motion.target)}; it is {self._where()}"),
            )

    def _trouble(self) -> str | None:
        bits = int(self.status_bits.ask(self.called))
        if bits & NO_CONTROLLER:
            return "lost its controller (MSTA: communication error)"
        if bits & PROBLEM:
            return "went into fault (MSTA: problem)"
        if bits & SLIP:
            return "slipped or stalled (MSTA: slip/stall)"
        high, low = int(self._known(self.high_switch)), int(self._known(self.low_switch))
        if high or low or bits & (PLUS_SWITCH | MINUS_SWITCH):
            return f"hit its {'high' if high else 'low'} limit switch" if high != low else "hit a limit switch"
        return None

    def _explanation(self) -> str:
        try:
            if int(self.refused.ask(self.called)):
                return ": the record refused the position as beyond its limits (LVIO)"
            if (mode := int(self.spmg.ask(self.called))) < SPMG.index("Move"):
                return f": the record was set to {SPMG[mode]}"
        except DeviceError:
            self.log.debug("%s does not say why", self.called)
        return ""

    def _connection_changed(self, *, connected: bool, **_: Any) -> None:
        if not connected and (motion := self._motion) is not None:
            self._conclude(
                motion, DeviceError(f"{self.called} lost its connection on its way to {self.say(motion.target)}")
            )

    def _stalled(self, motion: Motion) -> None:
        # asking a server that hangs takes its time, which the time-outs of other devices must not wait for
        self._in_thread(super()._stalled, motion)

    def _in_thread(self, work: Any, *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, name=f"{self.name}: asks", daemon=True).start()

    def _halt(self) -> None:
        if not self.stop_now.connected and self._motion is None:
            return
        self._stopping = True
        self.stop_now.tell(self.called, 1)


class EpicsChannel(Channel):
    """A channel that is one process variable, or one to set and one to read.

    Parameters
    ----------
    name : str
        Logical name.
    config : ChannelConfig
        ``address`` is the variable it is set by; ``readback`` the one it is read from, if that is another; ``words``
        and ``set_words`` the server's words for its choices, if they are others.
    backend : Backend, optional
        Not used.
    """

    def __init__(self, *, name: str, config: ChannelConfig, backend: Backend | None = None, **kwargs: Any) -> None:
        self._address = config.address or name
        self._words = {word: config.words.get(word, word) for word in config.choices or ()}
        self._set_words = {**self._words, **config.set_words}
        self._field = Field(
            config.readback or self._address,
            None if config.read_only else self._address,
            name=f"{name}_variable",
            string=config.choices is not None,
            auto_monitor=True,
        )
        self._listening = False
        self._closed = threading.Event()
        super().__init__(name=name, config=config, **kwargs)

    @property
    def source(self) -> str:
        """Where the value comes from, for descriptors."""
        return f"ca://{self._field.pvname}"

    @property
    def called(self) -> str:
        """How errors name the channel."""
        return f"channel {self.name} (ca://{self._address})"

    @property
    def hardware_units(self) -> str | None:
        """The unit that the server gives, None where it gives none."""
        return self._field.units(self.called) or None

    @property
    def connected(self) -> bool:
        """Whether the server answers, as far as it is known."""
        return self._field.connected

    def wait_for_connection(self, timeout: float = 10.0) -> None:
        """Wait until it is connected.

        Raises
        ------
        DeviceError
            When it is not in time.
        """
        try:
            self._field.wait_for_connection(timeout=timeout)
        except TimeoutError as error:
            raise DeviceError(f"{self.called} did not connect within {timeout:g} s") from error

    def destroy(self) -> None:
        """Disconnect for good."""
        self._closed.set()
        self._field.destroy()
        super().destroy()

    def _ask(self) -> ChannelValue:
        return self._understood(self._field.ask(self.called))

    def _understood(self, value: Any) -> ChannelValue:
        if self.choices is None:
            return float(value)
        for word, theirs in self._words.items():
            if value == theirs:
                return word
        raise DeviceError(f"{self.called} says {value!r}, which is none of {', '.join(self._words.values())}")

    def _tell(self, value: ChannelValue) -> None:
        deadline = time.monotonic() + self._channel_config.timeout_s
        self._field.tell(self.called, self._set_words[value] if isinstance(value, str) else float(value))
        while True:
            try:
                found: ChannelValue | DeviceError = self.get()
            except DeviceError as error:
                # a shutter on its way may say neither word
                found = error
            if not isinstance(found, DeviceError) and self._is(found, value):
                return
            if time.monotonic() > deadline:
                after = f"within {self._channel_config.timeout_s:g} s"
                what = f"{found}" if isinstance(found, DeviceError) else f"it is {found!r}"
                raise DeviceError(f"{self.called} did not become {value!r} {after}: {what}")
            time.sleep(POLL_S)

    def _run(self, work: Any) -> None:
        threading.Thread(target=work, name=f"{self.name}: sets", daemon=True).start()

    def subscribe(self, callback: Any, event_type: str | None = None, run: bool = True) -> int:
        """Call back on each change that the server tells of."""
        self._tell_subscribers(self.get())
        number = super().subscribe(callback, event_type=event_type, run=run)
        if not self._listening:
            self._listening = True
            self._field.subscribe(self._changed, event_type=EpicsSignal.SUB_VALUE, run=False)
            self._field.subscribe(self._connection_changed, event_type=EpicsSignal.SUB_META, run=False)
            threading.Thread(target=self._look_now_and_then, name=f"{self.name}: looks", daemon=True).start()
        return number

    def _connection_changed(self, *, connected: bool, **_: Any) -> None:
        if not connected:
            self._lost()

    def _look_now_and_then(self) -> None:
        """Notice a server that hangs with its connection open, whose monitors are silent without being lost."""
        while not self._closed.wait(LOOK_S):
            try:
                self._tell_subscribers(self.get())
            except DeviceError:
                self._lost()

    def _changed(self, *, value: Any, **_: Any) -> None:
        try:
            self._tell_subscribers(self._understood(value))
        except DeviceError as error:
            self.log.warning("%s", error)
            self._lost()


class EpicsShutter(EpicsChannel, Shutter):
    """A shutter that is one process variable, or one to set and one to read."""


PARTS: dict[type, type] = {Motor: EpicsAxis, Channel: EpicsChannel, Shutter: EpicsShutter}
CAMERA = EpicsCamera
