"""The process that makes maps while a scan runs: a fresh interpreter that is told nothing but where the journal is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["LiveMaps"]

FOLLOWER = "dfxrm_control.reduction.follow"


class LiveMaps:
    """Starts a follower for each run that turns the crystal, and waits for it if asked.

    The follower tails journal and frame files by itself: nothing it does, or fails to do, reaches the run.

    Parameters
    ----------
    journal : callable
        Returns the journal of the run that was just opened.
    """

    def __init__(self, journal: Callable[[], Path | None]) -> None:
        self._journal = journal
        self._running: list[subprocess.Popen[bytes]] = []
        self._last: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Start a follower at the start of a run that scans axes."""
        if name != "start":
            return
        self._last = None
        journal = self._journal()
        if journal is None or not doc.get("dfxrm", {}).get("scan_axes"):
            return
        self._running = [process for process in self._running if process.poll() is None]
        self._log = journal.with_suffix(".maps.log")
        with self._log.open("wb") as log:
            # a session of its own, so that Ctrl-C in the terminal reaches the scan and not the maps of it
            self._last = subprocess.Popen(
                [sys.executable, "-m", FOLLOWER, str(journal)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(self._last)

    def wait(self, timeout_s: float) -> str | None:
        """Wait until the maps of the last run are done.

        Returns
        -------
        str or None
            Why there are none, in one sentence; None when all is well or no maps were to be made.
        """
        if self._last is None:
            return None
        try:
            code = self._last.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"the maps are not ready after {timeout_s:g} s; their process goes on and logs to {self._log}"
        if code == 0:
            return None
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log and self._log.exists() else []
        return f"the maps failed: {lines[-1] if lines else f'their process ended with code {code}'}"
