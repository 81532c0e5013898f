"""Whether a microscope is all there: every axis, channel and camera of a configuration is connected to and looked at.

All are asked at the same time, each in a thread of its own, and those that have not answered when the time is over are
reported as they are. Nothing is moved and nothing is set.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dfxrm_control.config import AxisConfig, ChannelConfig, DeviceConfig, MicroscopeConfig
from dfxrm_control.errors import DfxrmError

__all__ = ["Check", "Looked", "check"]

LEAST_S = 0.5
"""What is left for connecting, at least, when starting took all the time there was, s."""
TO_TELL_S = 0.3
"""How long before the end a part that is not connected says what of it is missing, s."""
SPEED = 1e-3
"""Relative difference of two speeds, or of two limits to their range, that is worth telling."""
SAME_UNIT = {
    "deg": {"deg", "degs", "degree", "degrees", "°"},
    "mm": {"mm", "millimeter", "millimeters", "millimetre", "millimetres"},
    "kev": {"kev"},
    "degc": {"degc", "c", "°c", "celsius"},
    "ma": {"ma", "milliamp", "milliamps", "milliampere"},
}


@dataclass(frozen=True)
class Looked:
    """What was found of one axis, channel or camera.

    Attributes
    ----------
    name : str
        Logical name.
    device : str
        The logical device it belongs to.
    kind : str
        ``axis``, ``channel`` or ``camera``.
    control : str
        The control system that the configuration names.
    address : str
        Where it is found there.
    connected : bool
        Whether it answered in time.
    value : float, str or None
        Position or value; of a camera (rows, columns) of its frames as words.
    units : str
        Unit of the value.
    limits, hardware_limits : tuple of float, or None
        Lowest and highest position, in the configuration and in the control system.
    velocity, hardware_velocity : float or None
        Speed, units per second, in the configuration and in the control system.
    problems : tuple of str
        What is wrong, a sentence each.
    notes : tuple of str
        What differs from the configuration and does no harm.
    """

    name: str
    device: str
    kind: str
    control: str
    address: str
    connected: bool = False
    value: float | str | None = None
    units: str = ""
    limits: tuple[float, float] | None = None
    hardware_limits: tuple[float, float] | None = None
    velocity: float | None = None
    hardware_velocity: float | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """What was found of a microscope.

    Attributes
    ----------
    config : str
        Name of the configuration.
    looked : tuple of Looked
        Every axis, channel and camera, in the order of the configuration.
    duration_s : float
        How long it took, s.
    """

    config: str
    looked: tuple[Looked, ...]
    duration_s: float

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not any(each.problems for each in self.looked)

    def summary(self) -> str:
        """Return one sentence on all of it."""
        wrong = sum(1 for each in self.looked if each.problems)
        missing = sum(1 for each in self.looked if not each.connected)
        says = "all is well" if self.well else f"{wrong} have something wrong, {missing} of them are not connected"
        return f"{self.config}: {len(self.looked)} signals in {self.duration_s:.1f} s: {says}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "config": self.config,
            "well": self.well,
            "duration_s": round(self.duration_s, 3),
            "signals": [asdict(each) for each in self.looked],
        }


@dataclass
class _Part:
    """One thing to look at, and how; what ``look`` finds is kept as it goes, so that a late answer keeps the rest."""

    found: Looked
    look: Callable[[_Part, float], None] = field(repr=False)

    def note(self, **what: Any) -> None:
        """Take down what was found."""
        self.found = replace(self.found, **what)

    def wrong(self, sentence: str) -> None:
        """Take down a problem."""
        self.note(problems=(*self.found.problems, sentence))

    def differs(self, sentence: str) -> None:
        """Take down what is only worth knowing."""
        self.note(notes=(*self.found.notes, sentence))


def check(config: MicroscopeConfig, timeout_s: float = 10.0, began_s: float | None = None) -> Check:
    """Connect to everything a configuration names, at the same time, and compare it with the configuration.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    timeout_s : float
        After how long it is over, whatever is missing then, s. Starting up counts.
    began_s : float, optional
        When it began, on `time.monotonic`; default: now.

    Returns
    -------
    Check
        One entry per axis, channel and camera.

    Raises
    ------
    ConfigError
        When the backend that the configuration names does not exist.
    """
    began_s = time.monotonic() if began_s is None else began_s
    parts = list(_parts(config))
    deadline_s = max(began_s + timeout_s, time.monotonic() + LEAST_S)
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(number: int, part: _Part) -> None:
        try:
            part.look(part, deadline_s)
        except Exception as error:  # whatever a control system raises is what is wrong with it
            part.wrong(_sentence(error))
        ended.put(number)

    for number, part in enumerate(parts):
        threading.Thread(target=run, args=(number, part), name=f"look at {part.found.name}", daemon=True).start()
    waiting = set(range(len(parts)))
    while waiting and (left := deadline_s - time.monotonic()) > 0:
        try:
            waiting.discard(ended.get(timeout=left))
        except queue.Empty:
            break
    looked = [part.found for part in parts]
    for number in waiting:
        looked[number] = _late(looked[number], timeout_s)
    return Check(config.name, tuple(looked), time.monotonic() - began_s)


def _late(found: Looked, timeout_s: float) -> Looked:
    if found.problems:
        return found
    what = "was found, but did not answer all questions" if found.connected else "did not answer"
    return replace(found, problems=(f"{what} within {timeout_s:g} s",))


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, DfxrmError) and str(error) else f"{type(error).__name__}: {error}"


# -- what there is to look at ---------------------------------------------------------------------------------------


def _parts(config: MicroscopeConfig) -> Iterator[_Part]:
    from dfxrm_control.session import build_backend, find_control_systems, resolve

    find_control_systems(config)
    backend, trouble = None, None
    try:
        backend = build_backend(config)
    except DfxrmError as error:
        # what needs no backend is looked at all the same
        trouble = error
    made: dict[str, Any] = {}
    for name, parts in config.devices.items():
        failure: Exception | None = None
        try:
            factory = resolve(parts.device, f"configuration {config.name}: devices.{name}.device")
            made[name] = factory(name, config=parts, microscope=config, backend=backend, devices=made)
        except Exception as error:  # a device that cannot be made does not hide how the others are
            failure = trouble if trouble is not None and backend is None else error
        yield from _parts_of(name, parts, config, made.get(name), failure)


def _parts_of(
    name: str, parts: DeviceConfig, config: MicroscopeConfig, device: Any, failure: Exception | None
) -> Iterator[_Part]:
    for axis, its_config in parts.axes.items():
        motor = getattr(device, axis, None)
        if device is not None and hasattr(motor, "real_axes"):
            continue  # computed from others, which are looked at themselves
        found = Looked(axis, name, "axis", its_config.control, its_config.address or axis, units=its_config.units)
        found = replace(found, limits=its_config.limits, velocity=its_config.velocity)
        yield _Part(found, _unless(failure, _axis_look(motor, its_config)))
    for channel, of_channel in parts.channels.items():
        address = of_channel.readback or of_channel.address or channel
        found = Looked(channel, name, "channel", of_channel.control, address, units=of_channel.units)
        yield _Part(found, _unless(failure, _channel_look(getattr(device, channel, None), of_channel)))
    if parts.camera is not None:
        seen = config.instrument.cameras[name]
        found = Looked(name, name, "camera", parts.camera.control, parts.camera.address or name)
        yield _Part(found, _unless(failure, _camera_look(device, (seen.rows, seen.columns))))


def _unless(failure: Exception | None, look: Callable[[_Part, float], None]) -> Callable[[_Part, float], None]:
    return look if failure is None else lambda part, _: part.wrong(_sentence(failure))


def _connect(part: _Part, thing: Any, deadline_s: float) -> bool:
    """Wait until it is connected; otherwise say what of it is missing."""
    left_s = deadline_s - time.monotonic()
    try:
        thing.wait_for_connection(timeout=max(left_s - TO_TELL_S, left_s / 2, 0.05))
    except (TimeoutError, DfxrmError) as error:
        part.wrong(_missing(thing) or (_sentence(error) if isinstance(error, DfxrmError) else "does not answer"))
        return False
    part.note(connected=True)
    return True


def _missing(thing: Any) -> str | None:
    """Return which variables of a device that has several do not answer, where only some do."""
    if not hasattr(thing, "walk_signals"):
        return None
    signals = [each.item for each in thing.walk_signals() if hasattr(each.item, "pvname")]
    away = [signal.pvname for signal in signals if not signal.connected]
    if not away or len(away) == len(signals):
        return None
    more = f" and {len(away) - 3} more" if len(away) > 3 else ""
    return f"answers, but has no {', '.join(away[:3])}{more}"


def _channel_look(channel: Any, config: ChannelConfig) -> Callable[[_Part, float], None]:
    def look(part: _Part, deadline_s: float) -> None:
        part.note(address=channel.source)
        if not _connect(part, channel, deadline_s):
            return
        try:
            part.note(value=channel.get())
        except DfxrmError as error:
            part.wrong(str(error))
        if config.choices is None and config.units:
            _compare_units(part, config.units, channel.hardware_units)

    return look


def _camera_look(device: Any, shape: tuple[int, int]) -> Callable[[_Part, float], None]:
    def look(part: _Part, deadline_s: float) -> None:
        camera = device.camera
        part.note(address=camera.source)
        if not _connect(part, camera, deadline_s):
            return
        rows, columns = camera.shape
        part.note(value=f"{rows} x {columns}")
        if (rows, columns) != shape:
            part.wrong(f"its frames are {rows} x {columns}, the configuration says {shape[0]} x {shape[1]}")

    return look


def _axis_look(axis: Any, config: AxisConfig) -> Callable[[_Part, float], None]:
    def look(part: _Part, deadline_s: float) -> None:
        part.note(address=axis.source)
        if not _connect(part, axis, deadline_s):
            return
        for step in (_look_at_position, _look_at_limits, _look_at_settings):
            try:
                step(part, axis, config)
            except DfxrmError as error:
                part.wrong(str(error))

    return look


def _look_at_position(part: _Part, axis: Any, config: AxisConfig) -> None:
    position = axis.readback()
    part.note(value=position)
    for limits, whose in ((config.limits, "configuration"), (axis.hardware_limits, "hardware")):
        if limits is not None and not limits[0] <= position <= limits[1]:
            part.wrong(f"stands outside the limits {_span(limits)} of the {whose}")
    if (trouble := axis.hardware_trouble()) is not None:
        part.wrong(f"it {trouble}")


def _look_at_limits(part: _Part, axis: Any, config: AxisConfig) -> None:
    ours, theirs = config.limits, axis.hardware_limits
    part.note(hardware_limits=theirs)
    if ours is None and theirs is None:
        part.wrong("has no limits, neither in the configuration nor in the hardware, so it is not moved")
    if ours is None or theirs is None:
        return
    if max(ours[0], theirs[0]) >= min(ours[1], theirs[1]):
        part.wrong(f"its limits {_span(ours)} and those of the hardware have nothing in common, so it is not moved")
        return
    slack = SPEED * (ours[1] - ours[0])
    if theirs[0] > ours[0] + slack or theirs[1] < ours[1] - slack:
        part.wrong(f"the hardware allows only {_span(theirs)} of the {_span(ours)} that scans count on")
    elif theirs[0] < ours[0] - slack or theirs[1] > ours[1] + slack:
        part.differs(f"the hardware allows more, {_span(theirs)}")


def _look_at_settings(part: _Part, axis: Any, config: AxisConfig) -> None:
    _compare_units(part, config.units, axis.hardware_units)
    speed = axis.hardware_velocity
    part.note(hardware_velocity=speed)
    if speed is None:
        return
    if not speed > 0:
        part.wrong(f"its speed is {speed:g} {config.units}/s, so it would never arrive")
    elif not math.isclose(speed, config.velocity, rel_tol=SPEED):
        part.differs(
            f"its speed is {speed:g} {config.units}/s, the configuration counts on {config.velocity:g} {config.units}/s"
        )


def _compare_units(part: _Part, ours: str, theirs: str | None) -> None:
    if theirs is None:
        return
    word = theirs.strip().casefold()
    if word and word not in SAME_UNIT.get(ours.casefold(), {ours.casefold()}):
        part.wrong(f"the hardware counts in {theirs.strip()}, the configuration in {ours}")


def _span(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g} .. {limits[1]:g}"
