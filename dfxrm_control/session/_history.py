"""What ran on a microscope, by its journals: also while it runs, and after a process was killed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.records.journal import decode_document, is_being_written
from dfxrm_control.session._holding import Holder, holder_of

__all__ = ["Ran", "Status", "status_of"]

_TAIL_BYTES = 1 << 16
RUNNING, CUT_SHORT = "running", "cut short"


@dataclass(frozen=True)
class Ran:
    """One run.

    Attributes
    ----------
    scan_id : int
        Its number.
    plan, sample : str
        What ran, and on what.
    began_s : float
        When it began, seconds since 1970.
    ended_s : float or None
        When it ended; None where it has not, or its process was killed.
    status : str
        ``running``; ``success``, ``abort`` or ``fail``; ``cut short`` where its process ended without a word.
    points, planned : int
        Points that were taken (0 while that is not known), and that were planned.
    reason : str
        Why it ended, where it did not end well.
    journal : str
        Its journal.
    """

    scan_id: int
    plan: str
    sample: str
    began_s: float
    ended_s: float | None
    status: str
    points: int
    planned: int
    reason: str
    journal: str

    def line(self) -> str:
        """Return it as one line."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.began_s))
        if self.status == RUNNING:
            points = f"{self.planned} points planned" if self.planned else ""
        else:
            points = f"{self.points} of {self.planned} points" if self.planned else f"{self.points} points"
        why = f": {self.reason}" if self.reason else ""
        return f"{self.scan_id:>6}  {self.status:<9}  {when}  {self.plan} of {self.sample}, {points}{why}".rstrip(", ")


@dataclass(frozen=True)
class Status:
    """What is going on at a microscope.

    Attributes
    ----------
    config : str
        Name of its configuration.
    holder : Holder or None
        Who holds it; None where nobody does.
    runs : tuple of Ran
        The last runs, newest first.
    """

    config: str
    holder: Holder | None
    runs: tuple[Ran, ...]

    def lines(self) -> list[str]:
        """Return what a user wants to know, one line each."""
        held = f"held by {self.holder}" if self.holder is not None else "held by nobody"
        lines = [f"{self.config}: {held}"]
        running = [ran for ran in self.runs if ran.status == RUNNING]
        lines.append("running:" if running else "nothing runs")
        lines += [ran.line() for ran in running]
        others = [ran for ran in self.runs if ran.status != RUNNING]
        if others:
            lines.append("before:")
            lines += [ran.line() for ran in others]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain numbers, text, lists and mappings."""
        return asdict(self)


def status_of(config: MicroscopeConfig, last: int = 10) -> Status:
    """Return who holds a microscope and what ran on it last. Nothing is connected to and nothing written.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    last : int
        Most runs that are told.
    """
    runs: list[Ran] = []
    for path in _newest_first(Path(config.data.journal_directory)):
        ran = _ran(path, config.name)
        if ran is not None:
            runs.append(ran)
        if len(runs) >= last:
            break
    return Status(config.name, holder_of(config), tuple(runs))


def _newest_first(folder: Path) -> Iterator[Path]:
    times = {}
    for path in folder.glob("*.jsonl"):
        try:
            times[path] = path.stat().st_mtime_ns
        except OSError:
            continue
    yield from sorted(times, key=lambda path: times[path], reverse=True)


def _ran(path: Path, config: str) -> Ran | None:
    """Return what a journal says of its run; None where it is no journal, or one of another microscope."""
    try:
        with path.open("rb") as file:
            name, start = decode_document(file.readline())
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = [line for line in file.read().split(b"\n")[:-1] if line]
        ours = start.get("dfxrm")
        if name != "start" or not isinstance(ours, dict) or ours.get("config") != config:
            return None
        stop = _stop_of(tail)
    except (OSError, ValueError, IndexError):
        return None
    sample = start.get("sample") or "unnamed"
    if stop is not None:
        status, reason = str(stop["exit_status"]), str(stop.get("reason") or "")
    elif is_being_written(path):
        status, reason = RUNNING, ""
    else:
        status = CUT_SHORT
        reason = f"its process ended without a word; `dfxrm recover {path}` writes what there is"
    return Ran(
        scan_id=int(start.get("scan_id", 0)),
        plan=str(start.get("plan_name", "a plan")),
        sample=str(sample),
        began_s=float(start.get("time", 0.0)),
        ended_s=None if stop is None else float(stop["time"]),
        status=status,
        points=int((stop or {}).get("num_events", {}).get("primary", 0)) if stop is not None else _points(tail),
        planned=int(start.get("num_points") or 0),
        reason=reason,
        journal=str(path),
    )


def _stop_of(lines: list[bytes]) -> Mapping[str, Any] | None:
    for line in reversed(lines):
        if line.startswith(b'["stop",'):
            return decode_document(line)[1]
    return None


def _points(lines: list[bytes]) -> int:
    """Return the largest number of an event near the end of a journal that has no end."""
    numbers = [decode_document(line)[1].get("seq_num", 0) for line in lines if line.startswith(b'["event",')]
    return max(numbers, default=0)
