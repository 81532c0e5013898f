"""Calls back at given times of a clock, from one thread per clock.

Moves, time-outs and exposures all end "at a time". One thread that sleeps until the next of these times serves them
all, where a thread per move would cost more than the move.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from dfxrm_control.backend import Backend

__all__ = ["Alarm", "Waiter", "backend_waiter", "wall_waiter"]

IDLE_S = 5.0
TOGETHER_S = 0.005
"""Real time in which moves that are begun one after the other count as begun together, s."""
logger = logging.getLogger(__name__)


class Clock(Protocol):
    """The part of a backend that tells the time."""

    def now(self) -> float:
        """Return the time in seconds."""
        ...

    def wait_until(self, time_s: float, cancelled: Callable[[], bool]) -> None:
        """Block until the clock reaches ``time_s`` or ``cancelled()`` is true."""
        ...


class Alarm:
    """One callback at one time; `cancel` makes it not happen."""

    __slots__ = ("callback", "cancelled", "time_s")

    def __init__(self, time_s: float, callback: Callable[[Exception | None], None]) -> None:
        self.time_s = time_s
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call back, if it has not been done yet."""
        self.cancelled = True


class Waiter:
    """Calls back at given times of one clock.

    The thread is started by the first alarm and ends after some seconds without one, so that a waiter keeps nothing
    alive.

    Parameters
    ----------
    clock : Clock
        Whose time counts.
    name : str
        Name of the thread.
    """

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self._name = name
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._earlier = threading.Event()
        self._more_may_begin = False
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """Return the time of the clock in seconds."""
        return self.clock.now()

    def at(self, time_s: float, callback: Callable[[Exception | None], None]) -> Alarm:
        """Call ``callback(None)`` at ``time_s``, or ``callback(error)`` when the clock itself fails before that."""
        alarm = Alarm(time_s, callback)
        self.put(alarm)
        return alarm

    def put(self, alarm: Alarm) -> None:
        """Call an alarm back at its time."""
        time_s = alarm.time_s
        with self._condition:
            if not self._heap or time_s < self._heap[0][0]:
                self._earlier.set()
            heapq.heappush(self._heap, (time_s, next(self._order), alarm))
            # what goes on from an alarm of this clock is begun by itself
            self._more_may_begin |= threading.current_thread() is not self._thread
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._condition.notify()

    def after(self, delay_s: float, callback: Callable[[Exception | None], None]) -> Alarm:
        """Call back ``delay_s`` from now on the clock."""
        return self.at(self.clock.now() + delay_s, callback)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let no alarm ring until all that are put inside are known: a fast clock jumps to the first it knows."""
        with self._condition:
            yield

    def hurry(self) -> None:
        """Say that nothing more is begun before something has ended: somebody waits for it."""
        with self._condition:
            self._more_may_begin = False
            self._condition.notify()

    def _all_begun(self) -> None:
        """Let what is begun together be known, for a clock that jumps would end the first before the second begins."""
        give_up = time.monotonic() + 4 * TOGETHER_S
        with self._condition:
            # each further alarm wakes it, and may have others behind it
            while self._more_may_begin and time.monotonic() < give_up and self._condition.wait(TOGETHER_S):
                pass
            self._more_may_begin = False

    def _next(self) -> Alarm | None:
        with self._condition:
            while True:
                while self._heap and self._heap[0][2].cancelled:
                    heapq.heappop(self._heap)
                if self._heap:
                    self._earlier.clear()
                    return self._heap[0][2]
                if not self._condition.wait(IDLE_S) and not self._heap:
                    self._thread = None
                    return None

    def _due(self, now: float) -> list[Alarm]:
        due: list[Alarm] = []
        with self._condition:
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].cancelled):
                due.append(heapq.heappop(self._heap)[2])
        return due

    def _run(self) -> None:
        while (alarm := self._next()) is not None:
            failure: Exception | None = None
            try:
                if alarm.time_s > self.clock.now():
                    self._all_begun()
                    self._sleep(alarm)
                now = self.clock.now()
            except Exception as error:
                # without a clock nothing would ever end: everything that waits for it fails now
                failure, now = error, float("inf")
            for due in self._due(now):
                if not due.cancelled:
                    try:
                        due.callback(failure)
                    except Exception:
                        logger.exception("a callback of %s failed", self._name)

    def _sleep(self, alarm: Alarm) -> None:
        self.clock.wait_until(alarm.time_s, lambda: alarm.cancelled or self._earlier.is_set())


class _WallClock:
    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, time_s: float, cancelled: Callable[[], bool]) -> None:
        raise NotImplementedError


class _WallWaiter(Waiter):
    """Sleeps on its condition, so that it neither polls nor oversleeps."""

    def _all_begun(self) -> None:
        """Do nothing: the clock of the world does not jump."""

    def _sleep(self, alarm: Alarm) -> None:
        with self._condition:
            if not self._earlier.is_set() and not alarm.cancelled:
                self._condition.wait(max(0.0, alarm.time_s - time.monotonic()))


@cache
def wall_waiter() -> Waiter:
    """Return the waiter on real time that all devices share; it ends what nothing else ends."""
    return _WallWaiter(_WallClock(), "devices: time-outs")


_waiters: weakref.WeakValueDictionary[int, Waiter] = weakref.WeakValueDictionary()
_waiters_lock = threading.Lock()


def backend_waiter(backend: Backend) -> Waiter:
    """Return the waiter on the clock of a backend; all its axes share it for as long as one of them lives."""
    with _waiters_lock:
        waiter = _waiters.get(id(backend))
        if waiter is None:
            waiter = _waiters[id(backend)] = Waiter(backend, "devices: moves")
        return waiter
