"""The process that puts runs into the catalogue: a fresh interpreter that is told nothing but where things are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from dfxrm_control.catalogue import Place
from dfxrm_control.config import DataConfig
from dfxrm_control.logbook import roll

__all__ = ["Cataloguing"]

FEEDER = "dfxrm_control.catalogue"
_STARTED: list[subprocess.Popen[bytes]] = []
"""They outlive the session that started them, and are known here so that the last ones are let go only with Python."""


class Cataloguing:
    """Sees to it that a process puts the runs that end into the catalogue; it ends by itself when none do.

    It follows the journals: nothing it does, or fails to do, reaches a run.

    Parameters
    ----------
    place : Place
        The catalogue.
    data : DataConfig
        How long the log of the process may become.
    """

    def __init__(self, place: Place, data: DataConfig) -> None:
        self._place = place
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Start the process at the end of a run, where none is at work."""
        if name != "stop" or (self._process is not None and self._process.poll() is None):
            return
        place = self._place
        place.folder.mkdir(parents=True, exist_ok=True)
        asked = ["--journals", place.journals, "--data", place.data, "--address", place.address]
        log_file = place.folder / "feed.log"
        roll(log_file, self._data)
        with log_file.open("ab") as log:
            # a session of its own, so that Ctrl-C in the terminal does not reach it
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", FEEDER, *map(str, asked), "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _STARTED[:] = [each for each in _STARTED if each.poll() is None] + [process]
