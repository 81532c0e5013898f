"""The runs that a plan has made: one for a scan, many for a series."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["KeptRun", "RunLog"]


@dataclass
class KeptRun:
    """A run of the plan that runs now, or ran last.

    Attributes
    ----------
    scan_id : int
        Number of the scan.
    folder, master, journal : Path
        Its folder, HDF5 master and journal.
    series : dict
        What its start document says of the series it belongs to; empty for a run of its own.
    status : str
        ``running``, then ``success``, ``abort`` or ``fail``.
    """

    scan_id: int
    folder: Path
    master: Path
    journal: Path
    series: dict[str, Any] = field(default_factory=dict)
    status: str = "running"


class RunLog:
    """A RunEngine callback that remembers where the runs since `clear` are kept, in order of their start.

    Parameters
    ----------
    place : callable
        Returns folder, master and journal of the run that was opened last.
    """

    def __init__(self, place: Callable[[], tuple[Path | None, Path | None, Path | None]]) -> None:
        self._place = place
        self._runs: dict[str, KeptRun] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take in one document."""
        if name == "start":
            folder, master, journal = self._place()
            if folder is not None and master is not None and journal is not None:
                series = doc.get("dfxrm", {}).get("series") or {}
                self._runs[doc["uid"]] = KeptRun(int(doc.get("scan_id", 0)), folder, master, journal, dict(series))
        elif name == "stop" and doc["run_start"] in self._runs:
            self._runs[doc["run_start"]].status = str(doc["exit_status"])

    def clear(self) -> None:
        """Forget all runs: another plan begins."""
        self._runs.clear()

    @property
    def runs(self) -> tuple[KeptRun, ...]:
        """All runs, in order of their start."""
        return tuple(self._runs.values())

    @property
    def reducible(self) -> bool:
        """Whether the series can be reduced from what there is: enough complete runs, and not preparations alone."""
        members = [run for run in self.runs if run.series]
        complete = sum(run.status == "success" for run in members)
        least = int(members[-1].series.get("least", 1)) if members else 1
        return any(not run.series.get("prepares") for run in members) and complete >= least

    @property
    def progress(self) -> str:
        """How far the series came, for the end of a sentence; empty where there is none."""
        members = [run for run in self.runs if run.series]
        if not members:
            return ""
        complete = sum(run.status == "success" for run in members)
        planned = members[-1].series.get("of")
        return (
            f"{complete} of {planned} runs of the series are complete"
            if planned
            else (f"{complete} runs of the series are complete")
        )
