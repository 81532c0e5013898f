"""Telling the user how a scan goes: a bar for the whole scan with the time it will end, and one row per line.

A row per point would be unreadable, and slow: a mesh of 1000 points gives as many rows as it has lines, a scan of one
axis at most forty.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from dfxrm_control.acquisition import BEAM_LOST

__all__ = ["ScanClock", "ScanProgress", "Terminal", "best_effort"]

MOST_ROWS = 40
REFRESH_S = 0.2
logger = logging.getLogger(__name__)


def best_effort(callback: Callable[[str, Mapping[str, Any]], None]) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a RunEngine callback whose failure is logged and does not end the plan."""

    def call(name: str, doc: Mapping[str, Any]) -> None:
        try:
            callback(name, doc)
        except (Exception, SystemExit):
            # a SystemExit would end the RunEngine's thread, and the plan would wait for ever
            logger.exception("a display of the scan failed at a %s document; the scan goes on", name)

    return call


class Terminal(Console):
    """A console that falls silent when nobody reads it any more; rich's own would end the program."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True


class ScanClock:
    """Estimates when a scan will be over.

    Lines cost more than their points, because the axes turn round between them, so the estimate goes by whole lines as
    soon as two have ended: the mean time from the end of one line to the end of the next. Before that, and above all
    while darks are taken, it goes by the time of a frame and what the plan expects the axes to need.

    Parameters
    ----------
    darks_before, points, darks_after : int
        Frames that are planned.
    line : int
        Points of a line.
    step_s, turn_s : float
        Time the axes are expected to need from point to point, and from line to line, s.
    """

    def __init__(
        self, darks_before: int, points: int, darks_after: int, line: int, step_s: float = 0.0, turn_s: float = 0.0
    ) -> None:
        self._step_s = step_s
        self._extra_s = max(turn_s - step_s, 0.0)
        self.planned = {"darks_before": darks_before, "primary": points, "darks_after": darks_after}
        self.done = dict.fromkeys(self.planned, 0)
        self._line = max(line, 1)
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._first_line_end: tuple[int, float] | None = None
        self._last_line_end: tuple[int, float] | None = None

    @property
    def total(self) -> int:
        """Number of frames that are planned."""
        return sum(self.planned.values())

    @property
    def frames(self) -> int:
        """Number of frames that were taken."""
        return sum(self.done.values())

    def take(self, stream: str, now_s: float) -> None:
        """Note that a frame of a stream was taken at a time in seconds."""
        if stream not in self.done:
            return
        self.done[stream] += 1
        self._first.setdefault(stream, now_s)
        self._last[stream] = now_s
        if stream == "primary" and self.done[stream] % self._line == 0:
            self._last_line_end = (self.done[stream], now_s)
            self._first_line_end = self._first_line_end or self._last_line_end

    def remaining_s(self) -> float | None:
        """Return the seconds left; None before there is anything to go by."""
        left = {stream: max(self.planned[stream] - self.done[stream], 0) for stream in self.planned}
        dark = self._per_frame("darks_before") or self._per_frame("darks_after")
        point, turns = self._per_point_of_lines(), 0
        if point is None:
            point = self._per_point() or (dark and dark + self._step_s)
            turns = -(-self.planned["primary"] // self._line) - -(-self.done["primary"] // self._line)
        if point is None:
            return None
        if dark is None:
            dark = point
        dark_s = (left["darks_before"] + left["darks_after"]) * dark
        return dark_s + left["primary"] * point + turns * self._extra_s

    def _per_frame(self, stream: str) -> float | None:
        if self.done[stream] < 2:
            return None
        return (self._last[stream] - self._first[stream]) / (self.done[stream] - 1)

    def _per_point_of_lines(self) -> float | None:
        first, last = self._first_line_end, self._last_line_end
        if first is not None and last is not None and last[0] > first[0]:
            return (last[1] - first[1]) / (last[0] - first[0])
        return None

    def _per_point(self) -> float | None:
        """Return the time of a point, without the turn-round that may lie between the first point and the last."""
        each = self._per_frame("primary")
        if each is None:
            return None
        turned = (self.done["primary"] - 1) // self._line
        return max(each - turned * self._extra_s / (self.done["primary"] - 1), 0.0)


class ScanProgress:
    """A RunEngine callback that shows a bar and a table.

    On a terminal the bar stays below the table; where the output goes to a file there is the table only, whose rows say
    how long it will take.

    Parameters
    ----------
    stream : TextIO, optional
        Where to write; default: standard error, so that the output of a command stays clean.
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Terminal(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._now = clock
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._descriptors: dict[str, str] = {}
        self._clock: ScanClock | None = None
        self._axes: list[str] = []
        self._every = 1
        self._shown_s = 0.0

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take in one document."""
        if name == "start":
            self._begin(doc)
        elif self._clock is None:
            return
        elif name == "descriptor":
            self._descriptors[doc["uid"]] = doc.get("name", "primary")
        elif name == "event":
            self._event(self._clock, self._descriptors.get(doc["descriptor"], ""), doc)
        elif name == "stop":
            self._end(self._clock, doc)

    def _begin(self, doc: Mapping[str, Any]) -> None:
        points = int(doc.get("num_points") or 0)
        self._close_bar()
        self._clock = None
        if points < 1:
            return
        ours = doc.get("dfxrm", {})
        darks = ours.get("darks", {})
        line = int(ours.get("line_length") or (doc.get("shape") or [points])[-1])
        expected = ours.get("expected", {})
        self._clock = ScanClock(
            int(darks.get("before", 0)),
            points,
            int(darks.get("after", 0)),
            line,
            float(expected.get("step_s", 0.0)),
            float(expected.get("turn_s", 0.0)),
        )
        self._axes = [str(motor) for motor in doc.get("motors") or ()]
        self._descriptors = {}
        self._every = line if points > line else max(1, -(-points // MOST_ROWS))
        place = _place_in_series(ours.get("series") or {})
        self._print(f"scan {doc.get('scan_id')}: {doc.get('plan_name')}, {self._clock.total} frames{place}")
        self._print(f"{'point':>11} " + "".join(f"{axis:>12}" for axis in self._axes) + f"{'monitor':>12}{'left':>10}")
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._task = self._bar.add_task("frames", total=self._clock.total, left="")
            self._bar.start()

    def _event(self, clock: ScanClock, stream: str, doc: Mapping[str, Any]) -> None:
        now = self._now()
        clock.take(stream, now)
        if stream == "primary" and (clock.done[stream] % self._every == 0 or clock.done[stream] == 1):
            self._row(clock, doc["data"])
        elif stream == BEAM_LOST:
            self._print(f"{clock.done['primary'] + 1:>11} {doc['data'].get('conditions')}; the point is taken again")
        if self._bar is not None and self._task is not None and now - self._shown_s >= REFRESH_S:
            self._shown_s = now
            self._bar.update(self._task, completed=clock.frames, left=f"{_left(clock)} left")
            self._bar.refresh()

    def _row(self, clock: ScanClock, data: Mapping[str, Any]) -> None:
        cells = "".join(f"{_number(data.get(axis)):>12}" for axis in self._axes)
        point = f"{clock.done['primary']}/{clock.planned['primary']}"
        self._print(f"{point:>11} {cells}{_number(data.get('monitor')):>12}{_left(clock):>10}")

    def _end(self, clock: ScanClock, doc: Mapping[str, Any]) -> None:
        self._close_bar()
        self._print(f"{doc['exit_status']} after {clock.frames} of {clock.total} frames")
        self._clock = None

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


def _place_in_series(series: Mapping[str, Any]) -> str:
    """Return which run of a series it is, for the end of a sentence; empty for a run of its own."""
    if not series:
        return ""
    of = f" of {series['of']}" if series.get("of") else ""
    where = f", {series['axis']} {series['value']:.6g} {series['units']}" if series.get("units") else ""
    return f" (run {series['index'] + 1}{of} of {series['plan']}{where})"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else "-"


def _left(clock: ScanClock) -> str:
    seconds = clock.remaining_s()
    if seconds is None:
        return "-"
    whole = round(seconds)
    return (
        f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
        if whole >= 3600
        else f"{whole // 60}:{whole % 60:02d}"
    )
