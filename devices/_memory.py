"""Axes, channels and cameras in memory: they know no physics and ask a `Backend`, whose clock is their time."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from devices._axis import Motion, Motor
from devices._channel import Channel, Shutter
from devices._waiter import Alarm, Waiter, backend_waiter, wall_waiter
from dfxrm_control.backend import Backend, ChannelValue, Frame, FrameRequest
from dfxrm_control.config import AxisConfig, CameraControl, ChannelConfig
from dfxrm_control.errors import ArrivalError, ConfigError, DeviceError
from dfxrm_control.records import FrameWriter

__all__ = ["Fault", "MemoryAxis", "MemoryCamera", "MemoryChannel", "MemoryShutter"]

POLL_S = 0.25


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with an in-memory axis, for tests and drills.

    Attributes
    ----------
    kind : str
        ``stall``: it never moves and never says it is done. ``short``: it says it is done ``amount`` before the target.
        ``fault``: half way it goes into fault, with ``text``. ``limit_switch``: it runs into a switch at ``amount``.
        ``disconnected``: it does not answer. ``slow``: it takes ``amount`` times as long.
    amount : float
        See ``kind``; in the unit of the axis, or a factor.
    text : str
        The device's own words.
    """

    kind: Literal["stall", "short", "fault", "limit_switch", "disconnected", "slow"]
    amount: float = 0.0
    text: str = ""


def _required(backend: Backend | None, what: str) -> Backend:
    if backend is None:
        raise ConfigError(f"{what} is in memory, but the configuration has no backend that could stand behind it")
    return backend


class MemoryAxis(Motor):
    """An axis of a backend. Parameters as for `Motor`, and the backend."""

    def __init__(self, *, name: str, config: AxisConfig, backend: Backend | None, **kwargs: Any) -> None:
        self._backend = _required(backend, f"axis {name}")
        self._waiter = backend_waiter(self._backend)
        self._address = config.address or name
        self._fault: Fault | None = None
        super().__init__(name=name, config=config, **kwargs)

    @property
    def source(self) -> str:
        """Where the readback comes from, for descriptors."""
        return f"memory:{self._address}"

    def _waiter_of_time(self) -> Waiter:
        return self._waiter

    def inject(self, fault: Fault | None) -> None:
        """Let something go wrong from now on; None: all is well again."""
        self._fault = fault
        if fault is not None and fault.kind == "disconnected" and (motion := self._motion) is not None:
            self._conclude(motion, self._disconnected())

    def _disconnected(self) -> DeviceError:
        return DeviceError(f"axis {self.name} ({self.source}) is disconnected")

    def readback(self) -> float:
        """Return where the axis is now.

        Raises
        ------
        DeviceError
            When it is disconnected, or the backend has no such axis.
        """
        if self._fault is not None and self._fault.kind == "disconnected":
            raise self._disconnected()
        return self._backend.position(self._address)

    def _watch(self, motion: Motion) -> None:
        # the backend's clock ends a stalled move (see _leg); real time is the net for a clock that stands still
        net_s = motion.timeout_s + self._axis_config.extra_timeout_s
        motion.alarms.append(wall_waiter().after(net_s, lambda _: self._stalled(motion)))

    def _begin(self, motion: Motion) -> None:
        legs = [motion.target]
        backlash = self.backlash.get()
        if backlash and (motion.target - self.readback()) * backlash < 0:
            low, high = self.limits
            legs.insert(0, min(max(motion.target - backlash, low), high))
        self._leg(motion, legs, self._waiter.now() + motion.timeout_s)

    def _leg(self, motion: Motion, legs: list[float], deadline_s: float) -> None:
        """Go to the first of ``legs``; when there, go on or say that it is over."""
        rest = legs[1:]
        target, slowness, end_of_fault = self._as_faulty(self.readback(), legs[0])
        if math.isfinite(slowness):
            velocity = self.velocity.get() / slowness
            end_s = self._backend.start_move(self._address, target, velocity, self.acceleration.get())
        else:
            end_s = math.inf
        in_time = end_s <= deadline_s

        def ended(error: Exception | None) -> None:
            if motion is not self._motion:
                return
            if error is not None:
                self._conclude(motion, DeviceError(f"axis {self.name} ({self.source}): its clock failed: {error}"))
            elif not in_time:
                self._stalled(motion)
            elif end_of_fault is not None:
                self._conclude(motion, end_of_fault(motion))
            elif rest:
                try:
                    self._leg(motion, rest, deadline_s)
                except Exception as failure:
                    self._conclude(motion, failure)
            else:
                self._arrived(motion)

        motion.alarms.append(self._waiter.at(min(end_s, deadline_s), ended))

    def _as_faulty(self, here: float, target: float) -> tuple[float, float, Callable[[Motion], DeviceError] | None]:
        """Return where a leg really goes, how many times as slowly, and with which error it ends, if any."""
        fault, way = self._fault, target - here
        if fault is None:
            return target, 1.0, None
        if fault.kind == "stall":
            return here, math.inf, None
        if fault.kind == "slow":
            return target, fault.amount, None
        if fault.kind == "short":
            return target - math.copysign(min(fault.amount, abs(way)), way), 1.0, None
        if fault.kind == "fault":
            return here + way / 2, 1.0, lambda motion: self._faulty(motion, "went into fault", fault.text)
        if fault.kind == "limit_switch" and way and 0 < (fault.amount - here) / way <= 1:
            return fault.amount, 1.0, lambda motion: self._faulty(motion, "hit a limit switch", fault.text)
        return target, 1.0, None

    def _faulty(self, motion: Motion, what: str, text: str) -> DeviceError:
        return ArrivalError(
            f"axis {self.name} {what} on its way to {self.say(motion.target)}; it is {self._where()}"
            + (f"; it says: {text}" if text else "")
        )

    def _halt(self) -> None:
        if self._fault is not None and self._fault.kind == "disconnected":
            return
        self._backend.stop(self._address)


class _Exposed:
    """What the latest exposure of a backend said about the beam, by channel; shared by its camera and its channels."""

    def __init__(self) -> None:
        self.during_run: dict[str, float] = {}
        self.last: dict[str, float] = {}

    def note(self, frame: Frame) -> None:
        self.last = {"monitor": frame.monitor}
        self.during_run = {"ring_current": frame.ring_current_ma}


_exposed: weakref.WeakValueDictionary[int, _Exposed] = weakref.WeakValueDictionary()
_exposed_lock = threading.Lock()


def _exposed_of(backend: Backend) -> _Exposed:
    with _exposed_lock:
        exposed = _exposed.get(id(backend))
        if exposed is None:
            exposed = _exposed[id(backend)] = _Exposed()
        return exposed


class MemoryChannel(Channel):
    """A channel of a backend.

    What belongs to an exposure reads as of the last frame, so that a point's flux is the flux of its frame: the monitor
    always, the ring current while a camera takes frames.
    """

    def __init__(self, *, name: str, config: ChannelConfig, backend: Backend | None, **kwargs: Any) -> None:
        self._backend = _required(backend, f"channel {name}")
        self._exposed = _exposed_of(self._backend)
        self._address = config.address or name
        self._polling: Alarm | None = None
        super().__init__(name=name, config=config, **kwargs)

    @property
    def source(self) -> str:
        """Where the value comes from, for descriptors."""
        return f"memory:{self._address}"

    def _ask(self) -> ChannelValue:
        if self._address in self._exposed.last:
            return self._exposed.last[self._address]
        return self._backend.get(self._address)

    def _tell(self, value: ChannelValue) -> None:
        self._backend.put(self._address, value)

    def read(self) -> dict[str, Any]:
        """Return the value that belongs to the last frame, or else the present one."""
        reading = super().read()
        reading[self.name]["value"] = self._exposed.during_run.get(self._address, reading[self.name]["value"])
        return reading

    def subscribe(self, callback: Any, event_type: str | None = None, run: bool = True) -> int:
        """Call back on each change; a backend tells of none, so the value is looked at four times a second."""
        self._tell_subscribers(self.get())
        number = super().subscribe(callback, event_type=event_type, run=run)
        if self._polling is None:
            self._poll(None)
        return number

    def _poll(self, error: Exception | None) -> None:
        if not self._callbacks[self.SUB_VALUE] or error is not None:
            self._polling = None
            return
        try:
            self._tell_subscribers(self.get())
        except DeviceError:
            self.log.warning("channel %s does not answer", self.name)
            self._lost()
        self._polling = wall_waiter().after(POLL_S, self._poll)


class MemoryShutter(MemoryChannel, Shutter):
    """The shutter of a backend."""


class MemoryCamera:
    """What exposes the frames of a logical detector, on a backend.

    Parameters
    ----------
    name : str
        Logical name of the camera.
    config : CameraControl
        Not used.
    backend : Backend
        What it looks at.

    Attributes
    ----------
    writes_files : bool
        Whether the camera writes its files itself: then `open_file` comes before the exposure that belongs to it.
    open_file : callable
        Called with path, shape and dtype, begins the file of the next line.
    """

    writes_files = False
    open_file = FrameWriter

    def __init__(self, *, name: str, config: CameraControl, backend: Backend | None) -> None:
        self._name = name
        self.source = f"memory:{name}"
        self.called = f"camera {name}"
        self._backend = _required(backend, self.called)
        self._exposed = _exposed_of(self._backend)

    def wait_for_connection(self, timeout: float) -> None:
        """Return at once: a backend is always there."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        return self._backend.frame_shape(self._name)

    def expose(self, exposure_s: float) -> NDArray:
        """Expose one frame, blocking, and return it: uint16, shape (rows, columns), ADU."""
        frame = self._backend.expose(FrameRequest(self._name, exposure_s))
        self._exposed.note(frame)
        return frame.data

    def release(self) -> None:
        """End the taking of frames: from now on the ring current reads as it is."""
        self._exposed.during_run = {}


PARTS: dict[type, type] = {Motor: MemoryAxis, Channel: MemoryChannel, Shutter: MemoryShutter}
CAMERA = MemoryCamera
