"""The twin's own time: real, fast (jumps to whatever is waited for), stepped by a test, or counted in exposures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from dfxrm_control.errors import ConfigError

__all__ = ["Clock", "FastClock", "FrameClock", "RealClock", "SteppedClock", "make_clock"]

# longest sleep between two looks at `cancelled`, s: a stopped motor answers within it
_LOOK_AGAIN_S = 0.02


def _never() -> bool:
    return False


class Clock(Protocol):
    """Something that knows the time and can wait for one."""

    def now(self) -> float:
        """Return the time in seconds since the clock was made."""
        ...

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = _never) -> None:
        """Return when the clock has reached ``time_s`` or ``cancelled()`` is true."""
        ...


class RealClock:
    """The time of the world; waiting sleeps."""

    def __init__(self) -> None:
        self._origin_s = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the clock was made."""
        return time.monotonic() - self._origin_s

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = _never) -> None:
        """Sleep until ``time_s`` or until ``cancelled()`` is true."""
        while (left_s := time_s - self.now()) > 0 and not cancelled():
            time.sleep(min(left_s, _LOOK_AGAIN_S))


class FastClock:
    """A clock that is always where somebody wants it to be: a night passes in seconds."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the latest time anybody waited for, in seconds."""
        return self._now_s

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = _never) -> None:
        """Jump to ``time_s`` (never back) and return at once."""
        with self._lock:
            self._now_s = max(self._now_s, time_s)


class SteppedClock:
    """A clock that stands still until a test steps it."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._stepped = threading.Condition()

    def now(self) -> float:
        """Return the sum of all steps in seconds."""
        return self._now_s

    def step(self, seconds: float) -> None:
        """Let ``seconds`` pass and wake everybody who waits.

        Raises
        ------
        ValueError
            For a step back in time.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot be stepped by {seconds:g} s: time runs forward")
        with self._stepped:
            self._now_s += seconds
            self._stepped.notify_all()

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = _never) -> None:
        """Block until the clock was stepped to ``time_s`` or ``cancelled()`` is true."""
        with self._stepped:
            while self._now_s < time_s and not cancelled():
                self._stepped.wait(_LOOK_AGAIN_S)


class FrameClock(SteppedClock):
    """A clock on which nothing takes time but exposures: the same frames at the same times, whoever takes them.

    Who waits for a time waits for the exposures that lead to it.
    """

    def expose_until(self, time_s: float) -> None:
        """Let an exposure pass that ends at ``time_s``, and wake everybody who waits."""
        with self._stepped:
            self._now_s = max(self._now_s, time_s)
            self._stepped.notify_all()


_CLOCKS: dict[str, type[RealClock] | type[FastClock] | type[SteppedClock]] = {
    "real": RealClock,
    "fast": FastClock,
    "stepped": SteppedClock,
    "frames": FrameClock,
}


def make_clock(mode: str) -> RealClock | FastClock | SteppedClock:
    """Return a new clock by the name of its mode: ``real``, ``fast``, ``stepped`` or ``frames``.

    Raises
    ------
    ConfigError
        For any other name.
    """
    if mode not in _CLOCKS:
        raise ConfigError(f"backend.options.clock: {mode!r} must be one of {', '.join(_CLOCKS)}")
    return _CLOCKS[mode]()
