"""Where every axis and every switch of the simulated microscope is, at any time of its clock."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from dfxrm_control.backend import ChannelValue
from dfxrm_control.errors import DeviceError

__all__ = ["Axes", "Channels", "Choice", "Range", "ReadOnly"]


@dataclass(frozen=True)
class _Move:
    """A move with a trapezoidal (or, if short, triangular) speed profile."""

    origin: float
    target: float
    begin_s: float
    velocity: float
    acceleration_s: float

    @property
    def duration_s(self) -> float:
        distance = abs(self.target - self.origin)
        if distance == 0 or not 0 < self.velocity < math.inf:
            return 0.0
        if distance >= self.velocity * self.acceleration_s:
            return distance / self.velocity + self.acceleration_s
        return 2 * math.sqrt(distance * self.acceleration_s / self.velocity)

    @property
    def end_s(self) -> float:
        return self.begin_s + self.duration_s

    def position(self, time_s: float) -> float:
        duration = self.duration_s
        elapsed = time_s - self.begin_s
        if elapsed >= duration:
            return self.target
        elapsed = max(elapsed, 0.0)
        distance = abs(self.target - self.origin)
        ramp = min(self.acceleration_s, duration / 2)
        left = duration - elapsed
        # in a move too short for its full speed both ramps meet half way, and no time is left between them
        if 0.0 < ramp and elapsed <= ramp:
            gone = 0.5 * self.velocity * elapsed * (elapsed / self.acceleration_s)
        elif 0.0 < ramp and left <= ramp:
            gone = distance - 0.5 * self.velocity * left * (left / self.acceleration_s)
        else:
            gone = self.velocity * (elapsed - ramp / 2)
        return self.origin + math.copysign(gone, self.target - self.origin)


class Axes:
    """Positions of the motors in time. Thread-safe; knows no unit and no limit.

    Parameters
    ----------
    starts : Mapping[str, float]
        Position of every axis at the start.
    """

    def __init__(self, starts: Mapping[str, float]) -> None:
        self._moves = {axis: _Move(float(start), float(start), 0.0, math.inf, 0.0) for axis, start in starts.items()}
        self._lock = threading.Lock()

    def __contains__(self, axis: object) -> bool:
        return axis in self._moves

    def end_s(self, axis: str) -> float:
        """Return when the last move of an axis arrived or will arrive, in seconds."""
        with self._lock:
            return self._move(axis).end_s

    def positions(self, time_s: float) -> dict[str, float]:
        """Return the position of every axis at a time, all of the same instant."""
        with self._lock:
            return {axis: move.position(time_s) for axis, move in self._moves.items()}

    def position(self, axis: str, time_s: float) -> float:
        """Return the position of one axis at a time.

        Raises
        ------
        DeviceError
            When there is no such axis.
        """
        with self._lock:
            return self._move(axis).position(time_s)

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float, time_s: float) -> float:
        """Send an axis on its way from where it is at ``time_s``; return when it will arrive, in seconds."""
        if not math.isfinite(target):
            raise DeviceError(f"axis {axis!r} cannot be moved to {target}: the target must be a finite number")
        with self._lock:
            origin = self._move(axis).position(time_s)
            move = _Move(origin, float(target), time_s, float(velocity), max(float(acceleration_s), 0.0))
            self._moves[axis] = move
            return move.end_s

    def stop(self, axis: str, time_s: float) -> float:
        """Leave an axis where it is at ``time_s`` and return that position."""
        with self._lock:
            here = self._move(axis).position(time_s)
            self._moves[axis] = _Move(here, here, time_s, math.inf, 0.0)
            return here

    def _move(self, axis: str) -> _Move:
        if axis not in self._moves:
            raise DeviceError(f"the simulated microscope has no axis {axis!r}; it has {', '.join(sorted(self._moves))}")
        return self._moves[axis]


@dataclass(frozen=True)
class Choice:
    """A channel that takes one of a few words."""

    words: tuple[str, ...]

    def check(self, channel: str, value: ChannelValue) -> ChannelValue:
        """Return the value, or raise DeviceError naming the words that are valid."""
        if value not in self.words:
            raise DeviceError(f"channel {channel!r} takes {' or '.join(self.words)}, not {value!r}")
        return value


@dataclass(frozen=True)
class Range:
    """A channel that takes a number, above ``low`` and up to ``high``."""

    low: float
    high: float

    def check(self, channel: str, value: ChannelValue) -> ChannelValue:
        """Return the value as a float, or raise DeviceError naming the range."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.low < number <= self.high:
            raise DeviceError(
                f"channel {channel!r} takes a number above {self.low:g} and up to {self.high:g}, not {value!r}"
            )
        return number


@dataclass(frozen=True)
class ReadOnly:
    """A channel that only the machine sets."""

    def check(self, channel: str, value: ChannelValue) -> ChannelValue:
        """Raise DeviceError."""
        raise DeviceError(f"channel {channel!r} is read only and cannot be set to {value!r}")


class Channels:
    """Values of what is no motor: shutter, attenuator, lens in or out, ring current.

    Parameters
    ----------
    channels : Mapping[str, tuple]
        For each channel its first value and the rule that says what it takes.
    """

    def __init__(self, channels: Mapping[str, tuple[ChannelValue, Choice | Range | ReadOnly]]) -> None:
        self._rules = {channel: rule for channel, (_, rule) in channels.items()}
        self._values = {channel: value for channel, (value, _) in channels.items()}
        self._lock = threading.Lock()

    def values(self) -> dict[str, ChannelValue]:
        """Return all values of one instant."""
        with self._lock:
            return dict(self._values)

    def get(self, channel: str) -> ChannelValue:
        """Return one value; raises DeviceError when there is no such channel."""
        self._require(channel)
        return self._values[channel]

    def put(self, channel: str, value: ChannelValue) -> None:
        """Set one value as a user may; raises DeviceError for an unknown or read-only channel or a wrong value."""
        self._require(channel)
        checked = self._rules[channel].check(channel, value)
        with self._lock:
            self._values[channel] = checked

    def happen(self, channel: str, value: ChannelValue) -> None:
        """Set one value as the machine does: also a read-only one, and unchecked."""
        self._require(channel)
        with self._lock:
            self._values[channel] = value

    def _require(self, channel: str) -> None:
        if channel not in self._rules:
            raise DeviceError(
                f"the simulated microscope has no channel {channel!r}; it has {', '.join(sorted(self._rules))}"
            )
