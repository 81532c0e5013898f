"""The processes that make maps: fresh interpreters that are told nothing but where the record is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LiveMaps", "reduce_series"]

FOLLOWER = "dfxrm_control.reduction.follow"
SERIES = "dfxrm_control.reduction.series"
NOTE = "note: "
"""Begins a line in which the reduction of a series says what it left out."""
MOST_AT_ONCE = 2
"""Followers of a series of short scans that run at a time; the next one starts late and catches up."""


@dataclass(frozen=True)
class _Follower:
    journal: Path
    log: Path
    process: subprocess.Popen[bytes]

    def fault(self) -> str | None:
        """Return why there are no maps, in one sentence; None when all is well."""
        code = self.process.returncode
        if code == 0:
            return None
        return f"the maps failed: {_last_line(self.log) or f'their process ended with code {code}'}"


class LiveMaps:
    """Starts a follower for each run that scans axes, and waits for them if asked.

    A follower tails journal and frame files by itself: nothing it does, or fails to do, reaches the run. A run whose
    start document says ``maps: false`` under ``dfxrm`` has none, because its frames mean something only together with
    those of other runs, or by another reduction.

    Parameters
    ----------
    journal : callable
        Returns the journal of the run that was just opened.
    """

    def __init__(self, journal: Callable[[], Path | None]) -> None:
        self._journal = journal
        self._waiting: deque[Path] = deque()
        self._running: list[_Follower] = []
        self._faults: dict[Path, str] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Start a follower at the start of a run that scans axes, or later where enough of them run already."""
        if name == "start":
            journal, ours = self._journal(), doc.get("dfxrm", {})
            if journal is not None and ours.get("scan_axes") and ours.get("maps", True):
                self._waiting.append(journal)
        if name in ("start", "stop"):
            self.go_on()

    def forget(self) -> None:
        """Wait no more for the runs so far: another plan begins. Their followers go on."""
        self._faults.clear()

    def wait(self, timeout_s: float) -> dict[Path, str]:
        """Wait until the maps of all runs so far are done.

        Parameters
        ----------
        timeout_s : float
            Longest wait for any one of them, s.

        Returns
        -------
        dict of Path to str
            Why a run has no maps, in one sentence, by its journal; empty when all is well.
        """
        while self._running or self._waiting:
            self.go_on()
            if not self._running:
                continue
            first = self._running[0]
            try:
                first.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._running.remove(first)
                self._faults[first.journal] = (
                    f"the maps are not ready after {timeout_s:g} s; their process goes on and logs to {first.log}"
                )
        return dict(self._faults)

    def go_on(self) -> bool:
        """Note what has ended and start what waits; return whether anything runs still. Any thread may ask.

        Where nobody waits for the maps, as in a queue, this is asked from time to time: what waits would else be
        started only by the next run.
        """
        with self._lock:
            for follower in list(self._running):
                if follower.process.poll() is not None:
                    self._running.remove(follower)
                    fault = follower.fault()
                    if fault is not None:
                        self._faults[follower.journal] = fault
            while self._waiting and len(self._running) < MOST_AT_ONCE:
                journal = self._waiting.popleft()
                log = journal.with_suffix(".maps.log")
                # told, for it may begin to look only when this process has been killed already
                asked = [FOLLOWER, str(journal), "--parent", str(os.getpid())]
                self._running.append(_Follower(journal, log, _start(asked, log)))
            return bool(self._running)


def reduce_series(run: Path, log: Path, timeout_s: float) -> tuple[list[Path], str | None]:
    """Reduce the series that a run belongs to, in a process of its own.

    Parameters
    ----------
    run : Path
        Folder of one of its runs.
    log : Path
        Where the process writes what it says.
    timeout_s : float
        Longest wait, s.

    Returns
    -------
    products : list of Path
        The files it made.
    fault : str or None
        Why there are none, or what was left out of them, in one sentence.
    """
    process = _start([SERIES, str(run)], log)
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return [], f"the series is not reduced after {timeout_s:g} s; its process goes on and logs to {log}"
    if code != 0:
        return [], f"the series was not reduced: {_last_line(log) or f'its process ended with code {code}'}"
    lines = log.read_text(errors="replace").splitlines()
    notes = [line.removeprefix(NOTE) for line in lines if line.startswith(NOTE)]
    return [path for path in map(Path, lines) if path.is_file()], "; ".join(notes) or None


def _start(module_and_arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        # a session of its own, so that Ctrl-C in the terminal reaches the scan and not the maps of it
        return subprocess.Popen(
            [sys.executable, "-m", *module_and_arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""
